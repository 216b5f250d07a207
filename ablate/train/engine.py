"""Training steps captured as CUDA graphs: one capture serves every trial of a kind in a worker.

A small network would wait for the host's many small launches. Before a capture serves a trial, its first
steps are set beside eager ones. Where they differ, or where something fails, the trial is trained eagerly,
and its record says why.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ablate.errors import FOREIGN_FAULTS, first_line
from ablate.losses import Loss
from ablate.plugins import is_foreign
from ablate.study.fields import DataFields, Fields
from ablate.study.trials import stream_seed
from ablate.train.device import set_numerics
from ablate.train.images import Images
from ablate.train.optimizer import build_schedule, clear_state
from ablate.train.step import Step, predict_batch

WARM_UP = 3
"""Eager steps before a capture: libraries choose algorithms and make workspaces in them, optimisers state."""

KEPT = 4
"""Captured kinds that a worker keeps; each holds a network, its gradients and its activations."""

CHECKED_STEPS = 6
CHECK_RATE = 0.05
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""Largest difference from eager steps, relative to what the steps changed."""

Build = Callable[[int], nn.Module]
"""Builds a network on the CPU; the argument seeds its weights."""

Work = Callable[[Tensor], tuple[Tensor, ...]]
"""What the device does with images of an index; the results of a replay are to be read before the next."""


