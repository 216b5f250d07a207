"""Optuna's samplers by the search's names for them, a new one for every point."""

from __future__ import annotations

import numpy as np
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover

from ablate.study.search import Search

STARTUP_PART = 4
"""One point in so many is drawn at random before TPE and the GP judge by what they have seen."""
MOST_STARTUP = 10
POPULATION_PART = 6
"""NSGA-II has about so many generations within the budget."""
MUTATION_INDEX = 3.0
"""The less, the farther NSGA-II's mutations reach; a small budget has no time for short steps."""


def sampler_of(search: Search, number: int) -> BaseSampler:
    """The sampler for one point.

    A sampler that went from point to point would carry random numbers and caches that nothing stores; so what
    a new one draws follows from the study, the search's seed and the point's number alone.
    """
    seed = int(np.random.SeedSequence([search.sampler_seed, number]).generate_state(1)[0])
    startup = max(1, min(MOST_STARTUP, search.points // STARTUP_PART))
    match search.sampler:
        case "tpe":
            return _tpe(search, seed, startup)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        case "quasi_random":
            # One sequence for all points; which of its terms is next stands in the study's attributes.
            return QMCSampler(scramble=True, seed=search.sampler_seed, warn_independent_sampling=False)
        case "nsga2":
            population = max(4, min(50, search.points // POPULATION_PART))
            return NSGAIISampler(
                population_size=population,
                # By default one field of each point is drawn anew: with one field that is random search.
                mutation=PolynomialMutation(eta=MUTATION_INDEX),
                crossover=SBXCrossover(),
                seed=seed,
            )
        case "random":
            return RandomSampler(seed=seed)


def _tpe(search: Search, seed: int, startup: int) -> TPESampler:
    conditional = any(dimension.when for dimension in search.space.values())
    return TPESampler(
        n_startup_trials=startup,
        # Without groups, fields that some points lack would be drawn each by itself.
        group=conditional and len(search.objective) == 1,
        constant_liar=True,
        seed=seed,
    )
