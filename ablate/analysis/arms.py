"""Arms in words, their means over training runs, and the table of arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.errors import RecordError
from ablate.metrics import FLOORS
from ablate.stats import Interval, mean_interval
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables import TUNING, Tables
from ablate.tables.cells import Json, cell, clean, column, one_line, quantity_column, table
from ablate.tables.quantities import Quantity, quantity, shown

FloatArray = NDArray[np.float64]
ARM_METRICS = (
    "accuracy",
    "nll",
    "brier",
    "ece",
    "confidence_gap",
    "temperature",
    "ece_scaled",
)
MORE_METRICS = (
    "ece_equal_mass",
    "ece_debiased",
    "smece",
    "classwise_ece",
    "mce",
    "nll_scaled",
    "mean_confidence",
    "auroc_error",
    "auroc_error_normalised",
    "aurc",
    "eaurc",
    "coverage_at_1",
    "coverage_at_2",
    "scatter_within",
    "scatter_between",
)
FLOOR = dict(FLOORS)
"""Metrics that are never shown without the value a perfectly calibrated network would score."""


@dataclass(frozen=True)
class Arm:
    """One combination of levels, as planned.

    Attributes:
        name: its name in the tables.
        label: its name in the report.
        levels: factor to level.
        planned: how many training runs were planned.
    """

    name: str
    label: str
    levels: Mapping[str, Any]
    planned: int


def planned_arms(plan: Plan) -> dict[str, Arm]:
    """The arms by name, in the study's order."""
    planned = Counter(trial.arm for trial in plan.trials if trial.repeat == 0)
    levels = {trial.arm: trial.levels for trial in plan.trials}
    return {arm: Arm(arm, arm_label(levels[arm]), levels[arm], planned[arm]) for arm in plan.arms}


def arm_label(levels: Mapping[str, Any]) -> str:
    """An arm's levels as a reader writes them: ε=0.1, arch=xresnet18."""
    parts = [f"{factor_label(name)}={level_label(level)}" for name, level in levels.items()]
    return ", ".join(parts) or "all runs"


def factor_label(name: str) -> str:
    """A factor as a reader writes it."""
    return "ε" if name == "epsilon" else name


def level_label(level: Any) -> str:
    """A level as a reader writes it."""
    text = f"{level:.12g}" if isinstance(level, float) else str(level)
    return one_line(str(clean(text)), longest=80)


def labels_of(plan: Plan) -> dict[str, str]:
    """Arm name to label, in the study's order."""
    return {arm.name: arm.label for arm in planned_arms(plan).values()}


def arm_cells(plan: Plan) -> dict[str, Json]:
    """For each arm the cell that names it, sorted in the study's order."""
    return {
        arm: cell(label, value=float(place)) for place, (arm, label) in enumerate(labels_of(plan).items())
    }


def of_plan(tables: Tables, plan: Plan) -> Tables:
    """The tables with each row's arm as the plan names it, since a CSV may change a name's line breaks.

    Raises:
        RecordError: the tables are of other trials than the plan's.
    """
    if list(tables["trials"]["trial_id"]) != [trial.trial_id for trial in plan.trials]:
        raise RecordError(
            "the tables hold other trials than study.json plans; write them again with "
            "`python -m ablate report`"
        )
    arm_of = {trial.trial_id: trial.arm for trial in plan.trials}
    plain = {_plain(arm): arm for arm in plan.arms}
    named = dict(tables)
    for name, rows in tables.items():
        if name in TUNING:
            continue  # its trials are not the plan's
        if "trial_id" in rows:
            named[name] = rows.assign(arm=rows["trial_id"].map(arm_of).astype("string"))
        elif "arm" in rows:
            arms = {side: rows[side].map(_plain).map(plain) for side in ("arm", "baseline") if side in rows}
            named[name] = rows.assign(**{side: found.astype("string") for side, found in arms.items()})
    return named


def _plain(arm: str) -> str:
    return "\n".join(arm.splitlines())


def complete_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The training runs that count: complete, and not a deliberate second run of another."""
    return trials[(trials["status"] == "complete") & (trials["repeat"] == 0)].copy()


def arm_interval(complete: pd.DataFrame, arm: str, metric: str) -> Interval:
    """Mean of an arm's training runs with its 95 % t interval."""
    return mean_interval(finite_numbers(complete.loc[complete["arm"] == arm, metric]))


def finite_numbers(values: pd.Series[Any]) -> FloatArray:
    """A column as float64, NaN where it has no finite number."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def interval_text(interval: Interval, what: Quantity) -> str:
    """The ends of an interval, or why there is none."""
    if interval.n == 1:
        return "n = 1: no interval"
    if interval.n == 0:
        return ""
    if interval.sd == 0:
        return "all runs equal"
    return f"{shown(interval.low, what)} to {shown(interval.high, what)}"


def reported_metrics(study: Study) -> tuple[str, ...]:
    """The metrics of the table of arms: the primary one first, then the usual ones and the family's."""
    return tuple(dict.fromkeys((study.primary, *ARM_METRICS, *study.comparison_family)))


def arms_table(trials: pd.DataFrame, plan: Plan) -> Json:
    """The main metrics of every arm."""
    return metrics_table(trials, plan, reported_metrics(plan.study))


def more_metrics_table(trials: pd.DataFrame, plan: Plan) -> Json:
    """The metrics of every arm that the main table leaves out."""
    shown_already = reported_metrics(plan.study)
    return metrics_table(trials, plan, [name for name in MORE_METRICS if name not in shown_already])


def metrics_table(trials: pd.DataFrame, plan: Plan, metrics: Iterable[str]) -> Json:
    """One row per arm: mean, 95 % interval and n of each metric; calibration errors with their floors."""
    complete, metrics = complete_trials(trials), list(metrics)
    heads = [column("Arm", numeric=False), column("Runs", meaning="complete of planned training runs")]
    heads += [quantity_column(quantity(metric)) for metric in metrics]
    rows, names, of_arm = [], arm_cells(plan), dict(list(complete.groupby("arm", sort=False)))
    for arm in planned_arms(plan).values():
        own = of_arm.get(arm.name, complete.iloc[:0])
        row = [names[arm.name], cell(f"{len(own)}/{arm.planned}", value=float(len(own)))]
        rows.append([*row, *(_mean_cell(own, arm, metric) for metric in metrics)])
    return table(heads, rows)


def _mean_cell(complete: pd.DataFrame, arm: Arm, metric: str) -> Json:
    what, interval = quantity(metric), arm_interval(complete, arm.name, metric)
    notes = [interval_text(interval, what)]
    if metric in FLOOR and interval.n:
        floor = arm_interval(complete, arm.name, FLOOR[metric]).mean
        notes.append(f"floor {shown(floor, what)}")
    numbers = {"n": interval.n, "low": interval.low, "high": interval.high}
    return {**cell(shown(interval.mean, what), value=interval.mean, notes=notes), **numbers}


def arm_means(complete: pd.DataFrame, arms: Iterable[Arm], metric: str) -> pd.DataFrame:
    """One row per arm: arm, mean, low, high, n of a metric."""
    rows, of_arm = [], dict(list(complete.groupby("arm", sort=False)[metric]))
    for arm in arms:
        interval = mean_interval(finite_numbers(of_arm.get(arm.name, complete[metric].iloc[:0])))
        rows.append((arm.name, interval.mean, interval.low, interval.high, interval.n))
    return pd.DataFrame(rows, columns=["arm", "mean", "low", "high", "n"])
