"""Trends against linear models, planted shapes, gaps in the grid, and the words that they are told in."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from report_cases import render
from report_results import CPU, declare, number_of
from scipy.stats import linregress, ttest_1samp

from ablate.analysis.trends import ordered_factors, trends_table
from ablate.report.sentences_of_averages import averaged_sentences
from ablate.store.records import Predictions
from ablate.study.study import Study
from ablate.study.trials import Plan, Trial, expand
from ablate.tables import frame

FACTORS: dict[str, Any] = {
    "epsilon": (0.1, 0.0, 0.4, 0.2),
    "arch": ("seed_cnn", "xresnet18"),
    "batch_size": (64, 128, 512),
}
SEEDS = 5


def plan_of(**declaration: Any) -> Plan:
    study = declare(**{"factors": FACTORS, "baseline": {"epsilon": 0.0}, "seeds": SEEDS, **declaration})
    trials = tuple(expand(study, lambda fields: "f", lambda fields: CPU))
    return Plan(study=study, profile="p", reason="r", trials=trials)


def trials_with(plan: Plan, value: Any) -> pd.DataFrame:
    """A trials table whose accuracy and other metrics are `value(trial)`; None is a diverged trial."""
    rows = []
    for trial in plan.trials:
        measured = value(trial)
        row = {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed, "repeat": 0}
        row |= {"status": "diverged" if measured is None else "complete", "threads": 1}
        rows.append({**row, "accuracy": measured, "nll": measured, "mean_confidence": measured})
    return frame("trials", rows)


def noisy(trial: Trial, scale: float = 0.01) -> float:
    noise = np.random.default_rng([number_of(trial), 1]).normal(scale=scale)
    return float(0.5 + np.random.default_rng(trial.seed).normal(scale=0.1) + noise)


def row_of(table: pd.DataFrame, factor: str, metric: str = "accuracy") -> pd.Series[Any]:
    (row,) = (row for _, row in table.iterrows() if (row["factor"], row["metric"]) == (factor, metric))
    return row


@pytest.mark.parametrize("factor", ["epsilon", "batch_size"])
def test_a_trend_is_the_linear_models_coefficient_times_the_range(factor: str) -> None:
    plan = plan_of()
    trials = trials_with(plan, noisy)
    levels = {name: [trial.levels[name] for trial in plan.trials] for name in FACTORS}
    data = pd.DataFrame({**levels, "seed": trials["seed"].astype(int), "accuracy": trials["accuracy"]})
    model = smf.ols("accuracy ~ epsilon + batch_size + C(arch) + C(seed)", data).fit()
    row, own = row_of(trends_table(trials, plan), factor), FACTORS[factor]
    assert row["effect"] == pytest.approx(model.params[factor] * (max(own) - min(own)), rel=1e-9)
    assert (row["lowest"], row["highest"], row["levels"]) == (min(own), max(own), len(own))
    others = math.prod(len(levels) for name, levels in FACTORS.items() if name != factor)
    assert (row["cells"], row["cells_planned"], row["n_pairs"]) == (others, others, SEEDS)


def slopes(plan: Plan, factor: str) -> list[float]:
    """A line's slope through a seed's means at each level."""
    found = []
    for seed in plan.study.seed_list():
        own = [trial for trial in plan.trials if trial.seed == seed]
        levels = plan.study.factors[factor]
        means = [np.mean([noisy(trial) for trial in own if trial.levels[factor] == at]) for at in levels]
        found.append(linregress(levels, means).slope)
    return found


def test_tests_and_intervals_are_scipys_over_the_seeds_slopes() -> None:
    """Two trends in two metrics hold together over four; a metric outside the family stands alone."""
    plan = plan_of(family=("accuracy", "nll"))
    table = trends_table(trials_with(plan, noisy), plan)
    for factor in ("epsilon", "batch_size"):
        span = max(FACTORS[factor]) - min(FACTORS[factor])
        expected = ttest_1samp(np.array(slopes(plan, factor)) * span, 0.0)
        for metric, size in (("accuracy", 4), ("nll", 4), ("mean_confidence", 1)):
            row, ends = row_of(table, factor, metric), expected.confidence_interval(1 - 0.05 / size)
            assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high), rel=1e-9)
            assert row["p"] == pytest.approx(expected.pvalue, rel=1e-9)
            assert row["p_adjusted"] == pytest.approx(min(1.0, size * expected.pvalue), rel=1e-9)


def test_factors_of_three_numbers_or_more_have_a_trend() -> None:
    factors = {
        "epsilon": (0.0, 0.1),
        "batch_size": (32, 64, 128),
        "arch": ("a", "b", "c"),
        "drop_last": (False, True),
        "lr": (0.3, 0.1, 0.2),
    }
    assert [
        (factor.factor, factor.axis, factor.ends) for factor in ordered_factors(declare(factors=factors))
    ] == [("batch_size", 1, (32, 128)), ("lr", 4, (0.1, 0.3))]
    plan = plan_of(factors={"epsilon": (0.0, 0.1), "arch": ("a", "b", "c")})
    assert trends_table(trials_with(plan, noisy), plan).empty


def planted(trial: Trial) -> float:
    """Falls by a point over batch sizes; over ε two points up at the middle and down again."""
    hump = 0.02 * (trial.fields.epsilon in (0.1, 0.2))
    fall = 0.01 * (trial.fields.batch_size - 64) / 448
    return noisy(trial, scale=0.0005) + hump - fall


def test_a_planted_fall_is_found_and_a_hump_has_no_slope() -> None:
    plan = plan_of(factors={**FACTORS, "epsilon": (0.0, 0.1, 0.2, 0.3)}, family=("accuracy", "nll"))
    table = trends_table(trials_with(plan, planted), plan)
    fall = row_of(table, "batch_size")
    assert fall["effect"] == pytest.approx(-0.01, abs=0.001)
    words = {metric: row_of(table, "batch_size", metric)["verdict"] for metric in ("accuracy", "nll")}
    assert words == {"accuracy": "worse", "nll": "equivalent"}  # a margin of 0.02 nats, and of half a point
    assert row_of(table, "batch_size", "nll")["below_margin"]
    assert row_of(table, "batch_size", "mean_confidence")["verdict"] == "lower"
    assert row_of(table, "epsilon")["p"] > 0.05 / 4
    assert row_of(table, "epsilon")["verdict"] in ("equivalent", "undecided")


def test_a_seed_that_lacks_a_level_is_left_out_and_the_trend_undecided() -> None:
    plan = plan_of(factors={"batch_size": (64, 128, 512)}, baseline={})

    def value(trial: Trial) -> float | None:
        return None if trial.seed == 1 and trial.fields.batch_size == 128 else planted(trial)

    whole = row_of(trends_table(trials_with(plan, planted), plan), "batch_size")
    row = row_of(trends_table(trials_with(plan, value), plan), "batch_size")
    assert (whole["verdict"], whole["reason"]) == ("worse", "")
    assert (row["verdict"], row["reason"], row["below_margin"]) == ("undecided", "incomplete", False)
    assert (row["cells"], row["cells_planned"], row["n_pairs"]) == (1, 1, SEEDS - 1)
    kept = [
        linregress([64, 128, 512], [planted(t) for t in plan.trials if t.seed == seed]).slope * 448
        for seed in (0, 2, 3, 4)
    ]
    assert (row["effect"], row["p"]) == pytest.approx((np.mean(kept), ttest_1samp(kept, 0).pvalue), rel=1e-9)


def test_a_combination_that_never_trains_leaves_the_trend_undecided() -> None:
    plan = plan_of(factors={"batch_size": (64, 128, 512), "arch": ("a", "b")}, baseline={})

    def value(trial: Trial) -> float | None:
        failed = trial.fields.arch == "b" and trial.fields.batch_size == 512
        return None if failed else planted(trial)

    row = row_of(trends_table(trials_with(plan, value), plan), "batch_size")
    assert (row["cells"], row["cells_planned"], row["n_pairs"]) == (1, 2, SEEDS)
    assert (row["verdict"], row["reason"]) == ("undecided", "incomplete")
    only = plan_of(factors={"batch_size": (64, 128, 512)}, baseline={}, base={**plan.study.base, "arch": "a"})
    same = {(t.fields.arch, t.fields.batch_size, t.seed): planted(t) for t in plan.trials}
    alone = trends_table(trials_with(only, lambda t: same[t.fields.arch, t.fields.batch_size, t.seed]), only)
    assert row["effect"] == pytest.approx(row_of(alone, "batch_size")["effect"], rel=1e-9)


def test_no_complete_trial_gives_no_trend() -> None:
    plan = plan_of()
    row = row_of(trends_table(trials_with(plan, lambda trial: None), plan), "epsilon")
    assert (row["n_pairs"], row["cells"], row["reason"]) == (0, 0, "incomplete")
    assert row[["effect", "low", "p", "p_equivalence"]].isna().all()


def test_equal_changes_in_decimals_are_no_certainty_and_none_is_exactly_none() -> None:
    plan = plan_of(factors={"epsilon": (0.0, 0.1, 0.3)}, seeds=4)
    luck = (0.81, 0.83, 0.79, 0.9)
    rising = row_of(
        trends_table(
            trials_with(plan, lambda t: round(luck[t.seed] + round(10 * t.fields.epsilon) / 100, 2)), plan
        ),
        "epsilon",
    )
    assert (rising["verdict"], rising["reason"]) == ("undecided", "no_spread")
    assert rising["effect"] == pytest.approx(0.03, abs=1e-15)
    assert math.isnan(rising["p"])
    flat = row_of(trends_table(trials_with(plan, lambda t: luck[t.seed]), plan), "epsilon")
    assert (flat["effect"], flat["reason"]) == (0, "no_spread")


def test_levels_that_do_nothing_are_equivalent(tmp_path: Path) -> None:
    """The same predictions at every ε, and others for every network."""

    def made(trial: Trial) -> Predictions:
        rng = np.random.default_rng([trial.seed, len(trial.fields.arch)])
        return Predictions(rng.normal(size=(40, 10)).astype(np.float32), rng.integers(0, 10, 40))

    factors = {"epsilon": (0.0, 0.1, 0.3), "arch": ("seed_cnn", "xresnet18")}
    study = declare(factors=factors, baseline={"epsilon": 0.0}, seeds=3)
    report = render(tmp_path, study=study, made=made).report
    assert report["trends"]["rows"][0][6]["notes"] == ["equal on every seed", "equivalent"]
    said = "accuracy changes by 0.00 percentage points along a straight line (n = 3 seeds, no interval)."
    assert report["headline"]["averaged"][-1] == (
        f"Over ε from 0 to 0.3, averaged over 2 of 2 combinations, {said} "
        "Equivalent: the same predictions on every seed."
    )


# The headline's words, for a trend that is given and not measured.

STUDY = declare(factors={"epsilon": (0.0, 0.1, 0.5)}, baseline={"epsilon": 0.0}, seeds=10)
GIVEN: dict[str, Any] = {
    "factor": "epsilon", "lowest": 0.0, "highest": 0.5, "levels": 3, "metric": "accuracy", "cells": 1,
    "cells_planned": 1, "n_pairs": 10, "effect": -0.0321, "low": -0.04, "high": -0.024, "p": 1e-5,
    "p_adjusted": 1e-5, "margin": 0.005, "p_equivalence": 1.0, "verdict": "worse", "reason": "",
    "below_margin": False,
}  # fmt: skip
NONE = {"low": None, "high": None, "p": None, "p_adjusted": None}
FALLS = "Over ε from 0 to 0.5 accuracy falls by 3.21 percentage points along a straight line"
SURE = "(95 % interval −4.00 to −2.40; n = 10 seeds; p < 0.001)."


def told(study: Study, **changes: Any) -> list[str]:
    return averaged_sentences(frame("contrasts", []), frame("trends", [{**GIVEN, **changes}]), study)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, f"{FALLS} {SURE} Worse."),
        (
            {"effect": 0.01, "low": 0.0, "high": 0.02, "p_adjusted": 0.05, "verdict": "undecided"},
            "Over ε from 0 to 0.5 accuracy rises by 1.00 percentage points along a straight line (95 % "
            "interval 0.00 to +2.00; n = 10 seeds; p = 0.050). Undecided.",
        ),
        (
            {"verdict": "equivalent", "below_margin": True},
            f"{FALLS} {SURE} Equivalent within ±0.50 points: different, by less than matters.",
        ),
        (
            {"verdict": "undecided", "reason": "incomplete", "n_pairs": 9},
            f"{FALLS} {SURE.replace('10', '9')} Undecided: only 9 of 10 seeds are complete.",
        ),
        (
            {**NONE, "verdict": "undecided", "reason": "incomplete", "n_pairs": 1},
            f"{FALLS} (n = 1 seed, no interval). Undecided: only 1 of 10 seeds are complete.",
        ),
        (
            {**NONE, "verdict": "undecided", "reason": "no_spread"},
            f"{FALLS} (n = 10 seeds, no interval). Undecided: all seeds differ alike, which leaves no spread "
            "to judge by.",
        ),
        (
            {
                **NONE,
                "effect": None,
                "verdict": "undecided",
                "reason": "incomplete",
                "n_pairs": 0,
                "cells": 0,
            },
            "Over ε from 0 to 0.5: no seed is complete at all levels. Undecided: only 0 of 10 seeds are "
            "complete.",
        ),
        (
            {"cells": 1, "cells_planned": 4, "verdict": "undecided", "reason": "incomplete"},
            f"Over ε from 0 to 0.5, averaged over 1 of 4 combinations, {FALLS.partition('0.5 ')[2]} {SURE} "
            "Undecided: only 1 of 4 combinations and 10 of 10 seeds are complete.",
        ),
    ],
)
def test_a_trend_is_told_with_its_uncertainty(changes: dict[str, Any], text: str) -> None:
    assert told(STUDY, **changes) == [text]


def test_only_factors_with_a_baseline_are_told_and_a_family_holds_together() -> None:
    assert told(STUDY.replace(baseline={})) == []
    (both,) = told(STUDY.replace(family=("accuracy", "ece")))
    assert both == f"{FALLS} {SURE.replace('(', '(simultaneous ').replace('p <', 'adjusted p <')} Worse."
    alone = told(STUDY.replace(family=("ece",)))
    assert alone == told(STUDY)
