"""The points of a search as trials of an Optuna study, its fields, sampler and pruner in Optuna's terms.

What Optuna draws for a point follows from `sampler_seed`, the point's number and the points before it alone:
a stopped search goes on as one that never was. Optuna has no steps in a logarithm, and stores but numbers,
strings, booleans and None; so a level and what Optuna stores of it are two things.
"""

import contextlib
import json
import logging
import statistics
import warnings
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from threadpoolctl import threadpool_limits

from ablate.store.points import Importances, Point, Source, State
from ablate.study.fields import Levels
from ablate.study.search import FIRST_TUNING_SEED, Choice, Range, Search
from ablate.tables.quantities import quantity
from ablate.tables.tuning import Values

POINT = "point"  # the user attribute with what Optuna does not say: seeds, trials, source, how it ended
RUNNING = {"state": "running", "reason": "", "pruned_at": None}
REFUSED: dict[str, Any] = {"state": "failed", "reason": "no tuner of this search wrote its row"}
GENERATION = "NSGAIISampler:generation"
FEWEST_POINTS = 10  # complete ones, before fields have importances
BEST_POINTS, BEST_PART = 5, 0.1  # of the best PED-ANOVA asks where they lie; Optuna advises five at least
STARTUP_PART = 4  # one point in so many is drawn at random before TPE and the GP judge by what they have seen
MOST_STARTUP = 10
POPULATION_PART = 6  # NSGA-II has about so many generations within the budget
MUTATION_INDEX = 3.0  # low, so that mutations reach far: a small budget has no time for short steps
JUDGED_SEEDS = 4  # seeds of a point before it can be pruned by a Wilcoxon test against the best
WILCOXON_LEVEL = 0.1
REDUCTION = 3  # Hyperband lets one point in so many go on


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's log lines and warnings, which are not for those who tune."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def distribution_of(dimension: Range | Choice) -> BaseDistribution:
    """What Optuna draws the field from."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(_categories(dimension))
    low, high, log = dimension.low, dimension.high, dimension.log
    if dimension.is_integer:
        return IntDistribution(int(low), int(high), log=log, step=int(dimension.step or 1))
    # Optuna counts steps in decimals, and takes the last level below a high between two of them.
    return FloatDistribution(low, high + (dimension.step or 0) / 2, log=log, step=dimension.step)


def stored_of(dimension: Range | Choice, level: Any) -> Any:
    """What Optuna stores of a level that the dimension holds, which JSON may have made a list of a tuple."""
    if isinstance(dimension, Choice):
        return _categories(dimension)[[json.dumps(value) for value in dimension.of].index(json.dumps(level))]
    if dimension.is_integer:
        return level
    if dimension.log:  # its ends come out apart by rounding, and Optuna refuses what lies outside
        return min(max(level, dimension.low), dimension.high)
    # Not the level itself, whose twelve digits can be off Optuna's narrower idea of a grid.
    assert dimension.step is not None  # validated
    steps = round((level - dimension.low) / dimension.step)
    return float(Decimal(str(dimension.low)) + steps * Decimal(str(dimension.step)))


def _categories(dimension: Choice) -> tuple[Any, ...]:
    stored = all(isinstance(value, (bool, int, float, str)) for value in dimension.of)
    return dimension.of if stored else tuple(map(repr, dimension.of))


def sampler_of(search: Search, number: int, drawn: int) -> BaseSampler:
    """The sampler for one point, before which so many were `drawn`: it carries nothing that is not stored."""
    seed = int(np.random.SeedSequence([search.sampler_seed, number]).generate_state(1)[0])
    startup = max(1, min(MOST_STARTUP, search.points // STARTUP_PART))
    match search.sampler:
        case "tpe":
            # Without groups, fields that some points lack would be drawn each by itself.
            group = len(search.objective) == 1 and any(one.when for one in search.space.values())
            return TPESampler(n_startup_trials=startup, group=group, constant_liar=True, seed=seed)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        case "quasi_random":
            return _Sequence(search, drawn)
        case "nsga2":
            size = max(4, min(50, search.points // POPULATION_PART))
            # By default one field of each point is drawn anew: with one field that is random search.
            mutation = PolynomialMutation(eta=MUTATION_INDEX)
            return NSGAIISampler(population_size=size, mutation=mutation, crossover=SBXCrossover(), seed=seed)
        case "random":
            return RandomSampler(seed=seed)


class _Sequence(QMCSampler):
    """One sequence for all points: its term for the `drawn`-th of them."""

    def __init__(self, search: Search, drawn: int) -> None:
        super().__init__(scramble=True, seed=search.sampler_seed, warn_independent_sampling=False)
        self._space, self._drawn = search.space, drawn

    def infer_relative_search_space(self, *_: Any) -> dict[str, BaseDistribution]:
        # Left alone, it spreads only the fields that the first point happens to have.
        return {name: distribution_of(dimension) for name, dimension in self._space.items()}

    def _find_sample_id(self, *_: Any) -> int:
        return self._drawn  # Optuna counts given points too


def reason_of(search: Search, study: optuna.Study, trial: FrozenTrial, step: int) -> str:
    """Why the pruner gives up a trial at a step: one sentence, with the numbers that it went by."""
    best, worse = (max, "below") if study.direction is StudyDirection.MAXIMIZE else (min, "above")
    values = trial.intermediate_values
    if search.pruning == "seeds":
        others = study.best_trial.intermediate_values
        shared = sorted(values.keys() & others.keys())
        mean, best_mean = (statistics.fmean(of[seed] for seed in shared) for of in (values, others))
        against = f"that of point {study.best_trial.number} over the same seeds, {best_mean:.4g}"
        against += f" (Wilcoxon test, p < {WILCOXON_LEVEL:g})"
        return f"The mean over {len(shared)} seeds, {mean:.4g}, is {worse} {against}."
    states = (TrialState.COMPLETE,) if search.pruning == "median" else None
    reached = [other.intermediate_values for other in study.get_trials(deepcopy=False, states=states)]
    at_step = [other[step] for other in reached if step in other]
    if search.pruning == "median":
        against = f"the median of the complete points at that epoch, {statistics.median(at_step):.4g}"
        return f"The best value up to epoch {step}, {best(values.values()):.4g}, is {worse} {against}."
    against = f"not in the best 1/{REDUCTION} of those that Hyperband compared it with"
    others_best = f"the best of any point at that epoch is {best(at_step):.4g}"
    return f"The value at epoch {step}, {values[step]:.4g}, is {against}; {others_best}."


class Points:
    """The points of a search, in memory without a storage; `search` may be set again with another budget."""

    def __init__(self, search: Search, storage: BaseStorage | None = None, name: str = "search") -> None:
        self.search = search
        self.storage = optuna.storages.get_storage(storage)
        higher = [quantity(objective).better == "higher" for objective in search.objective]
        self.directions = [StudyDirection.MAXIMIZE if one else StudyDirection.MINIMIZE for one in higher]
        # Hyperband's brackets follow from the study's name too.
        self._named: dict[str, Any] = {"study_name": name, "directions": self.directions}
        self.study = optuna.create_study(storage=self.storage, load_if_exists=True, **self._named)

    def all(self) -> tuple[Point, ...]:
        """The points in the order they were asked for."""
        return tuple(map(_point_of, self._trials()))

    def values(self) -> dict[int, Values]:
        """What Optuna was told of the complete points, by number."""
        complete = (trial for trial in self._trials() if _point_of(trial).state == "complete")
        return {trial.number: tuple(trial.values) for trial in complete}

    def are_drawn_as_now(self) -> bool:
        """Whether Optuna has all points with today's distributions, as it must to draw more beside them."""
        now = {name: distribution_of(dimension) for name, dimension in self.search.space.items()}
        return all(now.get(key) == was for one in self._trials() for key, was in one.distributions.items())

    def ask(self, source: Source, levels: Levels | None = None) -> Point:
        """Begin the next point, with these levels (ValueError: one is out of its range), or the sampler's."""
        trials = self._trials()
        drawn = sum(_point_of(trial).source == "sampler" for trial in trials)
        sampler = sampler_of(self.search, len(trials), drawn)
        copy = self._copy(sampler)  # what was drawn becomes a point by one write
        memory = copy._storage
        trial = memory.get_trial(memory.create_new_trial(copy._study_id))
        if isinstance(sampler, NSGAIISampler):  # also where levels are given, which else never become parents
            generation = sampler.get_trial_generation(copy, trial)
            begun = any(other.system_attrs.get(GENERATION) == generation for other in trials)
            for earlier in range(1, generation + begun):  # as it did for their first points, to remember them
                sampler.get_parent_population(copy, earlier)
        levels = self._drawn(sampler, copy, trial) if levels is None else levels
        params = {name: stored_of(self.search.space[name], level) for name, level in levels.items()}
        repeated = sum(other.params == params for other in trials)
        # All points share their seeds, but for one that repeats another.
        start = FIRST_TUNING_SEED + repeated * self.search.seeds
        seeds = tuple(range(start, start + self.search.seeds))
        attributes = memory.get_trial(trial._trial_id).system_attrs
        point = Point(number=trial.number, levels=levels, source=source, seeds=seeds, attributes=attributes)
        self.add(point)
        return point

    def _drawn(self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial) -> Levels:
        levels: Levels = {}
        # On the GP's small matrices several threads wait for each other, and take ten times as long.
        with threadpool_limits(1) if self.search.sampler == "gp" else contextlib.nullcontext():
            space = sampler.infer_relative_search_space(study, trial)
            together = sampler.sample_relative(study, trial, space)
            for name, dimension in self.search.space.items():
                if any(levels.get(other) != value for other, value in dimension.when.items()):
                    continue
                if name not in together:
                    distribution = distribution_of(dimension)
                    together[name] = sampler.sample_independent(study, trial, name, distribution)
                if isinstance(dimension, Choice):
                    levels[name] = dimension.of[_categories(dimension).index(together[name])]
                else:
                    levels[name] = dimension.nearest(together[name])
        return levels

    def add(self, point: Point, values: Values = ()) -> None:
        """Take in the next point as it is, with its values where it is complete."""
        self.study.add_trial(self._trial_of(point, values))

    def _trial_of(self, point: Point, values: Values) -> FrozenTrial:
        state, values = self._as_told(point, values)
        space = self.search.space
        return create_trial(
            state=state,
            values=list(values) or None,
            params={name: stored_of(space[name], level) for name, level in point.levels.items()},
            distributions={name: distribution_of(space[name]) for name in point.levels},
            user_attrs={POINT: _kept(point)},
            system_attrs=point.attributes,
            intermediate_values=point.intermediate,
        )

    def name_trials(self, number: int, trial_ids: Sequence[str]) -> None:
        """Say which trials a running point's seeds have."""
        trial = self._trials()[number]
        point = _point_of(trial).model_copy(update={"trial_ids": tuple(trial_ids)})
        self.storage.set_trial_user_attr(trial._trial_id, POINT, _kept(point))

    def report(self, number: int, step: int, value: float) -> str:
        """Take in a running point's value for a seed, or after an epoch; why it is to be pruned, or empty."""
        trial = self._trials()[number]
        if step in trial.intermediate_values:  # reported before the search was stopped
            return ""
        self.storage.set_trial_intermediate_value(trial._trial_id, step, float(value))
        trial = self._trials()[number]
        pruners: dict[str, BasePruner] = {
            "seeds": WilcoxonPruner(n_startup_steps=JUDGED_SEEDS, p_threshold=WILCOXON_LEVEL),
            "hyperband": HyperbandPruner(reduction_factor=REDUCTION),
            "median": MedianPruner(),
        }
        # Not the study's own pruner: Optuna would show a sampler only the points of one Hyperband bracket.
        pruned = pruners[self.search.pruning].prune(self.study, trial)
        # Baseline and anchors are what the others are compared with.
        pruned = pruned and _point_of(trial).source == "sampler"
        return reason_of(self.search, self.study, trial, step) if pruned else ""

    def end(self, number: int, state: State, reason: str = "", values: Values = ()) -> None:
        """End a running point, with a value per objective where it is complete (ValueError: others came)."""
        trial = self._trials()[number]
        point = _point_of(trial)
        pruned_at = len(point.intermediate) if state == "pruned" else None
        point = point.model_copy(update={"state": state, "reason": reason, "pruned_at": pruned_at})
        self.storage.set_trial_user_attr(trial._trial_id, POINT, _kept(point))
        told, values = self._as_told(point, values)
        # A pruned trial's value is set by Optuna: the last intermediate one.
        self.study.tell(number, list(values) if told is TrialState.COMPLETE else None, state=told)

    def importances(self) -> tuple[Importances, ...]:
        """Shares of fields by PED-ANOVA, for objectives in which points differ; () of few points."""
        complete = sum(trial.state is TrialState.COMPLETE for trial in self._trials())
        if len(self.search.space) < 2 or complete < FEWEST_POINTS:
            return ()
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(BEST_PART, BEST_POINTS / complete))
        importances, copy = [], self._copy()
        for index, objective in enumerate(self.search.objective):

            def cost(trial: FrozenTrial, index: int = index) -> float:  # PED-ANOVA takes low values for good
                sign = -1 if self.directions[index] is StudyDirection.MAXIMIZE else 1
                return sign * float(trial.values[index])

            weights = get_param_importances(copy, evaluator=evaluator, target=cost, normalize=False)
            if (total := sum(weights.values())) > 0:
                shares = {name: weights[name] / total for name in self.search.space if name in weights}
                importances.append(Importances(objective=objective, evaluator="PED-ANOVA", shares=shares))
        return tuple(importances)

    def _as_told(self, point: Point, values: Values) -> tuple[TrialState, Values]:
        if point.state != "pruned" or not point.intermediate:
            return TrialState[{"failed": "FAIL"}.get(point.state, point.state.upper())], values
        if self.search.pruning == "seeds":
            # As Optuna advises: the mean over the seeds it had is a fair value, and samplers learn from it.
            return TrialState.COMPLETE, (statistics.fmean(point.intermediate.values()),)
        return TrialState.PRUNED, (point.intermediate[max(point.intermediate)],)

    def _copy(self, sampler: BaseSampler | None = None) -> optuna.Study:
        """The study in memory, made of its points: of what a row says beside them nothing gets there."""
        copy = optuna.create_study(storage=InMemoryStorage(), sampler=sampler, **self._named)
        for trial in self._trials():
            copy.add_trial(self._trial_of(_point_of(trial), tuple(trial.values or ())))
        return copy

    def _trials(self) -> list[FrozenTrial]:
        """The study's trials; one that no tuner of this search can have written is a point that failed."""
        try:
            return [self._sound(trial) for trial in self.study.get_trials(deepcopy=False)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StorageInternalError("a row cannot be read") from error

    def _sound(self, trial: FrozenTrial) -> FrozenTrial:
        failed = Point(number=trial.number, levels={}, source="sampler", seeds=(), **REFUSED)
        with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):
            point, space = _point_of(trial), self.search.space
            told, values = self._as_told(point, tuple(trial.values or ()))
            start, generation = (*point.seeds, 0)[0], point.attributes.get(GENERATION, 0)
            sound = (
                self.search.active(point.levels) == point.levels
                and all(space[name].holds(level) for name, level in point.levels.items())
                and point.seeds == tuple(range(start, start + self.search.seeds))
                and start >= FIRST_TUNING_SEED
                and generation in range(trial.number + 1)
                and told is trial.state
                and (told is not TrialState.COMPLETE or len(values) == len(self.search.objective))
            )
            if sound or point == failed:
                return trial
        made = self._trial_of(failed, ())
        made.number, made._trial_id = trial.number, trial._trial_id
        return made


def _kept(point: Point) -> dict[str, object]:
    return point.model_dump(mode="json", exclude={"number", "intermediate", "attributes"})


def _point_of(trial: FrozenTrial) -> Point:
    kept = trial.user_attrs[POINT]
    if trial.state is TrialState.RUNNING:  # also where its process was killed while it ended it
        kept = {**kept, **RUNNING}
    known = {"intermediate": trial.intermediate_values, "attributes": trial.system_attrs}
    return Point(number=trial.number, **known, **kept)
