"""The difference of two independent samples, for runs without common seeds; judged as paired ones are.

References:
    Welch 1947, The generalization of Student's problem, https://doi.org/10.1093/biomet/34.1-2.28
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ablate.stats import PairedEffect, Verdict, mean_interval, verdict


@dataclass(frozen=True)
class WelchEffect:
    """Difference of two means, mean(b) - mean(a), in the values' unit.

    Attributes:
        effect: NaN where a sample has no value.
        low: lower end of the simultaneous interval; NaN where the samples show no spread to build one on.
        high: upper end; NaN likewise.
        p: two-sided p of Welch's t test, not corrected; NaN likewise.
        n: values of the first and of the second sample.
        error: standard error of the effect; NaN where a sample has fewer than two values, 0 where neither
            varies.
        freedom: Welch's degrees of freedom; NaN without an interval.
        sd: what the differences of pairs drawn at random spread by (ddof 1); NaN and 0 as for `error`.
        confidence: coverage of the family's intervals together.
        comparisons: effects in the family.
    """

    effect: float
    low: float
    high: float
    p: float
    n: tuple[int, int]
    error: float
    freedom: float
    sd: float
    confidence: float
    comparisons: int


def welch_effect(
    a: NDArray[np.float64], b: NDArray[np.float64], *, confidence: float = 0.95, comparisons: int = 1
) -> WelchEffect:
    """Compare two independent samples whose variances may differ.

    Args:
        a: [n] values, NaN where one is missing.
        b: [m] values, likewise.
        confidence: coverage in (0, 1) of all the family's intervals together.
        comparisons: effects in the family; 1 gives the plain Welch interval.
    """
    sides = [mean_interval(sample) for sample in (a, b)]
    effect = sides[1].mean - sides[0].mean
    parts = [side.sd**2 / side.n if side.n > 1 else math.nan for side in sides]
    error, sd = math.sqrt(sum(parts)), math.hypot(sides[0].sd, sides[1].sd)
    freedom = low = high = p = math.nan
    if error > 0:
        freedom = sum(parts) ** 2 / sum(
            part**2 / (side.n - 1) for part, side in zip(parts, sides, strict=True)
        )
        reach = -float(stdtrit(freedom, (1 - confidence) / (2 * comparisons))) * error
        low, high = effect - reach, effect + reach
        p = 2 * float(stdtr(freedom, -abs(effect) / error))
    n = sides[0].n, sides[1].n
    return WelchEffect(effect, low, high, p, n, error, freedom, sd, confidence, comparisons)


def welch_verdict(
    found: WelchEffect,
    *,
    planned: tuple[int, int],
    higher_is_better: bool | None,
    margin: float = math.nan,
) -> Verdict:
    """Judge a difference by the rule of `ablate.stats.verdict`, with Welch's interval and tests.

    Args:
        found: the difference.
        planned: trials planned on either side; with fewer of one it stays undecided.
        higher_is_better: the metric's direction; None where it has none.
        margin: largest difference that does not matter, > 0; NaN where none is declared.
    """
    complete = found.n == planned
    fewest = min(found.n)
    # Pairs at random, as many as the smaller sample allows: what is equivalent or undecided for those only
    # lacks degrees of freedom that Welch's test has, so all but equivalence can be taken from it.
    pairs = PairedEffect(
        effect=found.effect,
        low=found.low,
        high=found.high,
        n=fewest,
        p=found.p,
        rho=0.0,
        sd=found.sd,
        confidence=found.confidence,
        comparisons=found.comparisons,
    )
    judged = verdict(
        pairs,
        planned=fewest if complete else max(*planned, fewest + 1),
        higher_is_better=higher_is_better,
        margin=margin,
    )
    p = _equivalence_p(found, margin)
    if complete and p <= 1 - found.confidence:
        beyond = found.low > 0 or found.high < 0
        judged = replace(judged, word="equivalent", below_margin=beyond, seeds_needed=None)
    return replace(judged, p_equivalence=p)


def _equivalence_p(found: WelchEffect, margin: float) -> float:
    """The larger of two one-sided Welch tests against the margin, corrected; NaN without margin or spread."""
    if not found.error > 0:
        return math.nan
    p = float(stdtr(found.freedom, -(margin - abs(found.effect)) / found.error))
    return min(p * found.comparisons, 1.0) if math.isfinite(p) else math.nan
