"""Sentences and cells for effects that are given, not measured: every number, and why a verdict is open."""

import re
from typing import Any

import pytest
from recorded_study import planned
from report_results import declare, effect_row, trial_rows

from ablate.analysis.effects import VERDICTS
from ablate.report.answer import AVERAGED, answer, answer_lines
from ablate.report.cautions import banners
from ablate.study.comparisons import terms
from ablate.study.study import Study
from ablate.tables.files import frame

NLL: dict[str, Any] = {"baseline": {"epsilon": 0.0}, "primary": "nll", "family": ("nll", "ece"), "seeds": 2}
ARMS = declare(factors={"epsilon": (0.0, 0.1), "arch": ("a", "b", "c")}, **NLL)
LEVELS = declare(
    factors={"epsilon": (0.0, 0.1, 0.5)}, baseline={"epsilon": 0.0}, comparisons=("arms", "trend"), seeds=10
)


def told(*effects: dict[str, Any], study: Study = ARMS) -> dict[str, Any]:
    plan = planned(study)
    return answer({"trials": trial_rows(plan), "effects": frame("effects", effects)}, plan)


def effect(arch: str = "a", **changes: Any) -> dict[str, Any]:
    arms = {"term": f"epsilon=0.1, arch={arch}", "against": f"epsilon=0.0, arch={arch}"}
    own = {"metric": "nll", "n": 2, "effect": -0.02, "low": -0.03, "high": -0.01, "detectable": None}
    return effect_row(**{**arms, **own, **changes})


NONE: dict[str, Any] = {"low": None, "high": None, "p": None, "p_adjusted": None}
OPEN: dict[str, Any] = {"verdict": "undecided"}
LOST: dict[str, Any] = {**OPEN, **NONE, "reason": "incomplete"}
AT = "undecided at ε=0.1 (arch=a)"
SIZE = "−0.0200 nats (−0.0300 to −0.0100)"
OTHER = {"arch": "b", "verdict": "better", "effect": -0.05}


@pytest.mark.parametrize(
    ("effects", "text"),
    [
        ([{}], f"better: {SIZE} at ε=0.1 (arch=a)."),
        ([{}, {"arch": "b"}], f"better: {SIZE} at ε=0.1 (arch=a) and {SIZE} at ε=0.1 (arch=b)."),
        (
            [{}, OTHER, {"arch": "c"}],
            f"better in all 3 comparisons, from {SIZE} at ε=0.1 (arch=a) to {SIZE.replace('2', '5', 1)} at "
            "ε=0.1 (arch=b).",
        ),
        ([{"verdict": "equivalent"}], "equivalent within ±0.0200 nats at ε=0.1 (arch=a)."),
        (
            [{**OPEN, "detectable": 0.05, "seeds_from": 13, "seeds_needed": 25}],
            f"{AT} (−0.0200 nats, −0.0300 to −0.0100); 2 seeds can only show "
            "differences of 0.0500 nats or more (80 % power), the margin is 0.0200, and 13 to 25 seeds would "
            "settle it.",
        ),
        ([{**LOST, "n": 0, "effect": None}], f"{AT}, because planned trials are missing."),
        (
            [{**OPEN, **NONE, "reason": "no_spread"}],
            f"{AT} (−0.0200 nats, no interval), because all seeds differ alike, which "
            "leaves no spread to judge by.",
        ),
    ],
)
def test_a_metric_is_told_in_a_sentence(effects: list[dict[str, Any]], text: str) -> None:
    (said,) = told(*(effect(**changes) for changes in effects))["sentences"]
    assert said["text"] == f"NLL: {text}"
    assert said["word"] == text.split()[0].rstrip(":")


def test_decided_metrics_come_first_and_each_is_told_once() -> None:
    found = told(effect(**OPEN, detectable=0.05), effect(metric="ece", effect=0.08, verdict="worse"))
    assert [(said["metric"], said["word"]) for said in found["sentences"]] == [
        ("ece", "worse"), ("nll", "undecided"),
    ]  # fmt: skip


TREND = {"kind": "trend", "term": "epsilon=0.5", "against": "epsilon=0.0", "metric": "accuracy"}
LINE = "from ε=0 to 0.5 on a straight line in raw values"


def test_a_trend_is_told_as_a_straight_line_or_as_none() -> None:
    (said,) = told(effect(**TREND, verdict="worse"), study=LEVELS)["sentences"]
    assert said["text"] == f"Accuracy: worse: −2.00 points (−3.00 to −1.00) {LINE}."
    (said,) = told(effect(**TREND, **OPEN, reason="bent"), study=LEVELS)["sentences"]
    assert said["text"].startswith(f"Accuracy: undecided {LINE} (")
    assert said["text"].endswith("because the means turn within the levels, which no straight line tells.")


