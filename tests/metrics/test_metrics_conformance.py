"""What every metric must satisfy, whichever it is. One that the audit does not know fails."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mapie.metrics.calibration import expected_calibration_error
from numpy.typing import NDArray
from references import recompute
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from torchmetrics.classification import MulticlassCalibrationError

from ablate.metrics import FLOORS, METRICS, Predictions, compute_metrics, validate
from ablate.metrics.predictions import TEMPERATURE_BOUNDS, fit_temperature

Logits = NDArray[np.floating]
Labels = NDArray[np.int64]
OWN = METRICS.keys() - FLOORS.values()
"""All but the noise floors, which are slower, and drawn."""


def problem(
    seed: int, n: int = 60, k: int = 10, *, scale: float = 4.0, planted: float = 1.0
) -> tuple[NDArray[np.float32], Labels]:
    """Labels drawn from softmax(z), logits planted * z: T = planted is right."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, k))
    labels = (logits + rng.gumbel(size=(n, k))).argmax(axis=1)
    return (planted * logits).astype(np.float32), labels


def scores(logits: Logits, labels: Labels) -> dict[str, float]:
    predictions = Predictions.of(logits, labels)
    return {name: METRICS[name].score(predictions) for name in METRICS if name in OWN}


def softmax(logits: Logits) -> NDArray[np.float64]:
    return np.asarray(scipy_softmax(logits.astype(np.float64), axis=1))


def in_bins(norm: Literal["l1", "max"]) -> Callable[[Logits, Labels], Any]:
    metric: Any = MulticlassCalibrationError
    return lambda z, y: metric(z.shape[1], 15, norm)(torch.tensor(softmax(z)), torch.tensor(y))


def ece_equal_mass(logits: Logits, labels: Labels) -> float:
    # MAPIE cuts the images in the order they come in, so it is given them sorted.
    confidence, correct = softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    order, options = np.argsort(confidence), {"num_bins": 15, "split_strategy": "array split"}
    return float(expected_calibration_error(correct[order], confidence[order], **options))


# MAPIE's num_bins counts the edges of bins of equal width.
CLASSWISE: dict[str, Any] = {"num_bins": 16, "split_strategy": "uniform", "classwise": True}
LIBRARIES: dict[str, Callable[[Logits, Labels], Any]] = {
    "accuracy": lambda z, y: accuracy_score(y, z.argmax(axis=1)),
    "nll": lambda z, y: log_loss(y, softmax(z), labels=range(z.shape[1])),
    "brier": lambda z, y: brier_score_loss(y, softmax(z), labels=range(z.shape[1]), scale_by_half=False),
    "ece": in_bins("l1"),
    "mce": in_bins("max"),
    "ece_equal_mass": ece_equal_mass,
    "classwise_ece": lambda z, y: expected_calibration_error(y, softmax(z), class_labels=y, **CLASSWISE),
}
"""What others compute; the audit of whole studies computes every metric by another route."""


def test_what_is_better_and_which_are_of_single_images() -> None:
    assert {name for name in METRICS if METRICS[name].better == "higher"} == recompute.HIGHER
    predictions = Predictions.of(*problem(seed=8))
    by_image = {name for name in OWN if np.shape(METRICS[name].function(predictions)) == (60,)}
    assert by_image == {name for name in METRICS if METRICS[name].by_image} == {"accuracy", "nll", "brier"}


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k, scale = int(rng.integers(40, 120)), int(rng.integers(2, 11)), float(rng.uniform(1, 4))
    logits, labels = problem(seed, n, k, scale=scale, planted=1.3)
    found = scores(logits, labels)
    _, audited = recompute.metrics_of(logits.astype(np.float64), labels)
    assert found == pytest.approx(audited, abs=2e-6, rel=2e-6)
    theirs = {name: float(library(logits, labels)) for name, library in LIBRARIES.items()}
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, abs=2e-6, rel=2e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 40])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0, 1e4])
def test_finite_and_within_bounds(n: int, scale: float) -> None:
    rng = np.random.default_rng(n)
    logits = (scale * rng.uniform(-1, 1, size=(n, 3))).astype(np.float32)
    best, worst, drawn = logits.argmax(axis=1), logits.argmin(axis=1), rng.integers(0, 3, n)
    for labels in (best, worst, drawn):
        predictions = Predictions.of(logits, labels)
        row = compute_metrics(predictions) if labels is drawn else scores(logits, labels)
        nan = {name for name, value in row.items() if math.isnan(value)}
        same = predictions.correct.all() or not predictions.correct.any()
        alone = len(set(predictions.mass_bins.tolist())) == n  # each image in a bin of its own
        assert nan == {*["auroc_error", "auroc_error_normalised"] * bool(same), *["ece_debiased"] * alone}
        for name in row.keys() - nan:
            lower, upper = METRICS[name].bounds
            assert math.isfinite(row[name])
            assert lower - 1e-12 <= row[name] <= upper + 1e-12, name
            assert math.copysign(1, row[name]) == 1 or row[name] < 0, "zero must not print as -0.0"


