"""The smallest effect that a plan's seeds can detect, from the spread of what is recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablate.errors import RecordError
from ablate.metrics import METRICS, Predictions
from ablate.stats import PairedEffect, minimal_detectable_effect, paired_effect, seeds_needed
from ablate.store.records import Record, read_predictions
from ablate.store.results import ResultsFolder
from ablate.study.trials import Plan

POWER = 0.8
FEWEST_PAIRS = 3
"""Pairs that a comparison must have before its spread counts."""


@dataclass(frozen=True)
class Detectable:
    """The smallest difference of the primary metric that the planned seeds detect with 80 % power.

    Attributes:
        metric: the primary metric.
        effect: in the metric's unit, or in standard deviations of the paired differences where `sd` is NaN;
            infinite with one seed.
        sd: of the paired differences, pooled over the comparisons; NaN where it is not known.
        pairs: recorded pairs that it comes from; 0 before a comparison has three.
        comparisons: how many share the 5 % (Bonferroni).
        margin: the study's largest difference that does not matter; NaN without one.
        seeds_for_margin: seeds that detect a difference of `margin`; None where it cannot be told.
    """

    metric: str
    effect: float
    sd: float
    pairs: int
    comparisons: int
    margin: float
    seeds_for_margin: int | None


def detectable_effect(plan: Plan, folder: ResultsFolder, records: Mapping[str, Record]) -> Detectable | None:
    """What the planned seeds can show of the primary metric, every planned comparison corrected for.

    Args:
        plan: the study.
        folder: where the predictions of its recorded trials are.
        records: by trial_id.

    Returns:
        None where no arm is compared with another.
    """
    study, pairs = plan.study, plan.comparisons
    if not pairs:
        return None
    size = study.family_size(study.primary, len(pairs))
    seeds = len(study.seed_list())
    values = _primary_values(plan, folder, records)
    effects = [paired_effect(values[arm], values[baseline]) for arm, baseline in pairs]
    sd, counted = pooled_sd(effects)
    margin = study.all_margins.get(study.primary, math.nan)
    # The power functions take the sd within an arm; without correlation, differences have sqrt(2) times that.
    within = (1.0 if math.isnan(sd) else sd) / math.sqrt(2)
    return Detectable(
        metric=study.primary,
        effect=minimal_detectable_effect(seeds, sd=within, power=POWER, comparisons=size),
        sd=sd,
        pairs=counted,
        comparisons=size,
        margin=margin,
        seeds_for_margin=_seeds_for(margin, sd, size),
    )


def _seeds_for(margin: float, sd: float, size: int) -> int | None:
    if not (margin > 0 and sd > 0):
        return None
    try:
        return seeds_needed(margin, sd=sd / math.sqrt(2), power=POWER, comparisons=size)
    except ValueError:
        return None  # a margin far below what any number of seeds can see


def pooled_sd(effects: Iterable[PairedEffect]) -> tuple[float, int]:
    """Standard deviation of paired differences over all comparisons with at least three pairs.

    Returns:
        The root of the mean variance, weighted by degrees of freedom, and the pairs it comes from: 0 where no
        comparison has three pairs. NaN without pairs, and where no difference varies: no spread says nothing.
    """
    counted = [effect for effect in effects if effect.n >= FEWEST_PAIRS]
    freedom = sum(effect.n - 1 for effect in counted)
    squares = sum((effect.n - 1) * effect.sd**2 for effect in counted)
    sd = math.sqrt(squares / freedom) if squares > 0 else math.nan
    return sd, sum(effect.n for effect in counted)


def _primary_values(
    plan: Plan, folder: ResultsFolder, records: Mapping[str, Record]
) -> dict[str, NDArray[np.float64]]:
    """Each arm's primary metric by seed, NaN where there is none."""
    metric, seeds = METRICS[plan.study.primary], plan.study.seed_list()
    values = {arm: np.full(len(seeds), np.nan) for arm in plan.arms}
    for trial in plan.trials:
        record = records.get(trial.trial_id)
        if record is None or record.status != "complete" or trial.repeat:
            continue
        try:
            stored = read_predictions(folder, record)
        except RecordError:
            continue  # published without predictions, or damaged: the run will say so
        score = metric.score(Predictions.of(stored.logits, stored.labels))
        values[trial.arm][seeds.index(trial.seed)] = score
    return values
