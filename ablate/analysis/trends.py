"""Trends over factors of numbers: what changes along a straight line from the lowest level to the highest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.arms import FloatArray, factor_label, level_label
from ablate.analysis.averages import alike_grid, averaged, judgement, values_grids
from ablate.analysis.effects import SHOWN, compared_metrics, difference_column, effect_cell
from ablate.stats import PairedEffect, trend
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables import frame
from ablate.tables.cells import Json, cell, column, table

LEAST_LEVELS = 3
"""Over two levels a trend is their difference, which the other tables have."""


@dataclass(frozen=True)
class Ordered:
    """A factor whose levels are numbers: its name, its axis among the factors, its levels in their order."""

    factor: str
    axis: int
    levels: tuple[float, ...]

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest level."""
        return min(self.levels), max(self.levels)


def ordered_factors(study: Study) -> list[Ordered]:
    """The factors with three levels or more, all of them numbers; none where the arms are no grid."""
    if study.only:
        return []
    return [
        Ordered(name, axis, tuple(levels))
        for axis, (name, levels) in enumerate(study.factors.items())
        if len(levels) >= LEAST_LEVELS and all(type(level) in (int, float) for level in levels)
    ]


def trends_table(trials: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Trends with intervals, tests and verdicts.

    Each seed gives one slope, by least squares over the levels, of the means over the combinations of the
    other factors' levels; effects are slopes times the factor's range. Where trials are missing, `cells` and
    `n_pairs` say over what the average is, and the trend is undecided. Intervals of the family's metrics are
    simultaneous over all trends (Bonferroni); those of other metrics are 95 % each.

    Args:
        trials: the trials table.
        plan: the study's plan.

    Returns:
        The `trends` table: one row per factor of numbers and metric.

    Raises:
        StudyError: the study is about a column that the trials table does not have.
    """
    study, asked, rows = plan.study, ordered_factors(plan.study), list[dict[str, Any]]()
    if not asked:
        return frame("trends", [])
    alike = alike_grid(trials, plan)
    for metric, grid in values_grids(trials, plan, compared_metrics(study)).items():
        size = study.family_size(metric, len(asked))
        rows += [_row(factor, metric, grid, alike, study, size) for factor in asked]
    return frame("trends", rows)


def _row(
    factor: Ordered, metric: str, grid: FloatArray, alike: NDArray[np.int64], study: Study, size: int
) -> dict[str, Any]:
    seeds = grid.shape[-1]
    levels = np.moveaxis(grid, factor.axis, 0).reshape(len(factor.levels), 1, -1, seeds)
    values, cells = averaged(levels)
    planned, (lowest, highest) = levels.shape[2], factor.ends
    found = _change(values, factor, size)
    same = bool((alike == np.take(alike, [0], axis=factor.axis)).all())
    return {
        "factor": factor.factor,
        "lowest": lowest,
        "highest": highest,
        "levels": len(factor.levels),
        "metric": metric,
        "cells": cells,
        "cells_planned": planned,
        "n_pairs": found.n,
        "effect": found.effect,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    } | judgement(found, metric, study, complete=cells == planned, identical=same)


def _change(values: FloatArray, factor: Ordered, size: int) -> PairedEffect:
    """The slope of values [L, S] per range of the factor: the change from its lowest level to its highest."""
    lowest, highest = factor.ends
    found = trend(
        values, [(level - lowest) / (highest - lowest) for level in factor.levels], comparisons=size
    )
    if found.sd == 0 and abs(found.effect) <= 1e-12 * float(np.nanmax(np.abs(values))):  # rounding alone
        return replace(found, effect=0.0)
    return found


def trends_view(table_: pd.DataFrame, plan: Plan) -> Json | None:
    """The trends as the report shows them: a row per factor; None without a factor of numbers."""
    if table_.empty:
        return None
    study = plan.study
    metrics = tuple(dict.fromkeys((study.primary, *study.comparison_family, *SHOWN)))
    heads = [column("Factor", numeric=False), column("From", meaning="its lowest level")]
    heads += [column("To", meaning="its highest level"), column("Levels")]
    heads += [column("Averaged over", meaning="combinations of the other factors' levels"), column("Seeds")]
    heads += [difference_column(metric, study) for metric in metrics]
    by_key = {(row["factor"], row["metric"]): row for _, row in table_.iterrows()}
    rows = []
    for place, factor in enumerate(ordered_factors(study)):
        own = {metric: by_key[factor.factor, metric] for metric in metrics}
        first = own[study.primary]
        row = [cell(factor_label(factor.factor), value=float(place))]
        row += [cell(level_label(end), value=float(end)) for end in factor.ends]
        row += [cell(str(len(factor.levels)), value=float(len(factor.levels)))]
        row += [cell(f"{int(first['cells'])}/{int(first['cells_planned'])}", value=float(first["cells"]))]
        row += [cell(str(int(first["n_pairs"])), value=float(first["n_pairs"]))]
        rows.append([*row, *(effect_cell(effect, metric, study) for metric, effect in own.items())])
    return table(heads, rows)
