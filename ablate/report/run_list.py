"""Trials one by one: those that failed, and all of them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ablate.report.views import arm_cells
from ablate.study.trials import Plan
from ablate.tables.cells import Json, cell, column, one_line, quantity_column, table
from ablate.tables.quantities import ABSENT, quantity, shown

TRIAL_METRICS = (
    "accuracy",
    "nll",
    "brier",
    "ece",
    "ece_floor",
    "mean_confidence",
    "temperature",
    "ece_scaled",
    "step_ms",
    "train_seconds",
)


def failures_table(trials: pd.DataFrame, plan: Plan) -> Json | None:
    """Trials that ran and have no result, with the reason; None without any."""
    failed = trials[~trials["status"].isin(["complete", "missing"])]
    if failed.empty:
        return None
    heads = [column(label, numeric=label == "Seed") for label in ("Trial", "Arm", "Seed", "Status", "Reason")]
    names = arm_cells(plan)
    rows = [
        [
            cell(row["trial_id"]),
            names[row["arm"]],
            cell(str(row["seed"]), value=float(row["seed"])),
            cell(row["status"]),
            cell(one_line(_text(row["failure"]))),
        ]
        for _, row in failed.iterrows()
    ]
    return table(heads, rows)


def trials_table(trials: pd.DataFrame, plan: Plan) -> Json:
    """Every planned trial with its metrics."""
    heads = [column("Trial", numeric=False), column("Arm", numeric=False), column("Seed")]
    heads += [column("Status", numeric=False), *(quantity_column(quantity(name)) for name in TRIAL_METRICS)]
    rows, names = [], arm_cells(plan)
    for _, row in trials.iterrows():
        repeat = f", repeat {row['repeat']}" if row["repeat"] else ""
        start = [cell(row["trial_id"]), names[row["arm"]]]
        start += [cell(f"{row['seed']}{repeat}", value=float(row["seed"])), cell(row["status"])]
        rows.append([*start, *(_number(row[name], name) for name in TRIAL_METRICS)])
    return table(heads, rows)


def _number(value: Any, name: str) -> Json:
    return cell(shown(float(value), quantity(name)), value=float(value))


def _text(value: Any) -> str:
    return ABSENT if pd.isna(value) else str(value)
