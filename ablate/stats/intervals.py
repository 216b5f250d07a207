"""Intervals of one sample. The replicate is a training run, so n is the number of seeds."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Values = NDArray[np.floating]  # in either precision
CONFIDENCE = 0.95  # of an interval, or of all of a family together
UNBOUNDED = (-math.inf, math.inf)
ROUNDING, OF_FLOAT32 = 1e-12, 2.0**-22
"""Parts of the largest value by which equal differences come apart, of values held in float64 and float32."""


@dataclass(frozen=True)
class Interval:
    """A mean over n values with its interval, in their unit; the ends are NaN where there is no spread.

    `sd` has ddof 1: NaN for fewer than two values, 0 when all are equal.
    """

    mean: float
    low: float
    high: float
    n: int
    sd: float


def mean_interval(values: Values, *, bounds: tuple[float, float] = UNBOUNDED) -> Interval:
    """Mean over seeds with its t interval, within `bounds`; [n] values, finite, or NaN for a missing one.

    Unlike the bootstrap it keeps its coverage at n = 3 to 10. Of one value, or equal ones, the ends are NaN.

    Source: Student 1908, The probable error of a mean, https://doi.org/10.1093/biomet/6.1.1
    """
    n, mean, sd = moments(values.astype(np.float64))
    margin = float(t_margin(sd / np.sqrt(n), n - 1))
    return Interval(float(mean), *ends_within(bounds, float(mean), margin), int(n), float(sd))


def ends_within(bounds: tuple[float, float], mean: float, margin: float) -> tuple[float, float]:
    """Ends of mean ± margin that stay within the metric's range (a, b): the truths x that it may come of.

    Means vary with the root of (x - a)(b - x), or of x - a where b is infinite. So x may lie from the mean as
    far as the margin times the ratio of that root at x to that at the mean, which is a quadratic in x. A mean
    outside the range, such as a percentage where a fraction was expected, has no bounds.

    Source: Wilson 1927, the score interval of a share, https://doi.org/10.1080/01621459.1927.10502953
    """
    below, above = mean - bounds[0], bounds[1] - mean
    if not (below > 0 and above > 0):
        return mean - margin, mean + margin
    lean, widened = margin * (margin * (1 / below - 1 / above)) / 2, 1 + margin / below * (margin / above)
    reach = math.hypot(lean, margin * math.sqrt(widened))
    return max(mean + (lean - reach) / widened, bounds[0]), min(mean + (lean + reach) / widened, bounds[1])


def prediction_interval(values: Values) -> Interval:
    """Mean over seeds with the 95 % interval for one more run: mean ± t(0.975, n − 1) · sd · sqrt(1 + 1/n).

    Source: Hahn and Meeker 1991, Statistical intervals, section 4.7, https://doi.org/10.1002/9780470316771
    """
    of_mean = mean_interval(values)
    margin = (of_mean.high - of_mean.mean) * math.sqrt(of_mean.n + 1)
    return dataclasses.replace(of_mean, low=of_mean.mean - margin, high=of_mean.mean + margin)


@dataclass(frozen=True)
class MedianInterval:
    """A median and its interval; NaN without values, or where no pair of them covers: below six."""

    median: float
    low: float
    high: float
    n: int


def median_interval(values: Values) -> MedianInterval:
    """Median with the narrowest symmetric pair of order statistics that holds it with 95 % confidence.

    For times, whose spikes are real: it holds whatever the distribution. [n] values, finite.

    Source: David and Nagaraja, "Order Statistics", 3rd edition, 2003, section 7.1.
    """
    from scipy.stats import quantile_test  # half a second to import

    if not len(values):
        return MedianInterval(math.nan, math.nan, math.nan, 0)
    ends = quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    return MedianInterval(float(np.median(values)), float(ends.low), float(ends.high), len(values))


def new_images_interval(differences: Values, *, comparisons: int = 1) -> tuple[float, float, float]:
    """Mean paired difference, and the ends of its interval for new images as well as new seeds.

    Of `differences` [n, N], finite, or one arm's values. With seed s on image i taken as effect + seed[s] +
    image[i] + rest[s, i], the mean has the variance V(seed)/n + V(image)/N + V(rest)/(nN), estimated by
    s2_seed/n + s2_image/N - within/(nN). Two half-widths are squared and added, of n - 1 degrees of freedom
    for the seeds and N - 1 for what the images add; Satterthwaite's covered too little at few seeds. The mean
    is NaN without seeds, the ends for fewer than two seeds or images or where nothing varies.

    Source: Cornfield and Tukey 1956, mean squares in factorials, https://doi.org/10.1214/aoms/1177728067;
    Zou and Donner 2008, adding squared half-widths, https://doi.org/10.1002/sim.3095
    """
    present, (n, images) = differences.astype(np.float64), differences.shape
    effect = float(present.mean()) if present.size else math.nan
    if n < 2 or images < 2:
        return effect, math.nan, math.nan
    by_seed, by_image = present.mean(axis=1), present.mean(axis=0)
    rest: FloatArray = present - by_seed[:, None] - by_image + effect
    sd_images, sd_rest = (float(moments(own)[2]) for own in (by_image, rest.ravel()))
    by_chance = sd_rest * math.sqrt((rest.size - 1) / ((n - 1) * (images - 1) * n))
    # The root of a difference of squares, which in themselves might leave the range of a float.
    added = math.sqrt(max(sd_images - by_chance, 0.0)) * math.sqrt(sd_images + by_chance)
    tail = (1 - CONFIDENCE) / (2 * comparisons)
    of_seeds = stdtrit(n - 1, tail) * float(moments(by_seed)[2]) / math.sqrt(n)
    margin = math.hypot(of_seeds, stdtrit(images - 1, tail) * added / math.sqrt(images)) or math.nan
    return effect, effect - margin, effect + margin


def slack(*sides: FloatArray) -> FloatArray:
    """[...] by how much rounding, of float32 if that holds all, sets equal differences of [..., n] apart."""
    held = np.nan_to_num(np.concatenate(sides, axis=-1))
    of_float32 = (np.frexp(held)[0] * 2**24 % 1 == 0).all(axis=-1)
    part = np.where(of_float32, OF_FLOAT32, ROUNDING)
    return np.asarray(part * np.max(np.abs(held), axis=-1, initial=0.0))


def moments(
    values: FloatArray, *, rounding: FloatArray | None = None
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Count, mean and sd (ddof 1) along the last axis, without the NaN; sd is NaN for fewer than two values.

    Values that span at most `rounding`, by default that of themselves, count as equal: their sd is exactly 0.
    """
    present = ~np.isnan(values)
    n = present.sum(axis=-1)
    # Over a power of two near the largest, which rounds nothing, so that squares stay finite.
    exponent = np.frexp(np.max(np.abs(values), axis=-1, where=present, initial=0.0))[1]
    near_one = np.ldexp(np.where(present, values, 0.0), -exponent[..., None])
    mean = np.where(n > 0, near_one.sum(axis=-1) / np.maximum(n, 1), np.nan)
    squares = np.where(present, near_one - mean[..., None], 0.0) ** 2
    sd = np.sqrt(np.where(n > 1, squares.sum(axis=-1) / np.maximum(n - 1, 1), np.nan))
    # Asked of the range, because the deviations of equal values from their rounded mean are not exactly 0.
    highest = np.max(values, axis=-1, where=present, initial=-math.inf)
    lowest = np.min(values, axis=-1, where=present, initial=math.inf)
    equal = highest - lowest <= (slack(values) if rounding is None else rounding)
    return n, np.ldexp(mean, exponent), np.where(equal & (n > 1), 0.0, np.ldexp(sd, exponent))


def t_margin(error: FloatArray, freedom: FloatArray | IntArray, *, comparisons: int = 1) -> FloatArray:
    """Half the width of a t interval, Bonferroni-corrected; NaN unless the standard error is above 0."""
    defined = np.asarray(error > 0)
    t = -stdtrit(np.where(defined, freedom, 1), (1 - CONFIDENCE) / (2 * comparisons))
    return np.where(defined, t * error, np.nan)
