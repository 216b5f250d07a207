"""The effects table: everything that a study compares, each as one mean difference within seeds.

An effect is a weighted sum over arms, computed within each seed, so that the seeds' shared luck cancels, and
judged over seeds:

- *arm*: an arm against its baseline arm;
- *main*: two levels of a factor, averaged over the levels of the others;
- *interaction*: how much such a difference changes between two levels of another factor;
- *trend*: what changes along the least-squares line from a factor's lowest to its highest level, averaged
  over the levels of the others, where it has three or more;
- *run*: an arm of one run against the same arm of another (`ablate.gate`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.arms import FloatArray, complete_trials, finite_numbers, identical_arms
from ablate.errors import StudyError
from ablate.metrics import FLOORS, METRICS
from ablate.stats import (
    Effect,
    holm,
    minimal_detectable_effect,
    paired_effect,
    seeds_needed,
    sign_flip_p,
    verdict,
)
from ablate.study.study import Study
from ablate.study.trials import Plan, arm_name
from ablate.tables import Tables, frame
from ablate.tables.quantities import number_columns, quantity, usual

Kind = Literal["arm", "main", "interaction", "trend", "run"]
FAMILIES: dict[str, str] = {"main": "averages", "interaction": "averages"}
"""Kinds of effect whose intervals hold together with those of another kind; every other stands for itself."""
NOT_COMPARED = set(FLOORS.values())
"""Metrics of the measurement, not of the network."""
SHOWN = ("accuracy", "nll", "brier", "ece", "ece_scaled", "mean_confidence", "confidence_gap", "temperature")


@dataclass(frozen=True)
class Term:
    """One effect that is asked for.

    Attributes:
        term: what is compared, by its levels: an arm's name, or levels of which others are averaged over.
        levels: factor to level of `term`; `reference` the same of `against`.
        arms: [T, C] indices of the plan's arms: T arms that are weighed against each other, in each of the C
            combinations of the other factors' levels that are averaged over.
        weights: [T], of which those above 0 are of `term`.
    """

    kind: Kind
    term: str
    against: str
    levels: Mapping[str, Any]
    reference: Mapping[str, Any]
    arms: NDArray[np.int64]
    weights: FloatArray

    def is_identical(self, alike: NDArray[np.int64]) -> bool:
        """Whether the levels gave the same predictions, at every level of the other factors in question.

        `alike` [arms] has equal numbers for arms of the same predictions on every planned seed.
        """
        groups = alike[self.arms]
        if self.kind == "interaction":  # nothing, where one of the two factors does nothing
            groups = groups.reshape(2, 2, -1)
            return bool((groups[0] == groups[1]).all() or (groups[:, 0] == groups[:, 1]).all())
        return bool((groups == groups[0]).all())


def terms(plan: Plan) -> list[Term]:
    """Every effect of a study: arms against their baselines, main effects, interactions, trends.

    Arms that are listed and no grid have nothing to average over.
    """
    index = {arm: number for number, arm in enumerate(plan.arms)}
    levels = {trial.arm: trial.levels for trial in plan.trials}
    of_arms = [
        Term("arm", arm, other, levels[arm], levels[other], np.array([[index[arm]], [index[other]]]), SIDES)
        for arm, other in plan.comparisons
    ]
    return of_arms if plan.study.only else [*of_arms, *_averages(plan.study), *_trends(plan.study)]


SIDES = np.array([1.0, -1.0])


def _averages(study: Study) -> Iterator[Term]:
    """Main effects, then interactions, each of a factor's levels against its baseline level or its first."""
    steps: list[list[tuple[str, int, int]]] = []
    for factor, levels in study.factors.items():
        reference = list(levels).index(study.baseline[factor]) if factor in study.baseline else 0
        steps.append([(factor, at, reference) for at in range(len(levels)) if at != reference])
    steps = [of_factor for of_factor in steps if of_factor]
    if len(steps) < 2:
        return
    for factor, level, reference in (step for of_factor in steps for step in of_factor):
        yield _term("main", study, [{factor: level}, {factor: reference}], SIDES)
    for first, second in itertools.combinations(steps, 2):
        for (one, level, reference), (other, far, near) in ((a, b) for a in first for b in second):
            corners = [{one: at, other: beside} for beside in (far, near) for at in (level, reference)]
            yield _term("interaction", study, corners, np.array([1.0, -1.0, -1.0, 1.0]))


def _trends(study: Study) -> Iterator[Term]:
    for factor, levels in study.factors.items():
        if len(levels) >= 3 and all(type(level) in (int, float) for level in levels):
            lowest, highest = min(levels), max(levels)
            line = [(level - lowest) / (highest - lowest) for level in levels]
            # The slope is linear in the values: its weights are the slopes of lines through 1 and 0s.
            weights = np.polyfit(line, np.eye(len(levels)), 1)[0]
            fixed = [{factor: at} for at in range(len(levels))]
            ends = fixed[levels.index(highest)], fixed[levels.index(lowest)]
            yield _term("trend", study, fixed, weights, ends)


def _term(
    kind: Kind,
    study: Study,
    fixed: list[dict[str, int]],
    weights: FloatArray,
    ends: tuple[dict[str, int], dict[str, int]] | None = None,
) -> Term:
    """A term over the arms at fixed indices of some factors' levels; named by two ends, or first and last."""
    shape = [len(levels) for levels in study.factors.values()]
    grid = np.arange(math.prod(shape)).reshape(shape)
    arms = [grid[tuple(at.get(name, slice(None)) for name in study.factors)].ravel() for at in fixed]
    level, reference = (
        {name: study.factors[name][at] for name, at in end.items()} for end in ends or (fixed[0], fixed[-1])
    )
    return Term(kind, arm_name(level), arm_name(reference), level, reference, np.stack(arms), weights)


