"""A search in Optuna's terms: what its fields are drawn from, its sampler, and its pruner with the reasons.

Optuna has no steps in a logarithm, and stores no values but numbers, strings, booleans and None. So a level
and what Optuna stores of it are two things.
"""

from __future__ import annotations

import json
import math
import statistics
from decimal import Decimal
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ablate.study.search import Choice, Range, Search

STARTUP_PART = 4
"""One point in so many is drawn at random before TPE and the GP judge by what they have seen."""
MOST_STARTUP = 10
POPULATION_PART = 6
"""NSGA-II has about so many generations within the budget."""
MUTATION_INDEX = 3.0
"""The less, the farther NSGA-II's mutations reach; a small budget has no time for short steps."""
JUDGED_SEEDS = 4
"""Seeds of a point before it can be pruned by a Wilcoxon test against the best."""
WILCOXON_LEVEL = 0.1
REDUCTION = 3
"""Hyperband lets one point in so many go on."""


def distribution_of(dimension: Range | Choice) -> BaseDistribution:
    """What Optuna draws the field from."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(_categories(dimension))
    if dimension.is_integer:
        return IntDistribution(int(dimension.low), int(dimension.high), step=int(dimension.step or 1))
    if dimension.log:
        return FloatDistribution(dimension.low, dimension.high, log=True)
    # Optuna counts steps in decimals; a high that rounding put below the last level would lose that level.
    exact = _exact(dimension, dimension.high)
    high = float(exact)
    if Decimal(str(high)) < exact:
        high = math.nextafter(high, math.inf)
    return FloatDistribution(dimension.low, high, step=dimension.step)


def stored_of(dimension: Range | Choice, level: Any) -> Any:
    """What Optuna stores of a level that the dimension holds, which JSON may have made a list of a tuple."""
    if isinstance(dimension, Choice):
        return _categories(dimension)[[json.dumps(value) for value in dimension.of].index(json.dumps(level))]
    if dimension.is_integer:
        return level
    if dimension.log:  # its ends come out apart by rounding, and Optuna refuses what lies outside
        return min(max(level, dimension.low), dimension.high)
    # Not the level itself, whose twelve digits can be off Optuna's narrower idea of a grid.
    high = distribution_of(dimension).high  # type: ignore[attr-defined]
    return min(float(_exact(dimension, level)), high)


def level_of(dimension: Range | Choice, stored: Any) -> Any:
    """The level, on the grid, that is nearest to what Optuna drew."""
    if isinstance(dimension, Choice):
        return dimension.of[_categories(dimension).index(stored)]
    return dimension.nearest(stored)


def _exact(dimension: Range, level: float) -> Decimal:
    """The level of a stepped range as Optuna counts it, in decimals."""
    assert dimension.step is not None  # validated
    steps = round((level - dimension.low) / dimension.step)
    return Decimal(str(dimension.low)) + steps * Decimal(str(dimension.step))


def _categories(dimension: Choice) -> tuple[Any, ...]:
    stored = all(isinstance(value, (bool, int, float, str)) for value in dimension.of)
    return dimension.of if stored else tuple(map(repr, dimension.of))


def sampler_of(search: Search, number: int, drawn: int) -> BaseSampler:
    """The sampler for one point.

    One that went from point to point would carry random numbers and caches that nothing stores; a new one
    draws by the study, the search's seed, the point's number and how many before it were `drawn`.
    """
    seed = int(np.random.SeedSequence([search.sampler_seed, number]).generate_state(1)[0])
    startup = max(1, min(MOST_STARTUP, search.points // STARTUP_PART))
    match search.sampler:
        case "tpe":
            conditional = any(dimension.when for dimension in search.space.values())
            return TPESampler(
                n_startup_trials=startup,
                # Without groups, fields that some points lack would be drawn each by itself.
                group=conditional and len(search.objective) == 1,
                constant_liar=True,
                seed=seed,
            )
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        case "quasi_random":
            return _Sequence(search, drawn)
        case "nsga2":
            return NSGAIISampler(
                population_size=max(4, min(50, search.points // POPULATION_PART)),
                # By default one field of each point is drawn anew: with one field that is random search.
                mutation=PolynomialMutation(eta=MUTATION_INDEX),
                crossover=SBXCrossover(),
                seed=seed,
            )
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


def pruner_of(search: Search) -> BasePruner:
    """What gives up a point before it is complete."""
    match search.pruning:
        case "seeds":
            return WilcoxonPruner(n_startup_steps=JUDGED_SEEDS, p_threshold=WILCOXON_LEVEL)
        case "hyperband":
            return HyperbandPruner(reduction_factor=REDUCTION)
        case "median":
            return MedianPruner()
        case "none":
            return NopPruner()


def reason_of(search: Search, study: optuna.Study, trial: FrozenTrial, step: int) -> str:
    """Why the pruner gives up a trial at a step: one sentence, with the numbers that it went by."""
    higher = study.direction is StudyDirection.MAXIMIZE
    best, worse = (max, "below") if higher else (min, "above")
    values = trial.intermediate_values
    if search.pruning == "seeds":
        others = study.best_trial.intermediate_values
        shared = sorted(values.keys() & others.keys())
        mean, best_mean = (statistics.fmean(of[seed] for seed in shared) for of in (values, others))
        return (
            f"The mean over {len(shared)} seeds, {mean:.4g}, is {worse} that of point "
            f"{study.best_trial.number} over the same seeds, {best_mean:.4g} "
            f"(Wilcoxon test, p < {WILCOXON_LEVEL:g})."
        )
    states = (TrialState.COMPLETE,) if search.pruning == "median" else None
    reached = [other.intermediate_values for other in study.get_trials(deepcopy=False, states=states)]
    at_step = [other[step] for other in reached if step in other]
    if search.pruning == "median":
        return (
            f"The best value up to epoch {step}, {best(values.values()):.4g}, is {worse} the median of the "
            f"complete points at that epoch, {statistics.median(at_step):.4g}."
        )
    return (
        f"The value at epoch {step}, {values[step]:.4g}, is not in the best 1/{REDUCTION} of those that "
        f"Hyperband compared it with; the best of any point at that epoch is {best(at_step):.4g}."
    )
