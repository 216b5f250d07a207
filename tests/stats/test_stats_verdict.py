"""The verdict on an effect."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from ablate.stats import (
    PairedEffect,
    equivalence_power,
    paired_effect,
    paired_effects,
    paired_power,
    verdict,
    verdicts,
)

SEEDS = st.integers(0, 2**32 - 1)


def effect_of(mean: float, sd: float = 1.0, n: int = 5, comparisons: int = 1) -> PairedEffect:
    """Of differences that have exactly this mean and standard deviation."""
    pattern = np.linspace(-1, 1, n)
    differences = mean + sd * pattern / pattern.std(ddof=1)
    return paired_effect(differences, np.zeros(n), comparisons=comparisons)


@settings(max_examples=200, deadline=None)
@given(
    seed=SEEDS,
    n=st.integers(2, 12),
    shift=st.floats(-3, 3),
    margin=st.floats(0.1, 4),
    comparisons=st.integers(1, 6),
)
def test_equals_the_rules_with_scipy_and_statsmodels(
    seed: int, n: int, shift: float, margin: float, comparisons: int
) -> None:
    rng = np.random.default_rng(seed)
    arms = rng.normal(size=(2, n)) + np.array([[shift], [0]])
    found = verdict(
        paired_effect(arms[0], arms[1], comparisons=comparisons),
        planned=n,
        higher_is_better=True,
        margin=margin,
    )
    differs = min(1, comparisons * ttest_rel(arms[0], arms[1]).pvalue)
    same = min(1, comparisons * ttost_paired(arms[0], arms[1], -margin, margin)[0])
    assert found.p_adjusted == pytest.approx(differs, rel=1e-9)
    assert found.p_equivalence == pytest.approx(same, rel=1e-9, abs=1e-14)
    called = "better" if arms[0].mean() > arms[1].mean() else "worse"
    expected = "equivalent" if same <= 0.05 else called if differs <= 0.05 else "undecided"
    assert found.word == expected
    assert found.below_margin == (same <= 0.05 and differs <= 0.05)
    assert found.reason == ""
    assert expected == "undecided" or found.seeds_needed is None


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 12), shift=st.floats(-3, 3), comparisons=st.integers(1, 5))
def test_without_a_margin_it_is_what_the_interval_shows(
    seed: int, n: int, shift: float, comparisons: int
) -> None:
    rng = np.random.default_rng(seed)
    found = paired_effect(rng.normal(size=n) + shift, np.zeros(n), comparisons=comparisons)
    judged = verdict(found, planned=n, higher_is_better=None)
    assert (judged.word == "higher") == (found.low > 0)
    assert (judged.word == "lower") == (found.high < 0)
    assert math.isnan(judged.p_equivalence)


@pytest.mark.parametrize(
    ("mean", "higher_is_better", "word"),
    [
        (9.0, True, "better"), (-9.0, True, "worse"),
        (9.0, False, "worse"), (-9.0, False, "better"),
        (9.0, None, "higher"), (-9.0, None, "lower"),
    ],
)  # fmt: skip
def test_direction(mean: float, higher_is_better: bool | None, word: str) -> None:
    assert verdict(effect_of(mean), planned=5, higher_is_better=higher_is_better, margin=1.0).word == word


def test_a_small_sure_difference_is_equivalent() -> None:
    found = verdict(effect_of(0.5, sd=0.1), planned=5, higher_is_better=True, margin=1.0)
    assert (found.word, found.below_margin) == ("equivalent", True)
    found = verdict(effect_of(0.0, sd=0.1), planned=5, higher_is_better=True, margin=1.0)
    assert (found.word, found.below_margin) == ("equivalent", False)


def test_the_family_of_the_interval_is_that_of_the_tests() -> None:
    alone, in_family = (
        verdict(effect_of(1.5, comparisons=m), planned=5, higher_is_better=True, margin=0.1) for m in (1, 6)
    )
    assert (alone.word, in_family.word) == ("better", "undecided")
    assert in_family.p_adjusted == pytest.approx(6 * alone.p_adjusted)
    alone, in_family = (
        verdict(effect_of(0.0, comparisons=m), planned=5, higher_is_better=True, margin=1.3) for m in (1, 6)
    )
    assert (alone.word, in_family.word) == ("equivalent", "undecided")
    assert in_family.p_equivalence == pytest.approx(6 * alone.p_equivalence)


def test_the_confidence_of_the_interval_is_that_of_the_tests() -> None:
    differences = np.array([0.4, 1.9, 1.2, 0.1, 2.3])
    words = {
        confidence: verdict(
            paired_effect(differences, np.zeros(5), confidence=confidence), planned=5, higher_is_better=True
        ).word
        for confidence in (0.9, 0.95, 0.99)
    }
    assert words == {0.9: "better", 0.95: "better", 0.99: "undecided"}


@pytest.mark.parametrize("mean", [0.0, 9.0])
def test_incomplete_pairs_leave_it_undecided(mean: float) -> None:
    found = verdict(effect_of(mean, sd=0.1), planned=6, higher_is_better=True, margin=1.0)
    assert (found.word, found.reason, found.below_margin) == ("undecided", "incomplete", False)
    assert found.seeds_needed == 6  # what was planned would have been enough


def test_identical_predictions_are_equivalent() -> None:
    arm = np.array([0.91, 0.92, 0.93])
    found = paired_effect(arm, arm.copy())
    same = verdict(found, planned=3, higher_is_better=True, identical=True)
    assert (same.word, same.reason, same.below_margin) == ("equivalent", "identical", False)
    # Equal accuracies of other predictions say little, and one seed says nothing.
    other = verdict(found, planned=3, higher_is_better=True, margin=0.01)
    assert (other.word, other.reason, other.seeds_needed) == ("undecided", "no_spread", None)
    one = verdict(paired_effect(arm[:1], arm[:1]), planned=1, higher_is_better=True, identical=True)
    assert (one.word, one.reason) == ("undecided", "too_few_seeds")
    missing = verdict(found, planned=4, higher_is_better=True, identical=True)
    assert (missing.word, missing.reason) == ("undecided", "incomplete")


def test_identical_is_believed_only_of_differences_that_are_zero() -> None:
    constant = paired_effect(np.full(3, 0.2), np.full(3, 0.1))
    assert verdict(constant, planned=3, higher_is_better=True, identical=True).reason == "no_spread"
    varying = verdict(effect_of(9.0), planned=5, higher_is_better=True, identical=True)
    assert (varying.word, varying.reason) == ("better", "")


@pytest.mark.parametrize(("n", "planned", "reason"), [(0, 3, "incomplete"), (1, 1, "too_few_seeds")])
def test_too_few_pairs(n: int, planned: int, reason: str) -> None:
    values = np.array([0.9] * n + [math.nan] * (planned - n))
    found = verdict(
        paired_effect(values, np.full(planned, 0.8)), planned=planned, higher_is_better=True, margin=0.1
    )
    assert (found.word, found.reason, found.seeds_needed) == ("undecided", reason, None)
    assert np.isnan([found.p_adjusted, found.p_equivalence]).all()


@pytest.mark.parametrize(
    ("mean", "margin"), [(0.8, math.nan), (0.8, 0.2), (0.1, 0.9), (0.1, 0.2), (0.5, 0.5)]
)
@pytest.mark.parametrize("comparisons", [1, 6])
def test_seeds_needed_are_the_fewest_with_80_percent_power(
    mean: float, margin: float, comparisons: int
) -> None:
    found = verdict(effect_of(mean, comparisons=comparisons), planned=5, higher_is_better=True, margin=margin)
    assert found.word == "undecided"

    def power(n: int) -> float:
        within = math.sqrt(0.5)
        superior = paired_power(mean, n, sd=within, comparisons=comparisons)
        if math.isnan(margin):
            return superior
        return max(superior, equivalence_power(margin, n, sd=within, comparisons=comparisons))

    assert found.seeds_needed == next(n for n in range(6, 1001) if power(n) >= 0.8)


def test_seeds_needed_are_more_than_were_run() -> None:
    # Five seeds have 80 % power for equivalence of arms that do not differ, yet these could not tell.
    found = effect_of(0.85, sd=0.8, comparisons=6)
    assert equivalence_power(4.0, 5, sd=0.8 / math.sqrt(2), comparisons=6) > 0.8
    found = replace(found, effect=3.0, low=-0.1, high=6.1)
    assert verdict(found, planned=5, higher_is_better=True, margin=4.0).seeds_needed == 6


def test_more_than_a_thousand_seeds_are_not_named() -> None:
    assert verdict(effect_of(0.05), planned=5, higher_is_better=True).seeds_needed is None
    assert verdict(effect_of(0.0), planned=5, higher_is_better=True, margin=0.05).seeds_needed is None
    needed = TTestPower().solve_power(0.12, alpha=0.05, power=0.8)
    assert verdict(effect_of(0.12), planned=5, higher_is_better=True).seeds_needed == math.ceil(needed)


def test_a_huge_effect_on_too_few_seeds_still_says_how_many() -> None:
    values = np.array([1.0, 1.0 + 1e-12, math.nan])
    assert verdict(paired_effect(values, np.zeros(3)), planned=3, higher_is_better=True).seeds_needed == 3


def test_many_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 4)) * rng.choice([0.0, 0.1, 1.0], size=(30, 1)) + rng.choice(
        [0, 1, 3], (30, 1)
    )
    values[4, 1] = math.nan
    many = verdicts(
        paired_effects(values, np.zeros(4), comparisons=2), planned=4, higher_is_better=False, margin=0.9
    )
    for place, row in enumerate(values):
        found = paired_effect(row, np.zeros(4), comparisons=2)
        one = verdict(found, planned=4, higher_is_better=False, margin=0.9)
        for name in ("word", "reason", "below_margin", "p_adjusted", "p_equivalence"):
            np.testing.assert_equal(getattr(many, name)[place], getattr(one, name))
    assert {"equivalent", "worse", "undecided"} <= set(many.word.tolist())
    assert {"", "incomplete", "no_spread"} == set(many.reason.tolist())


def test_refused() -> None:
    with pytest.raises(ValueError, match="at most the 4 pairs planned, got 5"):
        verdict(effect_of(1.0), planned=4, higher_is_better=True)
    for margin in (0.0, -0.1, math.inf):
        with pytest.raises(ValueError, match="finite margin > 0"):
            verdict(effect_of(1.0), planned=5, higher_is_better=True, margin=margin)
