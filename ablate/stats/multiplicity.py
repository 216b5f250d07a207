"""Correction for several comparisons in one family.

Verdicts and intervals rest on Bonferroni's single step, not on Holm's. Holm rejects whatever Bonferroni does
and sometimes more, but two-sided intervals that match its decisions are not informative: an effect that it
rejects and Bonferroni does not gets an interval that ends at 0, which tells no size (Strassburger and Bretz
2008 give the one-sided case). A report with Holm's verdicts beside Bonferroni's intervals would contradict
itself, so Holm's p is shown as a column and decides nothing.

References:
    Dunn 1961, Multiple comparisons among means, https://doi.org/10.1080/01621459.1961.10482090;
    Holm 1979, A simple sequentially rejective multiple test procedure, https://www.jstor.org/stable/4615733;
    Strassburger and Bretz 2008, Compatible simultaneous lower confidence bounds for the Holm procedure and
    other Bonferroni-based closed tests, https://doi.org/10.1002/sim.3338
"""

import numpy as np
from numpy.typing import NDArray

from ablate.stats.intervals import FloatArray, check_comparisons


def bonferroni(p: NDArray[np.floating], comparisons: int) -> FloatArray:
    """Bonferroni's single step: min(1, comparisons * p), the p of the simultaneous intervals.

    Args:
        p: [...] uncorrected p-values in [0, 1]; NaN stays NaN.
        comparisons: size of the family, which counts planned comparisons: those without a p too.

    Raises:
        ValueError: If comparisons < 1.
    """
    check_comparisons(comparisons)
    return np.minimum(np.asarray(p, dtype=np.float64) * comparisons, 1.0)


def holm(p: NDArray[np.floating]) -> FloatArray:
    """Holm's step-down adjustment: rejecting where it is at most alpha keeps the family-wise error at alpha.

    An undefined p (NaN: one seed, or no spread) stays NaN, yet is counted in the family as if it were 1, so
    a comparison that failed never makes the others easier to pass. Why no verdict rests on it stands at the
    top of this module.

    Args:
        p: [m] uncorrected p-values of the whole family, in [0, 1] or NaN; m may be 0.

    Returns:
        [m] adjusted p-values in the same order, each at least its p.

    Raises:
        ValueError: If p is not of shape [m], or a value lies outside [0, 1].
    """
    undefined = np.isnan(p)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise ValueError(
            f"Expected p-values in [0, 1] or NaN, of shape [m], got shape {p.shape}: {p}; "
            "pass the uncorrected p-values of one family."
        )
    family = np.where(undefined, 1.0, p)
    order = np.argsort(family)
    # The i-th smallest of m is multiplied by m - i + 1, and may not fall below the one before it.
    steps = np.maximum.accumulate(family[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    adjusted[undefined] = np.nan
    return adjusted
