"""The interval for new images and new seeds."""

import math

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import t
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from ablate.stats import mean_interval, new_images_interval, paired_effect


def crossed(
    rng: np.random.Generator, n: int, images: int, *, seed_sd: float, image_sd: float, rest_sd: float = 1.0
) -> NDArray[np.float64]:
    """Differences without an effect, [n, images]."""
    seeds, suits = seed_sd * rng.normal(size=(n, 1)), image_sd * rng.normal(size=images)
    differences: NDArray[np.float64] = seeds + suits + rest_sd * rng.normal(size=(n, images))
    return differences


def test_equals_the_analysis_of_variance() -> None:
    n, images = 4, 30
    differences = crossed(np.random.default_rng(0), n, images, seed_sd=0.3, image_sd=0.8)
    seed, image = np.indices((n, images)).reshape(2, -1)
    table = pd.DataFrame({"y": differences.ravel(), "seed": seed, "image": image})
    mean_square = anova_lm(ols("y ~ C(seed) + C(image)", table).fit())["mean_sq"]
    # Each factor's mean square is its means' variance times the number averaged over.
    of_seeds = mean_square["C(seed)"] / images / n
    added = (mean_square["C(image)"] - mean_square["Residual"]) / n / images
    half = math.hypot(t.isf(0.025, n - 1) * of_seeds**0.5, t.isf(0.025, images - 1) * added**0.5)
    mean = differences.mean()
    assert new_images_interval(differences) == pytest.approx((mean, mean - half, mean + half), rel=1e-9)


@pytest.mark.parametrize(("n", "comparisons"), [(3, 1), (3, 6), (5, 1)])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 10.0])
def test_coverage(n: int, comparisons: int, ratio: float) -> None:
    """Images add `ratio` times what the seeds do; the seeds' own interval covers down to 75 %."""
    rng, images, seed_sd, studies = np.random.default_rng(7), 60, 0.1, 3000
    image_sd = math.sqrt(ratio * seed_sd**2 / n * images)
    covered, of_seeds = 0, 0
    for _ in range(studies):
        differences = crossed(rng, n, images, seed_sd=seed_sd, image_sd=image_sd, rest_sd=0.5)
        _, low, high = new_images_interval(differences, comparisons=comparisons)
        covered += low <= 0 <= high
        over_seeds = mean_interval(differences.mean(axis=1))
        of_seeds += over_seeds.low <= 0 <= over_seeds.high
    asked = 1 - 0.05 / comparisons
    assert covered / studies > asked - 3 * math.sqrt(asked * (1 - asked) / studies)
    assert covered / studies < 0.985 or comparisons > 1
    assert n > 3 or ratio < 10 or of_seeds / studies < 0.8


def test_it_holds_the_interval_over_seeds() -> None:
    rng = np.random.default_rng(1)
    for image_sd in (0.0, 0.1, 1.0):
        differences = crossed(rng, 5, 80, seed_sd=0.1, image_sd=image_sd)
        inner = paired_effect(differences.mean(axis=1), np.zeros(5), comparisons=4)
        _, low, high = new_images_interval(differences, comparisons=4)
        assert low <= inner.low + 1e-12 <= inner.high <= high + 1e-12
        with_gap = np.insert(differences, 2, math.nan, axis=0)
        assert new_images_interval(with_gap, comparisons=4)[1:] == (low, high)
    # Many images leave that over seeds.
    differences = crossed(np.random.default_rng(2), 4, 50_000, seed_sd=1.0, image_sd=1.0)
    inner_of_many = mean_interval(differences.mean(axis=1))
    expected = pytest.approx((inner_of_many.low, inner_of_many.high), rel=1e-2)
    assert new_images_interval(differences)[1:] == expected


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (3, 1), (3, 7)])
@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_one_seed_or_image_or_equal_differences_have_no_interval(
    shape: tuple[int, int], constant: float
) -> None:
    found = new_images_interval(np.full(shape, constant))
    expected = constant if shape[0] else math.nan
    assert found == pytest.approx((expected, math.nan, math.nan), nan_ok=True)


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"\[n seeds, N images\], got \(3,\)"):
        new_images_interval(np.ones(3))
    for odd in (math.nan, math.inf):
        with pytest.raises(ValueError, match="got 1 other values"):
            new_images_interval(np.array([[1.0, odd], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="got comparisons=0"):
        new_images_interval(np.ones((2, 2)), comparisons=0)
    with pytest.raises(ValueError, match="confidence between 0 and 1"):
        new_images_interval(np.ones((2, 2)), confidence=2)
