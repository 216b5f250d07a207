"""Sentences and cells for effects that are given, not measured: every number, and why a verdict is open."""

from typing import Any

import pytest
from report_results import declare, plan_of, trial_rows

from ablate.analysis.timing import Pass
from ablate.report.headline import headline
from ablate.report.views import certainty_view
from ablate.study.study import Study
from ablate.tables import frame

ARMS = declare(
    factors={"epsilon": (0.0, 0.1), "arch": ("a", "b", "c")},
    baseline={"epsilon": 0.0},
    primary="nll",
    seeds=2,
)
LEVELS = declare(factors={"epsilon": (0.0, 0.1, 0.5)}, baseline={"epsilon": 0.0}, seeds=10)


def told(*effects: dict[str, Any], study: Study = ARMS, timing: Pass | None = None) -> dict[str, Any]:
    plan = plan_of(study)
    return headline(trial_rows(plan), frame("effects", effects), plan, timing)


def effect(arch: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "kind": "arm", "term": f"epsilon=0.1, arch={arch}", "against": f"epsilon=0.0, arch={arch}",
        "metric": "nll", "cells": 1, "cells_planned": 1, "n": 2, "effect": -0.02, "low": -0.03, "high": -0.01,
        "p": 0.01, "p_adjusted": 0.02, "p_holm": 1e-9, "p_sign_flip": 0.5, "margin": 0.02, "rho": -0.5,
        "verdict": "better", "reason": "", "below_margin": False, "low_images": -0.04, "high_images": 0.02,
        **changes,
    }  # fmt: skip


def average(**changes: Any) -> dict[str, Any]:
    numbers = {"n": 10, "effect": -0.0321, "low": -0.04, "high": -0.024, "p_adjusted": 1e-5, "margin": 0.005}
    trend = {"kind": "trend", "term": "epsilon=0.5", "against": "epsilon=0.0", "metric": "accuracy"}
    return effect(**{**trend, **numbers, "verdict": "worse", **changes})


ARM = "ε=0.1 against ε=0 (arch=a): "
SURE = "NLL −0.0200 nats (simultaneous 95 % interval −0.0300 to −0.0100; n = 2 pairs; adjusted p = 0.020). "
NONE: dict[str, Any] = {"low": None, "high": None, "p": None, "p_adjusted": None, "p_holm": None}
OPEN: dict[str, Any] = {"verdict": "undecided"}
LOST: dict[str, Any] = {**OPEN, **NONE, "reason": "incomplete"}


@pytest.mark.parametrize(
    ("changes", "size", "verdict"),
    [
        ({}, SURE, "Better."),
        ({"p_adjusted": 1e-9}, SURE.replace("= 0.020", "< 0.001"), "Better."),
        ({"verdict": "equivalent"}, SURE, "Equivalent within ±0.0200 nats."),
        ({"verdict": "equivalent", "below_margin": True}, SURE, "different, by less than matters."),
        ({**OPEN, "seeds_needed": 13}, SURE, "Undecided; about 13 seeds would likely decide."),
        (OPEN, SURE, "Undecided; not even 1,000 seeds would likely decide."),
        ({**OPEN, "reason": "incomplete", "n": 1}, "n = 1 pair;", "only 1 of 2 planned pairs are complete."),
        ({**OPEN, **NONE, "reason": "no_spread"}, "(n = 2 pairs, no interval). ", "no spread to judge by."),
        ({**NONE, "verdict": "equivalent", "reason": "identical"}, "no interval", "on every seed."),
        ({**LOST, "n": 0, "effect": None}, "no seed is complete", "0 of 2 planned pairs are complete."),
    ],
)  # fmt: skip
def test_an_arm_is_told_with_its_uncertainty(changes: dict[str, Any], size: str, verdict: str) -> None:
    text = told(effect(**changes), effect("b"))["contrasts"][0]["text"]
    assert text.startswith(ARM)
    assert size in text
    assert text.endswith(verdict)


def test_main_effects_are_told_interactions_are_not_and_the_summary_counts_verdicts() -> None:
    main = average(kind="main", term="epsilon=0.1", metric="nll", cells=3, cells_planned=3)
    both = {"kind": "interaction", "term": "epsilon=0.1, arch=b", "against": "epsilon=0.0, arch=a"}
    words = {"a": "undecided", "b": "better", "c": "equivalent"}
    arms = [effect(arch, verdict=word) for arch, word in words.items()]
    found = told(*arms, main, average(**both, metric="nll"))
    (text,) = found["averaged"]
    assert text.startswith("ε: 0.1 − 0, averaged over 3 of 3 combinations: NLL −0.0321 nats (simultaneous")
    assert found["summary"].endswith("NLL is better in 1, equivalent in 1 and undecided in 1.")
    assert told(*arms[1:], effect(verdict="better"))["summary"].endswith("better in 2 and equivalent in 1.")


def test_without_contrasts_the_range_of_means_is_told_and_no_winner() -> None:
    plan = plan_of(ARMS.replace(baseline={}))
    trials = trial_rows(plan).assign(nll=[1.0, 1.1, 1.2, 1.3, 1.2, 1.1] * 2)
    found = headline(trials, frame("effects", []), plan)
    assert found["summary"].startswith("No baseline is declared, so the 6 arms are described")
    assert found["summary"].endswith("mean NLL lies between 1.0000 and 1.3000 nats.")
    assert found["contrasts"] == []
    assert certainty_view(frame("effects", []), plan) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"Over seeds": "−0.0300 to −0.0100", "New images too": "−0.0400 to +0.0200", "ρ": "−0.50"}),
        ({"low_images": None, "high_images": None, "rho": None}, {"New images too": "–", "ρ": "–"}),
        ({}, {"Holm's p": "< 0.001", "Sign-flip p": "0.500", "Detectable": "–"}),
        ({"p_sign_flip": None, "n": 21, "seeds_needed": 41}, {"Sign-flip p": "–", "Seeds needed": "41"}),
        ({}, {"Seeds needed": "–"}),
        (OPEN, {"Seeds needed": "> 1,000"}),
        ({**OPEN, "low": None, "high": None}, {"Seeds needed": "–"}),
    ],
)
def test_what_is_not_known_is_not_shown(changes: dict[str, Any], expected: dict[str, str]) -> None:
    table = certainty_view(frame("effects", [effect(**changes)]), plan_of(ARMS))
    assert table is not None
    heads = [head["label"] for head in table["columns"]]
    assert {label: table["rows"][0][heads.index(label)]["text"] for label in expected} == expected
