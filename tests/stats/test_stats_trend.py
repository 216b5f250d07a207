"""The trend over an ordered factor."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress, ttest_1samp

from ablate.stats import trend, verdict
from ablate.stats.trend import Scale

LEVELS = [0.05, 0.1, 0.2, 0.4]
SCALES: dict[Scale, list[float]] = {
    "value": LEVELS,
    "log2": [math.log2(level) for level in LEVELS],
    "rank": [0, 1, 2, 3],
}


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 10),
    scale=st.sampled_from(sorted(SCALES)),
    comparisons=st.integers(1, 4),
)
def test_equals_scipy(seed: int, n: int, scale: Scale, comparisons: int) -> None:
    values = np.random.default_rng(seed).normal(size=(4, n))
    found = trend(values, LEVELS, scale=scale, comparisons=comparisons)
    slopes = [linregress(SCALES[scale], column).slope for column in values.T]
    theirs = ttest_1samp(slopes, 0.0)
    interval = theirs.confidence_interval(1 - 0.05 / comparisons)
    assert found.effect == pytest.approx(np.mean(slopes), rel=1e-9)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert (found.n, found.comparisons) == (n, comparisons)


def test_what_a_seed_adds_to_all_levels_drops_out() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 6))
    shifted = trend(values + 100 * rng.normal(size=6), LEVELS)
    assert (shifted.effect, shifted.p) == pytest.approx(
        (trend(values, LEVELS).effect, trend(values, LEVELS).p)
    )


def test_the_order_of_the_levels_does_not_matter() -> None:
    values = np.random.default_rng(0).normal(size=(4, 6))
    for scale in SCALES:
        there = trend(values, LEVELS, scale=scale)
        back = trend(values[::-1], LEVELS[::-1], scale=scale)
        assert (back.effect, back.p) == pytest.approx((there.effect, there.p))


def test_a_seed_without_a_level_is_left_out() -> None:
    values = np.random.default_rng(0).normal(size=(4, 6))
    values[2, 3] = math.nan
    found, without = trend(values, LEVELS), trend(np.delete(values, 3, axis=1), LEVELS)
    assert (found.effect, found.p, found.n) == pytest.approx((without.effect, without.p, 5))


@settings(max_examples=100, deadline=None)
@given(
    levels=st.lists(st.integers(0, 60), min_size=3, max_size=12, unique=True),
    luck=st.lists(st.integers(30, 90), min_size=2, max_size=10),
    gains=st.lists(st.integers(-9, 9), min_size=12, max_size=12),
    per=st.sampled_from([1, 3, 20, 1000]),
)
def test_equal_slopes_in_decimals_are_equal_and_no_certainty(
    levels: list[int], luck: list[int], gains: list[int], per: int
) -> None:
    """Hundredths are not exact in binary; what their rounding leaves is no evidence."""
    values = (np.array(luck) + np.array(gains[: len(levels)])[:, None]) / 100
    found = trend(values, [level / per for level in levels])
    assert found.sd == 0
    assert math.isnan(found.p)
    expected = linregress(np.array(levels) / per, gains[: len(levels)]).slope / 100
    assert found.effect == pytest.approx(expected, abs=1e-12 * per)
    flat = trend(np.repeat(np.array([luck]) / 100, len(levels), axis=0), [level / per for level in levels])
    assert (flat.sd, math.isnan(flat.p), math.isnan(flat.rho)) == (0, True, True)


def test_a_verdict_can_be_asked_of_it() -> None:
    values = np.array([0.80, 0.84, 0.88])[:, None] + np.random.default_rng(0).normal(scale=0.002, size=(3, 5))
    found = trend(values, [0.0, 0.1, 0.2])
    assert found.effect == pytest.approx(0.4, abs=0.05)
    assert verdict(found, planned=5, higher_is_better=True).word == "better"


@pytest.mark.parametrize(
    ("shape", "levels", "scale", "message"),
    [
        ((3, 5), [1.0, 2.0], "value", r"\[2 levels, n seeds\], got \(3, 5\)"),
        ((2,), [1.0, 2.0], "value", r"\[2 levels, n seeds\], got \(2,\)"),
        ((1, 5), [1.0], "value", "at least two levels"),
        ((2, 5), [1.0, math.inf], "value", "all finite"),
        ((2, 5), [1.0, 1.0], "value", "levels that all differ"),
        ((2, 5), [0.0, 0.1], "log2", "levels above 0"),
    ],
)
def test_refused(shape: tuple[int, ...], levels: list[float], scale: Scale, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trend(np.ones(shape), levels, scale=scale)
