"""What a number of seeds can show: power of the verdicts' tests, what they detect, the seeds they need.

Arguments that the functions share, and raise ValueError for where one is outside its range:

- `sd`: standard deviation over seeds of the paired differences, >= 0. Of arms with the sd s and the
  correlation rho over seeds it is s * sqrt(2 (1 - rho)).
- `n`: seeds, in each arm. Below two there is no test.
- `alpha`: family-wise error, in (0, 1), shared (Bonferroni) by `comparisons`, at least 1.
- `power`: probability of detection, above alpha / comparisons and below 1.

Source: Phillips 1990, power of the two one-sided tests, https://doi.org/10.1007/BF01063556
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import fixed_quad
from scipy.optimize import brentq
from scipy.special import gammaln, ncfdtr, ndtr, stdtrit

from ablate.stats.intervals import FloatArray, check_family

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
    # t squared is a noncentral F: one tail instead of two, and NaN less often than a noncentral t, such as
    # that of statsmodels' TTestPower, which has none for many powers near 1 of two to five seeds.
    size, critical = effect / sd, -float(stdtrit(n - 1, level / 2))
    power = 1 - float(ncfdtr(1, n - 1, n * size**2, critical**2))
    # NaN comes up around noncentralities of 1,300 to 3,000, and for critical values too large for anything.
    if math.isnan(power) and critical < 1000:
        shift = math.sqrt(n) * size
        power = _mean_over_sd(lambda u: ndtr(shift - critical * u) + ndtr(-shift - critical * u), n)
    if math.isnan(power):
        raise ValueError(
            f"Expected a test level scipy can compute power at, got alpha / comparisons = {level:g} "
            f"with {n} seeds; plan more seeds or fewer comparisons."
        )
    return power


def minimal_detectable_effect(
    n: int, *, sd: float, alpha: float = 0.05, power: float = POWER, comparisons: int = 1
) -> float:
    """Smallest true difference that n seeds detect with the given power; infinite for fewer than two."""
    _check_test(sd, alpha, comparisons, power)
    if n < 2:
        return math.inf

    def surplus(size: float) -> float:
        return paired_power(size, n, sd=1.0, alpha=alpha, comparisons=comparisons) - power

    upper = 1.0
    while surplus(upper) < 0:
        upper *= 2
    return sd * float(brentq(surplus, 0.0, upper))


def equivalence_power(
    margin: float, n: int, *, sd: float, difference: float = 0.0, alpha: float = 0.05, comparisons: int = 1
) -> float:
    """Probability that two one-sided tests at alpha / comparisons pass for the true `difference`.

    Where that is just the margin, > 0, it is at most that level. A verdict's are at half of its alpha.
    """
    level = _check_test(sd, alpha, comparisons)
    check_margin(margin)
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


def seeds_needed(
    effect: float,
    *,
    sd: float,
    margin: float = math.nan,
    alpha: float = 0.05,
    power: float = POWER,
    comparisons: int = 1,
    least: int = 2,
    most: int = MOST_SEEDS,
) -> int | None:
    """Fewest seeds of a new study, from `least` to `most`, that would likely decide; None for more.

    That is, detect a true difference of `effect`, of either sign, or show arms that do not differ to be
    equivalent within a margin (NaN: none is declared), whichever takes fewer. It is a rough number where the
    effect is one that was seen: of simulated studies, such new ones decided in 50 to 100 %. Adding seeds to a
    study until a verdict falls would be another test, with a larger error.
    """
    _check_test(sd, alpha, comparisons, power)
    # No power is left to gain beyond a million standard deviations, where scipy's fails.
    bounded = min(abs(effect), 1e6 * sd) if sd else effect
    family: dict[str, Any] = {"sd": sd, "alpha": alpha, "comparisons": comparisons}

    def power_at(n: int) -> float:
        superior = paired_power(bounded, n, **family)
        if math.isnan(margin):
            return superior
        # Either one-sided test of an equivalent verdict has half the level of a two-sided one.
        return max(superior, equivalence_power(margin, n, **{**family, "alpha": alpha / 2}))

    candidates = range(max(least, 2), most + 1)
    place = bisect_left(candidates, power, key=power_at)
    return candidates[place] if place < len(candidates) else None


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


def check_margin(margin: float) -> None:
    """Raise ValueError unless the margin is a number above 0."""
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(
            f"Expected a finite margin > 0, got {margin}; pass the largest difference that does not matter."
        )


def _check_test(sd: float, alpha: float, comparisons: int, power: float | None = None) -> float:
    """The level of each test."""
    if not (sd >= 0 and math.isfinite(sd)):
        raise ValueError(f"Expected a finite sd >= 0, got {sd}; estimate it from at least two seeds.")
    check_family(comparisons, alpha=alpha)
    level = alpha / comparisons
    if power is not None and not level < power < 1:
        raise ValueError(
            f"Expected power between alpha / comparisons = {level:g} and 1, got {power}; 80 % is written 0.8."
        )
    return level
