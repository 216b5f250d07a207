"""How sure the differences of the study's family are: everything that its statistics say of each."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ablate.analysis.arms import arm_cells
from ablate.stats import smallest_sign_flip_p
from ablate.study.trials import Plan
from ablate.tables import COLUMNS
from ablate.tables.cells import Json, cell, column, table
from ablate.tables.quantities import (
    ABSENT,
    Quantity,
    quantity,
    shown,
    shown_decimal,
    shown_difference,
    shown_p,
)

HEADS = {
    "arm": "Arm",
    "baseline": "Against",
    "metric": "Metric",
    "n_pairs": "Pairs",
    "effect": "Difference",
    "low": "Over seeds",
    "low_images": "New images too",
    "p": "p",
    "p_adjusted": "Adjusted p",
    "p_holm": "Holm's p",
    "p_sign_flip": "Sign-flip p",
    "rho": "ρ",
    "detectable": "Detectable",
    "seeds_needed": "Seeds needed",
}
"""Column of the effects table to what it is called; one that starts an interval stands for both ends."""
MEANINGS = {
    "low": "95 % interval for new training runs on these images: of all the family's together, or of a "
    "metric outside it alone",
    "low_images": "the same for new images as well; only for metrics that are means over images",
    "p_sign_flip": "exact test without an assumed normal spread, uncorrected; below it the smallest p that "
    "so many pairs can give",
}
TEXT = ("arm", "baseline", "metric")


def certainty_view(effects: pd.DataFrame, plan: Plan) -> Json | None:
    """A row per arm and metric, for the primary metric and the family's; None without comparisons.

    Args:
        effects: the effects table.
        plan: the study's plan.
    """
    if effects.empty:
        return None
    meaning = {known.name: known.description for known in COLUMNS["effects"]} | MEANINGS
    heads = [column(label, meaning=meaning[name], numeric=name not in TEXT) for name, label in HEADS.items()]
    metrics = tuple(dict.fromkeys((plan.study.primary, *plan.study.comparison_family)))
    by_key = {(row["arm"], row["metric"]): row for _, row in effects.iterrows()}
    names = arm_cells(plan)
    rows = [
        [names[arm], names[baseline], *_cells(by_key[arm, metric], quantity(metric))]
        for arm, baseline in plan.comparisons
        for metric in metrics
    ]
    return table(heads, rows)


def _cells(row: pd.Series[Any], what: Quantity) -> list[Json]:
    """All cells after the arms'."""
    pairs = int(row["n_pairs"])
    return [
        cell(what.label, notes=[what.difference_unit]),
        cell(str(pairs), value=float(pairs)),
        cell(shown_difference(row["effect"], what), value=float(row["effect"])),
        _interval_cell(row["low"], row["high"], what),
        _interval_cell(row["low_images"], row["high_images"], what),
        *(cell(shown_p(row[name]), value=float(row[name])) for name in ("p", "p_adjusted", "p_holm")),
        _sign_flip_cell(float(row["p_sign_flip"]), pairs),
        cell(shown_decimal(row["rho"], 2), value=float(row["rho"])),
        cell(shown(row["detectable"], what), value=float(row["detectable"])),
        _seeds_cell(row),
    ]


def _interval_cell(low: float, high: float, what: Quantity) -> Json:
    """Both ends, sorted by the lower one."""
    known = math.isfinite(low)
    text = f"{shown_difference(low, what)} to {shown_difference(high, what)}" if known else ABSENT
    return {**cell(text, value=float(low)), "low": low, "high": high}


def _sign_flip_cell(p: float, pairs: int) -> Json:
    smallest = shown_p(smallest_sign_flip_p(pairs)) if pairs else ""
    notes = [f"smallest {smallest}"] if pairs else []
    return cell(shown_p(p), value=p, notes=notes)


def _seeds_cell(row: pd.Series[Any]) -> Json:
    if not pd.isna(row["seeds_needed"]):
        return cell(str(int(row["seeds_needed"])), value=float(row["seeds_needed"]))
    beyond = row["verdict"] == "undecided" and math.isfinite(row["low"])
    return cell("> 1,000" if beyond else ABSENT, value=math.inf)
