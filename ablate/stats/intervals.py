"""Intervals for one sample over seeds. The replicate is a training run, so n is the number of seeds.

References:
    Student 1908, The probable error of a mean, https://doi.org/10.1093/biomet/6.1.1
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A mean over n values with its t interval, in their unit; NaN without values, or without a spread.

    `sd` has ddof 1: NaN for fewer than two values, 0 when all are equal.
    """

    mean: float
    low: float
    high: float
    n: int
    sd: float


def mean_interval(values: NDArray[np.floating], *, confidence: float = 0.95) -> Interval:
    """Mean over seeds with its t interval.

    The t interval assumes a normal spread over seeds, and unlike the bootstrap it keeps its coverage at
    n = 3 to 10. With one value, or with values that are all equal, the spread cannot be estimated:
    the bounds are NaN, not a point that would look certain.

    Args:
        values: [n], one for each seed, finite; NaN marks a missing one, which is left out.
        confidence: coverage of the interval, in (0, 1).
    """
    if values.ndim != 1:
        raise ValueError(
            f"Expected values of shape [n], one for each seed, got {values.shape}; pass one arm."
        )
    check_values(values)
    check_family(confidence=confidence)
    n, mean, sd = moments(values.astype(np.float64))
    margin = float(t_margin(sd / np.sqrt(n), n - 1, confidence=confidence))
    return Interval(float(mean), float(mean) - margin, float(mean) + margin, int(n), float(sd))


def prediction_interval(values: NDArray[np.floating]) -> Interval:
    """Mean over seeds with the 95 % interval for one more run of the same normal population.

    mean ± t(0.975, n − 1) · sd · sqrt(1 + 1/n), which is the interval of `mean_interval`, sqrt(n + 1) times
    as wide.

    Source: Hahn and Meeker 1991, Statistical intervals, section 4.7, https://doi.org/10.1002/9780470316771
    """
    of_mean = mean_interval(values)
    margin = (of_mean.high - of_mean.mean) * math.sqrt(of_mean.n + 1)
    return dataclasses.replace(of_mean, low=of_mean.mean - margin, high=of_mean.mean + margin)


@dataclass(frozen=True)
class MedianInterval:
    """A median and its interval; NaN without values, or where no pair of them covers: at 95 % below six."""

    median: float
    low: float
    high: float
    n: int


def median_interval(values: NDArray[np.floating], *, confidence: float = 0.95) -> MedianInterval:
    """Median with the narrowest symmetric pair of order statistics that holds it with the confidence asked.

    For times, whose spikes are real: it holds whatever the distribution, as the number of independent values
    below their median is binomial with probability a half. [n] values, finite.

    Source: David and Nagaraja, "Order Statistics", 3rd edition, 2003, section 7.1.
    """
    from scipy.stats import quantile_test  # half a second to import

    if not len(values):
        return MedianInterval(math.nan, math.nan, math.nan, 0)
    ends = quantile_test(values, p=0.5).confidence_interval(confidence)
    return MedianInterval(float(np.median(values)), float(ends.low), float(ends.high), len(values))


def moments(
    values: FloatArray, *, rounding: FloatArray | float = 0.0
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Count, mean and sd (ddof 1) along the last axis, without the NaN; sd is NaN for fewer than two values.

    Values that span at most `rounding` count as equal: their sd is exactly 0.
    """
    present = ~np.isnan(values)
    n = present.sum(axis=-1)
    mean = np.where(n > 0, np.where(present, values, 0.0).sum(axis=-1) / np.maximum(n, 1), np.nan)
    squares = np.where(present, values - mean[..., None], 0.0) ** 2
    sd = np.sqrt(np.where(n > 1, squares.sum(axis=-1) / np.maximum(n - 1, 1), np.nan))
    # Asked of the range, because the deviations of equal values from their rounded mean are not exactly 0.
    equal = span(values, present) <= rounding
    return n, mean, np.where(equal & (n > 1), 0.0, sd)


def span(values: FloatArray, present: BoolArray) -> FloatArray:
    """Largest minus smallest value that is present, along the last axis; -inf where none is."""
    highest = np.max(values, axis=-1, where=present, initial=-math.inf)
    lowest = np.min(values, axis=-1, where=present, initial=math.inf)
    return np.asarray(highest - lowest)


def t_margin(
    error: FloatArray, freedom: FloatArray | IntArray, *, confidence: float, comparisons: int = 1
) -> FloatArray:
    """Half the width of a t interval, Bonferroni-corrected; NaN unless the standard error is above 0."""
    defined = np.asarray(error > 0)
    t = -stdtrit(np.where(defined, freedom, 1), (1 - confidence) / (2 * comparisons))
    return np.where(defined, t * error, np.nan)


def check_values(*samples: NDArray[np.floating]) -> None:
    """Raise ValueError where a value is infinite."""
    for values in samples:
        if np.isinf(values).any():
            raise ValueError(
                "Expected values that are finite, or NaN where one is missing, got "
                f"{np.isinf(values).sum()} infinite; pass NaN for failed trials."
            )


def check_family(comparisons: int = 1, **fractions: float) -> None:
    """Raise ValueError without a comparison, or unless each fraction lies strictly between 0 and 1."""
    for name, value in fractions.items():
        if not 0 < value < 1:
            raise ValueError(
                f"Expected {name} between 0 and 1, ends excluded, got {value}; 95 % is written 0.95."
            )
    if comparisons < 1:
        raise ValueError(
            f"Expected at least one comparison, got comparisons={comparisons}; count those of the family."
        )
