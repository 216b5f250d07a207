"""Searches that train nothing, on records made up from a point's values; and what whole searches share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from recorded_study import COST, CPU, environment

from ablate.execution.driver import Options
from ablate.execution.executors import Event
from ablate.execution.progress import Watcher
from ablate.store.points import Point, Tuning, tuning_folder
from ablate.store.records import Predictions, Record, write_record
from ablate.store.results import ResultsFolder
from ablate.study.fields import Levels, resolve
from ablate.study.search import Range, Search
from ablate.study.study import Study
from ablate.study.trials import Trial, build_trial
from ablate.tuning.ledger import Ledger, Storage, point_means
from ablate.tuning.points import Points
from ablate.tuning.run import Tuned, tune_study

NAME = "tiny/default"
SPACE = {"epsilon": Range(low=0.0, high=0.5, step=0.005)}
SEARCH = Search(space=SPACE, anchors=({"epsilon": 0.0},), points=6, seeds=2)
BASE = {"data": "digits", "image_size": 8, "epochs": 1}
TRAINED = {**BASE, "batch_size": 64, "lr": 0.1}


def opened(storage: Storage, results: ResultsFolder, search: Search) -> Ledger:
    """The ledger of a tuner that declares this search."""
    tuning_folder(results).create()
    others = {name: level for name, level in (("lr", 0.1), ("batch_size", 64)) if name in search.space}
    first = [{"epsilon": 0.1, **others}, {"epsilon": 0.0, **others}]
    return Ledger(results, storage, NAME, Tuning(search=search), first, lambda known: None, Options())


def train(ledger: Ledger, point: Point, seeds: int | None = None) -> Point:
    """Record what a point's runs came to, as the loop does; of its first seeds only, where it is told so."""
    fields = resolve(BASE, {**point.levels, "tuning_part": SEARCH.tuning_part})
    trials = [build_trial(point.levels, fields, seed, CPU, "images") for seed in point.seeds]
    point = point.model_copy(update={"trial_ids": tuple(trial.trial_id for trial in trials)})
    ledger.change(Points.name_trials, point.number, point.trial_ids)
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
    return [(point.levels, point.seeds, point.source, point.state) for point in tuning.points]


def declared(search: dict[str, Any] | None = None, **changes: Any) -> Study:
    """A small study that can be trained."""
    parts = {"space": SEARCH.space, "points": 4, "seeds": 1, "tuning_part": 0.33, **(search or {})}
    known = {"question": "?", "name": "tiny", "base": TRAINED, "baseline": {"epsilon": 0.1}, "seeds": 2}
    return Study(**{**known, "search": Search(**parts), **changes})


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


def tuned(study: Study, root: Path, watcher: Watcher | None = None, **changes: Any) -> Tuned:
    """A search, trained in this process unless told otherwise."""
    own: dict[str, Any] = {"workers": 0, "device": "cpu", "results": root, "timing": False}
    own |= {name: changes.pop(name) for name in ("workers", "retry_failed") if name in changes}
    options = Options(**own)
    return tune_study(study, options, watcher or Watching(), **changes)
