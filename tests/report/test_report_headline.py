"""The headline's words for effects that are given, not measured."""

from typing import Any

import numpy as np
import pytest
from report_results import CPU, declare

from ablate.analysis.timing import Pass, arm_cases
from ablate.report.headline import headline
from ablate.study.study import Study
from ablate.study.trials import Plan, expand
from ablate.tables import frame

ARMS = declare(
    factors={"epsilon": (0.0, 0.1), "arch": ("a", "b", "c")},
    baseline={"epsilon": 0.0},
    primary="nll",
    seeds=2,
)
LEVELS = declare(factors={"epsilon": (0.0, 0.1, 0.5)}, baseline={"epsilon": 0.0}, seeds=10)


def plan_of(study: Study) -> Plan:
    trials = tuple(expand(study, lambda fields: "f", lambda fields: CPU))
    return Plan(study=study, profile="p", reason="r", trials=trials)


def told(*effects: dict[str, Any], study: Study = ARMS, timing: Pass | None = None) -> dict[str, Any]:
    plan = plan_of(study)
    rows = [{"arm": t.arm, "seed": t.seed, "repeat": 0, "status": "complete"} for t in plan.trials]
    return headline(frame("trials", rows), frame("effects", effects), plan, timing)


def effect(arch: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "kind": "arm", "term": f"epsilon=0.1, arch={arch}", "against": f"epsilon=0.0, arch={arch}",
        "metric": "nll", "cells": 1, "cells_planned": 1, "n": 2, "effect": -0.02, "low": -0.03, "high": -0.01,
        "p": 0.01, "p_adjusted": 0.02, "p_holm": 0.02, "margin": 0.02, "verdict": "better", "reason": "",
        "below_margin": False, **changes,
    }  # fmt: skip


def average(**changes: Any) -> dict[str, Any]:
    numbers = {"n": 10, "effect": -0.0321, "low": -0.04, "high": -0.024, "p_adjusted": 1e-5, "margin": 0.005}
    trend = {"kind": "trend", "term": "epsilon=0.5", "against": "epsilon=0.0", "metric": "accuracy"}
    return effect(**{**trend, **numbers, "verdict": "worse", **changes})


ARM = "ε=0.1 against ε=0 (arch=a): NLL"
START = (
    f"{ARM} −0.0200 nats (simultaneous 95 % interval −0.0300 to −0.0100; n = 2 pairs; adjusted p = 0.020)."
)
NONE: dict[str, Any] = {"low": None, "high": None, "p": None, "p_adjusted": None, "p_holm": None}
UNDECIDED: dict[str, Any] = {"verdict": "undecided"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, f"{START} Better."),
        ({"p_adjusted": 1e-9}, f"{START.replace('= 0.020', '< 0.001')} Better."),
        ({"verdict": "worse"}, f"{START} Worse."),
        ({"verdict": "equivalent"}, f"{START} Equivalent within ±0.0200 nats."),
        (
            {"verdict": "equivalent", "below_margin": True},
            f"{START} Equivalent within ±0.0200 nats: different, by less than matters.",
        ),
        ({**UNDECIDED, "seeds_needed": 13}, f"{START} Undecided; about 13 seeds would likely decide."),
        (UNDECIDED, f"{START} Undecided; not even 1,000 seeds would likely decide."),
        (
            {**UNDECIDED, "reason": "incomplete", "n": 1},
            f"{START.replace('2 pairs', '1 pair')} Undecided: only 1 of 2 planned pairs are complete.",
        ),
        (
            {**UNDECIDED, **NONE, "reason": "no_spread"},
            f"{ARM} −0.0200 nats (n = 2 pairs, no interval). Undecided: all pairs differ alike, which leaves "
            "no spread to judge by.",
        ),
        (
            {**NONE, "effect": 0.0, "verdict": "equivalent", "reason": "identical"},
            f"{ARM} 0.0000 nats (n = 2 pairs, no interval). Equivalent: the same predictions on every seed.",
        ),
        (
            {**UNDECIDED, **NONE, "n": 0, "effect": None, "reason": "incomplete"},
            f"{ARM[:-4]} no seed is complete in both arms. Undecided: only 0 of 2 planned pairs are "
            "complete.",
        ),
    ],
)
def test_an_arm_is_told_with_its_uncertainty(changes: dict[str, Any], text: str) -> None:
    contrast = told(effect(**changes), effect("b"))["contrasts"][0]
    assert (contrast["verdict"], contrast["text"]) == (changes.get("verdict", "better"), text)


