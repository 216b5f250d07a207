"""Errors of a perfectly calibrated model: against enumeration, exact values and simulation."""

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from ablate.metrics import FLOORS, METRICS, Predictions, band_of_mean, resampled
from ablate.metrics.floors import BAND, DRAWS

Array = NDArray[np.float64]


def calibrated(n: int, *, k: int = 10, scale: float = 8.0) -> Predictions:
    logits = scale * np.random.default_rng(0).normal(size=(n, k))
    return Predictions.of(logits, np.zeros(n, dtype=int))


def scored(predictions: Predictions, labels: NDArray[np.intp]) -> dict[str, Array]:
    """Each error with a floor for each row of labels, one after the other."""
    rows = [Predictions(predictions.logits, row) for row in labels]
    return {name: np.array([METRICS[name].score(row) for row in rows]) for name in FLOORS}


@pytest.mark.parametrize(("n", "k", "scale"), [(9, 2, 2.0), (5, 3, 1.0), (1, 2, 1.0)])
def test_all_labels_there_can_be(n: int, k: int, scale: float) -> None:
    """Floor and band against the error and the probability of each."""
    predictions = calibrated(n, k=k, scale=scale)
    labels = np.array(list(product(range(k), repeat=n)))
    probability = predictions.probabilities[np.arange(n), labels].prod(axis=1)
    share = 4 * math.sqrt(0.025 * 0.975 / DRAWS)
    for name, errors in scored(predictions, labels).items():
        mean = probability @ errors
        spread = math.sqrt(probability @ (errors - mean) ** 2)
        floor = METRICS[FLOORS[name]].score(predictions)
        assert floor == pytest.approx(mean, abs=4 * spread / math.sqrt(DRAWS)), name
        for end, below in zip(band_of_mean([resampled(predictions)[name]]), BAND, strict=True):
            assert probability[errors < end - 1e-4].sum() <= below + share, name
            assert probability[errors <= end + 1e-4].sum() >= below - share, name


EXACT = {
    (60, 10, 2.0): (0.152369, 0.194793, 0.0788632, 0.464109, (0.08834, 0.22835)),
    (1000, 10, 8.0): (0.0231242, 0.0223539, 0.0131286, 0.425677, (0.01321, 0.03479)),
    (500, 100, 3.0): (0.0540758, 0.0616193, 0.00798604, 0.217911, (0.03253, 0.07939)),
}
"""Means of ECE, of equal mass, classwise and MCE, and the band of ECE, by convolving each bin's successes."""


@pytest.mark.parametrize("case", EXACT)
def test_floors_are_the_exact_ones(case: tuple[int, int, float]) -> None:
    n, k, scale = case
    predictions = calibrated(n, k=k, scale=scale)
    values, (*means, band) = resampled(predictions), EXACT[case]
    for name, mean in zip(FLOORS, means, strict=False):
        error = values[name].std() / math.sqrt(DRAWS)
        assert METRICS[FLOORS[name]].score(predictions) == pytest.approx(mean, abs=4 * error), name
    # The standard error of a 2.5 % quantile of n normal draws is 2.7 standard deviations over the root of n.
    error = 2.7 * values["ece"].std() / math.sqrt(DRAWS)
    assert band_of_mean([values["ece"]]) == pytest.approx(band, abs=4 * error)


def test_the_band_of_a_mean_is_that_of_independent_runs() -> None:
    """Of runs with almost equal confidences, whose labels the same random numbers draw."""
    runs = [calibrated(400, scale=scale) for scale in (5.0, 5.001, 5.002, 5.003)]
    values = [resampled(run)["ece"] for run in runs]
    assert np.corrcoef(values[0], values[1])[0, 1] > 0.9
    (low, high), (low_of_one, high_of_one) = band_of_mean(values), band_of_mean(values[:1])
    assert high - low == pytest.approx((high_of_one - low_of_one) / 2, rel=0.15)
    rng = np.random.default_rng(2)
    means = np.mean([rng.choice(own, 100_000) for own in values], axis=0)
    within = 4 * 2.7 * means.std() / math.sqrt(DRAWS)  # of a 2.5 % quantile of normal draws
    assert (low, high) == pytest.approx(np.quantile(means, BAND), abs=within)
    assert band_of_mean([values[0]] * 4)[1] < high_of_one, "equal predictions of four seeds are four runs"


def test_drawn_labels_are_scored_as_one_after_the_other() -> None:
    predictions = calibrated(60, scale=2.0)
    labels = np.random.default_rng(0).integers(0, 10, (20, 60))
    for name in FLOORS:  # what belongs to the first labels is known, and must not be taken over
        METRICS[name].score(predictions)
    relabelled = predictions.relabelled(labels)
    for name, values in scored(predictions, labels).items():
        found, atol = METRICS[name].function(relabelled), 1e-4 if name == "smece" else 1e-12
        np.testing.assert_allclose(found, values, atol=atol)
    assert predictions.labels.ndim == 1
    assert relabelled.probabilities is predictions.probabilities


def test_floors_depend_on_nothing_but_the_probabilities() -> None:
    first = calibrated(100)
    np.random.seed(1)
    before = {name: values.copy() for name, values in resampled(first).items()}
    np.random.seed(2)
    for name, values in resampled(Predictions.of(first.logits + 3, np.arange(100) % 10)).items():
        np.testing.assert_allclose(values, before[name], atol=1e-4 if name == "smece" else 1e-12)
    permuted = resampled(Predictions.of(first.logits[:, ::-1].copy(), first.labels))
    for name in FLOORS:
        assert permuted[name].mean() == pytest.approx(before[name].mean(), rel=0.05), name
    # Certain predictions have no error.
    certain = Predictions.of(np.tile([1e4, -1e4], (300, 1)), np.zeros(300, dtype=int))
    for values in resampled(certain).values():
        assert np.abs(values).max() < 1e-12
