"""What each calibration error of a perfectly calibrated model would be: the floor below the error.

The images and their probabilities stay as they are, and the labels are drawn anew: each image's label from
its own probabilities, independently of the others. An error near its floor cannot be told from calibration;
`noise_band` says how far above it still is near.

Binned floors are exact, not simulated. In a bin the correct predictions follow the Poisson-binomial
distribution, and the floor is a mean over it. The floor of `smece` is the mean over simulated labels; its
draws are seeded, so that the same data give the same floor. `ece_debiased` has no floor: its square has mean
0 for a calibrated model.

References:
    Bröcker and Smith 2007, consistency resampling, https://doi.org/10.1175/WAF993.1
"""

import numpy as np
from numpy.typing import NDArray

from ablate.metrics.poisson_binomial import Successes, successes_by_group
from ablate.metrics.predictions import MetricFunction, Predictions
from ablate.metrics.smooth import smooth_errors

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

    Exact to within about 1e-12.
    """
    return _mean_deviation(predictions.width_bin_successes) / len(predictions.labels)


@MetricFunction
def ece_equal_mass_floor(predictions: Predictions) -> float:
    """Mean `ece_equal_mass` of a perfectly calibrated model with these confidences, in [0, 0.5]; exact."""
    return _mean_deviation(predictions.mass_bin_successes) / len(predictions.labels)


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
    steps, at_most = largest_gap(predictions.width_bin_successes)
    return float(steps[0] + (1 - at_most[:-1]).clip(min=0) @ np.diff(steps))


@MetricFunction
def smece_floor(predictions: Predictions) -> float:
    """Mean `smece` of a perfectly calibrated model with these confidences, in [0, 0.5].

    The mean of 64 seeded draws of the labels: uncertain by about 2 % of its value.
    """
    return float(smece_draws(predictions, SMECE_FLOOR_DRAWS).mean())


def largest_gap(bins: list[Successes]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distribution of the largest of independent bins' gaps between mean confidence and accuracy.

    Returns:
        gaps: [M] every value that it can take, ascending.
        at_most: [M] probability of at most so much, in [0, 1].
    """
    gaps = [bin_.deviation / bin_.trials for bin_ in bins]
    steps = np.unique(np.concatenate(gaps))
    all_at_most = np.ones(len(steps))
    for gap, bin_ in zip(gaps, bins, strict=True):
        order = np.argsort(gap)
        at_most = np.append(0, np.cumsum(bin_.pmf[order]))
        all_at_most *= at_most[np.searchsorted(gap[order], steps, side="right")]
    return steps, all_at_most


def smece_draws(predictions: Predictions, draws: int) -> NDArray[np.float64]:
    """[draws] `smece` of seeded draws of the labels; the first of many draws are those of few."""
    # RandomState's stream is promised for good (NEP 19), unlike default_rng's.
    rng, confidence = np.random.RandomState(0), predictions.confidence
    block = max(1, BLOCK // len(confidence))
    errors = []
    for start in range(0, draws, block):
        outcomes = rng.random_sample((min(block, draws - start), len(confidence))) < confidence
        errors.append(smooth_errors(confidence, outcomes, cells=SMECE_CELLS, tolerance=SMECE_TOLERANCE))
    return np.concatenate(errors)


def _mean_deviation(bins: list[Successes]) -> float:
    """Sum over bins of the mean distance of the successes from their mean."""
    return float(sum(bin_.deviation @ bin_.pmf for bin_ in bins))
