"""The loop over epochs: train, evaluate, keep what was measured, stop where a loss is not a number."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ablate.losses import Loss
from ablate.store.records import Cost, Epoch, Features, Predictions
from ablate.train.device import elapsed_ms, mark, peak_memory_mb, reset_peak_memory, set_numerics, synchronize
from ablate.train.features import penultimate_features
from ablate.train.images import Images
from ablate.train.optimizer import load_state
from ablate.train.step import Step

CONFIDENCE_BINS = 15
WARM_UP_STEPS = 5
"""Steps at the start of a run that are left out of its step times."""


@dataclass(frozen=True)
class Fitted:
    """A finished run, in the parts of its record; the predictions are of the reported split at the end."""

    history: list[Epoch]
    cost: Cost
    predictions: Predictions
    features: Features | None


class DivergedError(Exception):
    """A loss was not finite: in an epoch, at a step of it where that is known, after those of the history."""

    def __init__(self, what: str, epoch: int, step: int | None = None, history: Sequence[Epoch] = ()) -> None:
        super().__init__(what)
        self.epoch, self.step, self.history = epoch, step, history


class CheckpointError(Exception):
    """A checkpoint does not fit its run, as that of another torch; what it left is half restored."""


@dataclass(frozen=True)
class Callbacks:
    """What a run tells the outside: before each step, after each epoch, and after each epoch but the last.

    `on_step` is called with (epoch, step, steps), `save` with a function that makes the checkpoint.
    """

    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    on_epoch: Callable[[Epoch], None] = lambda result: None
    save: Callable[[Callable[[], dict[str, Any]]], None] = lambda make: None


def fit(
    step: Step, valid: Images, *, callbacks: Callbacks | None = None, checkpoint: dict[str, Any] | None = None
) -> Fitted:
    """Train a network and evaluate it after every epoch; nothing is chosen by `valid`, the reported split.

    A checkpoint is what `callbacks.save` was offered by an unfinished run of the same fields and seed. A loss
    that is not finite is a `DivergedError`, a checkpoint that does not fit a `CheckpointError`.
    """
    callbacks, fields = callbacks or Callbacks(), step.fields
    set_numerics(deterministic=fields.deterministic)
    reset_peak_memory(step.device)
    history: list[Epoch] = []
    step_ms: list[float] = []
    eval_seconds = 0.0
    if checkpoint is not None:
        try:
            step.model.load_state_dict(checkpoint["model"])
            step.evaluated.load_state_dict(checkpoint["evaluated"])
            load_state(step.optimizer, checkpoint["optimizer"])
            history = [Epoch(**epoch) for epoch in checkpoint["history"]]
            step_ms, eval_seconds = list(checkpoint["step_ms"]), checkpoint["eval_seconds"]
        except Exception as error:
            raise CheckpointError(error) from error

    def state() -> dict[str, Any]:  # nothing random: every epoch's draws follow from its number
        return {
            "model": step.model.state_dict(),
            "evaluated": step.evaluated.state_dict(),
            "optimizer": step.optimizer.state_dict(),
            "history": [epoch.model_dump() for epoch in history],
            "step_ms": step_ms,
            "eval_seconds": eval_seconds,
        }

    for epoch in range(len(history), fields.epochs):
        trained = _train_epoch(step, callbacks, history, step_ms)
        begun = time.perf_counter()
        logits = step.predict(valid)
        evaluated = evaluate(logits, valid.labels, step.loss, fields.epsilon)
        eval_seconds += time.perf_counter() - begun
        if not math.isfinite(evaluated["valid_loss"]) or not math.isfinite(evaluated["valid_nll"]):
            message = f"the loss is not finite at the evaluation after epoch {epoch}"
            raise DivergedError(message, epoch, history=history)
        rate = float(step.optimizer.param_groups[0]["lr"])
        history.append(Epoch(epoch=epoch, lr=rate, **trained, **evaluated))
        callbacks.on_epoch(history[-1])
        if epoch + 1 < fields.epochs:
            callbacks.save(state)
    predicted, peak = logits.cpu().numpy(), peak_memory_mb(step.device)
    begun = time.perf_counter()
    features, projections = penultimate_features(step.evaluated, step.images, valid, fields)
    eval_seconds += time.perf_counter() - begun
    predictions = Predictions(logits=predicted, labels=valid.labels.cpu().numpy(), **projections)
    train_seconds = sum(epoch.seconds for epoch in history)
    low, middle, high = np.quantile(step_ms, [0.2, 0.5, 0.8])
    speed = sum(step.sizes) * len(history) / train_seconds
    cost = Cost(
        step_ms=middle, step_ms_p20=low, step_ms_p80=high, images_per_second=speed, peak_memory_mb=peak,
        train_seconds=train_seconds, eval_seconds=eval_seconds,
    )  # fmt: skip
    return Fitted(history, cost, predictions, features)


def _train_epoch(
    step: Step, callbacks: Callbacks, history: list[Epoch], step_ms: list[float]
) -> dict[str, float]:
    """One pass over the training images. The device is waited for once, at the end."""
    epoch, marks = len(history), list[Any]()
    parts = step.begin_epoch(epoch)
    losses = torch.zeros(len(parts), device=step.device)
    correct = torch.zeros((), dtype=torch.int64, device=step.device)
    begun = time.perf_counter()
    for number, index in enumerate(parts):
        callbacks.on_step(epoch, number, len(parts))
        marks.append(mark(step.device))
        losses[number], right = step(index, epoch * len(parts) + number)
        correct += right
        marks.append(mark(step.device))
    synchronize(step.device)
    seconds = time.perf_counter() - begun
    times = [elapsed_ms(*pair) for pair in zip(marks[::2], marks[1::2], strict=True)]
    step_ms += times if epoch else times[min(WARM_UP_STEPS, len(times) - 1) :]
    finite = losses.isfinite()
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        message = f"the loss is not finite at step {first} of epoch {epoch}"
        raise DivergedError(message, epoch, first, history)
    sizes = torch.tensor(step.sizes, dtype=torch.float64)
    seen = float(sizes.sum())
    loss, accuracy = float(losses.cpu().double() @ sizes) / seen, int(correct) / seen
    return {"train_loss": loss, "train_accuracy": accuracy, "seconds": seconds}


def evaluate(logits: Tensor, labels: Tensor, loss: Loss, epsilon: float) -> dict[str, Any]:
    """What an evaluation of logits [N, K] measures, named as in `Epoch`; of ties the first class counts."""
    smoothing = torch.tensor(epsilon, device=logits.device)
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    correct = predicted == labels
    edges = torch.arange(1, CONFIDENCE_BINS, dtype=torch.float64, device=logits.device) / CONFIDENCE_BINS
    # What the rounding of float32 has put below an edge is on it, as in the metrics.
    bins = torch.bucketize(confidence, edges - 2.0**-22, right=True)
    values = torch.stack([torch.ones_like(confidence), confidence, correct.double()])
    sums = values.new_zeros(3, CONFIDENCE_BINS).index_add_(1, bins, values)
    count, confidence_sum, correct_sum = sums.tolist()
    return {
        "valid_loss": float(loss(logits, labels, epsilon=smoothing, reduction="none").double().mean()),
        "valid_nll": float(functional.cross_entropy(logits.double(), labels)),
        "valid_accuracy": float(correct.double().mean()),
        "bin_count": tuple(map(int, count)),
        "bin_confidence": tuple(confidence_sum),
        "bin_correct": tuple(map(int, correct_sum)),
    }
