"""What every metric must satisfy, whichever it is. A metric without a reference here fails."""

import math
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mapie.metrics.calibration import expected_calibration_error
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from ablate.metrics import FLOORS, METRICS, Predictions, compute_metrics, validate
from ablate.metrics.temperature import TEMPERATURE_BOUNDS, fit_temperature, fold_ids

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
    """Every metric but the noise floors."""
    predictions = Predictions.of(logits, labels)
    return {name: METRICS[name].score(predictions) for name in METRICS if name in OWN}


def softmax(logits: Logits) -> NDArray[np.float64]:
    return np.asarray(scipy_softmax(logits.astype(np.float64), axis=1))


def outcomes(logits: Logits, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidence and correctness, in ascending order of confidence."""
    confidence, correct = softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    order = np.argsort(confidence)
    return confidence[order], correct[order]


def accuracy(logits: Logits, labels: Labels) -> float:
    return float(accuracy_score(labels, logits.argmax(axis=1)))


def nll(logits: Logits, labels: Labels) -> float:
    return float(log_loss(labels, softmax(logits), labels=range(logits.shape[1])))


def brier(logits: Logits, labels: Labels) -> float:
    classes = range(logits.shape[1])
    return float(brier_score_loss(labels, softmax(logits), labels=classes, scale_by_half=False))


def ece(logits: Logits, labels: Labels, norm: Literal["l1", "max"] = "l1") -> float:
    arrays = torch.tensor(softmax(logits)), torch.tensor(labels)
    classes = logits.shape[1]
    return float(multiclass_calibration_error(*arrays, classes, n_bins=15, norm=norm, validate_args=False))


def ece_equal_mass(logits: Logits, labels: Labels) -> float:
    # MAPIE cuts the images in the order they come in, so it is given them sorted.
    confidence, correct = outcomes(logits, labels)
    return float(expected_calibration_error(correct, confidence, num_bins=15, split_strategy="array split"))


def ece_debiased(logits: Logits, labels: Labels) -> float:
    """Kumar et al. 2019, the estimator of the squared error, bin by bin."""
    total = 0.0
    parts = (np.array_split(values, 15) for values in outcomes(logits, labels))
    for confidence, correct in zip(*parts, strict=True):
        n = len(correct)
        if n > 1:
            gap, share = confidence.mean() - correct.mean(), correct.mean()
            total += n / len(labels) * (gap**2 - share * (1 - share) / (n - 1))
    return math.sqrt(total) if total > 0 else -math.sqrt(-total)


def classwise_ece(logits: Logits, labels: Labels) -> float:
    # MAPIE's num_bins counts the edges of bins of equal width.
    options = {"num_bins": 16, "split_strategy": "uniform", "classwise": True}
    return float(expected_calibration_error(labels, softmax(logits), class_labels=labels, **options))


def smece(logits: Logits, labels: Labels) -> float:
    """By bisection, with the heat kernel's cosine series summed directly."""
    confidence, correct = outcomes(logits, labels)
    orders, t = np.arange(300), np.linspace(0, 1, 2001)
    coefficients = np.cos(np.pi * np.outer(orders, confidence)) @ (confidence - correct) / len(labels)
    coefficients[1:] *= 2
    waves, low, high = np.cos(np.pi * np.outer(orders, t)), 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        damped = coefficients * np.exp(-((np.pi * middle * orders) ** 2) / 2)
        above = np.trapezoid(np.abs(damped @ waves), t) > middle
        low, high = (middle, high) if above else (low, middle)
    return (low + high) / 2


def auroc_error(logits: Logits, labels: Labels) -> float:
    confidence, correct = outcomes(logits, labels)
    return float(roc_auc_score(correct, confidence))


def auroc_error_normalised(logits: Logits, labels: Labels) -> float:
    centred = logits.astype(np.float64) - logits.astype(np.float64).mean(axis=1, keepdims=True)
    highest = (centred / np.linalg.norm(centred, axis=1, keepdims=True)).max(axis=1)
    return float(roc_auc_score(logits.argmax(axis=1) == labels, highest.round(10)))


def risks(logits: Logits, labels: Labels) -> list[float]:
    """Error rate of the n most confident images, for n = 1 to N."""
    wrong = ~outcomes(logits, labels)[1][::-1]
    return [count / n for n, count in enumerate(accumulate(wrong.tolist()), start=1)]


def aurc(logits: Logits, labels: Labels) -> float:
    return float(np.mean(risks(logits, labels)))


def eaurc(logits: Logits, labels: Labels) -> float:
    """Beside the same with right predictions made certain and wrong ones not, which ranks them best."""
    factor = np.where(logits.argmax(axis=1) == labels, 9, 1e-3)
    return aurc(logits, labels) - aurc(logits * factor[:, None], labels)


def coverage(logits: Logits, labels: Labels, risk: float) -> float:
    kept = [n for n, share in enumerate(risks(logits, labels), start=1) if share <= risk + 1e-12]
    return max(kept, default=0) / len(labels)


def temperatures(logits: Logits, labels: Labels) -> NDArray[np.float64]:
    """Of each image, fitted on the other folds."""
    folds, fitted = fold_ids(len(labels)), np.empty(len(labels))
    for fold in range(folds.max() + 1):
        others = folds != fold

        def loss(log_t: float, others: NDArray[np.bool_] = others) -> float:
            log_p = log_softmax(logits[others].astype(np.float64) / math.exp(log_t), axis=1)
            return float(-log_p[np.arange(len(log_p)), labels[others]].mean())

        search = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8})
        fitted[folds == fold] = math.exp(search.x)
    return fitted


