"""The median with an interval that holds whatever the distribution: for times, whose spikes are real."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom


@dataclass(frozen=True)
class MedianInterval:
    """A median and its interval, in the values' unit.

    Attributes:
        median: NaN without values.
        low: lower end; NaN below six values, where no pair of them reaches 95 %.
        high: upper end; NaN likewise.
        n: values.
    """

    median: float
    low: float
    high: float
    n: int


def median_interval(values: NDArray[np.floating], *, confidence: float = 0.95) -> MedianInterval:
    """Median with the narrowest symmetric pair of order statistics that holds it with the confidence asked.

    Exact for independent values of any continuous distribution: the number of values below the median is
    binomial with probability a half.

    Args:
        values: [n], finite.
        confidence: at least this probability, in (0, 1).

    References:
        David and Nagaraja, "Order Statistics", 3rd edition, 2003, section 7.1.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    median = float(np.median(ordered)) if n else math.nan
    cut = int(binom.ppf((1 - confidence) / 2, n, 0.5)) if n else 0
    # ppf is the smallest k that reaches the tail; one less stays under it.
    while cut > 0 and binom.cdf(cut - 1, n, 0.5) > (1 - confidence) / 2:
        cut -= 1
    if cut == 0:
        return MedianInterval(median, math.nan, math.nan, n)
    return MedianInterval(median, float(ordered[cut - 1]), float(ordered[n - cut]), n)
