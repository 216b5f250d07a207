"""Choosing among noisy points: values smoothed over neighbouring points, and the front of two objectives.

The best of many noisy means is mostly the luckiest one. A Gaussian process borrows strength from the points
around it (Rasmussen and Williams 2006, chapters 2 and 5, https://gaussianprocess.org/gpml/).
"""

import math
import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ablate.stats.intervals import BoolArray, FloatArray

FEWEST_POINTS = 4  # with fewer, a value's neighbours tell nothing that could be told from luck
LENGTHS = (0.2, 10.0)  # of the Matérn kernel, in widths of the tried region: shorter ones follow the noise
AMPLITUDES = (1e-4, 1e2)  # variance of the true values, in units of the variance of the values seen
NOISES = (1e-4, 1e1)  # variance of the luck in the same units, where the values have to tell it
LEVEL = 1e3  # prior variance of the level that the true values vary about, in the same units
LEAST_NOISE = 1e-6  # in the same units; it keeps the matrix well-conditioned where runs have no luck at all
Z = 1.96  # half the width of a 95 % interval, in standard deviations
SAME = 1e-9  # part of them by which smoothed values that count as equal differ: rounding
MARGIN = 0.1  # part of the front's extent by which the reference point lies below its worst values


def smoothed(
    places: FloatArray, samples: Sequence[FloatArray], *, higher_is_better: bool
) -> tuple[FloatArray, FloatArray]:
    """True values at the tried points, by Gaussian-process regression with a Matérn 5/2 kernel.

    `places` [n, d] are coordinates in any unit, categories as one column per value; `samples` [n] the values
    over each point's seeds, one at least. Returns [n] posterior means, and [n] standard deviations of the
    true value, without the luck of a new run. The level is a constant with a flat prior (ordinary kriging);
    length scales, one a column, and amplitude are those of the largest marginal likelihood within bounds. Of
    fewer than four points, or equal values, the means come back as they are. As a process that is as smooth
    everywhere would swing beside a cliff, what lies below one is left out: NaN.
    """
    if not samples:
        return np.empty(0), np.empty(0)
    means, seeds = np.array([sample.mean() for sample in samples]), np.array([len(one) for one in samples])
    squares = np.array([((sample - sample.mean()) ** 2).sum() for sample in samples])
    typical = math.sqrt(np.median(squares / np.maximum(seeds - 1, 1)))
    kept = _above_a_cliff(means if higher_is_better else -means, typical)
    places, values, replicates = places[kept], means[kept], seeds[kept]
    # The standard deviation of a run within a point, pooled; with one seed each it has to be estimated.
    freedom = int((replicates - 1).sum())
    spread = math.sqrt(math.fsum(squares[kept]) / freedom) if freedom else math.nan
    used, level, scale = places[:, np.ptp(places, axis=0) > 0], values.mean(), values.std()
    if len(values) < FEWEST_POINTS or not used.size or scale <= 1e-12 * np.abs(values).max():
        # The values' own spread bounds that of a run, if there are several.
        mean, sd = values, (spread if freedom else scale) / np.sqrt(replicates)
    else:
        unit = (used - used.min(axis=0)) / np.ptp(used, axis=0)
        mean, sd = _posterior(unit, (values - level) / scale, (spread / scale) ** 2 / replicates)
        mean, sd = mean * scale + level, sd * scale
    smooth, sds = np.full((2, len(means)), np.nan)
    smooth[kept], sds[kept] = mean, sd
    return smooth, sds


def _above_a_cliff(gains: FloatArray, spread: float) -> BoolArray:
    """Which points [n] lie above the first gap too wide for luck or a slope; all, if there is none.

    That is one of more than twice the range above it, of four points at least, and four times a run's spread.
    """
    ordered = np.sort(gains)[::-1]
    for least, below in zip(ordered[FEWEST_POINTS - 1 :], ordered[FEWEST_POINTS:], strict=False):
        if least - below > 2 * max(ordered[0] - least, 2 * spread, SAME * np.abs(gains).max()):
            return np.asarray(gains >= least)
    return np.ones(len(gains), dtype=bool)


