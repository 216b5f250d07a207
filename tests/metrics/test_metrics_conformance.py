"""What every metric must satisfy, whichever it is. A metric without a reference here fails."""

import math
from collections.abc import Callable
from functools import cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.metrics.calibration import expected_calibration_error
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import poisson_binom
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from ablate.metrics import FLOORS, METRICS, Metric, Predictions, compute_metrics
from ablate.metrics.temperature import fold_ids

torch.set_num_threads(1)
Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]
Outcomes = tuple[NDArray[np.float64], NDArray[np.bool_]]
SELECTIVE = ("auroc_error", "auroc_error_normalised", "aurc", "eaurc", "coverage_at_1", "coverage_at_2")
UNITS = {"fraction", "nats", "ratio", "squared probability"}
ALL = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def problem(seed: int, n: int = 60, k: int = 10, *, scale: float = 4.0, planted: float = 1.0) -> Arrays:
    """Labels drawn from softmax(z), logits planted * z: T = planted is right."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, k))
    labels = (logits + rng.gumbel(size=(n, k))).argmax(axis=1)
    return (planted * logits).astype(np.float32), labels


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(torch.softmax(torch.tensor(logits, dtype=torch.float64), 1).numpy())


def _reference_accuracy(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return float(accuracy_score(labels, logits.argmax(axis=1)))


def _reference_nll(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return float(log_loss(labels, _softmax(logits), labels=range(logits.shape[1])))


def _reference_brier(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    classes = range(logits.shape[1])
    return float(brier_score_loss(labels, _softmax(logits), labels=classes, scale_by_half=False))


def _torchmetrics(
    logits: NDArray[np.floating], labels: NDArray[np.int64], norm: Literal["l1", "max"]
) -> float:
    probabilities, classes = torch.tensor(_softmax(logits)), logits.shape[1]
    return float(
        multiclass_calibration_error(probabilities, torch.tensor(labels), classes, n_bins=15, norm=norm)
    )


def _reference_ece(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return _torchmetrics(logits, labels, "l1")


def _outcomes(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> Outcomes:
    """Confidence and correctness, in ascending order of confidence."""
    confidence, correct = _softmax(logits).max(axis=1), logits.argmax(axis=1) == labels
    order = np.argsort(confidence)
    return confidence[order], correct[order]


def _reference_ece_equal_mass(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    # MAPIE cuts the images in the order they come in, so it is given them sorted.
    confidence, correct = _outcomes(logits, labels)
    return float(expected_calibration_error(correct, confidence, num_bins=15, split_strategy="array split"))


def _mass_bins(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> list[Outcomes]:
    confidence, correct = _outcomes(logits, labels)
    parts = np.array_split(confidence, 15), np.array_split(correct, 15)
    return [(c, y) for c, y in zip(*parts, strict=True) if len(c)]


def _reference_ece_debiased(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Kumar et al. 2019, the estimator of the squared error, bin by bin."""
    total = 0.0
    for confidence, correct in _mass_bins(logits, labels):
        n, accuracy = len(correct), correct.mean()
        if n > 1:
            variance = accuracy * (1 - accuracy) / (n - 1)
            total += n / len(labels) * ((confidence.mean() - accuracy) ** 2 - variance)
    return math.sqrt(total) if total > 0 else -math.sqrt(-total)


