"""Results folders as a run or a search leaves them, made from seeded synthetic predictions."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recorded_study import COST, CPU, environment, planned
from test_records import EPOCH

from ablate.store.points import Importances, Point, Source, State, Tuning, tuning_folder
from ablate.store.records import Cost, Epoch, Failure, Predictions, Record, write_record
from ablate.store.results import ResultsFolder, write_sealed
from ablate.study.fields import Levels, resolve
from ablate.study.search import FIRST_TUNING_SEED, Range, Search
from ablate.study.study import Study
from ablate.study.trials import Plan, Trial, build_trial
from ablate.tables.build import build_tables
from ablate.tables.files import frame, write_tables
from ablate.tables.tuning import points_table, winners_of

BASE = {"data": "digits", "image_size": 8, "epochs": 4}
Outcome = str | tuple[str, str]
"""A status, or a status and the failure's message; 'missing' leaves no record."""


def declare(**declaration: Any) -> Study:
    return Study(**{"question": "What does it do?", "name": "tiny", "base": BASE, **declaration})


def trial_rows(plan: Plan, measured: Callable[[Trial], dict[str, Any]] = lambda trial: {}) -> pd.DataFrame:
    """The table of trials, complete and with what is `measured`, as far as effects and sentences need it."""
    known = [{name: getattr(trial, name) for name in ("trial_id", "arm", "seed")} for trial in plan.trials]
    rows = [{**own, "repeat": 0, "status": "complete"} for own in known]
    return frame("trials", [row | measured(trial) for row, trial in zip(rows, plan.trials, strict=True)])


def effect_row(**changes: Any) -> dict[str, Any]:
    """A decided claim on sound ground, of ε = 0.1 against 0 on accuracy, with what the test needs changed."""
    known = {
        "kind": "arm", "term": "epsilon=0.1", "against": "epsilon=0.0", "metric": "accuracy", "cells": 1,
        "cells_planned": 1, "n": 10, "effect": 0.02, "low": 0.01, "high": 0.03, "p": 0.001, "rho": 0.1,
        "p_adjusted": 0.001, "p_welch": 0.002, "p_sign_flip": 0.002, "largest_share": 0.2, "margin": 0.02,
        "detectable": 0.02, "verdict": "better", "reason": "", "below_margin": False,
    }  # fmt: skip
    return {**known, **changes}


def make_results(
    root: Path,
    study: Study,
    *,
    outcome: Callable[[Trial], Outcome] = lambda trial: "complete",
    ran_on: Callable[[Trial], Mapping[str, Any]] = lambda trial: {},
    made: Callable[[Trial], Predictions] | None = None,
    search: Callable[[ResultsFolder], Any] = lambda folder: None,
    profile: str = "quick",
    reason: str = "no CUDA is present, so profile quick runs",
) -> ResultsFolder:
    """Records, plan and tables of a study, its trials ended as `outcome` says; those of its search first."""
    plan, folder = planned(study, profile=profile, reason=reason), ResultsFolder(root)
    search(folder)
    folder.create()
    write_sealed(folder.plan, plan)
    for trial in plan.trials:
        write_trial(folder, trial, outcome(trial), made or predict, ran_on(trial))
    write_tables(folder, build_tables(folder, plan))
    return folder


def write_trial(
    folder: ResultsFolder,
    trial: Trial,
    outcome: Outcome,
    made: Callable[[Trial], Predictions],
    ran_on: Mapping[str, Any] | None = None,
    *,
    epochs: int | None = None,
) -> None:
    status, message = (outcome, "") if isinstance(outcome, str) else outcome
    if status == "missing":
        return
    complete = status == "complete"
    facts: dict[str, Any] = {"environment": environment(**(ran_on or {})), "parameters": 1_234}
    facts |= {"cost": cost(trial)} if complete else {"failure": Failure(message=message)}
    record = Record(trial=trial, status=status, history=history(trial)[:epochs], **facts)
    write_record(folder, record, made(trial) if complete else None)


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
    noise, epochs = rng_of(trial, 3).normal(scale=0.01, size=(trial.fields.epochs, 4)).tolist(), []
    for number, (a, b, c, d) in enumerate(noise):
        left, loss = 0.7**number, trial.fields.epsilon
        losses = {"train_loss": 0.5 + loss + 1.8 * left + a, "valid_loss": 1.0 + loss + left + c}
        right = {"train_accuracy": min(1 - 0.7 * left + b, 1.0), "valid_accuracy": 0.6 - 0.3 * left + d}
        epochs.append(EPOCH.model_copy(update={"epoch": number, **losses, **right, "valid_nll": 1.0 + left}))
    return tuple(epochs)


def cost(trial: Trial) -> Cost:
    step = 4.0 + rng_of(trial, 4).uniform(0, 0.4)
    times = {"step_ms": step, "step_ms_p20": 0.9 * step, "step_ms_p80": 1.2 * step}
    return COST.model_copy(update={**times, "train_seconds": 6.0, "eval_seconds": 0.5})


