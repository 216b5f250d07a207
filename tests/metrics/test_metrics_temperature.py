"""Temperature scaling: the fit, the folds, and what happens at the ends."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ablate.metrics import METRICS, Predictions, compute_metrics
from ablate.metrics.temperature import TEMPERATURE_BOUNDS, fit_temperature, fold_ids


def planted(temperature: float, n: int, *, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Labels drawn from softmax(logits / temperature), accuracy near .8."""
    rng = np.random.default_rng(seed)
    logits = 5 * rng.normal(size=(n, 10))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return temperature * logits, labels


def test_recovers_a_planted_temperature() -> None:
    for temperature in (0.03, 0.5, 1.0, 1.7, 40.0, 2000.0):
        logits, labels = planted(temperature, 8000)
        value = METRICS["temperature"](logits.astype(np.float32), labels)
        assert value == pytest.approx(temperature, rel=0.05)


def test_folds_are_even_and_those_of_the_recorded_numbers() -> None:
    for n in (2, 3, 4, 5, 6, 99, 3925):
        sizes = np.bincount(fold_ids(n))
        assert len(sizes) == min(n, 5)
        assert sizes.max() - sizes.min() <= 1
    # Were this to change, every recorded temperature would.
    assert fold_ids(12).tolist() == [1, 1, 4, 0, 2, 3, 1, 2, 4, 3, 0, 0]


def test_a_single_image_leaves_nothing_to_fit_on() -> None:
    alone = Predictions.of(*planted(1.0, 1))
    assert np.isnan(alone.cross_fit[1]).tolist() == [True]
    assert alone.scaled is None


def test_where_no_temperature_is_best_the_nearer_end_is_taken() -> None:
    logits, _ = planted(1.0, 50)
    right, wrong = (
        compute_metrics(Predictions.of(logits, labels))
        for labels in (logits.argmax(axis=1), logits.argmin(axis=1))
    )
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
    assert fit_temperature(logits, labels) == pytest.approx(
        2 * magnitude / np.log(correct / (1 - correct)), rel=1e-9
    )
