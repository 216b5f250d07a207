"""What a number of seeds can show: power of the verdicts' tests, what they detect, the seeds they need.

`sd` is that of the paired differences, finite and >= 0, or it is a ValueError; of arms with the sd s and the
correlation rho over seeds it is s * sqrt(2 (1 - rho)). `n` are seeds, in each arm. A family-wise error of
0.05 is shared (Bonferroni) by `comparisons`, at least 1.

Source: Phillips 1990, power of the two one-sided tests, https://doi.org/10.1007/BF01063556
"""

import functools
import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import fixed_quad
from scipy.optimize import brentq
from scipy.special import chdtri, gammaln, ndtr, stdtrit

from ablate.stats.effect import Effect
from ablate.stats.intervals import FloatArray

POWER = 0.8  # power at which seeds count as enough to decide
MOST_SEEDS = 1000


def paired_power(effect: float, n: int, *, sd: float, comparisons: int = 1) -> float:
    """Probability that the paired t test rejects when the true difference is `effect`, of either sign."""
    level = _level(sd, comparisons)
    if n < 2:
        return 0.0
    if sd == 0:
        return 1.0 if effect else 0.0
    # scipy's noncentral t and F are NaN for many powers near 1 of few seeds.
    shift, critical = math.sqrt(n) * abs(effect) / sd, -float(stdtrit(n - 1, level / 2))
    last = (shift + 9) / critical  # where nothing is left of it
    return _mean_over_sd(lambda u: ndtr(shift - critical * u) + ndtr(-shift - critical * u), n, last)


def equivalence_power(
    margin: float, n: int, *, sd: float, difference: float = 0.0, comparisons: int = 1
) -> float:
    """Probability that the interval lies inside the margin, > 0, when the true difference is `difference`."""
    level = _level(sd, comparisons) / 2
    if n < 2:
        return 0.0
    if sd == 0:
        return 1.0 if abs(difference) < margin else 0.0
    # Given the sd seen, u times the true one, the mean has to fall within the margin less t u / sqrt(n) of 0.
    reach, shift = math.sqrt(n) * margin / sd, math.sqrt(n) * difference / sd
    critical = -float(stdtrit(n - 1, level))
    last = reach / critical if critical > 0 else math.inf
    return _mean_over_sd(
        lambda u: ndtr(reach - critical * u - shift) - ndtr(critical * u - reach - shift), n, last
    )


def _smallest(power: Callable[..., float], n: int, *, sd: float, comparisons: int = 1) -> float:
    _level(sd, comparisons)
    if n < 2:
        return math.inf

    def beyond(size: float) -> float:
        return power(size, n, sd=1.0, comparisons=comparisons) - POWER

    upper = 1.0
    while beyond(upper) < 0:
        upper *= 2
    return sd * float(brentq(beyond, 1e-9, upper))


minimal_detectable_effect = functools.cache(functools.partial(_smallest, paired_power))
"""Smallest true difference that n seeds detect with 80 % power; infinite for fewer than two."""
confirmable_margin = functools.partial(_smallest, equivalence_power)
"""Smallest margin that n seeds show an effect of 0 to lie within, likewise."""


def seeds_needed(margin: float, *, sd: float, comparisons: int = 1, most: int = MOST_SEEDS) -> int | None:
    """Fewest seeds that show effects of 0 equivalent and twice the margin different; None above `most`."""
    _level(sd, comparisons)
    # No power is left to gain beyond a million standard deviations, where scipy's fails.
    ratio = min(margin / sd, 1e6) if sd else 1e6
    family: dict[str, Any] = {"sd": 1.0, "comparisons": comparisons}

    def power_at(n: int) -> float:
        return min(paired_power(2 * ratio, n, **family), equivalence_power(ratio, n, **family))

    found = 2 + bisect_left(range(2, most + 1), POWER, key=power_at)
    return found if found <= most else None


def pooled_sd(effects: Effect, scale: FloatArray | float = 1.0) -> tuple[float, float]:
    """Standard deviation of paired differences, over their `scale` [m], that effects [m] share; its freedom.

    As effects against one baseline correlate by a half, m count as 4 m / (m + 3). NaN where none varies.
    """
    freedom = np.maximum(effects.n - 1, 0)
    root = math.hypot(*np.nan_to_num(np.sqrt(freedom) * effects.sd / scale).tolist())
    total, shared = float(freedom.sum()), 4 / (np.count_nonzero(freedom) + 3)
    return (root / math.sqrt(total), shared * total) if root > 0 else (math.nan, 0.0)


def seeds_range(
    margin: float, *, sd: float, freedom: float, comparisons: int = 1, least: int = 2
) -> tuple[int | None, int | None]:
    """Seeds of a new study that would likely decide, from few to many, `least` at least; None above 1,000.

    Few take `sd` as estimated, many its upper 90 % confidence bound. Both are rounded up.
    """
    bound = sd if math.isinf(freedom) else sd * math.sqrt(freedom / float(chdtri(freedom, 0.9)))
    few, many = (seeds_needed(margin, sd=spread, comparisons=comparisons) for spread in (sd, bound))
    return few and max(_rounded(few), least), many and max(_rounded(many), least)


def _rounded(seeds: int) -> int:
    return seeds + -seeds % (1 if seeds < 10 else 5 if seeds < 100 else 50)


def _mean_over_sd(chance: Callable[[FloatArray], FloatArray], n: int, last: float) -> float:
    """Mean of a chance that depends on u, the sd of n normal values over the true one; 0 beyond `last`."""
    freedom, half = n - 1, (n - 1) / 2
    # The density of u = sqrt(chi squared / freedom), which has no mass outside ten standard deviations.
    log_scale = math.log(2) + half * math.log(half) - float(gammaln(half))

    def weighted(u: FloatArray) -> FloatArray:
        return chance(u) * np.exp(log_scale + (freedom - 1) * np.log(u) - half * u**2)

    width = 10 / math.sqrt(2 * freedom)
    lowest, highest = max(0.0, 1 - width), min(last, 1 + width)
    if highest <= lowest:
        return 0.0
    return min(float(fixed_quad(weighted, lowest, highest, n=200)[0]), 1.0)


def _level(sd: float, comparisons: int) -> float:
    """Of each test, once its arguments are checked."""
    if not (sd >= 0 and math.isfinite(sd)):
        raise ValueError(f"Expected a finite sd >= 0, got {sd}; estimate it from at least two seeds.")
    return 0.05 / comparisons
