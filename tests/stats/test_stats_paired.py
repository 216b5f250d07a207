"""The paired effect of an arm on the baseline arm."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, ttest_rel

from ablate.stats import paired_effect, paired_effects

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, n=st.integers(3, 20), shift=st.floats(-2, 2), comparisons=st.integers(1, 8))
def test_equals_scipy(seed: int, n: int, shift: float, comparisons: int) -> None:
    rng = np.random.default_rng(seed)
    baseline = rng.normal(size=n)
    values = 0.5 * baseline + rng.normal(size=n) + shift
    ours = paired_effect(values, baseline, comparisons=comparisons)
    theirs = ttest_rel(values, baseline)
    interval = theirs.confidence_interval(1 - 0.05 / comparisons)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)
    assert ours.effect == pytest.approx(np.mean(values - baseline))
    assert ours.rho == pytest.approx(pearsonr(values, baseline).statistic, abs=1e-12)
    assert ours.sd == pytest.approx(np.std(values - baseline, ddof=1))
    assert ours.n == n


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 12), shift=st.floats(-3, 3), comparisons=st.integers(1, 5))
def test_the_interval_and_the_corrected_p_never_disagree(
    seed: int, n: int, shift: float, comparisons: int
) -> None:
    rng = np.random.default_rng(seed)
    result = paired_effect(rng.normal(size=n) + shift, rng.normal(size=n), comparisons=comparisons)
    assert (result.low > 0 or result.high < 0) == (result.p * comparisons < 0.05)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 12))
def test_swapping_the_arms_changes_the_sign(seed: int, n: int) -> None:
    arms = np.random.default_rng(seed).normal(size=(2, n))
    forth, back = paired_effect(arms[0], arms[1]), paired_effect(arms[1], arms[0])
    assert back.effect == -forth.effect
    assert (back.low, back.high) == (-forth.high, -forth.low)
    assert back.p == forth.p


def test_pairing_removes_what_the_seeds_share() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(scale=5, size=8)
    values, baseline = shared + rng.normal(scale=0.1, size=(2, 8)) + [[1], [0]]
    paired, mispaired = paired_effect(values, baseline), paired_effect(values, np.roll(baseline, 1))
    assert paired.rho > 0.99
    assert paired.effect == pytest.approx(mispaired.effect) == pytest.approx(1, abs=0.2)
    assert paired.sd < 0.3 < 3 < mispaired.sd


def test_simultaneous_intervals_cover_all_effects_together() -> None:
    rng = np.random.default_rng(1)
    arms, seeds, studies = 4, 5, 800
    all_covered = []
    for _ in range(studies):
        baseline = rng.normal(size=seeds)
        results = [paired_effect(rng.normal(size=seeds), baseline, comparisons=arms) for _ in range(arms)]
        all_covered.append(all(result.low <= 0 <= result.high for result in results))
    # Bonferroni covers at least .95, a little more here, as the effects share a baseline; uncorrected .84.
    assert 0.93 < np.mean(all_covered) < 0.98


def test_incomplete_pairs_are_left_out() -> None:
    values, baseline = np.array([1.0, math.nan, 3.0, 4.0, 9.0]), np.array([0.5, 2.0, 1.0, 3.0, math.nan])
    assert paired_effect(values, baseline) == paired_effect(values[[0, 2, 3]], baseline[[0, 2, 3]])
    assert paired_effect(values, baseline).n == 3


@pytest.mark.parametrize("n", [2, 3, 10])
@pytest.mark.parametrize("constant", [0.0, 0.1, -0.3])
def test_equal_differences_have_no_p_and_no_interval(n: int, constant: float) -> None:
    # (baseline + .1) - baseline differs from seed to seed by rounding: scipy warns here, and gives p near 0.
    baseline = np.random.default_rng(n).uniform(0.5, 0.9, n)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = paired_effect(baseline + constant, baseline)
    assert result.effect == pytest.approx(constant, abs=1e-15)
    assert (result.n, result.sd) == (n, 0)
    assert np.isnan([result.p, result.low, result.high]).all()


def test_identical_arms_have_effect_zero() -> None:
    arm = np.array([0.91, 0.92, 0.93])
    result = paired_effect(arm, arm.copy())
    assert (result.effect, result.sd) == (0, 0)
    assert result.rho == pytest.approx(1)


def test_a_difference_above_rounding_counts() -> None:
    # One image of 3,925 on one seed is a real difference.
    baseline = np.array([3400, 3410, 3395]) / 3925
    result = paired_effect(baseline + np.array([0, 0, 1]) / 3925, baseline)
    assert result.sd > 0
    assert 0 < result.p < 1


def test_one_pair() -> None:
    result = paired_effect(np.array([0.9]), np.array([0.8]))
    assert result.effect == pytest.approx(0.1)
    assert result.n == 1
    assert np.isnan([result.low, result.high, result.p, result.rho, result.sd]).all()


def test_no_pair() -> None:
    result = paired_effect(np.array([math.nan, 1.0]), np.array([1.0, math.nan]))
    assert result.n == 0
    assert np.isnan([result.effect, result.low, result.high, result.p, result.rho, result.sd]).all()


def test_rho_needs_three_pairs_and_two_varying_arms() -> None:
    assert math.isnan(paired_effect(np.array([1.0, 2.0]), np.array([1.0, 3.0])).rho)
    assert math.isnan(paired_effect(np.array([1.0, 2.0, 4.0]), np.full(3, 0.1)).rho)
    assert paired_effect(np.array([1.0, 2.0, 4.0]), np.array([4.0, 2.0, 1.0])).rho < 0


def test_refused() -> None:
    three = np.array([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="same seeds, got 3 and 2 values; align"):
        paired_effect(three, three[:2])
    with pytest.raises(ValueError, match=r"shape \[n\]"):
        paired_effect(three[None], three[None])
    with pytest.raises(ValueError, match="1 infinite"):
        paired_effect(three, np.array([1.0, math.inf, 2.0]))
    with pytest.raises(ValueError, match="got comparisons=0"):
        paired_effect(three, three, comparisons=0)
    with pytest.raises(ValueError, match="confidence between 0 and 1"):
        paired_effect(three, three, confidence=95)


def test_many_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(3)
    values, baseline = rng.normal(size=(4, 3, 7)), rng.normal(size=(4, 1, 7))
    values[0, 0, 2] = values[1, 2, :6] = baseline[2, 0, 5] = math.nan
    values[3, 1] = baseline[3, 0] + 0.1
    many = paired_effects(values, baseline, confidence=0.9, comparisons=3)
    assert (many.confidence, many.comparisons) == (0.9, 3)
    for place in np.ndindex(4, 3):
        one = paired_effect(values[place], baseline[place[0], 0], confidence=0.9, comparisons=3)
        for name in ("effect", "low", "high", "n", "p", "rho", "sd"):
            np.testing.assert_array_equal(getattr(many, name)[place], getattr(one, name), err_msg=name)
    assert many.n[1, 2] == 1
    assert many.sd[3, 1] == 0


def test_many_at_once_refuse_a_family_of_none() -> None:
    with pytest.raises(ValueError, match="got comparisons=0"):
        paired_effects(np.ones((2, 3)), np.ones((2, 3)), comparisons=0)
    with pytest.raises(ValueError, match="confidence between 0 and 1"):
        paired_effects(np.ones((2, 3)), np.ones((2, 3)), confidence=1.0)
