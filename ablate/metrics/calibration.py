"""Binned calibration errors: does a prediction made with confidence c come true a share c of the time?

All but `classwise_ece` are of the top label, the predicted class. `binning` says how the bins are cut.
All but `ece_debiased` are plug-in estimates and biased upwards: `noise_floor` says by how much.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablate.metrics.arrays import FloatArray
from ablate.metrics.binning import BINS, bin_ids, sums_by_bin
from ablate.metrics.predictions import MetricFunction, Predictions


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """What a reliability diagram shows, one entry for each bin.

    Attributes:
        count: [bins] images in the bin.
        confidence: [bins] their mean confidence; NaN for an empty bin.
        accuracy: [bins] the share of them predicted correctly; NaN for an empty bin.
        lower: [bins] lower edge, which belongs to the bin.
        upper: [bins] upper edge, which belongs to the next bin; the last, 1.0, to the last bin.
    """

    count: NDArray[np.intp]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


def bin_sums(
    confidence: FloatArray, correct: NDArray[np.bool_], *, bins: int = BINS
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Images, summed confidence and correct predictions in each bin: all that the ECE needs.

    Args:
        confidence: [N] probability of the predicted class, in [0, 1].
        correct: [N] whether the prediction is right.
        bins: number of bins of equal width, >= 1.

    Returns:
        count, confidence_sum, correct_sum: [bins] each. Sums over parts of a split may be added.

    Raises:
        ValueError: If the arrays differ in shape, a confidence lies outside [0, 1], or bins < 1.
    """
    _validate_bins(confidence, correct, bins)
    return sums_by_bin(bin_ids(confidence, bins=bins), confidence, correct, bins=bins)


def reliability_bins(
    confidence: FloatArray, correct: NDArray[np.bool_], *, bins: int = BINS
) -> ReliabilityBins:
    """Mean confidence and accuracy in each bin; arguments and errors as for `bin_sums`."""
    count, confidence_sum, correct_sum = bin_sums(confidence, correct, bins=bins)
    edges = np.linspace(0, 1, bins + 1)
    filled = np.where(count > 0, count, np.nan)
    return ReliabilityBins(count, confidence_sum / filled, correct_sum / filled, edges[:-1], edges[1:])


def ece_from_sums(count: NDArray[np.number], confidence_sum: FloatArray, correct_sum: FloatArray) -> float:
    """Expected calibration error from the sums in each bin, in [0, 1]; 0 is best.

    sum_b (count_b / N) |mean confidence_b - accuracy_b| = sum_b |confidence_sum_b - correct_sum_b| / N.

    Args:
        count: [bins] images in each bin, >= 0, at least one in all.
        confidence_sum: [bins] sum of their confidences.
        correct_sum: [bins] number of them predicted correctly.

    Raises:
        ValueError: If the arrays are not of one shape [bins], or hold no image.
    """
    count, confidence_sum, correct_sum = (
        np.asarray(values, dtype=np.float64) for values in (count, confidence_sum, correct_sum)
    )
    if count.ndim != 1 or not count.shape == confidence_sum.shape == correct_sum.shape:
        shapes = f"{count.shape}, {confidence_sum.shape} and {correct_sum.shape}"
        raise ValueError(f"Expected three arrays of one shape [bins], got {shapes}; pass one epoch's sums.")
    if not count.sum() > 0:
        raise ValueError(
            f"Expected at least one image in the bins, got {count.sum():g}; sum over a split first."
        )
    return float(np.abs(confidence_sum - correct_sum).sum() / count.sum())


@MetricFunction
def ece(predictions: Predictions) -> float:
    """Expected calibration error of the top label: 15 bins of equal width, plug-in, in [0, 1]; 0 is best.

    The plug-in estimate is biased upwards: a perfectly calibrated model scores `ece_floor` on
    average, not 0. Values of splits of different size are not comparable.

    References:
        Naeini, Cooper and Hauskrecht 2015, https://doi.org/10.1609/aaai.v29i1.9602;
        Guo et al. 2017, equation 3, https://arxiv.org/abs/1706.04599
    """
    return ece_from_sums(*_sums(predictions, predictions.width_bins))


@MetricFunction
def ece_equal_mass(predictions: Predictions) -> float:
    """`ece` with 15 bins of equal mass, in [0, 1]; 0 is best.

    Most confidences lie near 1, where bins of equal mass are narrow and bins of equal width hold nearly all
    images. Below 15 images each is a bin of its own.

    References:
        Nixon et al. 2019, https://arxiv.org/abs/1904.01685;
        Roelofs et al. 2022, https://arxiv.org/abs/2012.08668
    """
    return ece_from_sums(*_sums(predictions, predictions.mass_bins))


