"""The effect of an arm: its mean paired difference to the baseline arm over seeds.

Each comparison is judged by the spread of its own differences, with n - 1 degrees of freedom. Nothing is
pooled over comparisons, so arms may spread differently. Intervals are simultaneous in a single step
(Bonferroni): an interval excludes 0 exactly where the corrected p is at most 1 - confidence.

The t test takes the differences for normal. Heavy tails on both sides only make it more careful; skewed ones
harm it. Of simulated studies of six arms (`ablate/bench/statistics.py`), 3 to 4 % held a false claim with t
noise of 3 degrees of freedom, but 5 to 11 % where the arms had an exponential tail on one side and twice the
baseline's spread, instead of at most 5 %. `sign_flip_p` assumes symmetry as well.

References:
    Student 1908, the paired t, https://doi.org/10.1093/biomet/6.1.1;
    Dunn 1961, Multiple comparisons among means, simultaneous intervals by Bonferroni's inequality,
    https://doi.org/10.1080/01621459.1961.10482090
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from ablate.stats.intervals import (
    BoolArray,
    FloatArray,
    IntArray,
    check_comparisons,
    check_fraction,
    check_seeds,
    moments,
    span,
    t_margin,
)


@dataclass(frozen=True)
class PairedEffect:
    """A mean paired difference, arm - baseline, in the values' unit.

    Attributes:
        effect: mean difference; NaN without pairs.
        low: lower end of the simultaneous interval; NaN where the differences show no spread.
        high: upper end; NaN likewise.
        n: complete pairs used.
        p: two-sided p of the paired t test, not corrected for multiplicity; NaN where it is undefined.
        rho: correlation of the two arms over seeds, what pairing buys; NaN below three pairs, or where an arm
            is constant.
        sd: standard deviation of the differences (ddof 1); NaN below two pairs, 0 when all are equal.
        confidence: coverage of the family's intervals together.
        comparisons: effects in the family.
    """

    effect: float
    low: float
    high: float
    n: int
    p: float
    rho: float
    sd: float
    confidence: float = 0.95
    comparisons: int = 1


@dataclass(frozen=True)
class PairedEffects:
    """Many `PairedEffect`s, each attribute an array [...] of what it is there.

    Confidence and comparisons are the same for all: one number each.
    """

    effect: FloatArray
    low: FloatArray
    high: FloatArray
    n: IntArray
    p: FloatArray
    rho: FloatArray
    sd: FloatArray
    confidence: float
    comparisons: int


def as_arrays(found: PairedEffect) -> PairedEffects:
    """One effect as `PairedEffects` of arrays without axes."""
    effect, low, high, p, rho, sd = (
        np.asarray(part, dtype=np.float64)
        for part in (found.effect, found.low, found.high, found.p, found.rho, found.sd)
    )
    return PairedEffects(
        effect, low, high, np.asarray(found.n), p, rho, sd, found.confidence, found.comparisons
    )


def paired_effect(
    values: NDArray[np.floating],
    baseline: NDArray[np.floating],
    *,
    confidence: float = 0.95,
    comparisons: int = 1,
) -> PairedEffect:
    """Compare an arm with the baseline arm, seed by seed.

    With one pair, or when all differences are equal to within rounding, the t test has no spread to judge by:
    p, low and high are NaN (not 0 and a point), and no verdict can rest on them. `sd` then tells the cases
    apart: NaN for fewer than two pairs, 0 for equal differences; with `effect` 0 as well, the arms gave the
    same value on every seed.

    Args:
        values: [n] of the arm, one for each seed; NaN where the trial has none.
        baseline: [n] of the baseline arm, on the same seeds in the same order. A pair with a NaN is left out.
        confidence: coverage in (0, 1) of all the family's intervals together.
        comparisons: effects in the family; 1 gives the plain t interval.

    Raises:
        ValueError: If the shapes differ or are not [n], a value is infinite, confidence lies outside
            (0, 1), or comparisons < 1.
    """
    check_seeds(values)
    check_seeds(baseline)
    if values.shape != baseline.shape:
        raise ValueError(
            f"Expected arm and baseline on the same seeds, got {len(values)} and {len(baseline)} values; "
            "align them on the seed and put NaN where a trial is missing."
        )
    found = paired_effects(values, baseline, confidence=confidence, comparisons=comparisons)
    return PairedEffect(
        effect=float(found.effect),
        low=float(found.low),
        high=float(found.high),
        n=int(found.n),
        p=float(found.p),
        rho=float(found.rho),
        sd=float(found.sd),
        confidence=confidence,
        comparisons=comparisons,
    )


def paired_effects(
    values: NDArray[np.floating],
    baseline: NDArray[np.floating],
    *,
    confidence: float = 0.95,
    comparisons: int = 1,
) -> PairedEffects:
    """Compare many arms with their baseline arms at once, as `paired_effect` does one.

    Args:
        values: [..., n], the last axis over seeds, finite or NaN.
        baseline: [..., n], of a shape that broadcasts with that of `values`.
        confidence: coverage in (0, 1) of a family's intervals together.
        comparisons: effects in a family. It is not read off the shape, as the axes before the last may be
            families, simulated studies or both.

    Returns:
        Arrays of the broadcast shape without the last axis.

    Raises:
        ValueError: If confidence lies outside (0, 1), or comparisons < 1.
    """
    check_fraction("confidence", confidence)
    check_comparisons(comparisons)
    arm, reference, complete = _pairs(values, baseline)
    # Equal differences come out apart by the rounding of the two values, e.g. 0.9 - 0.8 and 0.8 - 0.7.
    rounding = np.maximum(_rounding(arm, complete), _rounding(reference, complete))
    found = moments(arm - reference, rounding=rounding)
    margin = t_margin(found.sd, found.n, confidence=confidence, comparisons=comparisons)
    spread = np.where(found.sd > 0, found.sd, np.nan)
    t = np.abs(found.mean) * np.sqrt(found.n) / spread
    return PairedEffects(
        effect=found.mean,
        low=found.mean - margin,
        high=found.mean + margin,
        n=found.n,
        p=np.asarray(2 * stdtr(np.maximum(found.n - 1, 1), -t)),
        rho=_correlation(arm, reference, complete),
        sd=found.sd,
        confidence=confidence,
        comparisons=comparisons,
    )


def _pairs(
    values: NDArray[np.floating], baseline: NDArray[np.floating]
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Both arms [..., n] with NaN wherever one has it, and where neither has."""
    complete = ~(np.isnan(values) | np.isnan(baseline))
    arm, reference = (np.where(complete, side.astype(np.float64), np.nan) for side in (values, baseline))
    return arm, reference, complete


def _rounding(side: FloatArray, complete: BoolArray) -> FloatArray:
    largest = np.max(np.abs(side), axis=-1, where=complete, initial=0.0)
    return np.asarray(4 * np.finfo(np.float64).eps * largest)


def _correlation(arm: FloatArray, reference: FloatArray, complete: BoolArray) -> FloatArray:
    # Two points always correlate by +1 or -1, which says nothing about pairing.
    told = complete.sum(axis=-1) >= 3
    squares, centred = [], []
    for side in (arm, reference):
        told = told & (span(side, complete) > _rounding(side, complete))
        deviations = np.where(complete, side - moments(side).mean[..., None], 0.0)
        centred.append(deviations)
        squares.append((deviations**2).sum(axis=-1))
    scale = np.sqrt(np.where(told, squares[0] * squares[1], np.nan))
    return np.asarray(np.clip((centred[0] * centred[1]).sum(axis=-1) / scale, -1.0, 1.0))
