"""Averages over combinations of factor levels: which combinations and seeds count, how they are judged.

Each seed's average is over the same combinations, so that what differs between seeds is the seeds' alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.arms import FloatArray, complete_trials, finite_numbers
from ablate.analysis.identical import identical_arms
from ablate.stats import PairedEffect, verdicts
from ablate.stats.paired import as_arrays
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables.quantities import quantity


def values_grids(trials: pd.DataFrame, plan: Plan, metrics: tuple[str, ...]) -> dict[str, FloatArray]:
    """Each metric's values, one axis per factor and a last one for the seeds; NaN where there is none."""
    seeds = plan.study.seed_list()
    cells = pd.MultiIndex.from_product([plan.arms, seeds])
    complete = complete_trials(trials).set_index(["arm", "seed"])[list(metrics)].reindex(cells)
    shape = (*_shape(plan), len(seeds))
    return {metric: finite_numbers(complete[metric]).reshape(shape) for metric in metrics}


def alike_grid(trials: pd.DataFrame, plan: Plan) -> NDArray[np.int64]:
    """One axis per factor: arms that gave the same predictions on every planned seed have the same number."""
    place = {arm: at for at, arm in enumerate(plan.arms)}
    numbers = np.arange(len(place))
    for group in identical_arms(trials, plan):
        numbers[[place[arm] for arm in group]] = place[group[0]]
    return numbers.reshape(_shape(plan))


def _shape(plan: Plan) -> list[int]:
    return [len(levels) for levels in plan.study.factors.values()]


def most_values(complete: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """The combinations and the seeds to average over: those that keep the most values.

    Every kept combination is complete on every kept seed, so that no seed's mean is over other combinations
    than another's. Which are kept depends on what is there, never on its values.

    Args:
        complete: [combinations, seeds], whether all that is needed of one is there.
    """
    order = sorted(range(len(complete)), key=lambda row: -int(complete[row].sum()))
    best: tuple[list[int], list[int]] = ([], [])
    for count in range(1, len(order) + 1):
        rows = sorted(order[:count])
        seeds = np.flatnonzero(complete[rows].all(axis=0)).tolist()
        if seeds and count * len(seeds) >= len(best[0]) * len(best[1]):
            best = rows, seeds
    return best


def averaged(sides: FloatArray) -> tuple[FloatArray, int]:
    """What is averaged of each side within each seed, and over how many combinations.

    Args:
        sides: [sides, terms, combinations, seeds]; NaN where a trial is missing. A combination counts where
            all terms of all sides are there.

    Returns:
        [sides, seeds], the mean over the kept combinations of the sum of the terms, exactly rounded; NaN for
        the other seeds.
    """
    kept, seeds = most_values(np.asarray(~np.isnan(sides).any(axis=(0, 1))))
    values = np.full((len(sides), sides.shape[-1]), np.nan)
    for seed in seeds:
        for side, terms in enumerate(sides):
            values[side, seed] = math.fsum(terms[:, kept, seed].ravel()) / len(kept)
    return values, len(kept)


def judgement(
    found: PairedEffect,
    metric: str,
    study: Study,
    *,
    complete: bool,
    directed: bool = True,
    identical: bool = False,
) -> dict[str, Any]:
    """The columns from margin to below_margin of an average, and its adjusted p.

    Args:
        found: the average over seeds.
        metric: what it is of.
        study: says the margin and how many seeds were planned.
        complete: it is over all planned combinations; otherwise it stays undecided.
        directed: higher or lower can be better; not so for an interaction.
        identical: the levels gave the same predictions throughout.
    """
    margin = study.all_margins.get(metric, math.nan)
    better = {"higher": True, "lower": False}.get(quantity(metric).better) if directed else None
    judged = verdicts(
        as_arrays(found),
        planned=len(study.seed_list()),
        higher_is_better=better,
        margin=margin,
        identical=identical,
    )
    return {
        "p_adjusted": float(judged.p_adjusted),
        "margin": margin,
        "p_equivalence": float(judged.p_equivalence),
        "verdict": str(judged.word) if complete else "undecided",
        "reason": str(judged.reason) if complete else "incomplete",
        "below_margin": complete and bool(judged.below_margin),
    }
