"""The effects table: every arm against its baseline arm, metric by metric, over the seeds both completed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ablate.errors import StudyError
from ablate.metrics import METRICS
from ablate.report.arms import FloatArray, arm_cell, complete_trials, finite_numbers, planned_arms
from ablate.report.cells import Json, cell, column, table
from ablate.report.quantities import number_columns, quantity, shown_difference, shown_p
from ablate.stats import PairedEffect, holm, paired_effect
from ablate.study import Study
from ablate.tables import frame
from ablate.trials import Plan

NOT_COMPARED = {"ece_floor"}
"""Metrics of the measurement, not of the network."""

SHOWN = ("accuracy", "nll", "brier", "ece", "ece_scaled", "mean_confidence", "confidence_gap", "temperature")


def comparisons(plan: Plan) -> list[tuple[str, str]]:
    """Each arm with the arm that has the baseline's levels and is otherwise the same, in order."""
    arms = planned_arms(plan)
    if not plan.study.baseline:
        return []
    pairs = []
    for arm in arms.values():
        wanted = {**arm.levels, **plan.study.baseline}
        baseline = next((other for other in arms.values() if dict(other.levels) == wanted), None)
        if baseline is not None and baseline.name != arm.name:
            pairs.append((arm.name, baseline.name))
    return pairs


def compared_metrics(study: Study) -> tuple[str, ...]:
    """The primary metric, its family, then every other metric.

    Raises:
        StudyError: the study is about a column that the trials table does not have.
    """
    unknown = [name for name in study.comparison_family if name not in number_columns()]
    unknown += [study.primary] if study.primary not in number_columns() else []
    if unknown:
        raise StudyError(
            f"primary, family: {', '.join(dict.fromkeys(unknown))}: no such metric; "
            f"the metrics are {', '.join(sorted(number_columns()))}"
        )
    others = (name for name in (*SHOWN, *METRICS) if name not in NOT_COMPARED)
    return tuple(dict.fromkeys((study.primary, *study.comparison_family, *others)))


def effects_table(trials: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Mean paired differences with intervals and tests.

    Intervals of metrics in the study's family are simultaneous over the family (Bonferroni), and their p is
    Holm-corrected; those of other metrics are 95 % each, and their `p_holm` is empty. The family counts all
    planned comparisons, so that a missing arm never makes another's interval narrower.

    Args:
        trials: the trials table.
        plan: the study's plan.

    Returns:
        The `effects` table: one row per arm that has a baseline arm, and metric.

    Raises:
        StudyError: the study is about a column that the trials table does not have.
    """
    metrics, pairs, study = compared_metrics(plan.study), comparisons(plan), plan.study
    values = _values(trials, plan, metrics)
    family_size = max(len(pairs) * len(study.comparison_family), 1)
    rows = []
    for arm, baseline in pairs:
        for metric in metrics:
            size = family_size if metric in study.comparison_family else 1
            effect = paired_effect(values[arm, metric], values[baseline, metric], comparisons=size)
            rows.append(_row(arm, baseline, metric, effect, study))
    return holm_corrected(frame("effects", rows), study)


def _values(trials: pd.DataFrame, plan: Plan, metrics: tuple[str, ...]) -> dict[tuple[str, str], FloatArray]:
    """Arm and metric to its values by seed, [S]; NaN where the trial is not complete."""
    cells = pd.MultiIndex.from_product([plan.arms, plan.study.seed_list()])
    complete = complete_trials(trials).set_index(["arm", "seed"])[list(metrics)].reindex(cells)
    table = {metric: finite_numbers(complete[metric]).reshape(len(plan.arms), -1) for metric in metrics}
    return {(arm, metric): table[metric][row] for row, arm in enumerate(plan.arms) for metric in metrics}


def _row(arm: str, baseline: str, metric: str, effect: PairedEffect, study: Study) -> dict[str, Any]:
    return {
        "arm": arm,
        "metric": metric,
        "baseline": baseline,
        "n_pairs": effect.n,
        "effect": effect.effect,
        "low": effect.low,
        "high": effect.high,
        "p": effect.p,
        "p_holm": math.nan,
        "rho": effect.rho,
        "margin": study.all_margins.get(metric, math.nan),
    }


def holm_corrected(effects: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The table with `p_holm` set for the metrics of the study's family."""
    inside = effects["metric"].isin(list(study.comparison_family)).to_numpy(dtype=bool)
    corrected = np.full(len(effects), np.nan)
    corrected[inside] = holm(effects["p"].to_numpy(dtype=np.float64)[inside])
    return effects.assign(p_holm=corrected)


def effects_view(effects: pd.DataFrame, plan: Plan) -> Json | None:
    """The effects as the report shows them: a row per arm, a column per metric; None without comparisons."""
    if effects.empty:
        return None
    study = plan.study
    metrics = tuple(dict.fromkeys((study.primary, *study.comparison_family, *SHOWN)))
    heads = [column("Arm", numeric=False), column("Against", numeric=False), column("Pairs")]
    for metric in metrics:
        what = quantity(metric)
        inside = "simultaneous intervals" if metric in study.comparison_family else "95 % each, uncorrected"
        heads.append(column(f"Δ {what.label}", unit=what.difference_unit, meaning=inside))
    by_key = {(row["arm"], row["metric"]): row for _, row in effects.iterrows()}
    rows = []
    for arm, baseline in comparisons(plan):
        own = [by_key[arm, metric] for metric in metrics]
        pairs = int(own[0]["n_pairs"])
        row = [arm_cell(arm, plan), arm_cell(baseline, plan), cell(str(pairs), value=float(pairs))]
        rows.append(
            [*row, *(effect_cell(effect, metric) for effect, metric in zip(own, metrics, strict=True))]
        )
    return table(heads, rows)


def effect_cell(effect: pd.Series[Any], metric: str) -> Json:
    """A difference with its interval and corrected p."""
    what = quantity(metric)
    ends = f"{shown_difference(effect['low'], what)} to {shown_difference(effect['high'], what)}"
    equal = effect["n_pairs"] > 1 and effect["effect"] == 0
    notes = [ends if math.isfinite(effect["low"]) else "equal on every seed" if equal else "no interval"]
    if math.isfinite(effect["p_holm"]):
        notes.append(f"Holm p {shown_p(effect['p_holm'])}")
    numbers = {"low": effect["low"], "high": effect["high"], "p_holm": effect["p_holm"]}
    value = float(effect["effect"])
    return {**cell(shown_difference(value, what), value=value, notes=notes), **numbers}
