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
def test_ties_against_all_orders_scikit_learn_and_all_thresholds(images: Images) -> None:
    confidence, correct = (np.array(values) for values in zip(*images, strict=True))
    areas = []
    for order in permutations(images):
        if all(first[0] >= second[0] for first, second in pairwise(order)):
            wrong = np.cumsum([not right for _, right in order])
            areas.append(np.mean(wrong / np.arange(1, len(order) + 1)))
    assert aurc(*arrays(images)) == pytest.approx(np.mean(areas))
    both = len(set(correct)) == 2
    expected = roc_auc_score(correct, confidence) if both else math.nan
    assert auroc_error(*arrays(images)) == pytest.approx(expected, nan_ok=True)
    for percent, metric in ((1, coverage_at_1), (2, coverage_at_2)):
        answered = [correct[confidence >= threshold] for threshold in (0.6, 0.7, 0.9)]
        kept = [len(own) for own in answered if len(own) and (~own).mean() <= percent / 100]
        assert metric(*arrays(images)) == pytest.approx(max(kept, default=0) / len(images))
