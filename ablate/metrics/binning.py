"""How images are put into bins by a probability. The bins are part of a calibration error's definition.

Equal width: 15 bins over [0, 1]; each is closed below and open above, [lower, upper), and the last is closed
at both ends, so a probability of exactly 1.0 belongs to it. (torchmetrics 1.9 counts that probability in a
sixteenth bin of its own: https://github.com/Lightning-AI/torchmetrics/issues/3510.)

Equal mass: the images in ascending order are cut by rank into 15 bins whose sizes differ by at most one, the
larger ones first. Images of equal probability stay together, in the lowest of the bins that their ranks
reach, so the bins do not depend on the order of the images; ties can leave a bin empty.
"""

import numpy as np
from numpy.typing import NDArray

from ablate.metrics.arrays import FloatArray

BINS = 15


def bin_ids(probabilities: FloatArray, *, bins: int = BINS) -> NDArray[np.intp]:
    """Bin of equal width of each probability, in [0, bins); any shape."""
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    return np.searchsorted(inner_edges, probabilities, side="right")


def equal_mass_bin_ids(probabilities: NDArray[np.float64], *, bins: int = BINS) -> NDArray[np.intp]:
    """[N] bin of equal mass of each of [N] probabilities, in [0, bins)."""
    number = len(probabilities)
    larger = number % bins
    sizes = number // bins + (np.arange(bins) < larger)
    bin_of_rank = np.repeat(np.arange(bins), sizes)
    lowest_rank = np.searchsorted(np.sort(probabilities), probabilities, side="left")
    return np.asarray(bin_of_rank[lowest_rank])


def sums_by_bin(
    ids: NDArray[np.intp], confidence: FloatArray, correct: NDArray[np.bool_], *, bins: int = BINS
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Number of images, summed confidence and correct predictions: [bins] each."""
    count = np.bincount(ids, minlength=bins)
    confidence_sum = np.bincount(ids, weights=confidence, minlength=bins).astype(np.float64)
    correct_sum = np.bincount(ids, weights=correct, minlength=bins).astype(np.float64)
    return count, confidence_sum, correct_sum
