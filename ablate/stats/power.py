"""What a number of seeds can show: power of the verdicts' tests, what they detect, the seeds they need.

Arguments that the functions share:

- `sd`: standard deviation over seeds of the paired differences, finite and >= 0, or it is a ValueError. Of
  arms with the sd s and the correlation rho over seeds it is s * sqrt(2 (1 - rho)).
- `n`: seeds, in each arm. Below two there is no test.
- `alpha`: family-wise error, shared (Bonferroni) by `comparisons`, at least 1.

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

POWER = 0.8
"""Power at which seeds count as enough to decide."""
MOST_SEEDS = 1000


def paired_power(effect: float, n: int, *, sd: float, alpha: float = 0.05, comparisons: int = 1) -> float:
    """Probability that the paired t test rejects when the true difference is `effect`, of either sign."""
    level = _check_test(sd, alpha, comparisons)
    if n < 2:
        return 0.0
    if sd == 0:
        return 1.0 if effect else 0.0
    # scipy's noncentral t and F are NaN for many powers near 1 of few seeds.
    shift, critical = math.sqrt(n) * abs(effect) / sd, -float(stdtrit(n - 1, level / 2))
    return _mean_over_sd(
        lambda u: ndtr(shift - critical * u) + ndtr(-shift - critical * u),
        n,
        last=(shift + 9) / critical,  # where nothing is left of it
    )


@functools.cache
def minimal_detectable_effect(n: int, *, sd: float, comparisons: int = 1) -> float:
    """Smallest true difference that n seeds detect with 80 % power; infinite for fewer than two."""
    _check_test(sd, 0.05, comparisons)
    return sd * _smallest(n, lambda size: paired_power(size, n, sd=1.0, comparisons=comparisons))


def confirmable_margin(n: int, *, sd: float, comparisons: int = 1) -> float:
    """Smallest margin that n seeds show an effect of 0 to lie within, likewise."""
    _check_test(sd, 0.05, comparisons)
    return sd * _smallest(n, lambda size: equivalence_power(size, n, sd=1.0, comparisons=comparisons))


def _smallest(n: int, power_at: Callable[[float], float]) -> float:
    if n < 2:
        return math.inf
    upper = 1.0
    while power_at(upper) < POWER:
        upper *= 2
    return float(brentq(lambda size: power_at(size) - POWER, 1e-9, upper))


def equivalence_power(
    margin: float, n: int, *, sd: float, difference: float = 0.0, alpha: float = 0.05, comparisons: int = 1
) -> float:
    """Probability that the interval lies inside the margin, when the true difference is `difference`.

    Those are two one-sided tests at alpha / (2 comparisons); where the true difference is just the margin,
    > 0, they pass with a probability of at most that.
    """
    level = _check_test(sd, alpha, comparisons) / 2
    if n < 2:
        return 0.0
    if sd == 0:
        return 1.0 if abs(difference) < margin else 0.0
    # Given the sd seen, u times the true one, the mean has to fall within the margin less t u / sqrt(n) of 0.
    reach, shift = math.sqrt(n) * margin / sd, math.sqrt(n) * difference / sd
    critical = -float(stdtrit(n - 1, level))
    return _mean_over_sd(
        lambda u: ndtr(reach - critical * u - shift) - ndtr(critical * u - reach - shift),
        n,
        last=reach / critical if critical > 0 else math.inf,
    )


def seeds_needed(margin: float, *, sd: float, comparisons: int = 1, most: int = MOST_SEEDS) -> int | None:
    """Fewest seeds that decide with 80 % power; None for more than `most`.

    They show effects of 0 to be equivalent, and those of twice the margin to differ. What lies in between can
    take more: half the margin about four times as many.
    """
    _check_test(sd, 0.05, comparisons)
    # No power is left to gain beyond a million standard deviations, where scipy's fails.
    ratio = min(margin / sd, 1e6) if sd else 1e6
    family: dict[str, Any] = {"sd": 1.0, "comparisons": comparisons}

    def power_at(n: int) -> float:
        return min(paired_power(2 * ratio, n, **family), equivalence_power(ratio, n, **family))

    candidates = range(2, most + 1)
    place = bisect_left(candidates, POWER, key=power_at)
    return candidates[place] if place < len(candidates) else None


def pooled_sd(effects: Effect, scale: FloatArray | float = 1.0) -> tuple[float, float]:
    """Standard deviation of paired differences that effects [m] share, and its degrees of freedom.

    Each is first divided by its `scale` [m]; variances are weighted by degrees of freedom. As effects against
    one baseline correlate by a half, m count as 4 m / (m + 3). NaN where no difference varies.
    """
    freedom = np.maximum(effects.n - 1, 0)
    root = math.hypot(*np.nan_to_num(np.sqrt(freedom) * effects.sd / scale).tolist())
    total, shared = float(freedom.sum()), 4 / (np.count_nonzero(freedom) + 3)
    return (root / math.sqrt(total), shared * total) if root > 0 else (math.nan, 0.0)


def seeds_range(
    margin: float, *, sd: float, freedom: float, comparisons: int = 1, least: int = 2
) -> tuple[int | None, int | None]:
    """Seeds of a new study that would likely decide, from few to many; None for more than 1,000.

    Few take `sd` as estimated, many its upper 90 % confidence bound (docs/statistics.md). Both are at least
    `least`, and rounded up, to 5 from 10 and to 50 from 100 on.
    """
    bound = sd if math.isinf(freedom) else sd * math.sqrt(freedom / float(chdtri(freedom, 0.9)))
    few, many = (seeds_needed(margin, sd=spread, comparisons=comparisons) for spread in (sd, bound))
    return few and max(_rounded(few), least), many and max(_rounded(many), least)


def _rounded(seeds: int) -> int:
    return seeds + -seeds % (1 if seeds < 10 else 5 if seeds < 100 else 50)


def _mean_over_sd(chance: Callable[[FloatArray], FloatArray], n: int, last: float = math.inf) -> float:
    """Mean of a chance that depends on u, the sd of n normal values over the true one; 0 beyond `last`."""
    freedom = n - 1
    # The density of u = sqrt(chi squared / freedom), which has no mass outside ten standard deviations.
    log_scale = math.log(2) + freedom / 2 * math.log(freedom / 2) - float(gammaln(freedom / 2))

    def weighted(u: FloatArray) -> FloatArray:
        return chance(u) * np.exp(log_scale + (freedom - 1) * np.log(u) - freedom / 2 * u**2)

    width = 10 / math.sqrt(2 * freedom)
    lowest, highest = max(0.0, 1 - width), min(last, 1 + width)
    if highest <= lowest:
        return 0.0
    return min(float(fixed_quad(weighted, lowest, highest, n=200)[0]), 1.0)


def _check_test(sd: float, alpha: float, comparisons: int) -> float:
    """The level of each test."""
    if not (sd >= 0 and math.isfinite(sd)):
        raise ValueError(f"Expected a finite sd >= 0, got {sd}; estimate it from at least two seeds.")
    return alpha / comparisons