@MetricFunction
def ece_debiased(predictions: Predictions) -> float:
    """Signed root of the debiased squared calibration error of the top label, 15 bins of equal mass.

    In [-0.5, 1]. From each bin's squared gap between mean confidence and accuracy a, the variance of a that
    its n images give rise to, a (1 - a) / (n - 1), is taken off; the bins are averaged by their images. The
    sum is unbiased for the squared error of the binned confidences, so it can be negative: less than noise
    alone would give. Its root is then returned with a minus sign. The authors' package returns 0, which would
    be a bias again: of a calibrated model on 3,925 images that mean is 0.5 %, the signed root's -0.1 %, with
    a standard deviation of 1.2 %. So there is no floor.

    It is a root mean square, not a mean of absolute gaps: above `ece_equal_mass` where the gaps differ.
    Bins of one image, which give no variance, add nothing; NaN when all bins are such.

    References:
        Kumar, Liang and Ma 2019, https://arxiv.org/abs/1909.10155;
        Roelofs et al. 2022, on bins of equal mass, https://arxiv.org/abs/2012.08668
    """
    count, confidence_sum, correct_sum = _sums(predictions, predictions.mass_bins)
    several = count > 1
    if not several.any():
        return math.nan
    n, gap_sum, correct = count[several], (confidence_sum - correct_sum)[several], correct_sum[several]
    squares = np.square(gap_sum / n) - correct * (n - correct) / (n**2 * (n - 1.0))
    mean_square = float((n * squares).sum()) / len(predictions.labels)
    return math.copysign(math.sqrt(abs(mean_square)), mean_square)


@MetricFunction
def classwise_ece(predictions: Predictions) -> float:
    """Mean over classes of the `ece` of each class's own probability, in [0, 1]; 0 is best.

    Every image counts for every class, most of them with a probability near 0, so values are smaller than
    those of `ece` and fall with the number of classes.

    References:
        Kull et al. 2019, https://arxiv.org/abs/1910.12656
    """
    images = np.arange(len(predictions.labels))
    labelled = predictions.class_bins[images, predictions.labels]
    return classwise_gap(predictions, labelled)


def classwise_gap(predictions: Predictions, labelled: NDArray[np.intp]) -> float:
    """`classwise_ece` when the images' labels lie in the bins `labelled`, [N] entries of `class_bins`."""
    groups = BINS * predictions.logits.shape[1]
    gap_sum = predictions.class_bin_sums - np.bincount(labelled, minlength=groups)
    return float(np.abs(gap_sum).sum() / predictions.logits.size)


@MetricFunction
def mce(predictions: Predictions) -> float:
    """Maximum calibration error of the top label: the largest gap of 15 bins of equal width, in [0, 1].

    0 is best. A bin of few images can make it large by chance: read it beside `mce_floor`.

    References:
        Naeini, Cooper and Hauskrecht 2015, https://doi.org/10.1609/aaai.v29i1.9602
    """
    count, confidence_sum, correct_sum = _sums(predictions, predictions.width_bins)
    filled = count > 0
    return float((np.abs(confidence_sum - correct_sum)[filled] / count[filled]).max())


@MetricFunction
def mean_confidence(predictions: Predictions) -> float:
    """Mean probability of the predicted class, in [1/K, 1]. Neither end is better."""
    return float(predictions.confidence.mean())


@MetricFunction
def confidence_gap(predictions: Predictions) -> float:
    """Mean confidence - accuracy, in [-1, 1]: above 0 over-confident, below 0 under-confident.

    Its size never exceeds the ECE, and equals it when every bin errs in the same direction.
    """
    return float(predictions.confidence.mean() - predictions.correct.mean())


def _sums(
    predictions: Predictions, ids: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    return sums_by_bin(ids, predictions.confidence, predictions.correct)


def _validate_bins(confidence: FloatArray, correct: NDArray[np.bool_], bins: int) -> None:
    if bins < 1:
        raise ValueError(f"Expected at least one bin, got bins={bins}; 15 is the usual number.")
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ValueError(
            f"Expected confidence and correct of one shape [N], got {confidence.shape} and {correct.shape}; "
            "pass one value of each for every image."
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError(
            f"Expected confidences in [0, 1], got {confidence.min()} to {confidence.max()}; "
            "pass probabilities, not logits."
        )