def effects_table(tables: Tables, plan: Plan) -> pd.DataFrame:
    """Every effect of a study and every metric, with interval, tests and verdict.

    Intervals of metrics in the study's family are simultaneous over the family (Bonferroni), and verdicts
    follow from them; those of other metrics are 95 % each, and exploratory. Arms, trends, and main effects
    with interactions are a family each, which counts all that was planned, so that a missing arm never makes
    another's interval narrower. What is not complete is undecided. Of the tables it takes trials, and
    new_images where there is one.

    Raises:
        StudyError: the study is about a column that the trials table does not have.
    """
    study, trials, asked, metrics = plan.study, tables["trials"], terms(plan), _compared_metrics(plan.study)
    if not asked:
        return frame("effects", [])
    cells = pd.MultiIndex.from_product([plan.arms, study.seed_list()])
    complete = complete_trials(trials).set_index(["arm", "seed"])[list(metrics)].reindex(cells)
    values = {metric: finite_numbers(complete[metric]).reshape(len(plan.arms), -1) for metric in metrics}
    index = {arm: number for number, arm in enumerate(plan.arms)}
    alike = np.arange(len(index))
    for group in identical_arms(trials, plan):
        alike[[index[arm] for arm in group]] = index[group[0]]
    new_images = tables.get("new_images", frame("new_images", []))
    ends = {(row.arm, row.baseline, row.metric): (row.low, row.high) for row in new_images.itertuples()}
    families = [FAMILIES.get(term.kind, term.kind) for term in asked]
    rows = []
    for (term, family), metric in itertools.product(zip(asked, families, strict=True), metrics):
        (values_of, reference), kept = _sides(term, values[metric])
        planned, is_arm = term.arms.shape[1], term.kind == "arm"
        row = effect_row(
            metric,
            paired_effect(
                values_of, reference, comparisons=study.family_size(metric, families.count(family))
            ),
            planned=len(study.seed_list()),
            whole=kept == planned,
            margin=study.all_margins.get(metric, math.nan),
            directed=term.kind != "interaction",
            identical=term.is_identical(alike),
        )
        row |= {"kind": term.kind, "term": term.term, "against": term.against}
        row |= {"cells": kept, "cells_planned": planned, "p_sign_flip": sign_flip_p(values_of, reference)}
        # Two averages correlate by what they share, not by what pairing buys.
        row |= {"rho": row["rho"] if is_arm else math.nan}
        if is_arm:
            of_images = ends.get((term.term, term.against, metric), (math.nan, math.nan))
            row |= dict(zip(("low_images", "high_images"), of_images, strict=True))
        rows.append(row)
    effects = frame("effects", rows)
    inside = effects[effects["metric"].isin(list(study.comparison_family))]
    corrected = inside.groupby(inside["kind"].replace(FAMILIES))["p"].transform(lambda p: holm(p.to_numpy()))
    return effects.assign(p_holm=corrected.reindex(effects.index))


def _compared_metrics(study: Study) -> tuple[str, ...]:
    """The primary metric, its family, then every other metric; StudyError for a column that is none."""
    known = number_columns()
    unknown = [name for name in (*study.comparison_family, study.primary) if name not in known]
    if unknown:
        raise StudyError(
            f"primary, family: {', '.join(dict.fromkeys(unknown))}: no such metric; "
            f"the metrics are {', '.join(sorted(known))}"
        )
    others = (name for name in usual(*SHOWN, *METRICS) if name not in NOT_COMPARED)
    return tuple(dict.fromkeys((study.primary, *study.comparison_family, *others)))


def _sides(term: Term, values: FloatArray) -> tuple[FloatArray, int]:
    """The two sides [2, seeds] of a term, and over how many combinations they are averaged.

    Two and not one difference: what rounding can make of equal differences is told by their size. Of values
    [arms, seeds], NaN where a trial is missing, those combinations and seeds are kept that keep the most
    values, each combination complete on each seed, so that no seed's mean is over other combinations than
    another's. Which are kept depends on what is there, never on its values.
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


def effect_row(
    metric: str,
    effect: Effect,
    *,
    planned: int,
    margin: float,
    whole: bool = True,
    directed: bool = True,
    identical: bool = False,
) -> dict[str, Any]:
    """What the effects table says of one effect on a metric, from n to detectable.

    `planned`, `margin` and `identical` are as `verdict` takes them; an effect that is not over the `whole`
    of the planned combinations of levels stays undecided; `directed` says that higher or lower can be better.
    """
    n, sd = int(effect.n), float(effect.sd)
    judged = verdict(
        effect,
        planned=planned if whole else planned + 1,
        higher_is_better=quantity(metric).higher_is_better if directed else None,
        margin=margin,
        identical=identical,
    )
    seeds, detectable = None, math.nan
    if sd > 0:
        detectable = sd * _detectable(n, sd=1.0, comparisons=effect.comparisons)
        if judged.word == "undecided":
            seeds = seeds_needed(
                float(effect.effect),
                sd=sd,
                margin=margin,
                alpha=1 - effect.confidence,
                comparisons=effect.comparisons,
                least=n + 1 if n == planned else planned,
            )
    return {
        "metric": metric,
        "n": n,
        **{name: float(getattr(effect, name)) for name in ("effect", "low", "high", "p", "rho")},
        "p_adjusted": float(judged.p_adjusted),
        "p_equivalence": float(judged.p_equivalence),
        "margin": margin,
        "verdict": str(judged.word),
        "reason": str(judged.reason),
        "below_margin": bool(judged.below_margin),
        "seeds_needed": seeds,
        "detectable": detectable,
    }


_detectable = functools.cache(minimal_detectable_effect)
