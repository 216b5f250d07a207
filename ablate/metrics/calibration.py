"""Binned calibration errors: does a prediction made with confidence c come true a share c of the time?

All but `classwise_ece` are of the top label, the predicted class. `predictions` says how the bins are cut.
All but `ece_debiased` are plug-in estimates and biased upwards: their noise floors say by how much.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ablate.metrics.predictions import BINS, EDGES, Array, FloatArray, Predictions
from ablate.metrics.registry import metric

GUO = "Guo et al. 2017, https://arxiv.org/abs/1706.04599"
NAEINI = "Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602"
ROELOFS = "Roelofs et al. 2022, https://arxiv.org/abs/2012.08668"
NIXON = f"Nixon et al. 2019, https://arxiv.org/abs/1904.01685; {ROELOFS}"
KUMAR = f"Kumar, Liang and Ma 2019, https://arxiv.org/abs/1909.10155; {ROELOFS}"
KULL = "Kull et al. 2019, https://arxiv.org/abs/1910.12656"


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """What a reliability diagram shows, [15] for the bins of equal width: images, their means, the edges.

    Means of an empty bin are NaN. A lower edge belongs to its bin, and so does the last upper one, 1.0.
    """

    count: NDArray[np.intp]
    confidence: Array
    accuracy: Array
    lower: Array
    upper: Array


def reliability_bins(predictions: Predictions) -> ReliabilityBins:
    """Mean confidence and accuracy in each bin."""
    count, confidence_sum, correct_sum = _sums(predictions, predictions.width_bins)
    filled = np.where(count > 0, count, np.nan)
    return ReliabilityBins(count, confidence_sum / filled, correct_sum / filled, EDGES[:-1], EDGES[1:])


def ece_from_sums(count: NDArray[np.number], confidence_sum: FloatArray, correct_sum: FloatArray) -> float:
    """Expected calibration error from the sums in each bin, in [0, 1]; 0 is best.

    sum_b (count_b / N) |mean confidence_b - accuracy_b| = sum_b |confidence_sum_b - correct_sum_b| / N.

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


def _sums(predictions: Predictions, ids: NDArray[np.intp]) -> tuple[NDArray[np.intp], Array, Array]:
    """Images [15] in each bin, and of them the summed confidence [15] and the correct ones [..., 15]."""
    count = np.bincount(ids, minlength=BINS)
    confidence = np.bincount(ids, predictions.confidence, minlength=BINS).astype(np.float64)
    in_bin = csr_array((np.ones(len(ids)), ids, np.arange(len(ids) + 1)), shape=(len(ids), BINS))
    return count, confidence, np.asarray(predictions.correct @ in_bin)


def _mean_gap(predictions: Predictions, ids: NDArray[np.intp]) -> Array:
    _, confidence, correct = _sums(predictions, ids)
    return np.asarray(np.abs(confidence - correct).sum(axis=-1) / len(ids))


@metric(label="ECE", unit="fraction", better="lower", source=f"{NAEINI}; {GUO}, equation 3", floor=True)
def ece(predictions: Predictions) -> Array:
    """Expected calibration error of the top label, plug-in, 15 bins of equal width in [0, 1].

    Values of splits of different size are not comparable, as their noise floors differ.
    """
    return _mean_gap(predictions, predictions.width_bins)


@metric(label="ECE, equal mass", unit="fraction", better="lower", source=NIXON, floor=True)
def ece_equal_mass(predictions: Predictions) -> Array:
    """`ece` with 15 bins of equal mass; images of equal confidence share a bin.

    Most confidences lie near 1, where bins of equal mass are narrow and bins of equal width hold nearly all
    images. Below 15 images each is a bin of its own.
    """
    return _mean_gap(predictions, predictions.mass_bins)


@metric(label="ECE, debiased", unit="fraction", better="lower", bounds=(-0.5, 1), source=KUMAR)
def ece_debiased(predictions: Predictions) -> float:
    """Signed root of the debiased squared calibration error, top label, 15 bins of equal mass.

    From each bin's squared gap between mean confidence and accuracy a, the variance of a that its n images
    give rise to, a (1 - a) / (n - 1), is taken off; the bins are averaged by their images. The sum is
    unbiased for the squared error of the binned confidences, so it can be negative: less than noise alone
    would give. Its root is then returned with a minus sign. The authors' package returns 0, which would be a
    bias again: of a calibrated model on 3,925 images that mean is 0.5 %, the signed root's -0.1 %, with a
    standard deviation of 1.2 %. So there is no floor.

    It is a root mean square, not a mean of absolute gaps: above `ece_equal_mass` where the gaps differ.
    Bins of one image, which give no variance, add nothing; NaN when all bins are such.
    """
    count, confidence_sum, correct_sum = _sums(predictions, predictions.mass_bins)
    several = count > 1
    if not several.any():
        return math.nan
    n, gap_sum, correct = count[several], (confidence_sum - correct_sum)[several], correct_sum[several]
    squares = np.square(gap_sum / n) - correct * (n - correct) / (n**2 * (n - 1.0))
    mean_square = float((n * squares).sum()) / len(predictions.labels)
    return math.copysign(math.sqrt(abs(mean_square)), mean_square)


@metric(label="Classwise ECE", unit="fraction", better="lower", source=KULL, floor=True)
def classwise_ece(predictions: Predictions) -> Array:
    """Mean over classes of the `ece` of each class's probability, 15 bins of equal width.

    Every image counts for every class, most of them with a probability near 0, so values are smaller than
    those of `ece` and fall with the number of classes.
    """
    images, labels = len(predictions.logits), np.atleast_2d(predictions.labels)
    groups = len(predictions.class_bin_sums)
    ids = predictions.class_bins[np.arange(images), labels] + groups * np.arange(len(labels))[:, None]
    count = np.bincount(ids.ravel(), minlength=groups * len(labels)).reshape(len(labels), groups)
    gaps = np.abs(predictions.class_bin_sums - count).sum(axis=1) / predictions.logits.size
    return np.asarray(gaps.reshape(predictions.labels.shape[:-1]))


@metric(label="MCE", unit="fraction", better="lower", source=NAEINI, floor=True)
def mce(predictions: Predictions) -> Array:
    """Maximum calibration error of the top label: the largest gap of 15 bins of equal width.

    A bin of few images can make it large by chance: read it beside `mce_floor`.
    """
    count, confidence, correct = _sums(predictions, predictions.width_bins)
    filled = count > 0
    return np.asarray((np.abs(confidence - correct)[..., filled] / count[filled]).max(axis=-1))


@metric(label="Mean confidence", unit="fraction", source=GUO)
def mean_confidence(predictions: Predictions) -> float:
    """Mean probability of the predicted class."""
    return float(predictions.confidence.mean())


@metric(label="Confidence gap", unit="fraction", bounds=(-1, 1), source=GUO)
def confidence_gap(predictions: Predictions) -> float:
    """Mean confidence minus accuracy: above 0 over-confident, below 0 under-confident.

    Its size never exceeds the ECE, and equals it when every bin errs in the same direction.
    """
    return float(predictions.confidence.mean() - predictions.correct.mean())
