"""The loop over epochs: train, evaluate, keep what was measured, stop where a loss is not a number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ablate.train.device import (
    StepClock,
    peak_memory_mb,
    reset_peak_memory,
    set_numerics,
    step_clock,
    synchronize,
)
from ablate.train.evaluate import Evaluation, evaluate
from ablate.train.features import Features, penultimate_features
from ablate.train.images import Images
from ablate.train.optimizer import load_state
from ablate.train.step import Step

WARM_UP_STEPS = 5
"""Steps at the start of a run that are left out of its step times."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch measured; the names are those of a record's history."""

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    valid_nll: float
    bin_count: tuple[int, ...]
    bin_confidence: tuple[float, ...]
    bin_correct: tuple[int, ...]
    lr: float
    seconds: float


@dataclass
class Progress:
    """How far a run has come: all that is needed, with the weights, to go on with it."""

    history: list[EpochResult] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    eval_seconds: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """A finished run.

    Attributes:
        progress: its epochs and times.
        logits: [N, K] float32 of the reported split after the last epoch.
        peak_memory_mb: most memory held in training and evaluation, MB.
        features: what its penultimate layer shows, where it has one.
    """

    progress: Progress
    logits: NDArray[np.float32]
    peak_memory_mb: float
    features: Features | None = None


class DivergedError(Exception):
    """A loss was not finite. `history` holds the epochs before; `step` counts within `epoch`."""

    def __init__(self, epoch: int, step: int | None, history: list[EpochResult]) -> None:
        where = f"step {step} of epoch {epoch}" if step is not None else f"the evaluation after epoch {epoch}"
        super().__init__(f"the loss is not finite at {where}")
        self.epoch, self.step, self.history = epoch, step, history


@dataclass(frozen=True)
class Callbacks:
    """What a run tells the outside.

    Attributes:
        on_step: called with (epoch, step, steps) before each step.
        on_epoch: called with each epoch's result.
        save: called after each epoch but the last with a function that makes the checkpoint, if wanted.
    """

    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None
    on_epoch: Callable[[EpochResult], None] = lambda result: None
    save: Callable[[Callable[[], dict[str, Any]]], None] = lambda make: None


def fit(
    step: Step,
    valid: Images,
    *,
    callbacks: Callbacks | None = None,
    checkpoint: dict[str, Any] | None = None,
) -> Fitted:
    """Train a network and evaluate it after every epoch.

    Args:
        step: the step to take, with an initialised network in channels-last order, the training images and
            the settings.
        valid: the reported split; nothing is chosen by it.
        callbacks: what to tell, and when.
        checkpoint: what `callbacks.save` was offered by an earlier, unfinished run of the same settings.

    Raises:
        DivergedError: a training or evaluation loss is not finite.
    """
    callbacks, settings = callbacks or Callbacks(), step.settings
    set_numerics(deterministic=settings.deterministic)
    reset_peak_memory(step.device)
    progress = Progress() if checkpoint is None else _restore(step, checkpoint)
    clock = step_clock(step.device)
    evaluation: Evaluation | None = None
    for epoch in range(len(progress.history), settings.epochs):
        trained = _train_epoch(step, epoch, clock, callbacks, progress)
        begun = time.perf_counter()
        evaluation = _evaluate(step, valid)
        progress.eval_seconds += time.perf_counter() - begun
        result = _epoch_result(epoch, trained, evaluation, step, progress)
        progress.history.append(result)
        callbacks.on_epoch(result)
        if epoch + 1 < settings.epochs:
            callbacks.save(lambda: _checkpoint(step, progress))
    evaluation = evaluation or _evaluate(step, valid)
    logits, peak = evaluation.logits.cpu().numpy(), peak_memory_mb(step.device)
    begun = time.perf_counter()
    features = penultimate_features(step.model, step.images, valid, settings)
    progress.eval_seconds += time.perf_counter() - begun
    return Fitted(progress, logits, peak, features)


def _evaluate(step: Step, valid: Images) -> Evaluation:
    return evaluate(step.predict(valid), valid.labels, step.loss, step.settings.epsilon)


@dataclass(frozen=True)
class _Trained:
    loss: float
    accuracy: float
    seconds: float


def _train_epoch(
    step: Step, epoch: int, clock: StepClock, callbacks: Callbacks, progress: Progress
) -> _Trained:
    """One pass over the training images. The device is waited for once, at the end."""
    parts = step.begin_epoch(epoch)
    losses = torch.zeros(len(parts), device=step.device)
    correct = torch.zeros((), dtype=torch.int64, device=step.device)
    begun = time.perf_counter()
    for place, index in enumerate(parts):
        callbacks.on_step(epoch, place, len(parts))
        clock.start()
        losses[place], right = step(index, epoch * len(parts) + place)
        correct += right
        clock.stop()
    synchronize(step.device)
    seconds = time.perf_counter() - begun
    times = clock.read()
    progress.step_ms += times if epoch else times[min(WARM_UP_STEPS, len(times) - 1) :]
    _require_finite(losses, epoch, progress)
    sizes = torch.tensor(step.sizes, dtype=torch.float64)
    seen = float(sizes.sum())
    return _Trained(float(losses.cpu().double() @ sizes) / seen, int(correct) / seen, seconds)


def _require_finite(losses: torch.Tensor, epoch: int, progress: Progress) -> None:
    finite = losses.isfinite()
    if not bool(finite.all()):
        raise DivergedError(epoch, int((~finite).nonzero()[0]), progress.history)


def _epoch_result(
    epoch: int, trained: _Trained, evaluation: Evaluation, step: Step, progress: Progress
) -> EpochResult:
    if not math.isfinite(evaluation.loss) or not math.isfinite(evaluation.nll):
        raise DivergedError(epoch, None, progress.history)
    return EpochResult(
        epoch=epoch,
        train_loss=trained.loss,
        train_accuracy=trained.accuracy,
        valid_loss=evaluation.loss,
        valid_accuracy=evaluation.accuracy,
        valid_nll=evaluation.nll,
        bin_count=evaluation.bin_count,
        bin_confidence=evaluation.bin_confidence,
        bin_correct=evaluation.bin_correct,
        lr=float(step.optimizer.param_groups[0]["lr"]),
        seconds=trained.seconds,
    )


def _checkpoint(step: Step, progress: Progress) -> dict[str, Any]:
    """Weights, optimiser and measurements. No random state: every epoch's draws follow from its number."""
    return {
        "model": step.model.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "history": [asdict(result) for result in progress.history],
        "step_ms": progress.step_ms,
        "eval_seconds": progress.eval_seconds,
    }


def _restore(step: Step, checkpoint: dict[str, Any]) -> Progress:
    step.model.load_state_dict(checkpoint["model"])
    load_state(step.optimizer, checkpoint["optimizer"])
    history = [EpochResult(**result) for result in checkpoint["history"]]
    return Progress(history, list(checkpoint["step_ms"]), float(checkpoint["eval_seconds"]))
