"""Equivalence of two arms: the two one-sided tests (TOST) against a margin declared beforehand.

References:
    Schuirmann 1987, A comparison of the two one-sided tests procedure and the power approach for assessing
    the equivalence of average bioavailability, https://doi.org/10.1007/BF01068419
"""

import math

import numpy as np
from scipy.special import stdtr

from ablate.stats.intervals import FloatArray
from ablate.stats.paired import PairedEffect, PairedEffects, as_arrays
from ablate.stats.power import check_margin


def tost(found: PairedEffect, margin: float) -> float:
    """Test that the true difference lies within the margin of 0: the larger p of two one-sided t tests.

    One is against a difference of -margin or less, one against margin or more. The p is not corrected for
    multiplicity; where it is at most alpha, the interval of confidence 1 - 2 alpha lies within the margin.

    Args:
        found: the arm's effect.
        margin: largest difference that does not matter, > 0, in the metric's unit; NaN where there is none.

    Returns:
        p in [0, 1]; NaN without a margin, for fewer than two pairs, and where the differences do not vary.

    Raises:
        ValueError: If the margin is 0, negative or infinite.
    """
    return float(tosts(as_arrays(found), margin))


def tosts(found: PairedEffects, margin: float) -> FloatArray:
    """`tost` of many effects with one margin: p [...]."""
    if not math.isnan(margin):
        check_margin(margin)
    spread = np.where(found.sd > 0, found.sd, np.nan)
    # Against the nearer bound the one-sided p is the larger of the two.
    t = (margin - np.abs(found.effect)) * np.sqrt(found.n) / spread
    return np.asarray(stdtr(np.maximum(found.n - 1, 1), -t))
