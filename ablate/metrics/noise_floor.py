"""What each calibration error of a perfectly calibrated model would be: the floor below the error.

The images and their probabilities stay as they are, and the labels are drawn anew: each image's label from
its own probabilities, independently of the others. An error near its floor cannot be told from calibration.

Binned floors are exact, not simulated. In a bin the correct predictions follow the Poisson-binomial
distribution, and the floor is a mean over it. The floor of `smece` is the mean over simulated labels; its
draws are seeded, so that the same data give the same floor. `ece_debiased` has no floor: its square has mean
0 for a calibrated model.

References:
    Bröcker and Smith 2007, consistency resampling, https://doi.org/10.1175/WAF993.1
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ablate.metrics.arrays import FloatArray, IntArray
from ablate.metrics.calibration import classwise_gap
from ablate.metrics.poisson_binomial import Successes, successes_by_group
from ablate.metrics.predictions import MetricFunction, Predictions
from ablate.metrics.smooth import smooth_errors

BAND = (0.025, 0.975)
BINNED_DRAWS = 20_000
LABEL_DRAWS = 1_000
SMECE_FLOOR_DRAWS = 64
SMECE_CELLS = 512
SMECE_TOLERANCE = 1e-5
BLOCK = 1 << 20
"""Simulated outcomes held at once."""

FLOORS = {
    "ece": "ece_floor",
    "ece_equal_mass": "ece_equal_mass_floor",
    "classwise_ece": "classwise_ece_floor",
    "mce": "mce_floor",
    "smece": "smece_floor",
}
"""For each calibration error with a noise floor, the metric that is its floor."""


@MetricFunction
def ece_floor(predictions: Predictions) -> float:
    """Mean `ece` of a perfectly calibrated model with these confidences on this many images, in [0, 0.5].

    Exact to within about 1e-12. An ECE near it cannot be told from calibration: see `floor_band`.
    """
    return _mean_deviation(predictions.width_bin_successes) / len(predictions.labels)


@MetricFunction
def ece_equal_mass_floor(predictions: Predictions) -> float:
    """Mean `ece_equal_mass` of a perfectly calibrated model with these confidences, in [0, 0.5]; exact."""
    return _mean_deviation(_mass_bin_successes(predictions)) / len(predictions.labels)


@MetricFunction
def classwise_ece_floor(predictions: Predictions) -> float:
    """Mean `classwise_ece` of a perfectly calibrated model with these probabilities, in [0, 0.5]; exact.

    Calibrated in all classes: labels follow the whole softmax, not the top probability alone.
    """
    labelled = successes_by_group(predictions.probabilities.ravel(), predictions.class_bins.ravel())
    return _mean_deviation(labelled) / predictions.probabilities.size


@MetricFunction
def mce_floor(predictions: Predictions) -> float:
    """Mean `mce` of a perfectly calibrated model with these confidences, in [0, 1]; exact.

    The bins are independent, so the largest gap is at most t with the product of the bins' probabilities.
    The mean is the integral of one minus that product.
    """
    gaps = [bin_.deviation / bin_.trials for bin_ in predictions.width_bin_successes]
    steps = np.unique(np.concatenate(gaps))
    all_at_most = np.ones(len(steps))
    for gap, bin_ in zip(gaps, predictions.width_bin_successes, strict=True):
        order = np.argsort(gap)
        at_most = np.append(0, np.cumsum(bin_.pmf[order]))
        all_at_most *= at_most[np.searchsorted(gap[order], steps, side="right")]
    return float(steps[0] + (1 - all_at_most[:-1]).clip(min=0) @ np.diff(steps))


@MetricFunction
def smece_floor(predictions: Predictions) -> float:
    """Mean `smece` of a perfectly calibrated model with these confidences, in [0, 0.5].

    The mean of 64 seeded draws of the labels: uncertain by about 2 % of its value.
    """
    return float(_smece_draws(predictions, SMECE_FLOOR_DRAWS).mean())


def floor_band(metric: str, logits: FloatArray, labels: IntArray) -> tuple[float, float]:
    """Central 95 % band of a calibration error of a perfectly calibrated model with these probabilities.

    An error above the band is evidence of miscalibration. The ends are quantiles of draws with a fixed seed:
    the same data give the same band. Of the binned top-label errors 20,000 are drawn, and the ends are
    uncertain by about 2 % of the error's standard deviation; of `classwise_ece` and `smece` 1,000, and by
    about 8 %.

    Args:
        metric: a key of `FLOORS`.
        logits: [N, K], any floating dtype, finite; N >= 1.
        labels: [N] class ids in [0, K); checked, but the band does not depend on them.

    Returns:
        low, high: in [0, 1].

    Raises:
        ValueError: If the metric has no floor, and as for every metric.
    """
    if metric not in _DRAWS:
        raise ValueError(f"Expected a metric with a noise floor, got {metric!r}; these are {list(_DRAWS)}.")
    low, high = np.quantile(_DRAWS[metric](Predictions.of(logits, labels)), BAND)
    return float(low), float(high)


def _mass_bin_successes(predictions: Predictions) -> list[Successes]:
    return successes_by_group(predictions.confidence, predictions.mass_bins)


def _mean_deviation(bins: list[Successes]) -> float:
    """Sum over bins of the mean distance of the successes from their mean."""
    return float(sum(bin_.deviation @ bin_.pmf for bin_ in bins))


def _generator() -> np.random.RandomState:
    return np.random.RandomState(0)  # its stream is promised for good (NEP 19), unlike default_rng's


def _deviation_draws(bins: list[Successes]) -> Iterator[NDArray[np.float64]]:
    """For each bin [draws] distance of the successes from their mean."""
    rng = _generator()
    for bin_ in bins:
        successes = np.searchsorted(np.cumsum(bin_.pmf), rng.random_sample(BINNED_DRAWS), side="right")
        yield bin_.deviation[successes.clip(max=bin_.trials)]


def _ece_draws(predictions: Predictions) -> NDArray[np.float64]:
    return _summed(_deviation_draws(predictions.width_bin_successes)) / len(predictions.labels)


def _equal_mass_draws(predictions: Predictions) -> NDArray[np.float64]:
    return _summed(_deviation_draws(_mass_bin_successes(predictions))) / len(predictions.labels)


def _summed(draws: Iterator[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(np.sum(list(draws), axis=0))


def _mce_draws(predictions: Predictions) -> NDArray[np.float64]:
    bins = predictions.width_bin_successes
    gaps = [draws / bin_.trials for draws, bin_ in zip(_deviation_draws(bins), bins, strict=True)]
    return np.asarray(np.max(gaps, axis=0))


def _classwise_draws(predictions: Predictions) -> NDArray[np.float64]:
    rng, images = _generator(), np.arange(len(predictions.labels))
    upper = np.cumsum(predictions.probabilities, axis=1)[:, :-1]  # the last class takes what is left
    gaps = []
    for _ in range(LABEL_DRAWS):
        labels = (upper < rng.random_sample(len(images))[:, None]).sum(axis=1)
        gaps.append(classwise_gap(predictions, predictions.class_bins[images, labels]))
    return np.array(gaps)


def _smece_draws(predictions: Predictions, draws: int = LABEL_DRAWS) -> NDArray[np.float64]:
    rng, confidence = _generator(), predictions.confidence
    block = max(1, BLOCK // len(confidence))
    errors = []
    for start in range(0, draws, block):
        outcomes = rng.random_sample((min(block, draws - start), len(confidence))) < confidence
        errors.append(smooth_errors(confidence, outcomes, cells=SMECE_CELLS, tolerance=SMECE_TOLERANCE))
    return np.concatenate(errors)


_DRAWS: dict[str, Callable[[Predictions], NDArray[np.float64]]] = {
    "ece": _ece_draws,
    "ece_equal_mass": _equal_mass_draws,
    "classwise_ece": _classwise_draws,
    "mce": _mce_draws,
    "smece": _smece_draws,
}