class CapturedStep(Step):
    """A step, and a batch of the reported split's evaluation, captured: for the trial that is loaded."""

    engine = "graph"

    def __init__(
        self, model: nn.Module, loss: Loss, train: Images, valid: Images, fields: Fields, seed: int
    ) -> None:
        # Labels are a trial's own where some of them are wrong.
        super().__init__(model, loss, replace(train, labels=train.labels.clone()), fields, seed)
        self._valid = valid
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self.model.train()
        compute = super().compute
        self._steps = {size: self._capture(compute, size) for size in {*self.sizes}}
        self.evaluated.eval()
        predict = torch.no_grad()(lambda index: (predict_batch(self.evaluated, valid, self.fields, index),))
        self._evaluation = self._capture(predict, fields.eval_batch_size)

    def load(self, model: nn.Module, train: Images, fields: Fields, seed: int) -> None:
        """Begin a trial of the captured kind, over all that an earlier one left; `model` is as built."""
        self.fields = self.augmentation.fields = fields
        self.seed = self.augmentation.seed = seed
        self.schedule = build_schedule(fields)
        self.epsilon.fill_(fields.epsilon)
        self.images.labels.copy_(train.labels)
        for network in (self.model, self.evaluated):
            values = ([*of.parameters(), *of.buffers()] for of in (network, model))
            with torch.no_grad():
                for mine, first in zip(*values, strict=True):
                    mine.copy_(first)
        clear_state(self.optimizer)

    def compute(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """One replay."""
        loss, right = self._steps[len(index)](index)
        return loss, right

    def predict(self, images: Images) -> Tensor:
        """Logits [N, K] float32 of a split; of the captured one batch by batch, the last one filled up."""
        if images.pixels is not self._valid.pixels:
            return super().predict(images)
        count, size = len(images), self.fields.eval_batch_size
        parts = []
        for start in range(0, count, size):
            index = torch.arange(start, start + size, device=self.device).clamp_(max=count - 1)
            parts.append(self._evaluation(index)[0][: count - start].clone())
        self.evaluated.eval()
        return torch.cat(parts)

    def _capture(self, work: Work, size: int) -> Work:
        """Do the work a few times on a stream of its own, as a capture needs, and capture it there."""
        captured = torch.arange(size, device=self.device) % min(len(self.images), len(self._valid))
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                work(captured)
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: what another thread does meanwhile, such as writing a record, is no part of this.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            results = work(captured)

        def replay(index: Tensor) -> tuple[Tensor, ...]:
            captured.copy_(index)
            graph.replay()
            return results

        return replay


_KEPT: OrderedDict[Hashable, CapturedStep | str] = OrderedDict()
"""This worker's captures by their kind, the last used last; or why there is none."""


def ready_step(
    engine: str,
    kind: Hashable,
    build: Build,
    loss: Loss,
    train: Images,
    valid: Images,
    fields: Fields,
    seed: int,
) -> Step:
    """The step that trains a trial, with its first weights; captured where `engine` is "graph" and it can be.

    `kind` says what data and device these are: trials alike in it and in `kind_of` share a capture.
    """
    model = build(stream_seed(seed, "init"))
    if engine == "eager":
        return _eager(model, loss, train, fields, seed)
    kind = kind, kind_of(fields)
    captured = _KEPT.pop(kind, None) or _checked_capture(build, loss, train, valid, fields, seed)
    _KEPT[kind] = captured
    if len(_KEPT) > KEPT:
        _KEPT.popitem(last=False)
    if isinstance(captured, str):
        step = _eager(model, loss, train, fields, seed)
        step.engine = f"eager: {captured}"
        return step
    captured.load(model, train, fields, seed)
    return captured


def kind_of(fields: Fields) -> Fields:
    """The fields without what a captured step takes from tensors or the host, or what made the images."""
    same = dict.fromkeys([*DataFields.model_fields], "") | {"image_size": fields.image_size, "recipe": ""}
    same |= {"epochs": 1, "lr": 1.0, "epsilon": 0.0, "schedule": "constant", "anneal_from": 0.0}
    same |= {"mixup": float(fields.mixup > 0), "ema": float(fields.ema > 0)}
    return fields.without_arguments("schedule").model_copy(update=same)


def _eager(model: nn.Module, loss: Loss, train: Images, fields: Fields, seed: int) -> Step:
    device = train.labels.device
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Step(model, loss, train, fields, seed)


def _checked_capture(
    build: Build, loss: Loss, train: Images, valid: Images, fields: Fields, seed: int
) -> CapturedStep | str:
    """A capture that trains as eager steps do, or why there is none."""
    if is_foreign(fields.optimizer):  # how to bring its state back to the beginning is not known
        return f"the optimizer {fields.optimizer!r} is not ablate's own"
    set_numerics(deterministic=fields.deterministic)
    init = stream_seed(seed, "init")
    # A rate that differs from step to step, and other weights than those captured: what stuck would show.
    falling = {"epochs": CHECKED_STEPS + 2, "lr": CHECK_RATE, "schedule": "flat_cosine", "anneal_from": 0.0}
    fields = fields.without_arguments("schedule").model_copy(update=falling)
    try:
        # From other weights than any trial's, so that nothing that is left of the capture can pass for it.
        other = _eager(build(init + 1), loss, train, fields, seed).model
        captured = CapturedStep(other, loss, train, valid, fields, seed)
        captured.load(build(init), train, fields, seed)
        eager = _eager(build(init), loss, train, fields, seed)
        difference = _difference(captured, eager, valid)
    except FOREIGN_FAULTS as error:  # of foreign code, or of a capture
        return f"its steps cannot be captured: {type(error).__name__}: {first_line(error)}"
    allowed = TOLERANCE[fields.precision]
    if not difference <= allowed:
        return f"captured steps differ from eager ones by {difference:.1e} of their effect, not {allowed:g}"
    return captured


def _difference(captured: Step, eager: Step, valid: Images) -> float:
    """How far apart a few steps leave two networks of one beginning: the largest relative distance."""
    outcomes = []
    for step in (captured, eager):
        begun = [_flat(values) for values in (step.model.parameters(), step.model.buffers())]
        parts = step.begin_epoch(0)
        # The last batch, which may be smaller, and then from the first on, an epoch apart in the schedule.
        steps = range(-1, CHECKED_STEPS)
        losses = [step(parts[at % len(parts)], (at + 1) * len(parts))[0].clone() for at in steps]
        ended = [_flat(values) for values in (step.model.parameters(), step.model.buffers())]
        moved = [end - begin for begin, end in zip(begun, ended, strict=True)]
        outcomes.append([torch.stack(losses), *moved, step.predict(valid)])
    distances = [relative_distance(mine, reference) for mine, reference in zip(*outcomes, strict=True)]
    return float(torch.tensor(distances).max())  # NaN, where Python's max could pass over it


def _flat(values: Iterable[Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0), *(value.detach().double().cpu().flatten() for value in values)])


def relative_distance(mine: Tensor, reference: Tensor) -> float:
    """Norm of the difference, on any devices, by that of the reference; not divided where that is zero."""
    mine, reference = mine.cpu().double(), reference.cpu().double()
    scale, distance = float(reference.norm()), float((mine - reference).norm())
    return distance / scale if scale else distance