LINE = "ε from 0 to 0.5 along a straight line"
FALLS = f"{LINE}: accuracy −3.21 percentage points"
SURE = "(95 % interval −4.00 to −2.40; n = 10 seeds; p < 0.001)."


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, f"{FALLS} {SURE} Worse."),
        (
            {**UNDECIDED, **NONE, "reason": "incomplete", "n": 1},
            f"{FALLS} (n = 1 seed, no interval). Undecided: only 1 of 10 planned seeds are complete.",
        ),
        (
            {**UNDECIDED, **NONE, "reason": "incomplete", "effect": None, "n": 0, "cells": 0},
            f"{LINE}: no seed is complete at all levels. Undecided: only 0 of 10 planned seeds are complete.",
        ),
        (
            {**UNDECIDED, "reason": "incomplete", "cells_planned": 4},
            f"{LINE}, averaged over 1 of 4 combinations: {FALLS.partition(': ')[2]} {SURE} Undecided: only 1 "
            "of 4 combinations and 10 of 10 planned seeds are complete.",
        ),
    ],
)
def test_an_average_is_told_as_an_arm_is(changes: dict[str, Any], text: str) -> None:
    arm = effect(term="epsilon=0.1", against="epsilon=0.0", metric="accuracy")
    assert told(arm, average(**changes), study=LEVELS)["averaged"] == [text]
    assert told(arm, average(**changes), study=LEVELS.replace(family=("ece",)))["averaged"] == [text]
    assert told(arm, average(**changes), study=LEVELS.replace(baseline={}))["averaged"] == []
    (both,) = told(arm, average(**changes), study=LEVELS.replace(family=("accuracy", "ece")))["averaged"]
    assert both == text.replace("(95", "(simultaneous 95").replace("p <", "adjusted p <")


def test_a_main_effect_is_told_and_an_interaction_is_not() -> None:
    main = average(kind="main", term="epsilon=0.1", metric="nll", cells=3, cells_planned=3)
    both = {"kind": "interaction", "term": "epsilon=0.1, arch=b", "against": "epsilon=0.0, arch=a"}
    assert told(effect(), main, average(**both, metric="nll"))["averaged"] == [
        "ε: 0.1 − 0, averaged over 3 of 3 combinations: NLL −0.0321 nats (simultaneous 95 % interval −0.0400 "
        "to −0.0240; n = 10 seeds; adjusted p < 0.001). Worse."
    ]


@pytest.mark.parametrize(
    ("words", "summary"),
    [
        (("better", "better"), "better in 2"),
        (("better", "worse"), "better in 1 and worse in 1"),
        (("undecided", "better", "equivalent"), "better in 1, equivalent in 1 and undecided in 1"),
    ],
)
def test_the_summary_counts_the_verdicts(words: tuple[str, ...], summary: str) -> None:
    found = told(*(effect(arch, verdict=word) for arch, word in zip("abc", words, strict=False)))
    assert found["summary"] == f"Of {len(words)} arms, each against its baseline, NLL is {summary}."


def test_one_contrast_is_the_summary_and_its_interval_stands_alone() -> None:
    found = told(effect())
    assert found["summary"] == found["contrasts"][0]["text"]
    assert found["summary"] == f"{START.replace('simultaneous ', '').replace('adjusted ', '')} Better."


def test_calibration_and_cost_are_told_beside_the_primary_metric() -> None:
    other = effect(metric="ece", effect=0.08, low=0.05, high=0.11, verdict="worse")
    times = {case: np.array([10.0] * 20) for case in arm_cases(plan_of(ARMS)).values()}
    found = told(effect(), other, timing=Pass(times, 0.0))
    said = "ECE +8.00 points (+5.00 to +11.00), worse; training step the same"
    assert found["contrasts"][0]["also"] == said
    assert found["details"] == [said]


def test_without_contrasts_the_range_of_means_is_told_and_no_winner() -> None:
    plan = plan_of(ARMS.replace(baseline={}))
    rows = [{"arm": t.arm, "seed": t.seed, "repeat": 0, "status": "complete"} for t in plan.trials]
    trials = frame("trials", rows).assign(nll=[1.0, 1.1, 1.2, 1.3, 1.2, 1.1] * 2)
    assert headline(trials, frame("effects", []), plan)["summary"] == (
        "No baseline is declared, so the 6 arms are described and not compared: mean NLL lies between "
        "1.0000 and 1.3000 nats."
    )
