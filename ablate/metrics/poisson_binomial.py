"""Number of successes in independent trials of unequal probability: the Poisson-binomial distribution.

References:
    Biscarri, Zhao and Brunner 2018, the tree of convolutions, https://doi.org/10.1016/j.csda.2018.01.007
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

DIRECT = 20
"""Widest rows that are convolved term by term; the FFT is faster beyond."""


class Successes(NamedTuple):
    """Distribution of the number of successes in one group of n trials.

    Attributes:
        pmf: [n + 1] probability of k successes, >= 0, to within about 1e-14 absolute.
        mean: expected number.
    """

    pmf: NDArray[np.float64]
    mean: float

    @property
    def trials(self) -> int:
        """Number of trials, n >= 1."""
        return len(self.pmf) - 1

    @property
    def deviation(self) -> NDArray[np.float64]:
        """[n + 1] distance of k from the mean."""
        return np.asarray(np.abs(np.arange(len(self.pmf)) - self.mean))


def successes_by_group(probabilities: NDArray[np.float64], groups: NDArray[np.intp]) -> list[Successes]:
    """Distribution for each group that holds a trial, in ascending order of the groups.

    Args:
        probabilities: [N] of success, in [0, 1], N >= 1.
        groups: [N] group of each trial, >= 0.
    """
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    sizes = sizes[sizes > 0]
    ordered = probabilities[order]
    means = np.add.reduceat(ordered, np.cumsum(sizes) - sizes)
    pmfs = poisson_binomial_pmfs(ordered, sizes)
    return [Successes(pmf, float(mean)) for pmf, mean in zip(pmfs, means, strict=True)]


def poisson_binomial_pmfs(
    probabilities: NDArray[np.float64], sizes: NDArray[np.intp]
) -> list[NDArray[np.float64]]:
    """Probability of k successes for k = 0 to n, for each group of n trials.

    All groups go up the tree of convolutions together, one level at a time, which is several times as fast
    as one after the other.

    Args:
        probabilities: [sum of sizes] of success, in [0, 1], group by group.
        sizes: [groups] trials in each, >= 1.

    Returns:
        For each group [n + 1], >= 0, to within about 1e-14 absolute.
    """
    rows, counts, groups = np.stack([1 - probabilities, probabilities], axis=1), sizes, np.arange(len(sizes))
    pmfs: list[NDArray[np.float64]] = [np.empty(0)] * len(sizes)
    while True:
        done = counts == 1
        for group, row in zip(groups[done], rows[(np.cumsum(counts) - 1)[done]], strict=True):
            pmfs[group] = row[: sizes[group] + 1].clip(min=0)  # the FFT leaves some at -1e-17
        if done.all():
            return pmfs
        rows, counts, groups = rows[np.repeat(~done, counts)], counts[~done], groups[~done]
        rows = _convolve_pairs(_in_pairs(rows, counts))
        counts = (counts + 1) // 2


def _in_pairs(rows: NDArray[np.float64], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """The rows with one more, of a trial that never succeeds, behind each group of odd size."""
    odd = counts % 2 == 1
    places = np.arange(len(rows)) + np.repeat(np.cumsum(odd) - odd, counts)
    even = np.zeros((len(rows) + int(odd.sum()), rows.shape[1]))
    even[:, 0] = 1
    even[places] = rows
    return even


def _convolve_pairs(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    width = rows.shape[1]
    size = 2 * width - 1
    if width > DIRECT:
        padded = next_fast_len(size, real=True)
        spectrum = rfft(rows, padded)
        return np.asarray(irfft(spectrum[::2] * spectrum[1::2], padded)[:, :size])
    convolved = np.zeros((len(rows) // 2, size))
    for shift in range(width):
        convolved[:, shift : shift + width] += rows[::2, shift, None] * rows[1::2]
    return convolved
