"""An effect: a difference of two means over seeds, with its interval, its test, and the verdict on it.

Intervals are simultaneous in a single step (Bonferroni): one excludes 0 exactly where the corrected p is at
most 0.05. The t test takes the differences for normal: of skewed ones it errs too often (docs/statistics.md).

Source: Student 1908, the paired t, https://doi.org/10.1093/biomet/6.1.1; Welch 1947, unequal variances,
https://doi.org/10.1093/biomet/34.1-2.28; Dunn 1961, simultaneous intervals by Bonferroni's inequality,
https://doi.org/10.1080/01621459.1961.10482090; Schuirmann 1987, two one-sided tests,
https://doi.org/10.1007/BF01068419
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from ablate.stats.intervals import CONFIDENCE, BoolArray, FloatArray, Values, moments, slack, t_margin

Weights = Sequence[float] | NDArray[np.float64]
MOST_FLIPPED = 20  # seeds of the sign-flip test; each more doubles the patterns, and 20 have a million


@dataclass(frozen=True)
class Effect:
    """Differences of means, arm - baseline, in the values' unit. Each attribute is an array [...].

    `sd` (ddof 1) is of the paired differences: NaN below two pairs, 0 when all are equal. `rho` is the
    correlation of the two arms over seeds: NaN below three, of a constant arm, and of independent samples.
    """

    effect: FloatArray  # NaN where a side has no value
    error: FloatArray  # its standard error; NaN and 0 as `sd`
    freedom: FloatArray  # degrees of freedom of its t distribution
    n: NDArray[np.int64]  # complete pairs, or values of the smaller of two independent samples
    sd: FloatArray
    rho: FloatArray
    comparisons: int  # effects in the family, at least 1, whose intervals hold together with 95 %

    @property
    def low(self) -> FloatArray:
        """Lower end of the simultaneous interval; NaN where there is no spread to build one on."""
        return self.effect - t_margin(self.error, self.freedom, comparisons=self.comparisons)

    @property
    def high(self) -> FloatArray:
        """Upper end of the same."""
        return self.effect + t_margin(self.error, self.freedom, comparisons=self.comparisons)

    @property
    def p(self) -> FloatArray:
        """Two-sided p of the t test, not corrected for multiplicity; NaN where there is no spread."""
        return 2 * self.p_beyond(np.abs(self.effect))

    def p_beyond(self, distance: FloatArray) -> FloatArray:
        """One-sided p of a t test that saw the mean at this distance; NaN where there is no spread."""
        spread = self.error > 0
        t = distance / np.where(spread, self.error, np.nan)
        return np.asarray(stdtr(np.where(spread, self.freedom, 1), -t))


def paired_effect(values: Values, baseline: Values, *, comparisons: int = 1) -> Effect:
    """Compare arms with their baseline arms, [..., n] each, on the same n seeds in the same order.

    A pair with a NaN is left out. With one, or differences equal to within rounding, p, low and high are NaN.
    """
    missing = np.isnan(values) | np.isnan(baseline)
    arm, reference = (np.where(missing, np.nan, side.astype(np.float64)) for side in (values, baseline))
    # Equal differences come out apart by the rounding of the two values, e.g. 0.9 - 0.8 and 0.8 - 0.7.
    rounding = slack(arm, reference)
    n, mean, sd = moments(arm - reference, rounding=rounding)
    mean = np.where((sd == 0) & (np.abs(mean) <= rounding), 0.0, mean)
    error, freedom = sd / np.sqrt(np.maximum(n, 1)), np.asarray(n - 1, np.float64)
    count, product, _ = moments(_standardised(arm) * _standardised(reference))
    rho = np.asarray(np.clip(product * count / np.maximum(count - 1, 1), -1.0, 1.0))
    return Effect(mean, error, freedom, n, sd, rho, comparisons)


def independent_effect(*samples: Values, weights: Weights = (1.0, -1.0), comparisons: int = 1) -> Effect:
    """As `paired_effect`, of means by `weights` of samples [..., n], [..., m] that no seed joins: Welch's."""
    moments_of = zip(*(moments(side.astype(np.float64)) for side in samples), strict=True)
    n, mean, sd = (np.stack(np.broadcast_arrays(*part)) for part in moments_of)
    mean, sd = (np.reshape(weights, (-1, *[1] * (n.ndim - 1))) * part for part in (mean, sd))
    parts = sd / np.sqrt(np.maximum(n, 1))
    error, spread = np.hypot.reduce(parts), np.hypot.reduce(sd)
    shares = parts / np.where(error > 0, error, np.nan)
    freedom, rho = 1 / (shares**4 / np.maximum(n - 1, 1)).sum(axis=0), np.full(error.shape, np.nan)
    return Effect(mean.sum(axis=0), error, freedom, n.min(axis=0), spread, rho, comparisons)


