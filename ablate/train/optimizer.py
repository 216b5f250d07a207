"""Optimisers and schedules, ablate's own by name and others by import path; the checks before training."""

import copy
import functools
import io
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ablate.models.weights import head_of
from ablate.plugins import bind, explained, is_foreign, load_foreign, ready
from ablate.study.fields import Fields

CHECK_RATE, CHECK_POINTS = 0.05, 1000
"""At what rate an optimiser is tried, and in how many points of a run a schedule."""


def build_optimizer(model: nn.Module, fields: Fields) -> Optimizer:
    """The optimiser of a run, over a network's trainable parameters.

    With `decay_norms` off, weight decay leaves out every parameter of fewer than two dimensions: biases, and
    the weights of normalisation layers.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    name = head_of(model) if fields.head_lr != 1 else None
    head = {*model.get_submodule(name).parameters()} if name else set[nn.Parameter]()
    code, given = bind_optimizer(fields, parameters[0].device)
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for decays, is_head in itertools.product((True, False), (False, True)):
        group = {"params": [], "weight_decay": fields.weight_decay if decays else 0.0}
        group |= {"rate": fields.head_lr} if is_head else {}
        if isinstance(given.get("lr"), Tensor):  # filled where it is, in each group by itself
            group["lr"] = given["lr"].clone()
        groups[decays, is_head] = group
    for parameter in parameters:
        decays = parameter.ndim > 1 or fields.decay_norms or not fields.weight_decay
        groups[decays, parameter in head]["params"].append(parameter)
    return code([group for group in groups.values() if group["params"]], **given)


def bind_optimizer(fields: Fields, device: torch.device) -> tuple[Callable[..., Optimizer], dict[str, Any]]:
    """What makes the optimiser of a run, and its arguments besides the groups of parameters."""
    name, on_gpu = fields.optimizer, device.type == "cuda"
    ours: dict[str, Any] = {"lr": fields.lr, "weight_decay": fields.weight_decay, "momentum": fields.momentum}
    if name in OPTIMIZERS:
        ours["lr"] = torch.tensor(fields.lr, device=device) if on_gpu else fields.lr
        ours |= {"betas": (fields.momentum, fields.beta2), "eps": fields.adam_epsilon}
        ours |= {"fused": on_gpu or None, "capturable": on_gpu, "decoupled_weight_decay": True}
    code = OPTIMIZERS[name] if name in OPTIMIZERS else load_foreign("optimizer", name)
    return code, bind("optimizer", name, code, fields.arguments("optimizer"), ours, skip=1)


def check_optimizer(fields: Fields) -> set[str]:
    """Which of ablate's arguments an optimiser takes; one from outside, or with arguments, is tried before.

    On tiny weights it takes two steps, and a third from what was saved after these, which must be that of
    the one that went on. What first fails is a StudyError.
    """
    _, given = bind_optimizer(fields, torch.device("cpu"))
    if is_foreign(fields.optimizer) or fields.arguments("optimizer"):
        wanted = f"an optimizer of groups of parameters, with {', '.join(given) or 'no more'}, able to step"
        with explained("optimizer", fields.optimizer, wanted), torch.random.fork_rng(devices=[]):
            _try_optimizer(fields.model_copy(update={"lr": CHECK_RATE}))
    return {*given}


def _try_optimizer(fields: Fields) -> None:
    def step(network: nn.Module, optimizer: Optimizer) -> Tensor:
        torch.manual_seed(0)  # as each epoch does
        for parameter in network.parameters():
            parameter.grad = parameter.detach().cos()
        set_rate(optimizer, CHECK_RATE)
        optimizer.step()
        return nn.utils.parameters_to_vector(network.parameters()).detach()

    torch.manual_seed(0)
    network, saved = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Linear(2, 2)), io.BytesIO()
    begun = nn.utils.parameters_to_vector(network.parameters()).detach()
    optimizer = build_optimizer(network, fields)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"expected a torch.optim.Optimizer, but a {type(optimizer).__name__} came")
    moved = step(network, optimizer)
    if torch.equal(moved, begun) or not moved.isfinite().all():
        raise ValueError("expected a step to change weights with a gradient, to finite ones, but it did not")
    step(network, optimizer)
    torch.save(optimizer.state_dict(), saved)
    other, _ = copy.deepcopy(network), saved.seek(0)
    resumed = build_optimizer(other, fields)
    load_state(resumed, torch.load(saved, weights_only=True))
    if not torch.equal(step(network, optimizer), step(other, resumed)):
        raise ValueError(
            "from its state_dict() it goes on otherwise than unstopped; keep all in state and param_groups"
        )


def cosines(progress: float, *, anneal_from: float, first: float, last: float = 1e-5) -> float:
    """From a first factor up to 1 at the part `anneal_from` of a run, in [0, 1), then down to a last one.

    Source: Smith and Topin 2018, super-convergence, https://arxiv.org/abs/1708.07120
    """
    if progress < anneal_from:
        begin, end, part = first, 1.0, progress / anneal_from
    else:
        begin, end, part = 1.0, last, (progress - anneal_from) / (1 - anneal_from)
    return end + (begin - end) * (1 + math.cos(math.pi * part)) / 2


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": lambda progress: 1.0,
    "one_cycle": functools.partial(cosines, first=1 / 25),
    "flat_cosine": functools.partial(cosines, first=1.0),
}
"""Functions of progress, 0 at a run's first step and 1 at its last, to a factor of the learning rate."""


