"""Results folders as a run leaves them, made from seeded synthetic predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ablate.store.records import Cost, Environment, Epoch, Failure, Predictions, Record, write_record
from ablate.store.results import ResultsFolder, write_plan
from ablate.study.study import Study
from ablate.study.trials import Numerics, Plan, Trial, expand
from ablate.tables import build_tables, write_tables

CPU = Numerics(device="cpu", precision="float32", deterministic=True)
BASE = {"data": "digits", "image_size": 8, "epochs": 4}
Outcome = str | tuple[str, str]
"""A status, or a status and the failure's message; 'missing' leaves no record."""


def declare(**declaration: Any) -> Study:
    """A study over digits, with what the test needs changed."""
    return Study(**{"question": "What does it do?", "name": "tiny", "base": BASE, **declaration})


def make_results(
    root: Path,
    study: Study,
    *,
    outcome: Callable[[Trial], Outcome] = lambda trial: "complete",
    environment: Callable[[Trial], Mapping[str, Any]] = lambda trial: {},
    made: Callable[[Trial], Predictions] | None = None,
    profile: str = "quick",
    reason: str = "no CUDA is present, so profile quick runs",
) -> ResultsFolder:
    """Records, plan and tables of a study, its trials ended as `outcome` says."""
    trials = expand(study, lambda fields: "fingerprint", lambda fields: CPU)
    plan = Plan(study=study, profile=profile, reason=reason, trials=tuple(trials))
    folder = ResultsFolder(root)
    folder.create()
    write_plan(folder, plan)
    for trial in trials:
        write_trial(folder, trial, outcome(trial), made or predict, environment(trial))
    write_tables(folder, build_tables(folder, plan))
    return folder


def write_trial(
    folder: ResultsFolder,
    trial: Trial,
    outcome: Outcome,
    made: Callable[[Trial], Predictions],
    environment: Mapping[str, Any] | None = None,
    *,
    epochs: int | None = None,
) -> None:
    """The record of a trial that ended so, with its predictions where it is complete."""
    status, message = (outcome, "") if isinstance(outcome, str) else outcome
    if status == "missing":
        return
    complete = status == "complete"
    record = Record(
        trial=trial,
        status=status,
        history=history(trial)[:epochs],
        cost=cost(trial) if complete else None,
        environment=Environment(**{**ENVIRONMENT, **(environment or {})}),
        parameters=1_234,
        failure=None if complete else Failure(message=message),
    )
    write_record(folder, record, made(trial) if complete else None)


ENVIRONMENT: dict[str, Any] = {
    "device_name": "Example CPU", "threads": 1, "workers": 2, "python_version": "3.11.7",
    "torch_version": "2.11.0", "numpy_version": "2.3.0", "ablate_version": "0.1.0", "commit": "0123456789ab",
}  # fmt: skip
SALT = 13
"""Chosen so that the searches and studies drawn here tell the stories that their tests are about."""


def number_of(trial: Trial) -> int:
    """A number of the trial's own, for draws: not its identity, which changes with how ablate trains."""
    facts = (SALT, sorted(trial.levels.items()), trial.fields.tuning_part, trial.seed, trial.repeat)
    return int.from_bytes(hashlib.sha256(repr(facts).encode()).digest()[:8], "big")


def rng_of(trial: Trial, stream: int) -> np.random.Generator:
    return np.random.default_rng([number_of(trial), stream])


def predict(trial: Trial, *, images: int = 300, rng: np.random.Generator | None = None) -> Predictions:
    """Logits of ten classes that are right more often, and surer, the smaller ε is."""
    labels = np.random.default_rng(trial.seed).integers(0, 10, images)
    logits = (rng or rng_of(trial, 2)).normal(size=(images, 10)) + 2.2 * np.eye(10)[labels]
    return Predictions((logits * (1.6 - 1.5 * trial.fields.epsilon)).astype(np.float32), labels)


def history(trial: Trial) -> tuple[Epoch, ...]:
    rng, epochs = rng_of(trial, 3), []
    for number in range(trial.fields.epochs):
        left, noise = 0.7**number, rng.normal(scale=0.01, size=4)
        epochs.append(Epoch(
            epoch=number,
            train_loss=0.5 + trial.fields.epsilon + 1.8 * left + noise[0],
            train_accuracy=float(np.clip(1 - 0.7 * left + noise[1], 0, 1)),
            valid_loss=1.0 + trial.fields.epsilon + left + noise[2],
            valid_accuracy=float(np.clip(0.6 - 0.3 * left + noise[3], 0, 1)),
            valid_nll=1.0 + left,
            bin_count=(0,) * 14 + (300,),
            bin_confidence=(0.0,) * 14 + (290.0,),
            bin_correct=(0,) * 14 + (280,),
            lr=0.4,
            seconds=1.5,
        ))  # fmt: skip
    return tuple(epochs)


def cost(trial: Trial) -> Cost:
    step = 4.0 + rng_of(trial, 4).uniform(0, 0.4)
    return Cost(
        step_ms=step, step_ms_p20=0.9 * step, step_ms_p80=1.2 * step, images_per_second=3000.0,
        peak_memory_mb=400.0, train_seconds=6.0, eval_seconds=0.5,
    )  # fmt: skip