def _standardised(side: FloatArray) -> FloatArray:
    n, mean, sd = moments(side)
    # Two points always correlate by +1 or -1, which says nothing about pairing.
    return np.asarray((side - mean[..., None]) / np.where((n >= 3) & (sd > 0), sd, np.nan)[..., None])


def sign_flip_p(values: Values, baseline: Values) -> float:
    """Share of all sign patterns of the differences whose mean is as far from 0 as the one seen, or farther.

    The exact two-sided p, uncorrected, if each difference is symmetric about 0 without an effect. Of [n] and
    [n] on the same seeds; a pair with a NaN is left out, and NaN comes without differences or above 20.

    Source: Fisher 1935, The Design of Experiments, section 21
    """
    complete = ~(np.isnan(values) | np.isnan(baseline))
    arm, reference = (side[complete].astype(np.float64) for side in (values, baseline))
    present = arm - reference
    if not 0 < len(present) <= MOST_FLIPPED:
        return math.nan
    # A pattern and its negative are equally far from 0, so the first sign can stay as it is.
    sums = present[:1]
    for difference in present[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    # Equal sums come out apart by rounding; accuracies are often tied.
    rounding = 2 * len(present) * slack(arm, reference)
    return float(np.mean(np.abs(sums) >= abs(sums[0]) - rounding))


def smallest_sign_flip_p(n: int) -> float:
    """The smallest p that n differences, n >= 1, can give: 2 / 2^n, so .25 at 3, .0625 at 5, .03125 at 6."""
    return 2.0 ** (1 - n)


@dataclass(frozen=True)
class Verdict:
    """What can be said of effects. Each attribute is an array [...]."""

    word: NDArray[np.str_]  # "better" and "worse" by the metric's direction, "higher" and "lower" without one
    reason: NDArray[np.str_]  # why, where no test decided, such as differences without a spread to judge by
    below_margin: BoolArray  # equivalent, and yet surely different: by less than matters
    p_adjusted: FloatArray  # p of the t test, times comparisons, at most 1; NaN where it is undefined
    p_equivalence: FloatArray  # likewise of the equivalence test; NaN without a margin


def verdict(
    effect: Effect, *, planned: int, better: str, margin: float = math.nan, identical: bool = False
) -> Verdict:
    """Judge effects of one metric by their simultaneous intervals, those of a family, in one step.

    `better` is the metric's better direction, "higher" or "lower", or "" where neither is.

    Equivalent, which is asked first: the interval lies inside the margin, > 0 or NaN (two one-sided t tests,
    each at alpha / (2 comparisons)). Better or worse: it excludes 0. With fewer than the `planned` pairs all
    is undecided: seeds may not have failed by chance. That arms are `identical` on every seed is believed if
    all differences are 0. Source: Strassburger and Bretz 2008, https://doi.org/10.1002/sim.3338
    """
    # Against the nearer bound the one-sided p is the larger of the two.
    p_beyond = effect.p_beyond(margin - np.abs(effect.effect))
    p_adjusted, p_equivalence = (np.minimum(effect.comparisons * p, 1.0) for p in (effect.p, 2 * p_beyond))
    incomplete = effect.n < planned
    same = identical & (effect.n >= 2) & (effect.effect == 0) & (effect.sd == 0)
    equivalent = same | (p_equivalence <= 1 - CONFIDENCE)
    above, below = effect.low > 0, effect.high < 0
    signed = {"higher": ("better", "worse"), "lower": ("worse", "better"), "": ("higher", "lower")}
    words = ["undecided", "equivalent", *signed[better]]
    word = np.select([incomplete, equivalent, above, below], words, "undecided")
    reasons = ["incomplete", "identical", "too_few_seeds", "no_spread"]
    reason = np.select([incomplete, same, effect.n < 2, effect.sd == 0], reasons, "")
    below_margin = np.asarray(~incomplete & equivalent & (above | below))
    return Verdict(word, reason, below_margin, p_adjusted, p_equivalence)
