"""The t intervals of a mean and of one more value, and the median's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, ttest_1samp

from ablate.stats import mean_interval, median_interval, prediction_interval

VALUES = st.lists(st.integers(-1000, 1000).map(lambda i: i / 8), min_size=2, max_size=30)


@given(VALUES.filter(lambda values: np.ptp(values) > 0), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_equals_scipy(values: list[float], confidence: float) -> None:
    array = np.array(values)
    ours = mean_interval(array, confidence=confidence)
    theirs = ttest_1samp(array, 0.0).confidence_interval(confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-10, abs=1e-10)
    assert (ours.mean, ours.sd, ours.n) == pytest.approx((array.mean(), array.std(ddof=1), len(values)))


def test_by_hand() -> None:
    # mean 3, sd sqrt(2.5), t(.975, 4) = 2.7764; one more value: 3 ± 2.7764 · 1.5811 · sqrt(1.2).
    values = np.array([1.0, 2, 3, 4, 5, math.nan])
    of_mean, of_next = mean_interval(values), prediction_interval(values)
    assert (of_mean.low, of_mean.mean, of_mean.high) == pytest.approx((1.0368, 3, 4.9632), abs=1e-4)
    assert (of_next.low, of_next.mean, of_next.high) == pytest.approx((-1.8090, 3, 7.8090), abs=1e-4)
    assert of_mean.n == of_next.n == 5


def test_coverage_is_the_nominal_one() -> None:
    draws = np.random.default_rng(0).normal(loc=87, scale=0.4, size=(3000, 6))
    means = [mean_interval(values[:5]) for values in draws]
    # Three standard errors are .012. Mean ± 1.96 standard errors would cover .88, a bootstrap .83.
    assert np.mean([own.low <= 87 <= own.high for own in means]) == pytest.approx(0.95, abs=0.012)
    next_one = [prediction_interval(values[:5]) for values in draws]
    inside = [own.low <= values[5] <= own.high for own, values in zip(next_one, draws, strict=True)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)


# np.std of three times 0.1 is 1.4e-17, not 0.
@pytest.mark.parametrize(
    ("values", "n", "sd"),
    [([0.6], 1, math.nan), ([0.1] * 3, 3, 0.0), ([0.6, math.nan], 1, math.nan), ([], 0, math.nan)],
)
def test_without_spread_there_is_no_interval(values: list[float], n: int, sd: float) -> None:
    for interval in (mean_interval(np.array(values)), prediction_interval(np.array(values))):
        assert np.isnan([interval.low, interval.high]).all()
        assert (interval.n, interval.sd) == pytest.approx((n, sd), nan_ok=True)
        assert math.isnan(interval.mean) == (n == 0)


def test_float32_values_are_widened() -> None:
    values = np.array([0.871, 0.874, 0.869], dtype=np.float32)
    assert mean_interval(values) == mean_interval(values.astype(np.float64))


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[n\].*got \(2, 2\)"):
        mean_interval(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"got 1 infinite.*NaN for failed"):
        mean_interval(np.array([1.0, math.inf]))
    for confidence in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="Expected confidence between 0 and 1"):
            mean_interval(np.ones(3), confidence=confidence)


@pytest.mark.parametrize("n", [1, 5, 6, 7, 8, 20, 40, 101])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_medians_interval_is_the_narrowest_pair_of_order_statistics_that_covers(
    n: int, confidence: float
) -> None:
    values = np.random.default_rng(n).normal(size=n)
    found, ordered = median_interval(values, confidence=confidence), np.sort(values)
    assert (found.median, found.n) == (np.median(values), n)
    # P(x_(cut) <= median <= x_(n + 1 - cut)), cut counted from 1.
    cuts = [cut for cut in range(1, n // 2 + 1) if 1 - 2 * binom.cdf(cut - 1, n, 0.5) >= confidence]
    if not cuts:
        assert np.isnan([found.low, found.high]).all()
        return
    assert (found.low, found.high) == (ordered[cuts[-1] - 1], ordered[n - cuts[-1]])
    spiked = np.where(values == values.max(), 1e6, values)
    assert n < 7 or median_interval(spiked, confidence=confidence).high < 1e6 or cuts[-1] == 1


def test_no_value_has_no_median() -> None:
    assert math.isnan(median_interval(np.array([])).median)
