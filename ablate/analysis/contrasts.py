"""Main effects and interactions of a study with several factors, seed by seed.

A main effect is the difference between two levels of a factor, averaged over the levels of the others. An
interaction is how much such a difference changes between two levels of another factor: a difference of
differences. Each is computed within a seed, so the seeds' shared luck cancels, and then over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.arms import FloatArray, factor_label, level_label
from ablate.analysis.averages import alike_grid, averaged, judgement, values_grids
from ablate.analysis.effects import compared_metrics, difference_column, effect_cell, holm_corrected
from ablate.stats import paired_effect
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables import frame
from ablate.tables.cells import Json, cell, column, table

SHOWN = ("accuracy", "nll", "ece", "mean_confidence")


@dataclass(frozen=True)
class Step:
    """From a factor's reference level to another one; places are those in the factor's levels."""

    factor: str
    axis: int
    level: int
    reference: int


Contrast = tuple[Step, ...]
"""One step is a main effect, two are an interaction."""


def contrasts(study: Study) -> list[Contrast]:
    """Every main effect, then every interaction of two factors; none unless two factors have two levels.

    The reference level of a factor is its baseline, or its first.
    """
    if study.only:  # arms that are no grid have nothing to average over
        return []
    by_factor = [list(_steps(study, name)) for name in study.factors if len(study.factors[name]) > 1]
    if len(by_factor) < 2:
        return []
    mains: list[Contrast] = [(step,) for steps in by_factor for step in steps]
    return mains + [
        (step, other) for first, second in combinations(by_factor, 2) for step in first for other in second
    ]


def _steps(study: Study, factor: str) -> Iterator[Step]:
    levels = list(study.factors[factor])
    reference = levels.index(study.baseline[factor]) if factor in study.baseline else 0
    for place in range(len(levels)):
        if place != reference:
            yield Step(factor, list(study.factors).index(factor), place, reference)


def contrasts_table(trials: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Main effects and interactions with intervals, tests and verdicts.

    Intervals of the family's metrics are simultaneous over all contrasts (Bonferroni), their adjusted p
    likewise; those of other metrics are 95 % each. Where trials are missing, the average is over those
    combinations of the other factors' levels, and those seeds, that keep the most values; `cells` and
    `n_pairs` say how many, and fewer than planned leave a contrast undecided. An interaction is never better
    or worse.

    Args:
        trials: the trials table.
        plan: the study's plan.

    Returns:
        The `contrasts` table: one row per contrast and metric; empty for a study of fewer than two factors.
    """
    study, asked, rows = plan.study, contrasts(plan.study), list[dict[str, Any]]()
    if not asked:
        return frame("contrasts", [])
    alike = alike_grid(trials, plan)
    for metric, grid in values_grids(trials, plan, compared_metrics(study)).items():
        size = study.family_size(metric, len(asked))
        rows += [_row(contrast, metric, grid, alike, study, size) for contrast in asked]
    return holm_corrected(frame("contrasts", rows), study)


def _row(
    contrast: Contrast, metric: str, grid: FloatArray, alike: NDArray[np.int64], study: Study, size: int
) -> dict[str, Any]:
    (plus, minus), cells, planned = _sides(contrast, grid)
    found = paired_effect(plus, minus, comparisons=size)
    if found.sd == 0 and abs(found.effect) <= 1e-12 * float(np.nanmax(np.abs(plus))):  # rounding alone
        found = replace(found, effect=0.0)
    row: dict[str, Any] = {"kind": "main effect" if len(contrast) == 1 else "interaction", "metric": metric}
    for prefix, step in zip(("", "other_"), contrast, strict=False):
        levels = study.factors[step.factor]
        row[f"{prefix}factor"] = step.factor
        row[f"{prefix}level"], row[f"{prefix}reference"] = (
            str(levels[step.level]),
            str(levels[step.reference]),
        )
    row |= {"cells": cells, "cells_planned": planned, "n_pairs": found.n}
    row |= {"effect": found.effect, "low": found.low, "high": found.high, "p": found.p, "p_holm": math.nan}
    return row | judgement(
        found,
        metric,
        study,
        complete=cells == planned,
        directed=len(contrast) == 1,
        identical=_identical(contrast, alike),
    )


def _sides(contrast: Contrast, grid: FloatArray) -> tuple[FloatArray, int, int]:
    """What is compared with what within each seed, [2, S], and over how many of the planned combinations.

    Two sides and not one difference: what rounding can make of equal differences is told by their size.
    """
    plus, minus = [grid], list[FloatArray]()
    for step in contrast:
        level, reference = (
            [[np.take(cells, [at], axis=step.axis) for cells in side] for side in (plus, minus)]
            for at in (step.level, step.reference)
        )
        plus, minus = level[0] + reference[1], level[1] + reference[0]
    sides = np.stack(
        [[cells.reshape(-1, grid.shape[-1]) for cells in side] for side in (plus, minus)]
    )  # [sides, terms, combinations, S]
    values, kept = averaged(sides)
    return values, kept, sides.shape[2]


def _identical(contrast: Contrast, alike: NDArray[np.int64]) -> bool:
    """Whether the levels of one factor gave the same predictions at all levels of the others in question."""
    for step in contrast:
        cells = alike
        for other in contrast:
            if other != step:
                cells = np.take(cells, [other.level, other.reference], axis=other.axis)
        level, reference = (np.take(cells, at, axis=step.axis) for at in (step.level, step.reference))
        if (level == reference).all():
            return True
    return False


def contrasts_view(table_: pd.DataFrame, plan: Plan) -> Json | None:
    """The contrasts as the report shows them; None for a study of fewer than two factors."""
    if table_.empty:
        return None
    study, asked = plan.study, contrasts(plan.study)
    metrics = tuple(dict.fromkeys((study.primary, *study.comparison_family, *SHOWN)))
    heads = [column("Contrast", numeric=False), column("Kind", numeric=False)]
    heads += [column("Averaged over", meaning="combinations of the other factors' levels"), column("Seeds")]
    heads += [difference_column(metric, study) for metric in metrics]
    rows = []
    for place, contrast in enumerate(asked):
        own = {metric: _found(table_, metric, place) for metric in metrics}
        first = own[study.primary]
        averaged = f"{int(first['cells'])}/{int(first['cells_planned'])}"
        row = [cell(contrast_label(contrast, study), value=float(place)), cell(str(first["kind"]))]
        row += [cell(averaged, value=float(first["cells"]))]
        row += [cell(str(int(first["n_pairs"])), value=float(first["n_pairs"]))]
        rows.append([*row, *(effect_cell(effect, metric, study) for metric, effect in own.items())])
    return table(heads, rows)


def _found(table_: pd.DataFrame, metric: str, place: int) -> pd.Series[Any]:
    return table_[table_["metric"] == metric].iloc[place]


def contrast_label(contrast: Contrast, study: Study) -> str:
    """A contrast as a reader writes it: ε: 0.1 − 0, or ε: 0.1 − 0 × arch: xresnet18 − seed_cnn."""
    parts = []
    for step in contrast:
        levels = study.factors[step.factor]
        level, reference = level_label(levels[step.level]), level_label(levels[step.reference])
        parts.append(f"{factor_label(step.factor)}: {level} − {reference}")
    return " × ".join(parts)