def build_schedule(fields: Fields) -> functools.partial[float]:
    """The schedule of a run, with all its arguments but the progress."""
    name, ours = fields.schedule, {"anneal_from": fields.anneal_from}
    code = SCHEDULES[name] if name in SCHEDULES else load_foreign("schedule", name)
    code, given = ready("schedule", name, code, fields.arguments("schedule"), ours)
    return functools.partial(code, **given)


def check_schedule(fields: Fields) -> set[str]:
    """Which of ablate's arguments a schedule takes; what is no factor anywhere in a run is a StudyError."""
    schedule = build_schedule(fields)
    for progress in (point / CHECK_POINTS for point in range(CHECK_POINTS + 1)):
        wanted = f"a finite factor of lr, 0 or more, of progress {progress:g}"
        with explained("schedule", fields.schedule, wanted):
            factor = float(schedule(progress))
            if not 0 <= factor < math.inf:
                raise ValueError(f"{factor} came")
    return {*schedule.keywords}


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every group; a tensor is filled, for a captured step reads it where it is."""
    for group in optimizer.param_groups:
        own = rate * group.get("rate", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def load_state(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Take over the state of a stopped run's optimiser; tensors that are there are filled, not replaced."""
    if not optimizer.state or type(optimizer) not in OPTIMIZERS.values():
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(saved)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in saved["state"].items():
        for name, value in kept.items():
            if value is not None:
                optimizer.state[parameters[number]][name].copy_(value)


def clear_state(optimizer: Optimizer) -> None:
    """Bring an optimiser that has made steps back to its beginning, in the same tensors."""
    # SGD (whose first step sets the momentum to the gradient), AdamW and RAdam begin at zeros.
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name == "slow":
                value.copy_(parameter.detach())
            elif value is not None:
                value.zero_()


class Ranger(torch.optim.RAdam):
    """Rectified Adam inside a look-ahead.

    Every sixth step the slow weights move half the way to the fast ones, which go on from there: call
    `look_ahead` after each step. It is apart because the host decides it, which a captured step cannot.

    Source: Liu et al. 2020, https://arxiv.org/abs/1908.03265; Zhang et al. 2019, https://arxiv.org/abs/1907.08610
    """

    EVERY, RATE = 6, 0.5

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the fast weights; the first one remembers where they began."""
        begun = {
            parameter: parameter.detach().clone(memory_format=torch.preserve_format)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and not self.state[parameter]
        }
        result = super().step(closure)
        for parameter, slow in begun.items():
            self.state[parameter]["slow"] = slow
        return result

    @torch.no_grad()
    def look_ahead(self, steps: int) -> None:
        """Move the slow weights, where they are due after so many steps."""
        if steps % self.EVERY == 0:
            moved = {parameter: state["slow"] for parameter, state in self.state.items() if state}
            slow = list(moved.values())
            torch._foreach_lerp_(slow, list(moved), self.RATE)
            torch._foreach_copy_(list(moved), slow)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD, "adamw": torch.optim.AdamW, "ranger": Ranger,
}  # fmt: skip
