"""The median's interval against the binomial distribution, and its coverage whatever the distribution."""

import math

import numpy as np
import pytest
from scipy.stats import binom, quantile_test

from ablate.stats import median_interval


@pytest.mark.parametrize("n", [6, 7, 8, 20, 40, 101])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_the_interval_is_the_narrowest_pair_of_order_statistics_that_covers(
    n: int, confidence: float
) -> None:
    values = np.random.default_rng(n).normal(size=n)
    found, ordered = median_interval(values, confidence=confidence), np.sort(values)

    def coverage(cut: int) -> float:
        """P(x_(cut) <= median <= x_(n + 1 - cut)), cut counted from 1."""
        return float(1 - 2 * binom.cdf(cut - 1, n, 0.5))

    cuts = [cut for cut in range(1, n // 2 + 1) if coverage(cut) >= confidence]
    if not cuts:
        assert math.isnan(found.low)
        return
    assert (found.low, found.high) == (ordered[cuts[-1] - 1], ordered[n - cuts[-1]])
    assert found.median == np.median(values)


def test_the_interval_is_close_to_scipys_quantile_test() -> None:
    values = np.random.default_rng(1).exponential(size=40)
    found, theirs = median_interval(values), quantile_test(values, p=0.5).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_few_values_have_a_median_and_no_interval() -> None:
    assert math.isnan(median_interval(np.array([])).median)
    five = median_interval(np.arange(5.0))
    assert (five.median, five.n) == (2.0, 5)
    assert math.isnan(five.low)
    assert math.isnan(five.high)
    six = median_interval(np.arange(6.0))
    assert (six.low, six.high) == (0.0, 5.0)


def test_a_spike_moves_no_end() -> None:
    values = np.random.default_rng(2).normal(10, 1, size=40)
    spiked = values.copy()
    spiked[values.argmax()] = 1e6
    assert median_interval(values) == median_interval(spiked)
