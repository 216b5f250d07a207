"""Ranking by confidence: against scikit-learn, all orders of ties, and cases worked out by hand."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ablate.metrics import Predictions, risk_coverage_counts
from ablate.metrics.selective import (
    aurc,
    auroc_error,
    auroc_error_normalised,
    coverage_at_1,
    coverage_at_2,
    eaurc,
)

TIED = st.lists(st.tuples(st.sampled_from([0.6, 0.7, 0.9]), st.booleans()), min_size=1, max_size=6)
Images = list[tuple[float, bool]]


def arrays(images: Images) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Logits of two classes with the given confidences in class 0, which are right or wrong."""
    logits = np.array([[math.log(c / (1 - c)), 0.0] for c, _ in images])
    return logits, np.array([0 if correct else 1 for _, correct in images])


@settings(max_examples=100, deadline=None)
@given(TIED)
def test_aurc_is_the_mean_over_all_orders_of_ties(images: Images) -> None:
    areas = []
    for order in permutations(images):
        if all(first[0] >= second[0] for first, second in pairwise(order)):
            wrong = np.cumsum([not correct for _, correct in order])
            areas.append(np.mean(wrong / np.arange(1, len(order) + 1)))
    assert aurc(*arrays(images)) == pytest.approx(np.mean(areas))


@settings(max_examples=100, deadline=None)
@given(TIED)
def test_auroc_with_ties_equals_scikit_learn(images: Images) -> None:
    confidence, correct = zip(*images, strict=True)
    value = auroc_error(*arrays(images))
    if len(set(correct)) == 1:
        assert math.isnan(value)
    else:
        assert value == pytest.approx(roc_auc_score(correct, confidence))


@settings(max_examples=100, deadline=None)
@given(TIED, st.sampled_from([(1, coverage_at_1), (2, coverage_at_2)]))
def test_coverage_is_that_of_the_best_threshold(images: Images, case: tuple[int, object]) -> None:
    percent, metric = case
    assert callable(metric)
    shares = [0.0]
    for threshold in (0.6, 0.7, 0.9):
        answered = [correct for c, correct in images if c >= threshold]
        if answered and answered.count(False) / len(answered) <= percent / 100:
            shares.append(len(answered) / len(images))
    assert metric(*arrays(images)) == pytest.approx(max(shares))


def test_coverage_counts_exactly() -> None:
    # 29 wrong of 2,900 is 1 %; one more image, wrong, is not.
    confidence = np.linspace(0.95, 0.6, 2901)
    images = [(float(c), i >= 29) for i, c in enumerate(confidence)]
    images[-1] = (images[-1][0], False)
    assert coverage_at_1(*arrays(images)) == 2900 / 2901
    assert coverage_at_2(*arrays(images)) == 1


def test_coverage_goes_on_after_an_early_error() -> None:
    # The most confident prediction is wrong, yet from 100 images on it is 1 % of them.
    images = [(0.99 - i * 1e-3, i > 0) for i in range(150)]
    assert coverage_at_1(*arrays(images)) == 1
    assert coverage_at_1(*arrays(images[:99])) == 0
    assert coverage_at_2(*arrays(images[:49])) == 0
    assert coverage_at_2(*arrays(images[:50])) == 1


def test_the_best_ranking_has_no_excess() -> None:
    images = [(0.9, True), (0.8, True), (0.7, False), (0.6, False)]
    assert aurc(*arrays(images)) == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert eaurc(*arrays(images)) == 0
    worst = [(c, not correct) for c, correct in images]
    assert eaurc(*arrays(worst)) == pytest.approx((1 + 1 + 2 / 3 + 2 / 4) / 4 - (0 + 0 + 1 / 3 + 2 / 4) / 4)


def test_the_best_area_tends_to_that_of_the_authors() -> None:
    rate = 0.3
    right = np.arange(20_000) >= rate * 20_000
    logits = np.stack([np.where(right, 4.0, 1.0), np.zeros(20_000)], axis=1)
    area = aurc(logits, np.where(right, 0, 1))
    assert area == pytest.approx(rate + (1 - rate) * math.log(1 - rate), abs=1e-4)


def test_the_area_of_a_model_that_is_never_right_or_never_wrong() -> None:
    logits = np.random.default_rng(0).normal(size=(30, 4))
    right, wrong = logits.argmax(axis=1), logits.argmin(axis=1)
    assert (aurc(logits, right), eaurc(logits, right), coverage_at_1(logits, right)) == (0, 0, 1)
    assert (aurc(logits, wrong), eaurc(logits, wrong), coverage_at_1(logits, wrong)) == (1, 0, 0)


def test_certainty_is_ranked_after_its_probability_rounds_to_one() -> None:
    logits = np.array([[50.0, 0.0], [60.0, 0.0], [40.0, 0.0]])
    predictions = Predictions.of(logits, np.array([0, 0, 1]))
    assert predictions.confidence.tolist() == [1, 1, 1]
    assert auroc_error(logits, np.array([0, 0, 1])) == 1
    assert auroc_error(logits, np.array([1, 0, 0])) == 0.5


def test_the_curve_in_counts() -> None:
    images = [(0.9, True), (0.9, False), (0.8, True), (0.6, False)]
    answered, wrong = risk_coverage_counts(Predictions.of(*arrays(images)))
    assert answered.tolist() == [0, 2, 3, 4]
    assert wrong.tolist() == [0, 1, 1, 2]


def test_the_normalised_logit_does_not_see_the_scale_of_an_image() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(200, 5)), rng.integers(0, 5, 200)
    scaled = logits * rng.uniform(0.1, 10, size=(200, 1))
    assert auroc_error_normalised(scaled, labels) == auroc_error_normalised(logits, labels)
    assert auroc_error(scaled, labels) != auroc_error(logits, labels)


def test_the_normalised_logit_worked_by_hand() -> None:
    # Centred: (2, -1, -1) and (1, 0, -1), so .816 and .707; the second has the higher probability.
    logits, labels = np.array([[2.0, -1.0, -1.0], [9.0, 0.0, -9.0]]), np.array([0, 1])
    assert auroc_error(logits, labels) == 0
    assert auroc_error_normalised(logits, labels) == 1


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_two_classes_are_tied_in_the_normalised_logit(scale: float) -> None:
    rng = np.random.default_rng(2)
    logits = scale * rng.normal(size=(300, 2)).astype(np.float32)
    assert auroc_error_normalised(logits, rng.integers(0, 2, 300)) == 0.5


def test_constant_logits_come_last_in_the_normalised_logit() -> None:
    logits = np.array([[5.0, 5.0, 5.0], [1.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    assert auroc_error_normalised(logits, np.array([1, 0, 0])) == 1
