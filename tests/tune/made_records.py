"""Searches that train nothing, on records made up from a point's values; and what whole searches share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from recorded_study import COST, CPU, environment

from ablate.execution import Event
from ablate.execution.progress import Watcher
from ablate.store.points import Point, Tuning, tuning_folder
from ablate.store.records import Predictions, Record, write_record
from ablate.store.results import ResultsFolder
from ablate.study.fields import resolve
from ablate.study.search import FIRST_TUNING_SEED, Levels, Range, Search
from ablate.study.trials import Trial, build_trial
from ablate.tuning.ledger import Ledger, point_means
from ablate.tuning.storage import Storage

NAME = "tiny/default"
SEARCH = Search(
    space={"epsilon": Range(low=0.0, high=0.5, step=0.005)},
    anchors=({"epsilon": 0.0},),
    points=6,
    seeds=2,
    batch=2,
)
BASE = {"data": "digits", "image_size": 8, "epochs": 1}


def first_of(search: Search) -> list[Levels]:
    """The baseline, and an anchor."""
    others = {"lr": 0.1} if "lr" in search.space else {}
    return [{"epsilon": 0.1, **others}, {"epsilon": 0.0, **others}]


def opened(storage: Storage, results: ResultsFolder, search: Search = SEARCH, **options: Any) -> Ledger:
    """The ledger of a tuner that declares this search."""
    tuning_folder(results).create()
    return Ledger(
        results,
        storage,
        NAME,
        Tuning(search=search),
        first_of(search),
        lambda known: None,
        **options,
    )


def train(ledger: Ledger, point: Point, seeds: int | None = None) -> Point:
    """Record what a point's runs came to, as the loop does; of its first seeds only, where it is told so."""
    fields = resolve(BASE, {**point.levels, "tuning_part": SEARCH.tuning_part})
    trials = [build_trial(point.levels, fields, seed, CPU, "images") for seed in point.seeds]
    point = point.model_copy(update={"trial_ids": tuple(trial.trial_id for trial in trials)})
    ledger.name_trials(point.number, point.trial_ids)
    for trial in trials[:seeds]:
        record(ledger.results, trial)
    return point


def record(results: ResultsFolder, trial: Trial, *, luck: int = 0) -> None:
    """Store a trial, if it is not, with predictions that are the better, the nearer ε is to 0.2."""
    if tuning_folder(results).record_path(trial.trial_id).exists():
        return
    labels = np.arange(200) % 10
    noise = np.random.default_rng([int(trial.trial_id, 16), luck]).normal(size=(200, 10))
    strength = 2 - 6 * abs(trial.fields.epsilon - 0.2)
    predictions = Predictions((noise + strength * np.eye(10)[labels]).astype(np.float32), labels)
    made = Record(trial=trial, status="complete", cost=COST, environment=environment())
    write_record(tuning_folder(results), made, predictions)


def complete(ledger: Ledger, points: Sequence[Point]) -> list[int]:
    """Train points, and end them; their numbers."""
    for point in points:
        trained = train(ledger, point)
        values = point_means(ledger.results, trained, ledger.tuning.search.objective)
        ledger.end(point.number, "complete", "", values)
    return [point.number for point in points]


def spend(ledger: Ledger, points: int = 1000) -> list[int]:
    """Do what is left of the budget, or so many points; those done."""
    done: list[int] = []
    while len(done) < points and (begun := ledger.next_points()):
        done += complete(ledger, begun)
    return done


def asked(tuning: Tuning) -> list[tuple[Levels, tuple[int, ...], str, str]]:
    """What was asked for, and what became of it."""
    return [(point.levels, point.seeds, point.source, point.state) for point in tuning.points]


STUDY = '''"""Tiny."""
from ablate.study.search import Range, Search
from ablate.study.study import Study
study = Study(
    question="Does it run?",
    base={"data": "digits", "image_size": 8, "epochs": 1, "batch_size": 64, "lr": 0.1},
    search=Search(
        space={"epsilon": Range(low=0.0, high=0.5, step=0.005)},
        points=5,
        seeds=2,
        batch=1,
        tuning_part=0.33,
    ),
    baseline={"epsilon": 0.1},
    seeds=1,
)
'''


class Watching(Watcher):
    """Keeps what was trained, and does something after each training run, by how many there were."""

    def __init__(self, then: Callable[[int], None] = lambda count: None) -> None:
        super().__init__()
        self.trained: list[Trial] = []
        self._then = then

    def happened(self, trial: Trial, event: Event, record: Record | None) -> None:
        if record is not None:
            self.trained.append(trial)
            self._then(len(self.trained))

    @property
    def runs(self) -> list[tuple[float, int]]:
        """Epsilon and seed of each run of the search."""
        runs = [(trial.fields.epsilon, trial.seed) for trial in self.trained]
        return [run for run in runs if run[1] >= FIRST_TUNING_SEED]


def runs_of(points: Sequence[Point]) -> list[tuple[float, int]]:
    """Epsilon and seed of each run that points ask for."""
    return [(point.levels["epsilon"], seed) for point in points for seed in point.seeds]


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


WRITES = (
    "create_new_trial", "set_trial_param", "set_trial_user_attr", "set_trial_system_attr",
    "set_trial_state_values", "set_study_user_attr", "set_study_system_attr",
)  # fmt: skip


def kill_at_write(storage: Any, number: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Die before the write of this number to Optuna's storage; the writes before it, as they are made."""
    made: list[str] = []

    def write(name: str, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if len(made) == number:
            raise Killed
        made.append(name)
        return original(*arguments, **named)

    for name in WRITES:
        patch.setattr(storage, name, functools.partial(write, name, getattr(storage, name)))
    return made
