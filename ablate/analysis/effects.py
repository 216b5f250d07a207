"""The effects table: everything that a study compares, each as one mean difference over seeds.

What the study asks about is one family, Bonferroni-corrected over effects times metrics, and has verdicts:
the study's *claims*. Everything else is exploratory: an interval of its own, and no verdict.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis import arms
from ablate.errors import StudyError
from ablate.metrics import FLOORS, METRICS
from ablate.stats.effect import Effect, Verdict, independent_effect, paired_effect, sign_flip_p, verdict
from ablate.stats.intervals import FloatArray
from ablate.stats.power import minimal_detectable_effect, pooled_sd, seeds_range
from ablate.study.comparisons import Term, family_size, terms
from ablate.study.parts import NONE, PART
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables.files import Tables, frame
from ablate.tables.quantities import Quantity, number_columns, quantity

TURNS = 0.05  # the p of its curvature below which a trend that turns within its levels is undecided
VERDICTS = ("better", "worse", "higher", "lower", "equivalent", "undecided")
SHOWN = ("accuracy", "nll", "brier", "ece", "ece_scaled", "mean_confidence", "confidence_gap", "temperature")


def effects_table(tables: Tables, plan: Plan) -> pd.DataFrame:
    """Every effect of a study and every metric, from trials and new_images; of what is asked with a verdict.

    The family counts all that is asked, so that a missing arm never makes another's interval narrower.
    StudyError: the study is about what the trials table does not have.
    """
    study, trials, known = plan.study, tables["trials"], number_columns()
    about = dict.fromkeys((study.primary, *study.comparison_family))
    if unknown := about.keys() - known:
        raise StudyError(
            f"primary, family: {', '.join(sorted(unknown))}: no such metric; "
            f"the metrics are {', '.join(sorted(known))}"
        )
    others = [name for name in study.usual(*SHOWN, *METRICS) if name not in FLOORS.values()]
    metrics = list(about | dict.fromkeys(others))
    cells = pd.MultiIndex.from_product([plan.arms, study.seed_list()])
    complete = arms.complete_trials(trials).set_index(["arm", "seed"])[metrics].reindex(cells)
    values = {metric: arms.finite_numbers(complete[metric]).reshape(len(plan.arms), -1) for metric in metrics}
    index = {arm: number for number, arm in enumerate(plan.arms)}
    alike = np.arange(len(index))
    for group in arms.identical_arms(trials, plan):
        alike[[index[arm] for arm in group]] = index[group[0]]
    runs = np.array([arm.planned for arm in arms.planned_arms(plan).values()])
    new_images = tables.get("new_images", frame("new_images", []))
    ends = {(row.arm, row.baseline, row.metric): (row.low, row.high) for row in new_images.itertuples()}
    judged = [
        (term, metric, claim)
        for term, metric in itertools.product(terms(plan), metrics)
        if (claim := term.asked and metric in study.comparison_family) or term.kind != "pair"
    ]
    sides_of = [sides_over(term, values[metric]) for term, metric, _ in judged if study.is_paired]
    claimed: dict[str, list[tuple[FloatArray, float]]] = defaultdict(list)
    for (term, metric, claim), (sides, _) in zip(judged, sides_of, strict=False):
        if claim:
            claimed[metric].append((sides, term.scale))
    spreads = {metric: arm_spread(*zip(*own, strict=True)) for metric, own in claimed.items()}
    rows, size = [], family_size(plan)
    for at, (term, metric, claim) in enumerate(judged):
        planned, comparisons = term.arms.shape[1], size if claim else 1
        if study.is_paired:
            sides, kept = sides_of[at]
            effect, seeds = paired_effect(*sides, comparisons=comparisons), len(study.seed_list())
            beside = {"p_sign_flip": sign_flip_p(*sides), "p_welch": float(independent_effect(*sides).p)}
            if math.isfinite(effect.p):  # otherwise what is left may be rounding
                squares = np.square(sides[0] - sides[1])
                beside["largest_share"] = float(np.nanmax(squares) / np.nansum(squares))
        else:
            effect, beside = _independent(term, term.weights, values[metric], comparisons), {}
            lost = (runs - np.isfinite(values[metric]).sum(axis=1))[term.arms].sum()
            kept, seeds = planned, int(effect.n + lost)
        margin, identical = study.all_margins.get(metric, math.nan), term.is_identical(alike)
        better, wanted = quantity(metric).better, seeds if kept == planned else seeds + 1
        better = "" if term.kind == "interaction" else better  # more of one is never better
        found = verdict(effect, planned=wanted, better=better, margin=margin, identical=identical)
        sd, freedom = spreads.get(metric, (math.nan, 0.0))
        row = effect_row(metric, effect, found, margin, (sd * term.scale, freedom), claim=claim)
        if row["verdict"] != "exploratory" and _is_bent(term, values[metric], study):
            row |= {"verdict": "undecided", "reason": "bent", "below_margin": False}
            row |= {"seeds_from": None, "seeds_needed": None}
        row |= {"kind": term.kind, "term": term.term, "against": term.against}
        row |= {"cells": kept, "cells_planned": planned, **beside}
        if term.kind not in ("arm", "pair"):  # averages correlate by what they share, not by pairing
            row["rho"] = math.nan
        if term.kind == "arm":
            of_images = ends.get((term.term, term.against, metric), (math.nan, math.nan))
            row |= dict(zip(("low_images", "high_images"), of_images, strict=True))
        rows.append(row)
    return frame("effects", rows)


def arm_spread(sides: Sequence[Any], scales: Sequence[float] | FloatArray) -> tuple[float, float]:
    """Sd of an arm beyond what seeds share, and its freedom, of effects [2, seeds] and their scales."""
    if not len(sides):
        return math.nan, 0.0
    first, second = np.swapaxes(sides, 0, 1)
    return pooled_sd(paired_effect(first, second), np.array(scales))


def sides_over(term: Term, values: FloatArray) -> tuple[FloatArray, int]:
    """The two sides [2, seeds] of a term, and over how many combinations they are averaged.

    Two, as their size tells what rounding makes of equal differences. Of values [arms, seeds], NaN where a
    trial is missing, those combinations and seeds are kept, complete on each other, that keep the most.
    """
    values_of = values[term.arms]
    complete = np.asarray(np.isfinite(values_of).all(axis=0))
    order = np.argsort(-complete.sum(axis=1), kind="stable")
    kept, seeds = list[int](), list[int]()
    for count in range(1, len(order) + 1):
        rows = sorted(order[:count].tolist())
        shared = np.flatnonzero(complete[rows].all(axis=0)).tolist()
        if shared and count * len(shared) >= len(kept) * len(seeds):
            kept, seeds = rows, shared
    sides = np.full((2, values.shape[-1]), np.nan)
    if kept:
        means = values_of[:, kept][:, :, seeds].mean(axis=1)
        sides[:, seeds] = [np.maximum(weights, 0) @ means for weights in (term.weights, -term.weights)]
    return sides, len(kept)


def _independent(term: Term, weights: FloatArray, values: FloatArray, comparisons: int = 1) -> Effect:
    """A weighted sum over a term's arms [T, C] of runs [arms, runs] that no seed joins."""
    each = np.repeat(weights, term.arms.shape[1]) / term.arms.shape[1]
    return independent_effect(*values[term.arms.ravel()], weights=each, comparisons=comparisons)


