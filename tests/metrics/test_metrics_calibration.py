"""ECE, its bins and its sums, against loops and libraries that are not ours."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binned_statistic

from ablate.metrics import FLOORS, METRICS, Predictions, ece_from_sums, reliability_bins
from ablate.metrics.binning import bin_ids, equal_mass_bin_ids
from ablate.metrics.calibration import (
    classwise_ece,
    confidence_gap,
    ece,
    ece_debiased,
    ece_equal_mass,
    mce,
)

Array = NDArray[np.float64]
CONFIDENCES = st.lists(st.floats(0, 1), min_size=1, max_size=60)
SEEDS = st.integers(0, 2**32 - 1)


def sums(confidence: Array, correct: NDArray[np.bool_]) -> list[Array]:
    """Images, confidences and correct predictions in each bin."""
    weights = np.ones(len(confidence)), confidence, correct
    return [np.bincount(bin_ids(confidence), weight, 15).astype(float) for weight in weights]


def loop_ece(confidence: Array, correct: NDArray[np.bool_]) -> float:
    """Guo et al. 2017, equation 3, one image at a time; [lower, upper), the last bin closed."""
    total = 0.0
    for b in range(15):
        images = [
            image
            for image, c in enumerate(confidence)
            if b / 15 <= c < (b + 1) / 15 or (b == 14 and c == 1.0)
        ]
        total += abs(sum(float(correct[i]) - confidence[i] for i in images))
    return total / len(confidence)


def two_class_logits(confidence: list[float]) -> Array:
    """Logits of two classes whose softmax is (c, 1 - c), c >= .5."""
    return np.array([[math.log(c / (1 - c)) if c < 1 else 1e4, 0.0] for c in confidence])


@settings(max_examples=100, deadline=None)
@given(CONFIDENCES, SEEDS, st.integers(0, 60))
def test_sums_of_parts_give_the_loop_s_error(confidences: list[float], seed: int, cut: int) -> None:
    confidence = np.array(confidences)
    correct = np.random.default_rng(seed).random(len(confidence)) < 0.5
    parts = zip(sums(confidence[:cut], correct[:cut]), sums(confidence[cut:], correct[cut:]), strict=True)
    value = ece_from_sums(*(first + second for first, second in parts))
    assert value == pytest.approx(loop_ece(confidence, correct), abs=1e-12)
    assert 0 <= value <= 1


def test_sums_in_float32_as_a_trainer_keeps_them() -> None:
    rng = np.random.default_rng(5)
    confidence = rng.beta(8, 2, size=3925)
    correct = rng.random(3925) < confidence
    count, confidence_sum, correct_sum = sums(confidence, correct)
    value = ece_from_sums(count, confidence_sum.astype(np.float32), correct_sum.astype(np.float32))
    assert value == pytest.approx(loop_ece(confidence, correct), abs=1e-6)


def test_sums_refuse() -> None:
    three = np.ones(3)
    with pytest.raises(ValueError, match=r"one shape \[bins\], got \(3,\), \(3,\) and \(2,\)"):
        ece_from_sums(three, three, np.ones(2))
    with pytest.raises(ValueError, match="one epoch's sums"):
        ece_from_sums(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="at least one image in the bins, got 0"):
        ece_from_sums(0 * three, three, three)


def test_confidence_of_one_is_in_the_last_bin() -> None:
    # .95 right and 1.0 wrong share a bin: |.5 - .975|. In a bin of its own, as torchmetrics 1.9 has it, 1.0
    # would add .5 by itself.
    logits, labels = two_class_logits([0.95, 1.0]), np.array([0, 1])
    assert Predictions.of(logits, labels).confidence.tolist() == pytest.approx([0.95, 1.0])
    assert ece(logits, labels) == pytest.approx(abs(0.5 - 0.975))


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
    assert np.array_equal(bins.count, scipy(correct, "count"))
    np.testing.assert_allclose(bins.confidence, scipy(predictions.confidence, "mean"), rtol=1e-12)
    np.testing.assert_allclose(bins.accuracy, scipy(correct, "mean"), rtol=1e-12)
    assert np.isnan(bins.accuracy[:7]).all(), "empty bins"
    assert (bins.lower[0], bins.upper[-1]) == (0, 1)
    assert np.array_equal(bins.lower[1:], bins.upper[:-1])


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_the_error_lies_between_the_gap_and_the_maximum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = 3 * rng.normal(size=(40, 4)), rng.integers(0, 4, 40)
    assert abs(confidence_gap(logits, labels)) <= ece(logits, labels) + 1e-12
    assert ece(logits, labels) <= mce(logits, labels) + 1e-12


def test_signs_of_the_gap() -> None:
    logits = two_class_logits([0.8] * 10)
    over, under = np.array([0] * 5 + [1] * 5), np.zeros(10, dtype=int)
    assert confidence_gap(logits, over) == pytest.approx(0.3)
    assert confidence_gap(logits, under) == pytest.approx(-0.2)
    assert ece(logits, over) == pytest.approx(0.3)
    assert ece(logits, under) == pytest.approx(0.2)


def test_ece_grows_with_over_confidence() -> None:
    rng = np.random.default_rng(2)
    logits = 2 * rng.normal(size=(2000, 5))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    for metric in (ece, confidence_gap):
        assert np.all(np.diff([metric(logits * factor, labels) for factor in (1, 1.5, 2, 4, 8)]) > 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.9, 1.0]), min_size=1, max_size=60), SEEDS)
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


@pytest.mark.parametrize("n", [1, 14, 15, 16, 3925])
def test_equal_mass_bins_differ_by_at_most_one_image(n: int) -> None:
    counts = np.bincount(equal_mass_bin_ids(np.random.default_rng(n).random(n)), minlength=15)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1
    assert np.all(np.diff(counts) <= 0), "the larger bins come first"


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_order_of_the_images_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.integers(0, 3, size=(60, 3)).astype(float), rng.integers(0, 3, 60)
    order = rng.permutation(60)
    # Folds and drawn labels are dealt out by place.
    by_place = {"temperature", "ece_scaled", "nll_scaled", *FLOORS.values()}
    for name in METRICS.keys() - by_place:
        row, shuffled = METRICS[name](logits, labels), METRICS[name](logits[order], labels[order])
        assert shuffled == pytest.approx(row, abs=1e-9), name


def test_debiased_error_worked_by_hand() -> None:
    # Two confidences, .6 and .8, each with ten images: ties keep them in one bin each.
    logits = two_class_logits([0.6] * 10 + [0.8] * 10)
    labels = np.array([0] * 3 + [1] * 7 + [0] * 7 + [1] * 3)
    square = 0.5 * (0.3**2 - 0.3 * 0.7 / 9) + 0.5 * (0.1**2 - 0.7 * 0.3 / 9)
    assert square > 0
    assert ece_debiased(logits, labels) == pytest.approx(math.sqrt(square))
    exact = np.array([0] * 6 + [1] * 4 + [0] * 8 + [1] * 2)
    noise = 0.5 * 0.6 * 0.4 / 9 + 0.5 * 0.8 * 0.2 / 9
    assert ece_debiased(logits, exact) == pytest.approx(-math.sqrt(noise))
    assert ece_equal_mass(logits, exact) == pytest.approx(0, abs=1e-12)


def test_debiased_error_finds_a_planted_error_whatever_the_number_of_images() -> None:
    # Every confidence is .8 and every prediction right with probability .7.
    rng = np.random.default_rng(0)
    for n in (50, 200):
        squares = []
        for _ in range(2000):
            value = ece_debiased(two_class_logits([0.8] * n), (rng.random(n) > 0.7).astype(int))
            squares.append(math.copysign(value**2, value))
        assert np.mean(squares) == pytest.approx(0.1**2, abs=3.5 * float(np.std(squares)) / 2000**0.5)


def test_a_bin_of_one_image_adds_nothing_to_the_debiased_error() -> None:
    logits = two_class_logits([0.9, 0.6, 0.6])
    gap, variance = 0.6 - 0.5, 0.5 * 0.5 / 1
    expected = 2 / 3 * (gap**2 - variance)
    assert ece_debiased(logits, np.array([1, 0, 1])) == pytest.approx(-math.sqrt(-expected))
    assert math.isnan(ece_debiased(two_class_logits([0.6, 0.7, 0.8]), np.array([0, 0, 1])))


def test_classwise_error_of_two_classes_counts_both_alike() -> None:
    # Every image has probabilities (.8, .2); 6 of 10 are of class 0.
    logits, labels = two_class_logits([0.8] * 10), np.array([0] * 6 + [1] * 4)
    assert classwise_ece(logits, labels) == pytest.approx((0.2 + 0.2) / 2)
    assert ece(logits, labels) == pytest.approx(0.2)


def test_a_class_that_never_occurs_adds_its_probability() -> None:
    logits = np.log(np.tile([0.5, 0.3, 0.2], (10, 1)))
    labels = np.array([0] * 5 + [1] * 5)
    assert classwise_ece(logits, labels) == pytest.approx((0 + 0.2 + 0.2) / 3)


def test_maximum_is_of_one_bin() -> None:
    # Nine images of confidence .9, all right, and one of .6, wrong: gaps .1 and .6.
    logits, labels = two_class_logits([0.9] * 9 + [0.6]), np.array([0] * 9 + [1])
    assert mce(logits, labels) == pytest.approx(0.6)
    assert ece(logits, labels) == pytest.approx(0.9 * 0.1 + 0.1 * 0.6)