Strength = Callable[[Levels], float]
Stream = Callable[[Trial], Sequence[int]]
"""How far the right class's logit stands out at a point; what a trial's random numbers follow from."""


def of_trial(trial: Trial) -> Sequence[int]:
    return [number_of(trial)]


@dataclass(frozen=True)
class Asked:
    """A point to be made: its levels, what becomes of it, and how many of its seeds get that far."""

    levels: Levels
    source: Source = "sampler"
    state: State = "complete"
    reason: str = ""
    pruned_at: int | None = None
    done: int | None = None
    intermediate: dict[int, float] = field(default_factory=dict)


def guess(
    trial: Trial, strength: float, *, images: int = 240, scale: float = 1.0, stream: Stream = of_trial
) -> Predictions:
    """Logits of ten classes; the more `strength`, the more of them are right."""
    labels = np.arange(images) % 10
    rng = np.random.default_rng([*stream(trial), images])
    logits = rng.normal(size=(images, 10)) + strength * np.eye(10)[labels]
    return Predictions((scale * logits).astype(np.float32), labels)


def write_search(
    results: ResultsFolder,
    search: Search,
    asked: Sequence[Asked],
    *,
    strength: Strength,
    scale: Strength = lambda levels: 1.0,
    stream: Stream = of_trial,
    images: int = 240,
    **facts: Any,
) -> Tuning:
    """Records, predictions and tuning.json of a search whose points are these."""
    folder = tuning_folder(results)
    folder.create()

    def made(trial: Trial) -> Predictions:
        levels = trial.levels
        return guess(trial, strength(levels), scale=scale(levels), stream=stream, images=images)

    points = []
    for number, one in enumerate(asked):
        # A repeated point has seeds of its own.
        repeat = sum(other.levels == one.levels for other in asked[:number])
        first = FIRST_TUNING_SEED + repeat * search.seeds
        seeds = range(first, first + search.seeds)
        fields = resolve(BASE, {**one.levels, "tuning_part": search.tuning_part})
        trials = [build_trial(one.levels, fields, seed, CPU, "tuned") for seed in seeds]
        done = len(trials) if one.done is None else one.done
        for trial in trials[:done]:
            write_trial(folder, trial, "complete", made, epochs=2)
        for trial in trials[done : done + 1] if one.state == "failed" else ():
            write_trial(folder, trial, ("diverged", "the loss is not finite"), made, epochs=2)
        told = {name: value for name, value in vars(one).items() if name != "done"}
        ids = tuple(trial.trial_id for trial in trials)
        points.append(Point(number=number, seeds=tuple(seeds), trial_ids=ids, **told))
    shares = dict.fromkeys(search.space, 1 / len(search.space))
    evaluator = "PedAnovaImportanceEvaluator"
    known = {
        "tuning_images": images, "train_images": 1200,
        "tuning_digest": "ab" * 32, "reported_digest": "cd" * 32,
        "importances": tuple(
            Importances(objective=name, evaluator=evaluator, shares=shares) for name in search.objective
        ),
    }  # fmt: skip
    tuning = Tuning(search=search, points=tuple(points), **{**known, **facts})
    write_sealed(results.tuning, tuning)
    tuning = tuning.model_copy(update={"winners": winners_of(points_table(results)), **facts})
    write_sealed(results.tuning, tuning)
    return tuning


def retest_study(search: Search, arms: Sequence[Levels], *, seeds: int = 5, **declared: Any) -> Study:
    """The study that judges these arms, the first of which is the baseline, as `ablate.tuning` makes it."""
    factors = {name: tuple(dict.fromkeys(arm[name] for arm in arms)) for name in search.space}
    asked = {"search": search, "primary": search.objective[0], "family": search.objective}
    return declare(factors=factors, only=tuple(arms), baseline=arms[0], seeds=seeds, **asked, **declared)


def hump(levels: Levels) -> float:
    """Best at an epsilon of 0.12, as far as accuracy goes."""
    return 2.4 - 8 * (float(levels["epsilon"]) - 0.12) ** 2


SPACE = {"epsilon": Range(low=0.0, high=0.5, step=0.005)}
EPSILON = Search(space=SPACE, anchors=({"epsilon": 0.1},), points=14, seeds=5, pruning="seeds")


def epsilon_points() -> list[Asked]:
    """Baseline, anchor, ten points of a sampler, of which one is pruned, and one that fails."""
    drawn = (0.5, 0.25, 0.135, 0.16, 0.37, 0.04, 0.12, 0.2, 0.105)
    return [
        Asked({"epsilon": 0.0}, "baseline"),
        Asked({"epsilon": 0.1}, "anchor"),
        *(Asked({"epsilon": value}) for value in drawn),
        Asked({"epsilon": 0.45}, state="pruned", reason="Worse than point 4.", pruned_at=4, done=4),
        Asked({"epsilon": 0.3}, state="failed", reason="seed 1000001: diverged: not finite", done=1),
        Asked({"epsilon": 0.135}),
    ]
