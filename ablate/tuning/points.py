"""The points of a search as trials of an Optuna study.

What Optuna draws for a point follows from the search's `sampler_seed`, the point's number and the points
before it, and from nothing else: a search that was stopped goes on as one that never was.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
import warnings
from collections.abc import Iterator, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from threadpoolctl import threadpool_limits

from ablate.metrics import METRICS
from ablate.store.points import Importances, Point, Source, State
from ablate.study.search import FIRST_TUNING_SEED, Levels, Search
from ablate.tuning.importances import importances_of
from ablate.tuning.pruning import pruner_of, reason_of
from ablate.tuning.samplers import sampler_of
from ablate.tuning.space import distribution_of, drawn, given, stored_of

Values = tuple[float, ...]
"""Of a complete point, per objective."""

POINT = "point"
"""The user attribute of a trial that says what Optuna does not: seeds, trials, source, how it ended."""
AS_ASKED = ("levels", "source", "seeds", "trial_ids")
TOLD = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


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


class Points:
    """The points of a search. Any number may be running at a time; one that ended is never changed.

    Args:
        search: its declaration; may be set again with another budget.
        storage: where Optuna keeps the study; None is in memory.
        name: of the study; Hyperband's brackets follow from it too.
    """

    @quiet()
    def __init__(self, search: Search, storage: BaseStorage | None = None, name: str = "search") -> None:
        self.search, self._name = search, name
        self.storage = optuna.storages.get_storage(storage)
        # Not the study's own: Optuna would show a sampler only the points of one Hyperband bracket.
        self._pruner = pruner_of(search)
        better = [METRICS[objective].higher_is_better for objective in search.objective]
        self.study = optuna.create_study(
            study_name=name,
            storage=self.storage,
            directions=["maximize" if higher else "minimize" for higher in better],
            pruner=NopPruner(),
            load_if_exists=True,
        )

    def all(self) -> tuple[Point, ...]:
        """The points in the order they were asked for."""
        return tuple(_point_of(trial) for trial in self._trials() if POINT in trial.user_attrs)

    def values(self) -> dict[int, Values]:
        """What Optuna was told of the complete points, by number."""
        complete = {point.number for point in self.all() if point.state == "complete"}
        return {trial.number: tuple(trial.values) for trial in self._trials() if trial.number in complete}

    @quiet()
    def ask(self, source: Source, levels: Levels | None = None) -> Point:
        """Begin the next point, with these levels or, without them, the sampler's.

        One write makes it a point. Where a killed process had not got that far, it is asked for again.

        Raises:
            ValueError: a given level is missing or out of its range.
        """
        for trial in self._trials():
            self._show(trial)
        before = self._trials()
        if before and POINT not in before[-1].user_attrs:
            trial_id = before.pop()._trial_id
        else:
            trial_id = self.storage.create_new_trial(self.study._study_id)
        trial = self.storage.get_trial(trial_id)
        asked = sum(other.user_attrs[POINT]["source"] == "sampler" for other in before)
        sampler = sampler_of(self.search, trial.number, asked)
        study = self._study_for(sampler)
        # On the GP's small matrices several threads wait for each other, and take ten times as long.
        one_thread = threadpool_limits(1) if self.search.sampler == "gp" else contextlib.nullcontext()
        with one_thread:
            if levels is None:
                levels = drawn(self.search, sampler, study, trial)
            else:
                levels = given(self.search, levels)
                if isinstance(sampler, NSGAIISampler):  # else it would never become a parent
                    sampler.get_trial_generation(study, trial)
        params, _ = self._shown(levels)
        repeated = sum(other.params == params for other in before)
        # All points share their seeds, but for one that repeats another.
        start = FIRST_TUNING_SEED + repeated * self.search.seeds
        seeds = tuple(range(start, start + self.search.seeds))
        self._keep(Point(number=trial.number, levels=levels, source=source, seeds=seeds))
        trial = self._trial(trial.number)
        self._show(trial)
        return _point_of(trial)

    def name_trials(self, number: int, trial_ids: Sequence[str]) -> None:
        """Say which trials a running point's seeds have."""
        self._keep(_point_of(self._trial(number)).model_copy(update={"trial_ids": tuple(trial_ids)}))

    @quiet()
    def report(self, number: int, step: int, value: float) -> str:
        """Take in a running point's value for a seed, or after an epoch, as the pruning counts; each once.

        Returns:
            Empty, or why the point is to be pruned: a sentence.
        """
        trial = self._trial(number)
        if step in trial.intermediate_values:
            return ""
        self.storage.set_trial_intermediate_value(trial._trial_id, step, float(value))
        trial = self._trial(number)
        pruned = self._pruner.prune(self.study, trial)
        return reason_of(self.search, self.study, trial, step) if pruned else ""

    @quiet()
    def end(self, number: int, state: State, reason: str = "", values: Values = ()) -> None:
        """End a running point, with a value per objective where it is complete.

        Raises:
            ValueError: the values do not fit the state.
        """
        trial = self._trial(number)
        self._show(trial)
        point = _point_of(trial)
        pruned_at = len(point.intermediate) if state == "pruned" else None
        point = point.model_copy(update={"state": state, "reason": reason, "pruned_at": pruned_at})
        self._keep(point)
        told, values = self._as_told(point, values)
        # A pruned trial's value is set by Optuna: the last intermediate one.
        self.study.tell(number, list(values) if told is TrialState.COMPLETE else None, state=told)

    @quiet()
    def add(self, point: Point, values: Values = ()) -> None:
        """Take in the next point as it is, with its values where it is complete."""
        if generation := point.attributes.get("NSGAIISampler:generation"):
            sampler = sampler_of(self.search, point.number, 0)
            assert isinstance(sampler, NSGAIISampler)
            sampler.get_parent_population(self._study_for(sampler), generation)  # which it remembers
        told, values = self._as_told(point, values)
        params, distributions = self._shown(point.levels)
        self.study.add_trial(
            create_trial(
                state=told,
                values=list(values) or None,
                params=params,
                distributions=distributions,
                user_attrs={POINT: _kept(point)},
                system_attrs=point.attributes,
                intermediate_values=point.intermediate,
            )
        )

    @quiet()
    def importances(self) -> tuple[Importances, ...]:
        """How each objective depends on the fields, where that can be told: see `importances_of`."""
        return importances_of(self.search, self.study)

    def _study_for(self, sampler: BaseSampler) -> optuna.Study:
        """A new object of the study: each remembers the trials that a sampler saw first."""
        return optuna.load_study(study_name=self._name, storage=self.storage, sampler=sampler)

    def _as_told(self, point: Point, values: Values) -> tuple[TrialState, Values]:
        """The state and values that Optuna is told."""
        if point.state != "pruned" or not point.intermediate:
            return TOLD[point.state], values
        if self.search.pruning == "seeds":
            # As Optuna advises: the mean over the seeds it had is a fair value, and samplers learn from it.
            return TrialState.COMPLETE, (statistics.fmean(point.intermediate.values()),)
        return TrialState.PRUNED, (point.intermediate[max(point.intermediate)],)

    def _shown(self, levels: Levels) -> tuple[dict[str, object], dict[str, BaseDistribution]]:
        """Levels as Optuna stores them, and what they are from."""
        space, active = self.search.space, self.search.active(levels)
        params = {name: stored_of(space[name], level) for name, level in active.items()}
        return params, {name: distribution_of(space[name]) for name in active}

    def _show(self, trial: FrozenTrial) -> None:
        """Have a running point's trial hold its levels, which a process may have been killed before."""
        if trial.state is TrialState.RUNNING and POINT in trial.user_attrs:
            params, distributions = self._shown(_point_of(trial).levels)
            for name in params.keys() - trial.params.keys():
                internal = distributions[name].to_internal_repr(params[name])
                self.storage.set_trial_param(trial._trial_id, name, internal, distributions[name])

    def _keep(self, point: Point) -> None:
        self.storage.set_trial_user_attr(self._trial(point.number)._trial_id, POINT, _kept(point))

    def _trials(self) -> list[FrozenTrial]:
        return sorted(self.study.get_trials(deepcopy=False), key=lambda trial: trial.number)

    def _trial(self, number: int) -> FrozenTrial:
        study_id = self.study._study_id
        return self.storage.get_trial(self.storage.get_trial_id_from_study_id_trial_number(study_id, number))


def _kept(point: Point) -> dict[str, object]:
    return point.model_dump(mode="json", exclude={"number", "intermediate", "attributes"})


def _point_of(trial: FrozenTrial) -> Point:
    kept = trial.user_attrs[POINT]
    if trial.state is TrialState.RUNNING:  # also where its process was killed while it ended it
        kept = {name: kept[name] for name in AS_ASKED}
    known = {"intermediate": trial.intermediate_values, "attributes": trial.system_attrs}
    return Point(number=trial.number, **known, **kept)