def _posterior(unit: FloatArray, values: FloatArray, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Posterior mean and sd [n] at the places themselves, in [0, 1]; noise [n], NaN where unknown."""
    # Imported here, as it takes a second, which every command would wait for.
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    from threadpoolctl import threadpool_limits

    known = not np.isnan(noise).any()
    kernel = ConstantKernel(1.0, AMPLITUDES) * Matern(np.full(unit.shape[1], 0.5), LENGTHS, nu=2.5)
    alpha = np.maximum(noise, LEAST_NOISE) if known else LEAST_NOISE
    # One thread: on matrices this small several wait for each other, and take ten times as long.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # an optimum on a bound is meant
        likely = kernel if known else kernel + WhiteKernel(0.1, NOISES)
        fitted = GaussianProcessRegressor(likely, alpha=alpha).fit(unit, values).kernel_
        if not known:
            fitted, alpha = fitted.k1, LEAST_NOISE + fitted.k2.noise_level
        # Then about a level that is not known: a constant whose prior is as good as flat.
        process = GaussianProcessRegressor(fitted + ConstantKernel(LEVEL), alpha=alpha, optimizer=None)
        mean, sd = process.fit(unit, values).predict(unit, return_std=True)
    return mean, sd


def is_on_front(values: FloatArray) -> BoolArray:
    """Of [n, 2], higher-is-better, which no other beats: is as good in both, better in one; of equals all."""
    at_least = (values[:, None] >= values[None]).all(axis=2)
    better = (values[:, None] > values[None]).any(axis=2)
    return np.asarray(~(at_least & better).any(axis=0))


def chosen_of_two(values: FloatArray, sds: FloatArray) -> tuple[int, ...]:
    """Of points with two smoothed objectives, the one or two that are worth another look.

    From [n, 2] posterior means, higher-is-better, and their sds: indices, ascending, of equals the first.

    An objective shows a signal if some two points' 95 % intervals lie apart. If only one does, the best in it
    is chosen; if none does, the best in the first. If both do, `best_two` chooses from the front, without
    points whose gain in one objective over another point is at most its median sd, while their loss in the
    other is more than the noise leaves open: two 95 % intervals of the median width would lie apart.
    """
    rounding = SAME * np.abs(values).max(axis=0)
    front = np.flatnonzero(is_on_front(values))
    signal = (values - Z * sds).max(axis=0) - (values + Z * sds).min(axis=0) > rounding
    if signal.all():
        # Never all are beaten: of two points, the beaten has the lesser sum of both, in units of sd.
        sd, more = np.median(sds, axis=0), values[front][:, None] - values[front][None]
        beats = (more > 2 * Z * sd).any(axis=2) & (more >= -sd).all(axis=2)
        front = front[~beats.any(axis=0)]
        return tuple(int(front[index]) for index in best_two(values[front]))
    objective = 1 if signal[1] else 0
    gains = values[front, objective]
    return (int(front[gains >= gains.max() - rounding[objective]].min()),)


def best_two(front: FloatArray) -> tuple[int, ...]:
    """Of a front [m, 2], both higher-is-better, the two points that together dominate the most.

    That is the area of what is worse than either, down to `MARGIN` of the front's extent below its worst, in
    units of the extent. Their indices come ascending, of equal pairs the first; all where there are fewer.
    """
    if len(front) <= 2:
        return tuple(range(len(front)))
    extent = np.ptp(front, axis=0)
    above = (front - front.min(axis=0)) / np.where(extent > 0, extent, 1.0) + MARGIN
    first, second = np.array(list(combinations(range(len(front)), 2))).T
    area = above.prod(axis=1)
    volume = area[first] + area[second] - np.minimum(above[first], above[second]).prod(axis=1)
    best = int(np.argmax(volume))
    return int(first[best]), int(second[best])
