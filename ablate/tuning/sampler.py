"""The points of a search, chosen by Optuna, whose study is kept in memory and can be built again at any time.

What Optuna draws for a point follows from the search's `sampler_seed`, the point's number and the points
before it, and from nothing else: a search that was stopped goes on as one that never was.
"""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from threadpoolctl import threadpool_limits

from ablate.store.points import Importances, Point, State, Tuning
from ablate.store.results import write_atomically
from ablate.study.search import Levels, Search
from ablate.tuning.export import as_sqlite
from ablate.tuning.importances import importances_of
from ablate.tuning.pruning import pruner_of, reason
from ablate.tuning.samplers import sampler_of
from ablate.tuning.space import OnGrid, distribution_of, given, stored_of, suggested

STATES = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Sampler:
    """Optuna's study of a search, in memory; told everything, so that it can be rebuilt from the points.

    Points are asked for by their numbers, 0, 1, 2, ..., none left out. Any number may be running at a time.
    """

    def __init__(self, search: Search, *, higher_is_better: Sequence[bool], name: str) -> None:
        """Begin an empty study.

        Args:
            search: its declaration.
            higher_is_better: for each objective of the search.
            name: of the study, for optuna-dashboard; Hyperband's brackets follow from it too.
        """
        self._search, self._name = search, name
        self._directions = [
            StudyDirection.MAXIMIZE if higher else StudyDirection.MINIMIZE for higher in higher_is_better
        ]
        self._storage = optuna.storages.InMemoryStorage()
        with quiet():
            self._study = self._create_study(self._storage)
            self._study.set_metric_names(list(search.objective))
            # Not the study's own: Optuna would show a sampler only the points of one Hyperband bracket.
            self._pruner = pruner_of(search)
        self._pruned: set[int] = set()

    def restore(self, tuning: Tuning, values: Mapping[int, tuple[float, ...]]) -> None:
        """Take in the points of a stored search; only before anything was asked for.

        A running point is taken in as just asked for: what was reported of it is to be reported again.

        Args:
            tuning: the search as it was stored.
            values: number of every complete point to its values, one per objective.

        Raises:
            ValueError: the points' numbers have a gap, or a complete point has no values.
        """
        for place, point in enumerate(tuning.points):
            if point.number != place or place != self._count():
                raise ValueError(f"Expected point {self._count()}, got {point.number}; restore all, once.")
            self._restore_point(point, tuple(values.get(point.number, ())))
        for name, value in tuning.attributes.items():
            self._storage.set_study_system_attr(self._study_id, name, value)

    def _restore_point(self, point: Point, values: tuple[float, ...]) -> None:
        intermediate = {} if point.state == "running" else dict(point.intermediate)
        state, values = self._as_told(point.number, point.state, values, intermediate)
        with quiet():
            self._study.add_trial(self._frozen(point.levels, state, values, intermediate, point.attributes))

    def ask(self, number: int, levels: Levels | None = None) -> tuple[Levels, dict[str, Any]]:
        """Begin the next point.

        Args:
            number: of the point; the count of those before it.
            levels: its values, for the baseline and the anchors; otherwise the sampler chooses.

        Returns:
            The point's active levels, on the grid, and what the sampler wants kept with it, JSON values.

        Raises:
            ValueError: another number is next, or a given level is missing or out of its range.
        """
        if number != self._count():
            raise ValueError(f"Expected point {self._count()}, got {number}; ask for points in their order.")
        with quiet(), self._threads():
            sampler = sampler_of(self._search, number)
            if levels is None:
                self._study.sampler = OnGrid(sampler, self._search)
                found = suggested(self._search, self._study.ask())
            else:
                found = given(self._search, levels)
                self._study.add_trial(self._frozen(found, TrialState.RUNNING, (), {}, {}))
                if isinstance(sampler, NSGAIISampler):  # else it would never become a parent
                    sampler.get_trial_generation(self._study, self._trial(number))
        return found, self.attributes_of(number)

    def _threads(self) -> contextlib.AbstractContextManager[object]:
        """One for the GP: on its small matrices several wait for each other, and take ten times as long."""
        return threadpool_limits(1) if self._search.sampler == "gp" else contextlib.nullcontext()

    def attributes_of(self, number: int) -> dict[str, Any]:
        """What the sampler wants kept with a point as it is now, JSON values; reports add to it."""
        return dict(self._trial(number).system_attrs)

    def report(self, number: int, step: int, value: float) -> str:
        """Take in an intermediate value of a running point, where there is one objective.

        Args:
            number: of the point.
            step: the seed, with pruning across seeds; otherwise the epoch, from 0.
            value: of the objective, for this seed, or after this epoch.

        Returns:
            Empty, or why the point is to be pruned: a sentence.
        """
        with quiet():
            self._storage.set_trial_intermediate_value(self._id(number), step, float(value))
            trial = self._trial(number)
            if not self._pruner.prune(self._study, trial):
                return ""
            return reason(self._search, self._study, trial, step)

    def tell(self, number: int, state: State, values: tuple[float, ...] = ()) -> None:
        """End a running point.

        Args:
            number: of the point.
            state: what became of it.
            values: one finite value per objective of a complete point; none otherwise.

        Raises:
            ValueError: the values do not fit the state.
        """
        intermediate = self._trial(number).intermediate_values
        told, values = self._as_told(number, state, values, intermediate)
        with quiet():
            # A pruned trial's value is set by Optuna: the last intermediate one.
            kept = list(values) if told is TrialState.COMPLETE else None
            self._study.tell(number, kept, state=told)

    def _as_told(
        self, number: int, state: State, values: tuple[float, ...], intermediate: Mapping[int, float]
    ) -> tuple[TrialState, tuple[float, ...]]:
        """The state and values that Optuna is told."""
        expected = len(self._directions) if state == "complete" else 0
        if len(values) != expected or not all(map(math.isfinite, values)):
            raise ValueError(f"Expected {expected} finite values for a {state} point, got {values}.")
        if state != "pruned" or not intermediate:
            return STATES[state], values
        self._pruned.add(number)
        if self._search.pruning == "seeds":
            # As Optuna advises: the mean over the seeds it had is a fair value, and samplers learn from it.
            return TrialState.COMPLETE, (statistics.fmean(intermediate.values()),)
        return TrialState.PRUNED, (intermediate[max(intermediate)],)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the sampler wants kept of the study, JSON values."""
        return dict(self._storage.get_study_system_attrs(self._study_id))

    def importances(self) -> tuple[Importances, ...]:
        """How each objective depends on the fields, where that can be told: see `importances_of`."""
        with quiet():
            return importances_of(self._search, self._study)

    def export(self, path: Path) -> None:
        """Write the study as an SQLite file that optuna-dashboard opens, whole or not at all.

        Args:
            path: the file to be; its folder exists.
        """
        with quiet():
            content = as_sqlite(self._study, self.attributes, self._pruned)
        write_atomically(path, content)

    @property
    def _study_id(self) -> int:
        return self._storage.get_study_id_from_name(self._name)

    def _create_study(self, storage: optuna.storages.BaseStorage) -> optuna.Study:
        return optuna.create_study(
            study_name=self._name, storage=storage, directions=self._directions, pruner=NopPruner()
        )

    def _count(self) -> int:
        return len(self._study.get_trials(deepcopy=False))

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _trial(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id(number))

    def _frozen(
        self,
        levels: Levels,
        state: TrialState,
        values: tuple[float, ...],
        intermediate: dict[int, float],
        attributes: dict[str, Any],
    ) -> FrozenTrial:
        found, space = self._search.active(levels), self._search.space
        return create_trial(
            state=state,
            values=list(values) or None,
            params={name: stored_of(space[name], level) for name, level in found.items()},
            distributions={name: distribution_of(space[name]) for name in found},
            system_attrs=attributes,
            intermediate_values=intermediate,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's log lines and warnings, which are for those who call it, not for those who tune."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)
