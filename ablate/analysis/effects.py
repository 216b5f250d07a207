"""The effects table: every arm against its baseline arm, metric by metric, over the seeds both completed."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.arms import FloatArray, arm_cells, complete_trials, finite_numbers
from ablate.analysis.identical import identical_arms
from ablate.errors import StudyError
from ablate.metrics import FLOORS, METRICS
from ablate.stats import PairedEffect, holm, minimal_detectable_effect, paired_effect, sign_flip_p, verdict
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables import Tables, frame
from ablate.tables.cells import Json, cell, column, table
from ablate.tables.quantities import number_columns, quantity, shown_difference, shown_p

NOT_COMPARED = set(FLOORS.values())
"""Metrics of the measurement, not of the network."""

SHOWN = ("accuracy", "nll", "brier", "ece", "ece_scaled", "mean_confidence", "confidence_gap", "temperature")


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


def effects_table(tables: Tables, plan: Plan) -> pd.DataFrame:
    """Mean paired differences with intervals, tests and verdicts.

    Intervals of metrics in the study's family are simultaneous over the family (Bonferroni), and verdicts
    follow from them; those of other metrics are 95 % each, and exploratory. The family counts all planned
    comparisons, so that a missing arm never makes another's interval narrower.

    Args:
        tables: the trials table, and new_images where there is one.
        plan: the study's plan.

    Returns:
        The `effects` table: one row per arm that has a baseline arm, and metric.

    Raises:
        StudyError: the study is about a column that the trials table does not have.
    """
    metrics, study = compared_metrics(plan.study), plan.study
    values, same = _values(tables["trials"], plan, metrics), _identical(tables["trials"], plan)
    rows = []
    for arm, baseline in plan.comparisons:
        for metric in metrics:
            size = study.family_size(metric, len(plan.comparisons))
            own, other = values[arm, metric], values[baseline, metric]
            effect = paired_effect(own, other, comparisons=size)
            row = _row(arm, baseline, metric, effect, study, identical=(arm, baseline) in same)
            rows.append({**row, "p_sign_flip": sign_flip_p(own - other).p, "detectable": _detectable(effect)})
    return _with_new_images(holm_corrected(frame("effects", rows), study), tables.get("new_images"))


def _values(trials: pd.DataFrame, plan: Plan, metrics: tuple[str, ...]) -> dict[tuple[str, str], FloatArray]:
    """Arm and metric to its values by seed, [S]; NaN where the trial is not complete."""
    cells = pd.MultiIndex.from_product([plan.arms, plan.study.seed_list()])
    complete = complete_trials(trials).set_index(["arm", "seed"])[list(metrics)].reindex(cells)
    table = {metric: finite_numbers(complete[metric]).reshape(len(plan.arms), -1) for metric in metrics}
    return {(arm, metric): table[metric][row] for row, arm in enumerate(plan.arms) for metric in metrics}


def _identical(trials: pd.DataFrame, plan: Plan) -> set[tuple[str, str]]:
    """Compared arms that gave the same predictions on every planned seed."""
    group_of = {arm: place for place, group in enumerate(identical_arms(trials, plan)) for arm in group}
    return {
        (arm, other)
        for arm, other in plan.comparisons
        if arm in group_of and group_of[arm] == group_of.get(other)
    }


def _row(
    arm: str, baseline: str, metric: str, effect: PairedEffect, study: Study, *, identical: bool
) -> dict[str, Any]:
    margin = study.all_margins.get(metric, math.nan)
    better = {"higher": True, "lower": False}.get(quantity(metric).better)
    judged = verdict(
        effect,
        planned=len(study.seed_list()),
        higher_is_better=better,
        margin=margin,
        identical=identical,
    )
    return {
        "arm": arm,
        "metric": metric,
        "baseline": baseline,
        "n_pairs": effect.n,
        "effect": effect.effect,
        "low": effect.low,
        "high": effect.high,
        "p": effect.p,
        "p_adjusted": judged.p_adjusted,
        "p_holm": math.nan,
        "rho": effect.rho,
        "margin": margin,
        "p_equivalence": judged.p_equivalence,
        "verdict": judged.word,
        "reason": judged.reason,
        "below_margin": judged.below_margin,
        "seeds_needed": judged.seeds_needed,
    }


def _detectable(effect: PairedEffect) -> float:
    """Smallest true difference that so many pairs of this spread find with 80 % power; NaN without spread."""
    if not (effect.sd > 0 and math.isfinite(effect.sd)):
        return math.nan
    return effect.sd * _detectable_in_spreads(effect.n, effect.comparisons)


@functools.cache
def _detectable_in_spreads(pairs: int, comparisons: int) -> float:
    """In standard deviations of the paired differences."""
    # The power functions take the sd within an arm; without correlation, differences have sqrt(2) times that.
    return minimal_detectable_effect(pairs, sd=1 / math.sqrt(2), comparisons=comparisons)


def holm_corrected(effects: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The table with `p_holm` set for the metrics of the study's family."""
    inside = effects["metric"].isin(list(study.comparison_family)).to_numpy(dtype=bool)
    corrected = np.full(len(effects), np.nan)
    corrected[inside] = holm(effects["p"].to_numpy(dtype=np.float64)[inside])
    return effects.assign(p_holm=corrected)


