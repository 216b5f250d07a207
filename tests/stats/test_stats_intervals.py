"""The t interval of a mean over seeds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from ablate.stats import Interval, mean_interval, prediction_interval

VALUES = st.lists(st.integers(-1000, 1000).map(lambda i: i / 8), min_size=2, max_size=30)


@settings(max_examples=100, deadline=None)
@given(VALUES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_equals_scipy(values: list[float], confidence: float) -> None:
    array = np.array(values)
    if np.ptp(array) == 0:
        return
    ours = mean_interval(array, confidence=confidence)
    theirs = ttest_1samp(array, 0.0).confidence_interval(confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-10, abs=1e-10)
    assert ours.mean == pytest.approx(array.mean())
    assert ours.sd == pytest.approx(array.std(ddof=1))
    assert ours.n == len(values)


def test_textbook_values() -> None:
    # mean 3, sd sqrt(2.5), t(.975, 4) = 2.776.
    interval = mean_interval(np.array([1.0, 2, 3, 4, 5]))
    assert interval.high - 3 == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)


def test_coverage_is_the_nominal_one() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for values in rng.normal(loc=87, scale=0.4, size=(4000, 5)):
        interval = mean_interval(values)
        covered.append(interval.low <= 87 <= interval.high)
    # Three standard errors are .010. Mean +- 1.96 standard errors would cover .88, a bootstrap .83.
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_one_value_has_no_interval() -> None:
    interval = mean_interval(np.array([0.87]))
    assert (interval.mean, interval.n) == (0.87, 1)
    assert np.isnan([interval.low, interval.high, interval.sd]).all()


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_no_value_has_no_mean(values: list[float]) -> None:
    interval = mean_interval(np.array(values, dtype=float))
    assert interval.n == 0
    assert np.isnan([interval.mean, interval.low, interval.high, interval.sd]).all()


@pytest.mark.parametrize("value", [0.1, 0.9341, 0.0])
def test_equal_values_have_no_interval(value: float) -> None:
    # np.std of three times 0.1 is 1.4e-17, not 0.
    interval = mean_interval(np.full(3, value))
    assert interval.mean == pytest.approx(value)
    assert interval.sd == 0
    assert np.isnan([interval.low, interval.high]).all()


def test_missing_values_are_left_out_and_not_counted() -> None:
    with_gap = mean_interval(np.array([0.1, math.nan, 0.3, 0.2]))
    assert with_gap == mean_interval(np.array([0.1, 0.3, 0.2]))
    assert with_gap.n == 3


def test_float32_values_are_widened() -> None:
    values = np.array([0.871, 0.874, 0.869], dtype=np.float32)
    assert mean_interval(values) == mean_interval(values.astype(np.float64))
    assert isinstance(mean_interval(values), Interval)


def test_more_confidence_is_wider() -> None:
    values = np.array([1.0, 2.0, 4.0])
    widths = [
        interval.high - interval.low
        for interval in (mean_interval(values, confidence=c) for c in (0.8, 0.95))
    ]
    assert widths[0] < widths[1]


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[n\].*got shape \(2, 2\)"):
        mean_interval(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"with 1 infinite.*NaN for failed"):
        mean_interval(np.array([1.0, math.inf]))
    for confidence in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="Expected confidence between 0 and 1"):
            mean_interval(np.ones(3), confidence=confidence)


def test_one_more_value_by_hand() -> None:
    # mean 3, sd sqrt(2.5), t(.975, 4) = 2.7764: 3 ± 2.7764 · 1.5811 · sqrt(1.2) = 3 ± 4.8090.
    interval = prediction_interval(np.array([1.0, 2, 3, 4, 5, math.nan]))
    assert (interval.low, interval.mean, interval.high) == pytest.approx((-1.8090, 3, 7.8090), abs=1e-4)
    assert interval.n == 5


def test_one_more_value_is_inside_as_often_as_said() -> None:
    draws = np.random.default_rng(1).normal(loc=0.6, scale=0.01, size=(2000, 7))
    found = [prediction_interval(values[:6]) for values in draws]
    inside = [own.low <= values[6] <= own.high for own, values in zip(found, draws, strict=True)]
    # Three standard errors are .015; the mean's own interval would hold .67, mean ± 1.96 sd .87.
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("values", [[0.6], [0.6, 0.6, 0.6], [0.6, math.nan], []])
def test_without_spread_nothing_is_said_of_one_more(values: list[float]) -> None:
    interval = prediction_interval(np.array(values, dtype=float))
    assert np.isnan([interval.low, interval.high]).all()
