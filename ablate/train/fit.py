"""The loop over epochs: train, evaluate, keep what was measured, stop where a loss is not a number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ablate.store.records import Cost, Epoch, Features, Predictions
from ablate.train.device import StepClock, peak_memory_mb, reset_peak_memory, set_numerics, synchronize
from ablate.train.evaluate import evaluate
from ablate.train.features import penultimate_features
from ablate.train.images import Images
from ablate.train.optimizer import load_state
from ablate.train.step import Step

WARM_UP_STEPS = 5
"""Steps at the start of a run that are left out of its step times."""


@dataclass
class Measured:
    """What a run has measured so far: with the weights, all that is needed to go on with it."""

    history: list[Epoch] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    eval_seconds: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """A finished run, in the parts of its record; the predictions are of the reported split at the end."""

    history: list[Epoch]
    cost: Cost
    predictions: Predictions
    features: Features | None


class DivergedError(Exception):
    """A loss was not finite. `history` holds the epochs before; `step` counts within `epoch`."""

    def __init__(self, epoch: int, step: int | None, history: list[Epoch]) -> None:
        where = f"step {step} of epoch {epoch}" if step is not None else f"the evaluation after epoch {epoch}"
        super().__init__(f"the loss is not finite at {where}")
        self.epoch, self.step, self.history = epoch, step, history


@dataclass(frozen=True)
class Callbacks:
    """What a run tells the outside.

    Attributes:
        on_step: called with (epoch, step, steps) before each step.
        on_epoch: called with what each epoch measured.
        save: called after each epoch but the last with a function that makes the checkpoint, if wanted.
    """

    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    on_epoch: Callable[[Epoch], None] = lambda result: None
    save: Callable[[Callable[[], dict[str, Any]]], None] = lambda make: None


def fit(
    step: Step,
    valid: Images,
    *,
    callbacks: Callbacks | None = None,
    checkpoint: dict[str, Any] | None = None,
) -> Fitted:
    """Train a network and evaluate it after every epoch.

    Nothing is chosen by `valid`, the reported split. A checkpoint is what `callbacks.save` was offered by an
    unfinished run of the same fields and seed.

    Raises:
        DivergedError: a training or evaluation loss is not finite.
    """
    callbacks, fields = callbacks or Callbacks(), step.fields
    set_numerics(deterministic=fields.deterministic)
    reset_peak_memory(step.device)
    measured = Measured()
    if checkpoint is not None:
        step.model.load_state_dict(checkpoint["model"])
        load_state(step.optimizer, checkpoint["optimizer"])
        measured.history = [Epoch(**epoch) for epoch in checkpoint["history"]]
        measured.step_ms, measured.eval_seconds = list(checkpoint["step_ms"]), checkpoint["eval_seconds"]
    clock = StepClock(step.device)
    for epoch in range(len(measured.history), fields.epochs):
        trained = _train_epoch(step, epoch, clock, callbacks, measured)
        begun = time.perf_counter()
        logits = step.predict(valid)
        evaluated = evaluate(logits, valid.labels, step.loss, fields.epsilon)
        measured.eval_seconds += time.perf_counter() - begun
        if not math.isfinite(evaluated["valid_loss"]) or not math.isfinite(evaluated["valid_nll"]):
            raise DivergedError(epoch, None, measured.history)
        rate = float(step.optimizer.param_groups[0]["lr"])
        measured.history.append(Epoch(epoch=epoch, lr=rate, **trained, **evaluated))
        callbacks.on_epoch(measured.history[-1])
        if epoch + 1 < fields.epochs:
            callbacks.save(lambda: _checkpoint(step, measured))
    predicted, peak = logits.cpu().numpy(), peak_memory_mb(step.device)
    begun = time.perf_counter()
    features, projections = penultimate_features(step.model, step.images, valid, fields)
    measured.eval_seconds += time.perf_counter() - begun
    predictions = Predictions(logits=predicted, labels=valid.labels.cpu().numpy(), **projections)
    train_seconds = sum(epoch.seconds for epoch in measured.history)
    low, middle, high = np.quantile(measured.step_ms, [0.2, 0.5, 0.8])
    cost = Cost(
        step_ms=middle,
        step_ms_p20=low,
        step_ms_p80=high,
        images_per_second=sum(step.sizes) * len(measured.history) / train_seconds,
        peak_memory_mb=peak,
        train_seconds=train_seconds,
        eval_seconds=measured.eval_seconds,
    )
    return Fitted(measured.history, cost, predictions, features)


def _train_epoch(
    step: Step, epoch: int, clock: StepClock, callbacks: Callbacks, measured: Measured
) -> dict[str, float]:
    """One pass over the training images. The device is waited for once, at the end."""
    parts = step.begin_epoch(epoch)
    losses = torch.zeros(len(parts), device=step.device)
    correct = torch.zeros((), dtype=torch.int64, device=step.device)
    begun = time.perf_counter()
    for number, index in enumerate(parts):
        callbacks.on_step(epoch, number, len(parts))
        clock.mark()
        losses[number], right = step(index, epoch * len(parts) + number)
        correct += right
        clock.mark()
    synchronize(step.device)
    seconds = time.perf_counter() - begun
    times = clock.read()
    measured.step_ms += times if epoch else times[min(WARM_UP_STEPS, len(times) - 1) :]
    finite = losses.isfinite()
    if not bool(finite.all()):
        raise DivergedError(epoch, int((~finite).nonzero()[0]), measured.history)
    sizes = torch.tensor(step.sizes, dtype=torch.float64)
    seen = float(sizes.sum())
    loss, accuracy = float(losses.cpu().double() @ sizes) / seen, int(correct) / seen
    return {"train_loss": loss, "train_accuracy": accuracy, "seconds": seconds}


def _checkpoint(step: Step, measured: Measured) -> dict[str, Any]:
    """Weights, optimiser and measurements. No random state: every epoch's draws follow from its number."""
    return {
        "model": step.model.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "history": [epoch.model_dump() for epoch in measured.history],
        "step_ms": measured.step_ms,
        "eval_seconds": measured.eval_seconds,
    }
