"""The t intervals of a mean and of one more value, the median's, and that for new images."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import recompute
from scipy.stats import norm, t, ttest_1samp
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.rates import confint_poisson

from ablate.stats.intervals import (
    ends_within,
    mean_interval,
    median_interval,
    new_images_interval,
    prediction_interval,
)

VALUES = st.lists(st.integers(-1000, 1000).map(lambda i: i / 8), min_size=2, max_size=30)


@given(VALUES.filter(lambda values: np.ptp(values) > 0))
def test_equals_scipy(values: list[float]) -> None:
    array = np.array(values)
    ours = mean_interval(array)
    theirs = ttest_1samp(array, 0.0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-10, abs=1e-10)
    assert (ours.mean, ours.sd, ours.n) == pytest.approx((array.mean(), array.std(ddof=1), len(values)))


def test_by_hand() -> None:
    # mean 3, sd sqrt(2.5), t(.975, 4) = 2.7764; one more value: 3 ± 2.7764 · 1.5811 · sqrt(1.2).
    values = np.array([1.0, 2, 3, 4, 5, math.nan])
    found = prediction_interval(values)
    assert (found.low, found.mean, found.high, found.n) == pytest.approx((-1.8090, 3, 7.8090, 5), abs=1e-4)
    assert mean_interval(values, bounds=(0, 1)) == mean_interval(values)  # a mean outside of the range
    narrow = values.astype(np.float32) / 7  # is widened first
    assert mean_interval(narrow) == mean_interval(narrow.astype(np.float64))


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
    assert math.isnan(median_interval(np.array(values[:n])).median) == (n == 0)


RANGES = ((0.0, 1.0), (0.0, math.inf), (-0.5, 1.0), (-math.inf, 1.0))


@given(st.lists(st.sampled_from([0.0, 1.0]) | st.floats(1e-9, 1), min_size=1, max_size=6))
def test_the_interval_of_a_mean_stays_within_the_metrics_range(values: list[float]) -> None:
    plain = mean_interval(np.array(values))
    for lowest, highest in RANGES:
        found = mean_interval(np.array(values), bounds=(lowest, highest))
        assert (found.mean, found.n, found.sd) == pytest.approx((plain.mean, plain.n, plain.sd), nan_ok=True)
        assert np.isnan([found.low, found.high]).tolist() == [math.isnan(plain.low)] * 2
        assert math.isnan(plain.low) or lowest <= found.low <= found.mean <= found.high <= highest


@pytest.mark.parametrize("count", [1, 7, 50, 199])
def test_within_a_range_it_is_wilsons_of_a_share_and_the_score_interval_of_a_rate(count: int) -> None:
    share, z = count / 200, float(norm.isf(0.025))
    ends = ends_within((0, 1), share, z * math.sqrt(share * (1 - share) / 200))
    assert ends == pytest.approx(proportion_confint(count, 200, method="wilson"))
    ends = ends_within((0, math.inf), share, z * math.sqrt(share / 200))
    assert ends == pytest.approx(confint_poisson(count, 200, method="score"))


@pytest.mark.parametrize("n", [1, 5, 6, 7, 8, 40, 101])
def test_the_medians_interval_is_the_narrowest_pair_of_order_statistics_that_covers(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    found = median_interval(values)
    assert found.n == n
    assert (found.median, found.low, found.high) == pytest.approx(recompute.median_of(values), nan_ok=True)


def test_for_new_images_it_equals_the_analysis_of_variance() -> None:
    rng, n, images = np.random.default_rng(0), 4, 30
    seeds, suits = 0.3 * rng.normal(size=(n, 1)), 0.8 * rng.normal(size=images)
    differences = seeds + suits + rng.normal(size=(n, images))
    seed, image = np.indices((n, images)).reshape(2, -1)
    table = pd.DataFrame({"y": differences.ravel(), "seed": seed, "image": image})
    mean_square = anova_lm(ols("y ~ C(seed) + C(image)", table).fit())["mean_sq"]
    # Each factor's mean square is its means' variance times the number averaged over.
    of_seeds = mean_square["C(seed)"] / images / n
    added = (mean_square["C(image)"] - mean_square["Residual"]) / n / images
    half = math.hypot(t.isf(0.025, n - 1) * of_seeds**0.5, t.isf(0.025, images - 1) * added**0.5)
    mean = differences.mean()
    assert new_images_interval(differences) == pytest.approx((mean, mean - half, mean + half), rel=1e-9)


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (3, 1), (3, 7)])
def test_one_seed_or_image_or_equal_differences_have_no_interval(shape: tuple[int, int]) -> None:
    for constant in (0.0, 0.1):
        expected = (constant if shape[0] else math.nan, math.nan, math.nan)
        assert new_images_interval(np.full(shape, constant)) == pytest.approx(expected, nan_ok=True)
