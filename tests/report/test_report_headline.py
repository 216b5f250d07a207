"""The headline's words for effects that are given, not measured."""

from typing import Any

import numpy as np
import pytest
from report_results import CPU, declare

from ablate.analysis.timing import Pass, arm_cases
from ablate.report.headline import headline
from ablate.study.trials import Plan, expand
from ablate.tables import frame

STUDY = declare(
    factors={"epsilon": (0.0, 0.1), "arch": ("a", "b")}, baseline={"epsilon": 0.0}, primary="nll", seeds=2
)
PLAN = Plan(study=STUDY, profile="p", reason="r", trials=tuple(expand(STUDY, lambda f: "f", lambda f: CPU)))
TRIALS = frame(
    "trials",
    [{"arm": t.arm, "seed": t.seed, "repeat": 0, "status": "complete", "nll": 1.0} for t in PLAN.trials],
)


def effect(arch: str, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "arm", "term": f"epsilon=0.1, arch={arch}", "against": f"epsilon=0.0, arch={arch}",
        "metric": "nll", "n": 2, "effect": -0.02, "low": -0.03, "high": -0.01, "p": 0.01, "p_adjusted": 0.02,
        "p_holm": 0.02, "margin": 0.02, "verdict": "better", "reason": "", "below_margin": False, **changes,
    }  # fmt: skip


def told(*effects: dict[str, Any]) -> dict[str, Any]:
    return headline(TRIALS, frame("effects", effects), PLAN)


START = (
    "ε=0.1 against ε=0 (arch=a): NLL −0.0200 nats (simultaneous 95 % interval −0.0300 to −0.0100; "
    "n = 2 pairs; "
)
NONE: dict[str, Any] = {"low": None, "high": None, "p": None, "p_adjusted": None, "p_holm": None}
UNDECIDED: dict[str, Any] = {"verdict": "undecided"}


@pytest.mark.parametrize(
    ("changes", "verdict", "text"),
    [
        ({}, "better", f"{START}adjusted p = 0.020). Better."),
        ({"p_adjusted": 1e-9}, "better", f"{START}adjusted p < 0.001). Better."),
        ({"verdict": "worse"}, "worse", f"{START}adjusted p = 0.020). Worse."),
        (
            {"verdict": "equivalent"},
            "equivalent",
            f"{START}adjusted p = 0.020). Equivalent within ±0.0200 nats.",
        ),
        (
            {"verdict": "equivalent", "below_margin": True},
            "equivalent",
            f"{START}adjusted p = 0.020). Equivalent within ±0.0200 nats: different, by less than matters.",
        ),
        (
            {**UNDECIDED, "seeds_needed": 13},
            "undecided",
            f"{START}adjusted p = 0.020). Undecided; about 13 seeds would likely decide.",
        ),
        (
            {**UNDECIDED, "seeds_needed": None},
            "undecided",
            f"{START}adjusted p = 0.020). Undecided; not even 1,000 seeds would likely decide.",
        ),
        (
            {**UNDECIDED, "reason": "incomplete", "n": 1},
            "undecided",
            f"{START.replace('n = 2 pairs', 'n = 1 pair')}adjusted p = 0.020). Undecided: only 1 of 2 "
            "planned pairs are complete.",
        ),
        (
            {**UNDECIDED, **NONE, "reason": "no_spread"},
            "undecided",
            "ε=0.1 against ε=0 (arch=a): NLL −0.0200 nats (n = 2 pairs, no interval). Undecided: all pairs "
            "differ alike, which leaves no spread to judge by.",
        ),
        (
            {**NONE, "effect": 0.0, "verdict": "equivalent", "reason": "identical"},
            "equivalent",
            "ε=0.1 against ε=0 (arch=a): NLL 0.0000 nats (n = 2 pairs, no interval). Equivalent: the same "
            "predictions on every seed.",
        ),
        (
            {**UNDECIDED, **NONE, "n": 0, "effect": None, "reason": "incomplete"},
            "undecided",
            "ε=0.1 against ε=0 (arch=a): no seed is complete in both arms. Undecided: only 0 of 2 planned "
            "pairs are complete.",
        ),
    ],
)
def test_a_contrast_is_told_with_its_uncertainty(changes: dict[str, Any], verdict: str, text: str) -> None:
    contrast = told(effect("a", **changes), effect("b"))["contrasts"][0]
    assert (contrast["verdict"], contrast["text"]) == (verdict, text)


@pytest.mark.parametrize(
    ("words", "summary"),
    [
        (("better", "better"), "better in 2"),
        (("better", "worse"), "better in 1 and worse in 1"),
        (("undecided", "better", "equivalent"), "better in 1, equivalent in 1 and undecided in 1"),
        (("undecided", "undecided"), "undecided in 2"),
    ],
)
def test_the_summary_counts_the_verdicts(words: tuple[str, ...], summary: str) -> None:
    found = told(*(effect("ab"[place % 2], verdict=word) for place, word in enumerate(words)))["summary"]
    assert found == f"Of {len(words)} arms, each against its baseline, NLL is {summary}."


def test_one_contrast_is_the_summary_and_its_interval_stands_alone() -> None:
    found = told(effect("a"))
    assert (
        found["summary"]
        == found["contrasts"][0]["text"]
        == (
            "ε=0.1 against ε=0 (arch=a): NLL −0.0200 nats (95 % interval −0.0300 to −0.0100; n = 2 pairs; "
            "p = 0.020). Better."
        )
    )


def test_calibration_and_cost_are_told_beside_the_primary_metric() -> None:
    other = effect("a", metric="ece", effect=0.08, low=0.05, high=0.11, verdict="worse")
    found = told(effect("a"), other)
    assert found["contrasts"][0]["also"] == "ECE +8.00 points (+5.00 to +11.00), worse"
    assert found["details"] == ["ECE +8.00 points (+5.00 to +11.00), worse"]
    cases = arm_cases(PLAN)
    times = {case: np.array([10.0] * 20) for case in cases.values()}
    timed = headline(TRIALS, frame("effects", [effect("a")]), PLAN, Pass(times, 0.0))
    assert timed["contrasts"][0]["also"] == "training step the same"


def test_without_contrasts_the_range_of_means_is_told_and_no_winner() -> None:
    trials = TRIALS.assign(nll=[1.0, 1.1, 1.2, 1.3] * 2)
    study = STUDY.replace(baseline={})
    found = headline(trials, frame("effects", []), PLAN.model_copy(update={"study": study}))
    assert found["summary"] == (
        "No baseline is declared, so the 4 arms are described and not compared: mean NLL lies between "
        "1.0000 and 1.3000 nats."
    )
