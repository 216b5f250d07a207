"""What a number of seeds can show: power of the paired tests, what they can detect, the seeds they need.

The tests are those of the verdicts: of a difference, two-sided at alpha / comparisons, and of equivalence,
two one-sided ones at alpha / comparisons each. Arguments that the functions share:

- `sd`: standard deviation over seeds within an arm, >= 0, the same in both arms.
- `rho`: correlation of the two arms over seeds, in [-1, 1]; at 1 the arms differ by a constant. Paired
  differences then have the standard deviation sd * sqrt(2 (1 - rho)). Where that is known, as it is from
  `PairedEffect.sd`, pass it divided by sqrt(2), and rho = 0.
- `n`: seeds, in each arm. Below two there is no test.
- `alpha`: family-wise error, in (0, 1).
- `comparisons`: effects in the family that shares alpha (Bonferroni), at least 1.
- `power`: probability of detection, above alpha / comparisons and below 1.

All raise ValueError for an argument outside its range.

References:
    Phillips 1990, Power of the two one-sided tests procedure in bioequivalence,
    https://doi.org/10.1007/BF01063556
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.integrate import fixed_quad
from scipy.optimize import brentq
from scipy.special import gammaln, ncfdtr, ndtr, stdtrit

from ablate.stats.intervals import FloatArray, check_comparisons, check_fraction


def paired_power(
    effect: float, n: int, *, sd: float, rho: float = 0.0, alpha: float = 0.05, comparisons: int = 1
) -> float:
    """Probability that the paired t test rejects when the true difference is `effect`, in the unit of sd.

    The sign of the effect does not matter.
    """
    spread = _difference_sd(sd, rho)
    level = _check_test(alpha, comparisons)
    if n < 2:
        return 0.0
    if spread == 0:
        return 1.0 if effect else 0.0
    return _power(effect / spread, n, level)


def minimal_detectable_effect(
    n: int, *, sd: float, rho: float = 0.0, alpha: float = 0.05, power: float = 0.8, comparisons: int = 1
) -> float:
    """Smallest true difference that n seeds detect with the given power, in the unit of sd.

    Infinite for fewer than two seeds, NaN for an sd of NaN (unknown).
    """
    level = _check_test(alpha, comparisons, power)
    if n < 2:
        return math.inf
    if math.isnan(sd):
        return math.nan
    spread = _difference_sd(sd, rho)
    upper = 1.0
    while _power(upper, n, level) < power:
        upper *= 2
    return spread * float(brentq(lambda size: _power(size, n, level) - power, 0.0, upper))


def seeds_needed(
    effect: float,
    *,
    sd: float,
    rho: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
    comparisons: int = 1,
) -> int:
    """Fewest seeds, at least two, that detect a true difference of `effect` with the given power.

    The effect is in the unit of sd and not 0; its sign does not matter.
    """
    level = _check_test(alpha, comparisons, power)
    spread = _difference_sd(sd, rho)
    if not (math.isfinite(effect) and abs(effect) > 1e-6 * spread):
        raise ValueError(
            f"Expected a finite effect above a millionth of the differences' sd {spread:g}, got {effect}; "
            "pass the smallest that matters."
        )
    if spread == 0:
        return 2
    return fewest_seeds(lambda n: _power(effect / spread, n, level), power)


def equivalence_power(
    margin: float,
    n: int,
    *,
    sd: float,
    rho: float = 0.0,
    difference: float = 0.0,
    alpha: float = 0.05,
    comparisons: int = 1,
) -> float:
    """Probability that the equivalence test passes when the true difference is `difference`.

    Both are in the unit of sd. The margin, > 0, is the largest difference that does not matter; at a true
    difference of just that, the test passes with a probability of at most alpha / comparisons.
    """
    spread = _difference_sd(sd, rho)
    level = _check_test(alpha, comparisons)
    check_margin(margin)
    if n < 2:
        return 0.0
    if spread == 0:
        return 1.0 if abs(difference) < margin else 0.0
    return _equivalence_power(margin / spread, difference / spread, n, level)


def seeds_for_equivalence(
    margin: float,
    *,
    sd: float,
    rho: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
    comparisons: int = 1,
) -> int:
    """Fewest seeds, at least two, that show arms without any difference to be equivalent within `margin`.

    The margin is in the unit of sd, > 0.
    """
    level = _check_test(alpha, comparisons, power)
    spread = _difference_sd(sd, rho)
    check_margin(margin)
    if margin < 1e-6 * spread:
        raise ValueError(
            f"Expected a margin above a millionth of the differences' sd {spread:g}, got {margin}; "
            "pass the largest difference that does not matter."
        )
    if spread == 0:
        return 2
    return fewest_seeds(lambda n: _equivalence_power(margin / spread, 0.0, n, level), power)


def fewest_seeds(power_at: Callable[[int], float], power: float, *, least: int = 2) -> int:
    """Smallest n >= least at which a power that grows with n, and gets there, is at least `power`."""
    if power_at(least) >= power:
        return least
    too_few, enough = least, 2 * least
    while power_at(enough) < power:
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if power_at(middle) >= power else (middle, enough)
    return enough


def _power(size: float, n: int, level: float) -> float:
    """Of the paired t test, for a true difference in standard deviations of the paired differences."""
    # t squared is a noncentral F: one tail instead of two, and NaN less often than scipy's noncentral t.
    critical = -float(stdtrit(n - 1, level / 2))
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


def _equivalence_power(margin: float, difference: float, n: int, level: float) -> float:
    """Margin and difference in standard deviations of the paired differences.

    Given the sd seen, u times the true one, the mean has to fall within the margin less t u / sqrt(n) of 0.
    """
    reach, shift = math.sqrt(n) * margin, math.sqrt(n) * difference
    critical = -float(stdtrit(n - 1, level))
    return _mean_over_sd(
        lambda u: ndtr(reach - critical * u - shift) - ndtr(critical * u - reach - shift),
        n,
        last=reach / critical if critical > 0 else math.inf,
    )


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


def _difference_sd(sd: float, rho: float) -> float:
    if not (sd >= 0 and math.isfinite(sd)):
        raise ValueError(f"Expected a finite sd >= 0, got {sd}; estimate it from at least two seeds.")
    if not -1 <= rho <= 1:
        raise ValueError(f"Expected a correlation rho in [-1, 1], got {rho}; pass 0 where it is not known.")
    return sd * math.sqrt(2 * (1 - rho))


def _check_test(alpha: float, comparisons: int, power: float | None = None) -> float:
    check_fraction("alpha", alpha)
    check_comparisons(comparisons)
    level = alpha / comparisons
    if power is not None and not level < power < 1:
        raise ValueError(
            f"Expected power between alpha / comparisons = {level:g} and 1, got {power}; 80 % is written 0.8."
        )
    return level