@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_the_images_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.integers(0, 3, size=(60, 3)).astype(float), rng.integers(0, 3, 60)
    order = rng.permutation(60)
    before, row = scores(logits, labels), scores(logits[order], labels[order])
    for name in OWN - {"temperature", "ece_scaled", "nll_scaled"}:  # folds are dealt out by place
        assert row[name] == pytest.approx(before[name], abs=1e-9), name


@given(seed=st.integers(0, 2**32 - 1), shifts=st.lists(st.integers(-8000, 8000), min_size=25, max_size=25))
def test_shifting_an_image_s_logits_changes_nothing(seed: int, shifts: list[int]) -> None:
    # Eighths add without rounding, so ties stay ties and bin edges are not crossed.
    rng = np.random.default_rng(seed)
    logits, labels = rng.integers(-40, 40, size=(25, 4)) / 8, rng.integers(0, 4, size=25)
    row, before = scores(logits + np.array(shifts)[:, None] / 8, labels), scores(logits, labels)
    assert row == pytest.approx(before, abs=1e-8, nan_ok=True)


def test_depends_on_values_and_not_on_dtypes_or_memory() -> None:
    logits, labels = problem(seed=8)
    before = logits.copy(), labels.copy()
    row = compute_metrics(Predictions.of(logits, labels))
    alone = {name: metric(logits.astype(float), labels.astype(np.uint8)) for name, metric in METRICS.items()}
    assert list(row.items()) == list(alone.items())
    other = compute_metrics(Predictions.of(np.asfortranarray(logits), labels.astype(np.int32)))
    assert other == pytest.approx(row, abs=1e-12)
    np.testing.assert_equal((logits, labels), before)


def test_the_page_s_example_is_a_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "add_a_metric.md").read_text(encoding="utf-8")
    example = page.partition("```python\n")[2].partition("```")[0]
    try:
        exec(example, {"__name__": "example"})
        made = METRICS["margin"]
    finally:
        METRICS.pop("margin", None)
    assert (made.label, made.digits, made.definition[:13]) == ("Margin", 1, "Mean distance")
    assert made(np.log([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]), np.array([0, 1])) == pytest.approx(0.3)


def test_where_no_temperature_is_best_the_nearer_end_is_taken() -> None:
    logits, _ = problem(0, 50, scale=5.0)
    right, wrong = scores(logits, logits.argmax(axis=1)), scores(logits, logits.argmin(axis=1))
    assert (right["temperature"], wrong["temperature"]) == TEMPERATURE_BOUNDS
    assert right["ece_scaled"] < 0.05 < right["ece"]
    assert right["nll_scaled"] < right["nll"]
    assert wrong["nll_scaled"] == pytest.approx(np.log(10), abs=2e-3)


@pytest.mark.parametrize("magnitude", [2.0, 1e2, 1e4])
def test_one_confidence_is_scaled_to_the_accuracy(magnitude: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    predicted = np.where(rng.random(400) < 0.9, labels, 1 - labels)
    logits = magnitude * (2 * np.eye(2)[predicted] - 1)
    correct = (predicted == labels).mean()
    # Every margin is 2 * magnitude: the best T makes the confidence the accuracy.
    expected = 2 * magnitude / np.log(correct / (1 - correct))
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-9)


LOGITS = np.zeros((4, 3), dtype=np.float32)
LABELS = np.array([0, 1, 2, 0])
DIVERGED = np.where(np.arange(12).reshape(4, 3) == 5, np.nan, LOGITS)

REFUSED = {
    "one row": (LOGITS[0], LABELS, r"logits \[N, K\].*got float32 of shape \(3,\)"),
    "integer logits": (LOGITS.astype(int), LABELS, "floating-point logits.*got int64"),
    "no image": (LOGITS[:0], LABELS[:0], "at least one image"),
    "one-hot labels": (LOGITS, np.eye(3, dtype=int)[LABELS], r"not one-hot.* int64 of shape \(4, 3\)"),
    "float labels": (LOGITS, LABELS.astype(float), "float64 of shape"),
    "label K": (LOGITS, np.array([0, 1, 3, 0]), r"labels in \[0, 3\), got 0 to 3"),
    "ignored label": (LOGITS, np.array([0, -100, 2, 0]), "got -100 to 2; leave out ignored images"),
    "NaN": (DIVERGED, LABELS, "NaN or infinity for 1 of 4 images; a diverged"),
    "lists": ([[0.0, 1.0]], [0], "numpy arrays, got list and list"),
}


@pytest.mark.parametrize(("logits", "labels", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(logits: NDArray[np.float32], labels: NDArray[np.int64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(logits, labels)


@pytest.mark.parametrize("entry", [Predictions.of, *METRICS.values()])
def test_every_entry_has_the_door(entry: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="a diverged"):
        entry(DIVERGED, LABELS)
