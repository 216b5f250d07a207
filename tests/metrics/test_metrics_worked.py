"""Metrics of cases worked out by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ablate.metrics import METRICS, Predictions, risk_coverage_counts

NAN = math.nan
Rows = list[list[float]]


def two(*confidences: float) -> Rows:
    """Logits of two classes whose softmax is (c, 1 - c), c >= .5."""
    return [[math.log(c / (1 - c)) if c < 1 else 1e4, 0.0] for c in confidences]


def three(*probabilities: list[float]) -> Rows:
    return [[math.log(p) for p in row] for row in probabilities]


TWO_BINS = two(*[0.6] * 10, *[0.8] * 10)
LOW, HIGH = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
RANKED = two(0.9, 0.8, 0.7, 0.6)
BEST = (0 + 0 + 1 / 3 + 2 / 4) / 4
CASES: dict[str, tuple[Rows, list[int], dict[str, float]]] = {
    "two images of three classes": (
        three(LOW, HIGH), [0, 0],
        {"accuracy": 0.5, "nll": (math.log(2) + math.log(4)) / 2,
         "brier": ((0.25 + 2 / 16) + (9 / 16 + 1 / 16 + 0.25)) / 2},
    ),
    "ties predict the lowest class": ([[1, 1, 0], [0, 2, 2], [0, 0, 0]], [0, 2, 0], {"accuracy": 2 / 3}),
    "uniform over 10": ([[3.0] * 10] * 7, [0, 1, 2, 3, 4, 5, 6], {"nll": math.log(10), "brier": 0.9}),
    "certain and right": ([[1e4, -1e4, -1e4]], [0], {"nll": 0, "brier": 0, "smece": 0}),
    "certain and wrong": ([[1e4, -1e4, -1e4]], [1], {"nll": 2e4, "brier": 2}),
    # .95 right and 1.0 wrong share a bin. In one of its own, as torchmetrics 1.9 has it, 1.0 adds .5.
    "a confidence of one": (two(0.95, 1.0), [0, 1], {"ece": abs(0.5 - 0.975)}),
    "over-confident": (two(*[0.8] * 10), [0, 1] * 5, {"confidence_gap": 0.3, "ece": 0.3, "smece": 0.3}),
    "under-confident": (two(*[0.8] * 10), [0] * 10, {"confidence_gap": -0.2, "ece": 0.2, "smece": 0.2}),
    "two classes count alike": (two(*[0.8] * 10), [0] * 6 + [1] * 4, {"classwise_ece": 0.2, "ece": 0.2}),
    "a class that never occurs": (
        three(*[[0.5, 0.3, 0.2]] * 10), [0] * 5 + [1] * 5, {"classwise_ece": (0 + 0.2 + 0.2) / 3}
    ),
    "the maximum is of one bin": (
        two(*[0.9] * 9, 0.6), [0] * 9 + [1], {"mce": 0.6, "ece": 0.9 * 0.1 + 0.1 * 0.6}
    ),
    "bins of ten images": (
        TWO_BINS, [0] * 3 + [1] * 7 + [0] * 7 + [1] * 3,
        {"ece_debiased": math.sqrt(0.5 * (0.3**2 - 0.3 * 0.7 / 9) + 0.5 * (0.1**2 - 0.7 * 0.3 / 9))},
    ),
    "less than noise alone would give": (
        TWO_BINS, [0] * 6 + [1] * 4 + [0] * 8 + [1] * 2,
        {"ece_debiased": -math.sqrt(0.5 * 0.6 * 0.4 / 9 + 0.5 * 0.8 * 0.2 / 9), "ece_equal_mass": 0},
    ),
    "a bin of one image adds nothing": (
        two(0.9, 0.6, 0.6), [1, 0, 1], {"ece_debiased": -math.sqrt(-2 / 3 * (0.1**2 - 0.5 * 0.5 / 1))}
    ),
    "each image in a bin of its own": (two(0.6, 0.7, 0.8), [0, 0, 1], {"ece_debiased": NAN}),
    "the best ranking has no excess": (RANKED, [0, 0, 1, 1], {"aurc": BEST, "eaurc": 0}),
    "the worst ranking": (RANKED, [1, 1, 0, 0], {"eaurc": (1 + 1 + 2 / 3 + 2 / 4) / 4 - BEST}),
    "never wrong": (RANKED, [0] * 4, {"aurc": 0, "eaurc": 0, "coverage_at_1": 1, "auroc_error": NAN}),
    "never right": (RANKED, [1] * 4, {"aurc": 1, "eaurc": 0, "coverage_at_1": 0, "auroc_error": NAN}),
    # The confidences all round to 1.
    "certainty is ranked": ([[50, 0], [60, 0], [40, 0]], [0, 0, 1], {"auroc_error": 1}),
    "certainty in between": ([[50, 0], [60, 0], [40, 0]], [1, 0, 0], {"auroc_error": 0.5}),
    # Centred: (2, -1, -1) and (1, 0, -1), so .816 and .707; the second has the higher probability.
    "normalised": ([[2, -1, -1], [9, 0, -9]], [0, 1], {"auroc_error": 0, "auroc_error_normalised": 1}),
    "two classes are tied": (two(0.9, 0.6), [0, 1], {"auroc_error_normalised": 0.5}),
    "constant ones last": ([[5, 5, 5], [1, 1, 0], [3, 0, 0]], [1, 0, 0], {"auroc_error_normalised": 1}),
    "constant logits have no temperature": (
        [[7.0] * 10] * 50, [*range(10)] * 5, {"temperature": 1, "ece_scaled": 0, "nll_scaled": math.log(10)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case: str) -> None:
    logits, labels, expected = CASES[case]
    predictions = Predictions.of(np.array(logits, dtype=float), np.array(labels))
    values = {name: METRICS[name].score(predictions) for name in expected}
    assert values == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


def coverages(images: int, wrong: NDArray[np.intp]) -> tuple[float, float]:
    """At 1 and 2 % risk, of images of falling confidence."""
    labels = np.isin(np.arange(images), wrong).astype(int)
    logits = np.array(two(*np.linspace(0.95, 0.6, images)))
    return METRICS["coverage_at_1"](logits, labels), METRICS["coverage_at_2"](logits, labels)


def test_coverage_counts_exactly() -> None:
    # 29 wrong of 2,900 is 1 %; one more image, wrong, is not.
    assert coverages(2901, np.array([*range(29), 2900])) == (2900 / 2901, 1)
    # The most confident prediction is wrong, yet from 100 images on it is 1 % of them.
    first = np.array([0])
    assert [coverages(n, first) for n in (150, 99, 49)] == [(1, 1), (0, 1), (0, 0)]


def test_the_curve_in_counts() -> None:
    predictions = Predictions.of(np.array(two(0.9, 0.9, 0.8, 0.6)), np.array([0, 1, 0, 1]))
    answered, wrong = risk_coverage_counts(predictions)
    assert (answered.tolist(), wrong.tolist()) == ([0, 2, 3, 4], [0, 1, 1, 2])
