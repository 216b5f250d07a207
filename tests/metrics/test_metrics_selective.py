"""Ranking by confidence, with ties: against scikit-learn, all orders of ties and all thresholds."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ablate.metrics.selective import aurc, auroc_error, coverage_at_1, coverage_at_2

TIED = st.lists(st.tuples(st.sampled_from([0.6, 0.7, 0.9]), st.booleans()), min_size=1, max_size=6)
Images = list[tuple[float, bool]]


def arrays(images: Images) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Logits of two classes with the given confidences in class 0, which are right or wrong."""
    logits = np.array([[math.log(c / (1 - c)), 0.0] for c, _ in images])
    return logits, np.array([0 if correct else 1 for _, correct in images])


@given(TIED)
def test_aurc_is_the_mean_over_all_orders_of_ties(images: Images) -> None:
    areas = []
    for order in permutations(images):
        if all(first[0] >= second[0] for first, second in pairwise(order)):
            wrong = np.cumsum([not correct for _, correct in order])
            areas.append(np.mean(wrong / np.arange(1, len(order) + 1)))
    assert aurc(*arrays(images)) == pytest.approx(np.mean(areas))


@given(TIED)
def test_auroc_with_ties_equals_scikit_learn(images: Images) -> None:
    confidence, correct = zip(*images, strict=True)
    value = auroc_error(*arrays(images))
    if len(set(correct)) == 1:
        assert math.isnan(value)
    else:
        assert value == pytest.approx(roc_auc_score(correct, confidence))


@given(TIED)
def test_coverage_is_that_of_the_best_threshold(images: Images) -> None:
    for percent, metric in ((1, coverage_at_1), (2, coverage_at_2)):
        shares = [0.0]
        for threshold in (0.6, 0.7, 0.9):
            answered = [correct for c, correct in images if c >= threshold]
            if answered and answered.count(False) / len(answered) <= percent / 100:
                shares.append(len(answered) / len(images))
        assert metric(*arrays(images)) == pytest.approx(max(shares))