def _reference_classwise_ece(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    # MAPIE's num_bins counts the edges of bins of equal width.
    options = {"num_bins": 16, "split_strategy": "uniform", "classwise": True}
    return float(expected_calibration_error(labels, _softmax(logits), class_labels=labels, **options))


def _reference_mce(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return _torchmetrics(logits, labels, "max")


def _cosine_sums(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], steps: int
) -> NDArray[np.float64]:
    """smECE of [draws, N] outcomes by bisection, with the heat kernel's cosine series summed directly."""
    orders, t = np.arange(300), np.linspace(0, 1, 2001)
    cosines = np.cos(np.pi * np.outer(orders, confidence))
    coefficients = (confidence - correct) @ cosines.T / len(confidence)
    coefficients[:, 1:] *= 2
    waves = np.cos(np.pi * np.outer(orders, t))
    low, high = np.zeros(len(correct)), np.ones(len(correct))
    for _ in range(steps):
        middle = (low + high) / 2
        damping = np.exp(-((np.pi * np.outer(middle, orders)) ** 2) / 2)
        above = np.trapezoid(np.abs((coefficients * damping) @ waves), t, axis=1) > middle
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def _reference_smece(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    confidence, correct = _outcomes(logits, labels)
    return float(_cosine_sums(confidence, correct[None], steps=40)[0])


def _reference_auroc_error(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    confidence, correct = _outcomes(logits, labels)
    return float(roc_auc_score(correct, confidence))


def _reference_auroc_error_normalised(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    centred = torch.tensor(logits, dtype=torch.float64)
    centred = centred - centred.mean(dim=1, keepdim=True)
    highest = torch.nn.functional.normalize(centred, p=2, dim=1).amax(1).numpy()
    return float(roc_auc_score(logits.argmax(axis=1) == labels, highest.round(10)))


def _risks(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> list[float]:
    """Error rate of the n most confident images, for n = 1 to N."""
    wrong = ~_outcomes(logits, labels)[1][::-1]
    return [found / n for n, found in enumerate(accumulate(wrong.tolist()), start=1)]


def _reference_aurc(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return float(np.mean(_risks(logits, labels)))


def _reference_eaurc(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The same with right predictions made certain and wrong ones not, which ranks them best."""
    right = logits.argmax(axis=1) == labels
    return _reference_aurc(logits, labels) - _reference_aurc(
        logits * np.where(right, 9, 1e-3)[:, None], labels
    )


def _reference_coverage(logits: NDArray[np.floating], labels: NDArray[np.int64], risk: float) -> float:
    kept = [n for n, found in enumerate(_risks(logits, labels), start=1) if found <= risk + 1e-12]
    return max(kept, default=0) / len(labels)


def _width_bins(probabilities: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    ids = (probabilities * 15).astype(int).clip(max=14)
    return [probabilities[ids == b] for b in range(15) if (ids == b).any()]


def _mean_deviation(bins: list[NDArray[np.float64]]) -> float:
    total = 0.0
    for in_bin in bins:
        counts = np.arange(len(in_bin) + 1)
        total += np.abs(counts - in_bin.sum()) @ poisson_binom(in_bin).pmf(counts)
    return total


def _reference_ece_floor(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return _mean_deviation(_width_bins(_softmax(logits).max(axis=1))) / len(labels)


def _reference_ece_equal_mass_floor(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return _mean_deviation([confidence for confidence, _ in _mass_bins(logits, labels)]) / len(labels)


def _reference_classwise_ece_floor(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    classes = _softmax(logits).T
    return sum(_mean_deviation(_width_bins(own)) for own in classes) / classes.size


def _reference_mce_floor(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Sum over all values t of the largest gap of t times its probability."""
    bins = _width_bins(_softmax(logits).max(axis=1))
    gaps = [np.abs(np.arange(len(b) + 1) - b.sum()) / len(b) for b in bins]
    pmfs = [poisson_binom(b).pmf(np.arange(len(b) + 1)) for b in bins]
    values = np.unique(np.concatenate(gaps))
    at_most = [math.prod(pmf[gap <= t].sum() for gap, pmf in zip(gaps, pmfs, strict=True)) for t in values]
    return float(values @ np.diff(at_most, prepend=0))


def _reference_smece_floor(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    confidence = _softmax(logits).max(axis=1)
    outcomes = np.random.RandomState(0).random_sample((64, len(labels))) < confidence
    return float(_cosine_sums(confidence, outcomes, steps=20).mean())


def _reference_mean_confidence(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return float(_softmax(logits).max(axis=1).mean())


def _reference_confidence_gap(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return _reference_mean_confidence(logits, labels) - _reference_accuracy(logits, labels)


def _reference_temperatures(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> list[float]:
    z, y, folds = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels), fold_ids(len(labels))
    fitted = []
    for fold in range(folds.max() + 1):
        others = torch.tensor(folds != fold)

        def nll(log_t: float, others: torch.Tensor = others) -> float:
            return float(torch.nn.functional.cross_entropy(z[others] / math.exp(log_t), y[others]))

        search = minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8})
        fitted.append(math.exp(search.x))
    return fitted


def _reference_scaled_logits(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.floating]:
    temperatures = np.array(_reference_temperatures(logits, labels))
    return np.asarray(logits / temperatures[fold_ids(len(labels))][:, None])


REFERENCES: dict[str, Callable[[NDArray[np.floating], NDArray[np.int64]], float]] = {
    "accuracy": _reference_accuracy,
    "nll": _reference_nll,
    "brier": _reference_brier,
    "ece": _reference_ece,
    "ece_floor": _reference_ece_floor,
    "ece_equal_mass": _reference_ece_equal_mass,
    "ece_equal_mass_floor": _reference_ece_equal_mass_floor,
    "ece_debiased": _reference_ece_debiased,
    "smece": _reference_smece,
    "smece_floor": _reference_smece_floor,
    "classwise_ece": _reference_classwise_ece,
    "classwise_ece_floor": _reference_classwise_ece_floor,
    "mce": _reference_mce,
    "mce_floor": _reference_mce_floor,
    "mean_confidence": _reference_mean_confidence,
    "confidence_gap": _reference_confidence_gap,
    "temperature": lambda z, y: float(np.mean(_reference_temperatures(z, y))),
    "ece_scaled": lambda z, y: _reference_ece(_reference_scaled_logits(z, y), y),
    "nll_scaled": lambda z, y: _reference_nll(_reference_scaled_logits(z, y), y),
    "auroc_error": _reference_auroc_error,
    "auroc_error_normalised": _reference_auroc_error_normalised,
    "aurc": _reference_aurc,
    "eaurc": _reference_eaurc,
    "coverage_at_1": lambda z, y: _reference_coverage(z, y, 0.01),
    "coverage_at_2": lambda z, y: _reference_coverage(z, y, 0.02),
}

# Metrics that are computed to a stated accuracy only.
TOLERANCE = {"smece_floor": 1e-5}


def _one_kind(predictions: Predictions) -> bool:
    return bool(predictions.correct.all() or not predictions.correct.any())


def _no_two_images_share_a_bin(predictions: Predictions) -> bool:
    return len(set(predictions.mass_bins.tolist())) == len(predictions.labels)


# When a metric is NaN, by its docstring. The others never are.
UNDEFINED: dict[str, Callable[[Predictions], bool]] = {
    "ece_debiased": _no_two_images_share_a_bin,
    "auroc_error": _one_kind,
    "auroc_error_normalised": _one_kind,
}


def _wrong_half(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([logits[len(logits) // 2 :], logits[: len(logits) // 2]])


def _uneven_confidence(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Same classes, half of the images over-confident and half under-confident: no single T mends it."""
    return logits * np.where(np.arange(len(logits)) % 2, 4, 0.25).astype(np.float32)[:, None]


# For each metric with a direction: a change of calibrated logits that makes the model worse by it.
WORSE: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "accuracy": _wrong_half,
    "nll": _wrong_half,
    "brier": _wrong_half,
    "ece": lambda logits: 4 * logits,
    "ece_equal_mass": lambda logits: 4 * logits,
    "ece_debiased": lambda logits: 4 * logits,
    "smece": lambda logits: 4 * logits,
    "classwise_ece": _wrong_half,
    "mce": _wrong_half,
    "ece_scaled": _uneven_confidence,
    "nll_scaled": _wrong_half,
    "auroc_error": _uneven_confidence,
    "auroc_error_normalised": _wrong_half,
    "aurc": _wrong_half,
    "eaurc": _uneven_confidence,
    "coverage_at_1": _uneven_confidence,
    "coverage_at_2": _uneven_confidence,
}


def test_every_metric_has_a_reference() -> None:
    assert set(REFERENCES) == set(METRICS)


def test_every_direction_has_a_worse_model() -> None:
    assert set(WORSE) == {name for name, metric in METRICS.items() if metric.higher_is_better is not None}


def test_every_floor_is_a_metric_without_a_direction() -> None:
    assert set(FLOORS.values()) == {name for name in METRICS if name.endswith("_floor")}
    for name, floor in FLOORS.items():
        assert METRICS[name].higher_is_better is False
        assert METRICS[floor].higher_is_better is None
        assert METRICS[floor].unit == METRICS[name].unit


@ALL
def test_metadata(metric: Metric) -> None:
    assert METRICS[metric.name] is metric
    assert metric.name == metric.function.__name__
    assert metric.function.__doc__
    assert metric.definition.endswith(".")
    assert ". " not in metric.definition
    assert metric.unit in UNITS
    assert metric.lower < metric.upper
    assert metric.version >= 1
    assert "https://" in metric.source


@ALL
@pytest.mark.parametrize(("n", "k", "scale"), [(60, 10, 4.0), (60, 2, 1.0), (23, 3, 2.0), (120, 5, 8.0)])
def test_equals_the_reference(metric: Metric, n: int, k: int, scale: float) -> None:
    logits, labels = problem(seed=n + k, n=n, k=k, scale=scale, planted=1.3)
    expected = REFERENCES[metric.name](logits, labels)
    tolerance = TOLERANCE.get(metric.name, 2e-6)
    assert metric.function(logits, labels) == pytest.approx(expected, abs=tolerance, rel=tolerance)


@ALL
@pytest.mark.parametrize("n", [2, 3, 5, 40])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0, 1e4])
def test_finite_and_within_bounds(metric: Metric, n: int, scale: float) -> None:
    rng = np.random.default_rng(n)
    logits = (scale * rng.uniform(-1, 1, size=(n, 3))).astype(np.float32)
    for labels in (rng.integers(0, 3, n), logits.argmax(axis=1), logits.argmin(axis=1)):
        value = metric.function(logits, labels)
        undefined = UNDEFINED.get(metric.name)
        if undefined is not None and undefined(Predictions.of(logits, labels)):
            assert math.isnan(value)
            continue
        assert math.isfinite(value)
        assert metric.lower - 1e-12 <= value <= metric.upper + 1e-12
        assert math.copysign(1, value) == 1 or value < 0, "a score of zero must not print as -0.0"


@ALL
def test_direction(metric: Metric) -> None:
    if metric.higher_is_better is None:
        return
    logits, labels = problem(seed=3, n=600, scale=8.0)
    good, bad = metric.function(logits, labels), metric.function(WORSE[metric.name](logits), labels)
    assert good > bad + 0.02 if metric.higher_is_better else good < bad - 0.02


@ALL
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 6))
def test_permuting_the_classes_changes_nothing(metric: Metric, seed: int, k: int) -> None:
    logits, labels = problem(seed, n=25, k=k)
    new_id = np.random.default_rng(seed).permutation(k)
    permuted = np.empty_like(logits)
    permuted[:, new_id] = logits
    assert metric.function(permuted, new_id[labels]) == pytest.approx(
        metric.function(logits, labels), abs=1e-8, nan_ok=True
    )


@ALL
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shifts=st.lists(st.integers(-8000, 8000), min_size=25, max_size=25),
)
def test_shifting_an_image_s_logits_changes_nothing(metric: Metric, seed: int, shifts: list[int]) -> None:
    # Eighths add without rounding, so ties stay ties and bin edges are not crossed.
    rng = np.random.default_rng(seed)
    logits, labels = rng.integers(-40, 40, size=(25, 4)) / 8, rng.integers(0, 4, size=25)
    shifted = logits + np.array(shifts)[:, None] / 8
    assert metric.function(shifted, labels) == pytest.approx(
        metric.function(logits, labels), abs=1e-8, nan_ok=True
    )


@ALL
def test_depends_on_values_and_not_on_dtypes_or_memory(metric: Metric) -> None:
    logits, labels = problem(seed=8)
    before = logits.copy(), labels.copy()
    value = metric.function(logits, labels)
    assert metric.function(logits.astype(np.float64), labels.astype(np.uint8)) == value
    assert metric.function(np.asfortranarray(logits), labels.astype(np.int32)) == pytest.approx(
        value, abs=1e-12
    )
    assert np.array_equal(logits, before[0])
    assert np.array_equal(labels, before[1])


@ALL
def test_one_image(metric: Metric) -> None:
    value = metric.function(np.array([[2.0, 0.0]]), np.array([0]))
    confidence = 1 / (1 + math.exp(-2))
    expected = {
        "accuracy": 1.0,
        "nll": -math.log(confidence),
        "brier": 2 * (1 - confidence) ** 2,
        **dict.fromkeys(("ece", "ece_equal_mass", "smece", "classwise_ece", "mce"), 1 - confidence),
        **dict.fromkeys(FLOORS.values(), 2 * confidence * (1 - confidence)),
        "mean_confidence": confidence,
        "confidence_gap": confidence - 1,
        "aurc": 0.0,
        "eaurc": 0.0,
        "coverage_at_1": 1.0,
        "coverage_at_2": 1.0,
    }.get(metric.name, math.nan)  # no temperature, no variance in a bin, no wrong image
    # Of the 64 draws for this floor, one in eight is wrong.
    tolerance = 0.1 if metric.name == "smece_floor" else 1e-12
    assert value == pytest.approx(expected, nan_ok=True, abs=tolerance)


def test_compute_metrics_gives_each_metric_exactly() -> None:
    logits, labels = problem(seed=1)
    together = compute_metrics(logits, labels)
    assert list(together) == list(METRICS)
    for name, metric in METRICS.items():
        assert together[name] == metric.function(logits, labels)


def test_predictions_derive_each_quantity_once() -> None:
    predictions = Predictions.of(*problem(seed=1))
    derived = [name for name, value in vars(Predictions).items() if isinstance(value, cached_property)]
    assert {"probabilities", "doubt", "mass_bins", "class_bins", "width_bin_successes"} < set(derived)
    for name in (*derived, "temperatures"):
        assert getattr(predictions, name) is getattr(predictions, name)


def a_thousand_problems(k: int) -> Arrays:
    """Logits [1000, 50, k] and labels [1000, 50], 60 % of them as predicted."""
    rng = np.random.default_rng(0)
    shape = (1000, 50, k)
    scale = rng.choice([0.5, 2, 6], size=(1000, 1, 1))
    logits = (scale * rng.normal(size=shape)).astype(np.float32)
    labels = np.where(rng.random(shape[:2]) < 0.6, logits.argmax(2), rng.integers(0, k, shape[:2]))
    return logits, labels


def test_a_thousand_random_problems_at_once() -> None:
    problems, n, k = 1000, 50, 10
    logits, labels = a_thousand_problems(k)
    z, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    probabilities = z.softmax(2)
    nll = torch.nn.functional.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none").view(problems, n)
    brier = (probabilities - torch.nn.functional.one_hot(y, k)).square().sum(2)
    expected = {
        "accuracy": (z.argmax(2) == y).double().mean(1),
        "nll": nll.mean(1),
        "brier": brier.mean(1),
        "mean_confidence": probabilities.amax(2).mean(1),
        "ece": torch.stack(
            [
                multiclass_calibration_error(p, t, k, n_bins=15, norm="l1", validate_args=False)
                for p, t in zip(probabilities, y, strict=True)
            ]
        ),
    }
    for name, reference in expected.items():
        ours = [METRICS[name].function(*arrays) for arrays in zip(logits, labels, strict=True)]
        assert np.abs(np.array(ours) - reference.numpy()).max() < 1e-6, name


def test_a_thousand_random_problems_one_by_one() -> None:
    certain = 0
    for arrays in zip(*a_thousand_problems(k=4), strict=True):
        predictions = Predictions.of(*arrays)
        compared = {"ece_equal_mass", "ece_debiased", "classwise_ece", "mce", *SELECTIVE}
        # torchmetrics rounds to float32 and gives 1.0 a bin of its own, which can decide the maximum.
        if predictions.confidence.max() > 1 - 1e-7:
            compared.remove("mce")
            certain += 1
        with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            for name in compared:
                value = METRICS[name].function.score(predictions)
                assert abs(value - REFERENCES[name](*arrays)) < 1e-6, name
    assert certain < 150
