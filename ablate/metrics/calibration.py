"""Calibration: does a prediction made with confidence c come true a share c of the time?

All but `classwise_ece` are of the top label, the predicted class. `predictions` says how the bins are cut.
Errors but `ece_debiased` are plug-in estimates and biased upwards: their noise floors say by how much.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.sparse import csr_array

from ablate.metrics.predictions import BINS, EDGES, TEMPERATURE_BOUNDS, Array, FloatArray, Predictions
from ablate.metrics.registry import metric
from ablate.metrics.scores import nll

GUO = "Guo et al. 2017, https://arxiv.org/abs/1706.04599"
SCALING = f"{GUO}, section 4.2, cross-fitted here"
NAEINI = "Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602"
ROELOFS = "Roelofs et al. 2022, https://arxiv.org/abs/2012.08668"
NIXON = f"Nixon et al. 2019, https://arxiv.org/abs/1904.01685; {ROELOFS}"
KUMAR = f"Kumar, Liang and Ma 2019, https://arxiv.org/abs/1909.10155; {ROELOFS}"
KULL = "Kull et al. 2019, https://arxiv.org/abs/1910.12656"
BLASIOK = "Błasiok and Nakkiran 2023, https://arxiv.org/abs/2309.12236"


def reliability_bins(predictions: Predictions) -> dict[str, NDArray[np.number]]:
    """Of each of 15 bins: count, mean confidence, accuracy (NaN where it is empty), lower and upper edge."""
    count, confidence_sum, correct_sum = _sums(predictions, predictions.width_bins)
    filled = np.where(count > 0, count, np.nan)
    means = {"confidence": confidence_sum / filled, "accuracy": correct_sum / filled}
    return {"count": count, **means, "lower": EDGES[:-1], "upper": EDGES[1:]}


def _sums(predictions: Predictions, ids: NDArray[np.intp]) -> tuple[NDArray[np.intp], Array, Array]:
    """Images [15] in each bin, and of them the summed confidence [15] and the correct ones [..., 15]."""
    confidence = np.bincount(ids, predictions.confidence, minlength=BINS).astype(np.float64)
    # float32 counts exactly up to 2^24 images, at half the cost.
    correct = predictions.correct.astype(np.float32) @ np.eye(BINS, dtype=np.float32)[ids]
    return np.bincount(ids, minlength=BINS), confidence, correct.astype(np.float64)


def _mean_gap(predictions: Predictions, ids: NDArray[np.intp]) -> Array:
    _, confidence, correct = _sums(predictions, ids)
    return np.asarray(np.abs(confidence - correct).sum(axis=-1) / len(ids))


@metric(label="ECE", unit="fraction", better="lower", source=f"{NAEINI}; {GUO}, equation 3", floor=True)
def ece(predictions: Predictions) -> Array:
    """Expected calibration error of the top label, plug-in, 15 bins of equal width in [0, 1]."""
    return _mean_gap(predictions, predictions.width_bins)


@metric(label="ECE, equal mass", unit="fraction", better="lower", source=NIXON, floor=True)
def ece_equal_mass(predictions: Predictions) -> Array:
    """`ece` with 15 bins of equal mass; images of equal confidence share a bin."""
    return _mean_gap(predictions, predictions.mass_bins)


@metric(label="ECE, debiased", unit="fraction", better="lower", bounds=(-0.5, 1), source=KUMAR)
def ece_debiased(predictions: Predictions) -> float:
    """Signed root of the debiased squared calibration error, top label, 15 bins of equal mass.

    From each bin's squared gap between mean confidence and accuracy a, the variance of a that its n images
    give rise to, a (1 - a) / (n - 1), is taken off. The sum is unbiased, so it can be negative, and its root
    then has a minus sign, where the authors' package returns 0. A root mean square, not a mean of absolute
    gaps, it lies above `ece_equal_mass` where they differ. Bins of one image add nothing; NaN with no other.
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

    Every image counts for every class, so values are below those of `ece`, the more so of many classes.
    """
    labels, groups = np.atleast_2d(predictions.labels), len(predictions.class_bin_sums)
    predicted = predictions.class_bins[np.arange(labels.shape[1]), predictions.predicted]
    # Each wrong image is taken from its predicted class and given to its own.
    wrong = np.flatnonzero(~np.atleast_2d(predictions.correct).T)
    image, draw = np.divmod(wrong, len(labels))
    own = predictions.class_bins[image, labels[draw, image]]
    added, taken = (
        np.bincount(groups * draw + ids, minlength=groups * len(labels)) for ids in (own, predicted[image])
    )
    count = np.bincount(predicted, minlength=groups) + (added - taken).reshape(-1, groups)
    gaps = np.abs(predictions.class_bin_sums - count).sum(axis=1) / predictions.logits.size
    return np.asarray(gaps.reshape(predictions.labels.shape[:-1]))


@metric(label="MCE", unit="fraction", better="lower", source=NAEINI, floor=True)
def mce(predictions: Predictions) -> Array:
    """Maximum calibration error of the top label: the largest gap of 15 bins of equal width."""
    count, confidence, correct = _sums(predictions, predictions.width_bins)
    filled = count > 0
    return np.asarray((np.abs(confidence - correct)[..., filled] / count[filled]).max(axis=-1))


@metric(label="Mean confidence", unit="fraction", source=GUO)
def mean_confidence(predictions: Predictions) -> float:
    """Mean probability of the predicted class."""
    return float(predictions.confidence.mean())


@metric(label="Confidence gap", unit="fraction", bounds=(-1, 1), source=GUO)
def confidence_gap(predictions: Predictions) -> float:
    """Mean confidence minus accuracy: above 0 over-confident, below 0 under-confident."""
    return float(predictions.confidence.mean() - predictions.correct.mean())


@metric(label="Smooth ECE", unit="fraction", better="lower", source=BLASIOK, floor=True)
def smece(predictions: Predictions) -> FloatArray:
    """Smooth calibration error of the top label, the Gaussian as wide as the error itself."""
    if predictions.correct.ndim == 1:
        return smooth_errors(predictions.confidence, predictions.correct[None]).reshape(())
    # Drawn labels spread the error fifty times as wide as this is off.
    confidence = predictions.confidence.astype(np.float32)
    return smooth_errors(confidence, predictions.correct, cells=256, tolerance=1e-4)


@metric(label="Temperature", unit="ratio", bounds=TEMPERATURE_BOUNDS, digits=3, source=SCALING)
def temperature(predictions: Predictions) -> float:
    """Mean over 5 folds of the T that minimises the NLL of logits / T on the other folds.

    Above 1 the logits were over-confident, below 1 under-confident; at either end of its bounds no T in
    between is best. Like what follows from it NaN for a single image.
    """
    return float(predictions.cross_fit[1].mean())


@metric(label="ECE, scaled", unit="fraction", better="lower", source=SCALING)
def ece_scaled(predictions: Predictions) -> float:
    """`ece` after temperature scaling, each image with the T fitted without its fold."""
    return math.nan if predictions.scaled is None else ece.score(predictions.scaled)


@metric(label="NLL, scaled", unit="nats", better="lower", bounds=(0, math.inf), digits=4, source=SCALING)
def nll_scaled(predictions: Predictions) -> float:
    """`nll` after temperature scaling, each image with the T fitted without its fold."""
    return math.nan if predictions.scaled is None else nll.score(predictions.scaled)


def smooth_errors(
    confidence: FloatArray, correct: NDArray[np.bool_], *, cells: int = 2048, tolerance: float = 1e-10
) -> FloatArray:
    """[draws] smooth calibration error of predictions [N] for each of several outcomes [draws, N].

    The residuals are smoothed over confidence by a Gaussian of bandwidth s, reflected at 0 and 1; the error
    is the integral over [0, 1] of the size of their mean. It never rises with s, and the smooth calibration
    error is the one s that it equals. The Gaussian damps the k-th cosine by exp(-(k pi s)^2 / 2): smoothing
    is two cosine transforms. 256 cells give it to within 4e-5, 2,048 to within 1e-6. relplot 1.0.3, the
    authors' package, is coarser and agrees to within 0.0015 where the error is below 0.1.
    """
    residuals = confidence - correct.astype(confidence.dtype)
    cosines = _cosine_coefficients(confidence, residuals, cells)
    low, high = np.abs(residuals.mean(axis=1)), np.abs(residuals).mean(axis=1)
    bandwidth, pending = (low + high) / 2, np.arange(len(correct))
    frequency = np.pi * np.arange(cells + 1, dtype=cosines.dtype)
    while len(pending):
        tried = bandwidth[pending]
        damped = cosines[pending] * np.exp(-np.square(frequency * tried[:, None]) / 2)
        smoothed = np.abs(dct(damped, type=1, axis=1))
        error = (smoothed.sum(axis=1) - (smoothed[:, 0] + smoothed[:, -1]) / 2) / cells  # by trapezoids
        # The error never rises with the bandwidth: where it is larger, so is the solution.
        low[pending] = np.where(error > tried, tried, low[pending])
        high[pending] = np.where(error > tried, high[pending], tried)
        # Exact where the error is noise, which falls with the root of the bandwidth.
        guess = np.cbrt(error * error * tried)
        inside = (low[pending] < guess) & (guess < high[pending])
        bandwidth[pending] = np.where(inside, guess, (low[pending] + high[pending]) / 2)
        settled = np.minimum(np.abs(error - tried), (high - low)[pending]) <= tolerance
        pending = pending[~settled]
    return np.asarray(bandwidth)


def _cosine_coefficients(confidence: FloatArray, residuals: FloatArray, cells: int) -> FloatArray:
    """[draws, cells + 1] mean over images of residual * cos(k pi confidence), for k = 0 to cells."""
    images, position = np.arange(len(confidence)), confidence * cells
    left = np.minimum(position.astype(np.intp), cells - 1)
    share = position - left
    weights = np.concatenate([1 - share, share])
    places = np.tile(images, 2), np.concatenate([left, left + 1])
    grid = residuals @ csr_array((weights, places), shape=(len(images), cells + 1))
    grid[:, 1:-1] /= 2
    # Sharing each residual among two grid points is a convolution with a triangle, undone here.
    triangle = np.sinc(np.arange(cells + 1) / (2 * cells)) ** 2
    return np.asarray(dct(grid, type=1, axis=1) / (len(images) * triangle), dtype=confidence.dtype)