def _is_bent(term: Term, values: FloatArray, study: Study) -> bool:
    """Whether a trend turns within its levels, by a parabola: a line then tells half. Of [arms, seeds]."""
    if term.kind != "trend":
        return False
    # A slope's weights are the levels themselves, but for their scale and where 0 is.
    bend, slope, _ = np.polyfit(term.weights, np.eye(len(term.weights)), 2)
    if study.is_paired:
        sides = (sides_over(replace(term, weights=part), values)[0] for part in (bend, slope))
        turn, tilt = (paired_effect(*own) for own in sides)
    else:
        turn, tilt = (_independent(term, part, values) for part in (bend, slope))
    if not turn.p < TURNS:
        return False
    return bool(term.weights.min() < -tilt.effect / (2 * turn.effect) < term.weights.max())


def effect_row(
    metric: str, effect: Effect, judged: Verdict, margin: float, spread: tuple[float, float], *, claim: bool
) -> dict[str, Any]:
    """What the effects table says of one effect on a metric, from n to detectable.

    `spread` is the differences' standard deviation and its degrees of freedom.
    """
    n, sd = int(effect.n), float(effect.sd)
    few, many, (pooled, freedom), family = None, None, spread, effect.comparisons
    # Of an sd of 1, as each number of seeds is computed once.
    detectable = sd * minimal_detectable_effect(n, sd=1.0, comparisons=family) if sd > 0 else math.nan
    if claim and judged.word == "undecided" and pooled > 0 and margin > 0:
        few, many = seeds_range(margin, sd=pooled, freedom=freedom, comparisons=family, least=n + 1)
    return {
        "metric": metric,
        "n": n,
        **{name: float(getattr(effect, name)) for name in ("effect", "low", "high", "p", "rho")},
        "p_adjusted": float(judged.p_adjusted) if claim else math.nan,
        "p_equivalence": float(judged.p_equivalence),
        "margin": margin,
        "verdict": str(judged.word) if claim else "exploratory",
        "reason": str(judged.reason),
        "below_margin": claim and bool(judged.below_margin),
        "seeds_from": few,
        "seeds_needed": many,
        "detectable": detectable,
    }


@dataclass(frozen=True)
class Claim:
    """One effect on one metric, its row of the effects table, and the verdict."""

    term: Term
    row: "pd.Series[Any]"
    metric: Quantity
    word: str

    @property
    def place(self) -> str:
        """Its levels, as they stand after "at": those that differ; in brackets what both sides share."""
        if self.term.kind == "interaction":
            return contrast_label(self.term)
        apart, beside = _apart_and_shared(self.term)
        against = f" against {NONE}" if self.term.reference.get(PART) == NONE else ""
        return f"{arms.arm_label(apart)}{against}{beside}"


def claims(effects: pd.DataFrame, plan: Plan) -> list[Claim]:
    """All claims, in the order of the effects table."""
    known = {(term.kind, term.term, term.against): term for term in terms(plan)}
    return [
        Claim(term, row, quantity(row["metric"]), row["verdict"])
        for _, row in effects[effects["verdict"].isin(VERDICTS)].iterrows()
        if (term := known.get((row["kind"], row["term"], row["against"])))
    ]


def contrast_label(term: Term) -> str:
    """An effect as a reader writes it, what both sides share last: ε: 0.1 − 0 (arch=xresnet18)."""
    apart, beside = _apart_and_shared(term)
    steps = [
        f"{arms.factor_label(factor)}: {arms.level_label(level)} − {arms.level_label(term.reference[factor])}"
        for factor, level in apart.items()
    ]
    line = ", along a straight line" if term.kind == "trend" else ""
    return f"{(' × ' if term.kind == 'interaction' else ', ').join(steps)}{line}{beside}"


def _apart_and_shared(term: Term) -> tuple[dict[str, Any], str]:
    """The levels in which both sides differ, and in brackets what they share."""
    apart = {factor: level for factor, level in term.levels.items() if level != term.reference[factor]}
    shared = {factor: level for factor, level in term.levels.items() if factor not in apart}
    return apart, f" ({arms.arm_label(shared)})" if shared else ""