def test_of_many_comparisons_the_largest_are_named_and_the_others_counted() -> None:
    factors = {"epsilon": (0.0, 0.1, 0.3), "reduction": ("mean", "sum", "none"), "arch": ("a", "b")}
    study = declare(factors=factors, baseline={"epsilon": 0.0}, comparisons=("main", "interaction"), seeds=3)
    asked = [term for term in terms(planned(study)) if term.asked]
    rows = [
        {**effect(**OPEN, metric="accuracy", cells_planned=6, effect=0.001 * at, detectable=0.05), **known}
        for at, one in enumerate(asked)
        if (known := {"kind": one.kind, "term": one.term, "against": one.against})
    ]
    rows[0] |= {"verdict": "worse", "effect": -0.02}
    rows[1] |= {"detectable": 0.02}
    (said,) = told(*rows, study=study)["sentences"]
    decided, _, undecided = said["text"].partition("; undecided in the interaction ")
    assert decided == f"Accuracy: worse: −2.00 points (−3.00 to −1.00) at ε=0.1{AVERAGED}"
    assert (len(asked), undecided.count("interaction")) == (13, 1)
    assert " and 10 more (+0.10 to +1.20); 2 seeds can only show differences of 2.00 to 5.00 poi" in undecided
    assert undecided.endswith("and > 1,000 seeds would settle it.")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"verdict": "better"}, "Go towards ε=0.5: accuracy gets better from 0 on."),
        ({"verdict": "worse"}, "Stay near ε=0: accuracy gets worse towards 0.5."),
        ({**OPEN, "reason": "bent"}, "Ask about single levels of ε: accuracy turns between 0 and 0.5."),
    ],
)
def test_a_study_of_a_trend_alone_says_what_to_do(changes: dict[str, Any], text: str) -> None:
    assert told(effect(**TREND, **changes), study=LEVELS)["recommendation"] == text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"a": ("better", "equivalent")}, "Take ε=0.1 (arch=a): it is better on NLL"),
        (
            {"a": ("better", "worse"), "b": ("equivalent", "undecided")},
            "Keep ε=0: ε=0.1 (arch=a) is better on NLL, worse on ECE.",
        ),
        (
            {"a": ("undecided", "better")},
            "Keep ε=0: nothing that was asked is better on NLL. ε=0.1 (arch=a) is better on ECE, undecided",
        ),
        ({"a": ("worse", "undecided")}, "Keep ε=0: nothing that was asked is better on NLL."),
    ],
)
def test_the_baseline_is_kept_unless_an_arm_is_better(words: dict[str, tuple[str, str]], text: str) -> None:
    rows = [
        effect(arch, metric=metric, verdict=word)
        for arch, both in words.items()
        for metric, word in zip(("nll", "ece"), both, strict=True)
    ]
    assert told(*rows)["recommendation"].startswith(text)


def test_without_a_baseline_the_best_is_named_with_what_it_can_be_told_from() -> None:
    study = declare(factors={"lr": (0.1, 0.2, 0.4)}, primary="nll", seeds=2)
    plan = planned(study)
    trials = trial_rows(plan, lambda trial: {"nll": {0.1: 1.0, 0.2: 1.3, 0.4: 1.1}[trial.fields.lr]})
    pairs = [("lr=0.2", "lr=0.1", "worse"), ("lr=0.4", "lr=0.1", "undecided"), ("lr=0.4", "lr=0.2", "better")]
    rows = [effect(kind="pair", term=a, against=b, verdict=word) for a, b, word in pairs]
    found = answer({"trials": trials, "effects": frame("effects", rows)}, plan)
    best = "Best NLL: lr=0.1, 1.0000 nats; better than lr=0.2; not told from lr=0.4."
    assert found["recommendation"] == best
    assert [row[0]["text"] for row in found["arms"]["rows"]] == ["lr=0.1", "lr=0.4", "lr=0.2"]
    assert [row[1]["best"] for row in found["arms"]["rows"]] == [True, False, False]
    nothing = answer({"trials": trials, "effects": frame("effects", [])}, plan)
    assert nothing["sentences"][0]["text"].startswith("NLL: 1.0000 to 1.3000 nats over 3 arms, which")


def test_no_word_of_verdict_is_said_of_what_is_exploratory() -> None:
    found = told(*(effect(metric=metric, verdict="exploratory") for metric in ("nll", "ece", "accuracy")))
    report = {"answer": found, "banners": []}
    assert not re.search(rf"\b({'|'.join(VERDICTS)})\b", " ".join(answer_lines(report)))


@pytest.mark.parametrize(
    ("images", "right", "title"),
    [
        (60, 0.5, "One image is worth more than the margin"),
        (100_000, 0.099, "No arm is clearly above guessing"),
        (100_000, 0.11, ""),
    ],
)
def test_the_images_are_counted_and_too_few_or_guessing_is_said(
    images: int, right: float, title: str
) -> None:
    plan, cells = planned(LEVELS), [{"class": name, "predicted": name, "count": 1} for name in "abcdefghij"]
    tables = {
        "trials": trial_rows(plan, lambda trial: {"accuracy": right + 0.002 * (trial.seed % 2)}),
        "effects": frame("effects", []),
        "confusion": frame("confusion", cells),
        "reliability": frame(
            "reliability", [{"trial_id": one.trial_id, "count": images // 2} for one in 2 * plan.trials]
        ),
    }
    assert f" · {images:,} reported images, 10 classes · " in answer(tables, plan)["about"]
    told = {one["title"] for one in banners(tables, plan)}
    assert told & {"One image is worth more than the margin", "No arm is clearly above guessing"} == {
        title
    } - {""}