def scaled(logits: Logits, labels: Labels) -> Logits:
    return np.asarray(logits / temperatures(logits, labels)[:, None])


REFERENCES: dict[str, Callable[[Logits, Labels], float]] = {
    **{one.__name__: one for one in (accuracy, nll, brier, ece, ece_equal_mass, ece_debiased, classwise_ece)},
    **{one.__name__: one for one in (smece, auroc_error, auroc_error_normalised, aurc, eaurc)},
    "mce": lambda z, y: ece(z, y, "max"),
    "mean_confidence": lambda z, y: float(softmax(z).max(axis=1).mean()),
    "confidence_gap": lambda z, y: float(softmax(z).max(axis=1).mean()) - accuracy(z, y),
    "temperature": lambda z, y: float(
        np.mean([*dict(zip(fold_ids(len(y)), temperatures(z, y), strict=True)).values()])
    ),
    "ece_scaled": lambda z, y: ece(scaled(z, y), y),
    "nll_scaled": lambda z, y: nll(scaled(z, y), y),
    "coverage_at_1": lambda z, y: coverage(z, y, 0.01),
    "coverage_at_2": lambda z, y: coverage(z, y, 0.02),
}


def undefined(predictions: Predictions) -> set[str]:
    """Metrics that are NaN, by their docstrings. The others never are."""
    names = set()
    if predictions.correct.all() or not predictions.correct.any():
        names |= {"auroc_error", "auroc_error_normalised"}
    if len(set(predictions.mass_bins.tolist())) == len(predictions.labels):
        names |= {"ece_debiased"}
    return names


def test_metadata() -> None:
    assert set(REFERENCES) == OWN
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.definition.endswith(".")
        assert ". " not in metric.definition
        assert metric.unit in {"fraction", "nats", "ratio", "squared probability"}
        assert metric.bounds[0] < metric.bounds[1]
        assert "https://" in metric.source
    assert all(METRICS[floor].unit == METRICS[name].unit for name, floor in FLOORS.items())
    directed = {way: {name for name in METRICS if METRICS[name].better == way} for way in ("higher", "")}
    ranking = {"auroc_error", "auroc_error_normalised", "coverage_at_1", "coverage_at_2"}
    assert directed["higher"] == {"accuracy"} | ranking
    assert directed[""] == {"mean_confidence", "confidence_gap", "temperature", *FLOORS.values()}
    predictions = Predictions.of(*problem(seed=8))
    by_image = {name for name in OWN if np.shape(METRICS[name].function(predictions)) == (60,)}
    assert by_image == {name for name in METRICS if METRICS[name].by_image} == {"accuracy", "nll", "brier"}


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k, scale = int(rng.integers(40, 120)), int(rng.integers(2, 11)), float(rng.uniform(1, 4))
    logits, labels = problem(seed, n, k, scale=scale, planted=1.3)
    expected = {name: reference(logits, labels) for name, reference in REFERENCES.items()}
    assert scores(logits, labels) == pytest.approx(expected, abs=2e-6, rel=2e-6)


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
        assert nan == undefined(predictions)
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


def test_recovers_a_planted_temperature() -> None:
    for temperature in (0.03, 0.5, 1.0, 1.7, 40.0, 2000.0):
        arrays = problem(0, 8000, scale=5.0, planted=temperature)
        assert METRICS["temperature"](*arrays) == pytest.approx(temperature, rel=0.05)


def test_folds_are_even_and_those_of_the_recorded_numbers() -> None:
    for n in (2, 3, 4, 5, 6, 99, 3925):
        sizes = np.bincount(fold_ids(n))
        assert len(sizes) == min(n, 5)
        assert sizes.max() - sizes.min() <= 1
    # Were this to change, every recorded temperature would.
    assert fold_ids(12).tolist() == [1, 1, 4, 0, 2, 3, 1, 2, 4, 3, 0, 0]


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


# What is refused at the door, and with which words.

LOGITS = np.zeros((4, 3), dtype=np.float32)
LABELS = np.array([0, 1, 2, 0])
DIVERGED = np.where(np.arange(12).reshape(4, 3) == 5, np.nan, LOGITS)

REFUSED = {
    "one row": (LOGITS[0], LABELS, r"shape \[N, K\], got shape \(3,\)"),
    "integer logits": (LOGITS.astype(int), LABELS, "got shape .* of int64"),
    "no image": (LOGITS[:0], LABELS[:0], "at least one image"),
    "one label too few": (LOGITS, LABELS[:3], r"labels of shape \(4,\).* got shape \(3,\)"),
    "one-hot labels": (LOGITS, np.eye(3, dtype=int)[LABELS], r"got shape \(4, 3\).*not one-hot"),
    "float labels": (LOGITS, LABELS.astype(float), "of float64"),
    "boolean labels": (LOGITS, LABELS == 0, "of bool"),
    "label K": (LOGITS, np.array([0, 1, 3, 0]), r"labels in \[0, 3\), got 0 to 3"),
    "ignored label": (LOGITS, np.array([0, -100, 2, 0]), "got -100 to 2; leave out ignored images"),
    "NaN": (DIVERGED, LABELS, "NaN or infinity for 1 of 4 images; a diverged"),
    "infinity": (np.nan_to_num(DIVERGED, nan=-np.inf), LABELS, "1 of 4 images"),
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
