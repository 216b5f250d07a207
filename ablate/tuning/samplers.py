"""Optuna's samplers by the search's names for them, a new one for every point."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover
from optuna.trial import FrozenTrial

from ablate.study.search import Search
from ablate.tuning.space import distribution_of

STARTUP_PART = 4
"""One point in so many is drawn at random before TPE and the GP judge by what they have seen."""
MOST_STARTUP = 10
POPULATION_PART = 6
"""NSGA-II has about so many generations within the budget."""
MUTATION_INDEX = 3.0
"""The less, the farther NSGA-II's mutations reach; a small budget has no time for short steps."""


def sampler_of(search: Search, number: int, drawn: int) -> BaseSampler:
    """The sampler for one point.

    A sampler that went from point to point would carry random numbers and caches that nothing stores; so what
    a new one draws follows from the study, the search's seed, the point's number and how many before it were
    drawn, not given.
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

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        # Left alone, it spreads only the fields that the first point happens to have.
        return {name: distribution_of(dimension) for name, dimension in self._space.items()}

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        # Optuna counts in the study, where a point that was being asked for when all stopped counts twice.
        return self._drawn
