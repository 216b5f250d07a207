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

BINS = 15
EDGES = np.linspace(0, 1, BINS + 1)


def bin_ids(probabilities: NDArray[np.floating]) -> NDArray[np.intp]:
    """Bin of equal width of each probability; any shape."""
    return np.searchsorted(EDGES[1:-1], probabilities, side="right")


def equal_mass_bin_ids(probabilities: NDArray[np.float64]) -> NDArray[np.intp]:
    """[N] bin of equal mass of each of [N] probabilities."""
    sizes = len(probabilities) // BINS + (np.arange(BINS) < len(probabilities) % BINS)
    lowest_rank = np.searchsorted(np.sort(probabilities), probabilities, side="left")
    return np.asarray(np.repeat(np.arange(BINS), sizes)[lowest_rank])
