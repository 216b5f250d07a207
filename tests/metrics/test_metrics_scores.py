"""Accuracy, NLL and Brier on cases worked out by hand."""

import math

import numpy as np
import pytest

from ablate.metrics.scores import accuracy, brier, nll


@pytest.mark.parametrize(("row", "predicted"), [([1.0, 1.0, 0.0], 0), ([0.0, 2.0, 2.0], 1), ([0.0] * 3, 0)])
def test_ties_predict_the_lowest_class(row: list[float], predicted: int) -> None:
    for label in range(3):
        assert accuracy(np.array([row]), np.array([label])) == (label == predicted)


@pytest.mark.parametrize("k", [2, 10, 1000])
def test_uniform_predictions(k: int) -> None:
    logits, labels = np.full((7, k), 3.0), np.arange(7) % k
    assert nll(logits, labels) == pytest.approx(math.log(k), rel=1e-12)
    assert brier(logits, labels) == pytest.approx(1 - 1 / k, rel=1e-12)


@pytest.mark.parametrize(("label", "expected_nll", "expected_brier"), [(0, 0.0, 0.0), (1, 2e4, 2.0)])
def test_certainty(label: int, expected_nll: float, expected_brier: float) -> None:
    logits = np.array([[1e4, -1e4, -1e4]], dtype=np.float32)
    assert nll(logits, np.array([label])) == expected_nll
    assert brier(logits, np.array([label])) == expected_brier


def test_worked_example() -> None:
    # Probabilities .5 .25 .25 with label 0, and .25 .25 .5 with label 0.
    logits = np.log([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    labels = np.array([0, 0])
    assert accuracy(logits, labels) == 0.5
    assert nll(logits, labels) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert brier(logits, labels) == pytest.approx(((0.25 + 2 / 16) + (9 / 16 + 1 / 16 + 0.25)) / 2)


def test_float32_logits_are_widened_before_the_arithmetic() -> None:
    logits = np.tile(np.array([[12.0, 0.0]], dtype=np.float32), (3925, 1))
    labels = np.zeros(3925, dtype=int)
    assert nll(logits, labels) == pytest.approx(math.log1p(math.exp(-12)), rel=1e-9)