def _with_new_images(effects: pd.DataFrame, new_images: pd.DataFrame | None) -> pd.DataFrame:
    """The table with the intervals for new images, where a metric has one."""
    if new_images is None or new_images.empty or effects.empty:
        return effects
    keys = ["arm", "baseline", "metric"]
    found = effects[keys].merge(new_images[[*keys, "low", "high"]], on=keys, how="left")
    return effects.assign(low_images=found["low"].to_numpy(), high_images=found["high"].to_numpy())


def effects_view(effects: pd.DataFrame, plan: Plan) -> Json | None:
    """The effects as the report shows them: a row per arm, a column per metric; None without comparisons."""
    if effects.empty:
        return None
    study = plan.study
    metrics = tuple(dict.fromkeys((study.primary, *study.comparison_family, *SHOWN)))
    heads = [column("Arm", numeric=False), column("Against", numeric=False), column("Pairs")]
    heads += [difference_column(metric, study) for metric in metrics]
    by_key = {(row["arm"], row["metric"]): row for _, row in effects.iterrows()}
    rows, names = [], arm_cells(plan)
    for arm, baseline in plan.comparisons:
        own = [by_key[arm, metric] for metric in metrics]
        pairs = int(own[0]["n_pairs"])
        row = [names[arm], names[baseline], cell(str(pairs), value=float(pairs))]
        rows.append(
            [*row, *(effect_cell(effect, metric, study) for effect, metric in zip(own, metrics, strict=True))]
        )
    return table(heads, rows)


def difference_column(metric: str, study: Study) -> Json:
    """The head of a column of differences: the metric, and what its intervals hold together with."""
    what = quantity(metric)
    inside = "simultaneous intervals" if metric in study.comparison_family else "95 % each, uncorrected"
    return column(f"Δ {what.label}", unit=what.difference_unit, meaning=inside)


def effect_cell(effect: pd.Series[Any], metric: str, study: Study) -> Json:
    """A difference with its interval, its corrected p and its verdict, in brackets outside the family."""
    what = quantity(metric)
    ends = f"{shown_difference(effect['low'], what)} to {shown_difference(effect['high'], what)}"
    equal = effect["n_pairs"] > 1 and effect["effect"] == 0
    notes = [ends if math.isfinite(effect["low"]) else "equal on every seed" if equal else "no interval"]
    inside = metric in study.comparison_family
    if inside and math.isfinite(effect["p_adjusted"]):
        notes.append(f"adjusted p {shown_p(effect['p_adjusted'])}")
    if "verdict" in effect and isinstance(effect["verdict"], str):
        notes.append(effect["verdict"] if inside else f"({effect['verdict']})")
    numbers = {"low": effect["low"], "high": effect["high"], "p_adjusted": effect["p_adjusted"]}
    value = float(effect["effect"])
    return {**cell(shown_difference(value, what), value=value, notes=notes), **numbers}
