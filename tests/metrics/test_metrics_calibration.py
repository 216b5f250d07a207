"""ECE, its bins and its sums, against loops and libraries that are not ours."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binned_statistic

from ablate.metrics import Predictions, reliability_bins
from ablate.metrics.calibration import ece_debiased
from ablate.metrics.predictions import bin_ids, equal_mass_bin_ids

Array = NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)


def two_class_logits(confidence: list[float]) -> Array:
    """Logits of two classes whose softmax is (c, 1 - c), c >= .5."""
    return np.array([[math.log(c / (1 - c)) if c < 1 else 1e4, 0.0] for c in confidence])


def test_a_bin_is_closed_below() -> None:
    edges = np.linspace(0, 1, 16)
    assert bin_ids(edges).tolist() == [*range(15), 14]
    assert bin_ids(np.nextafter(edges[1:], 0)).tolist() == [*range(15)]


def test_reliability_bins_against_scipy() -> None:
    rng = np.random.default_rng(15)
    confidence = [*rng.uniform(0.5, 1, 500), 1.0]
    predictions = Predictions.of(two_class_logits(confidence), rng.integers(0, 2, 501))
    bins = reliability_bins(predictions)

    def scipy(values: Array, statistic: str) -> Array:
        edges = {"bins": 15, "range": (0, 1)}
        return np.asarray(binned_statistic(predictions.confidence, values, statistic, **edges).statistic)

    correct = predictions.correct.astype(float)
    assert np.array_equal(bins["count"], scipy(correct, "count"))
    np.testing.assert_allclose(bins["confidence"], scipy(predictions.confidence, "mean"), rtol=1e-12)
    np.testing.assert_allclose(bins["accuracy"], scipy(correct, "mean"), rtol=1e-12)
    assert np.isnan(bins["accuracy"][:7]).all(), "empty bins"
    assert (bins["lower"][0], bins["upper"][-1]) == (0, 1)
    assert np.array_equal(bins["lower"][1:], bins["upper"][:-1])


@given(st.lists(st.sampled_from([0.1, 0.3, 0.9, 1.0]) | st.floats(0, 1), min_size=1, max_size=60), SEEDS)
def test_equal_mass_bins_with_ties(confidences: list[float], seed: int) -> None:
    ordered = np.sort(confidences)
    ids = equal_mass_bin_ids(ordered)
    parts = np.array_split(np.arange(len(ordered)), 15)
    bin_of_rank = [b for b, part in enumerate(parts) for _ in part]
    for value in set(confidences):
        ranks = [rank for rank, found in enumerate(ordered) if found == value]
        assert set(ids[ranks].tolist()) == {min(bin_of_rank[rank] for rank in ranks)}
    shuffle = np.random.default_rng(seed).permutation(len(ordered))
    assert np.array_equal(equal_mass_bin_ids(ordered[shuffle]), ids[shuffle])


def test_debiased_error_finds_a_planted_error_whatever_the_number_of_images() -> None:
    # Every confidence is .8 and every prediction right with probability .7.
    rng = np.random.default_rng(0)
    for n in (50, 200):
        squares = []
        for _ in range(2000):
            value = ece_debiased(two_class_logits([0.8] * n), (rng.random(n) > 0.7).astype(int))
            squares.append(math.copysign(value**2, value))
        assert np.mean(squares) == pytest.approx(0.1**2, abs=3.5 * float(np.std(squares)) / 2000**0.5)
