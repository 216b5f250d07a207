"""The exact sign-flip test: a paired test without the t test's assumption of a normal spread."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablate.stats.intervals import check_seeds

MOST_SEEDS = 20
"""Twice the sign patterns that one more seed has; 20 have a million, of which half are looked at."""


@dataclass(frozen=True)
class SignFlip:
    """Result of the test.

    Attributes:
        p: two-sided p, not corrected for multiplicity; NaN without differences or with more than 20.
        smallest: what `smallest_sign_flip_p` gives for this number of differences; NaN without any.
    """

    p: float
    smallest: float


def sign_flip_p(differences: NDArray[np.floating]) -> SignFlip:
    """Share of all sign patterns of the differences whose mean is as far from 0 as the one seen, or farther.

    Exact when each difference is symmetric about 0 without an effect, as the differences of two arms of one
    distribution over seeds are. No verdict rests on it; it says how much of one hangs on a normal spread.

    Args:
        differences: [n], arm - baseline, one for each seed; NaN marks a missing one, which is left out.

    Raises:
        ValueError: If `differences` is not of shape [n], or holds infinity.

    References:
        Fisher 1935, The Design of Experiments, section 21
    """
    check_seeds(differences)
    present = differences[~np.isnan(differences)].astype(np.float64)
    if not len(present):
        return SignFlip(math.nan, math.nan)
    smallest = smallest_sign_flip_p(len(present))
    if len(present) > MOST_SEEDS:
        return SignFlip(math.nan, smallest)
    # A pattern and its negative are equally far from 0, so the first sign can stay as it is.
    sums = present[:1]
    for difference in present[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    # Equal sums come out apart by rounding; accuracies are often tied.
    slack = 1e-12 * np.abs(present).sum()
    return SignFlip(float(np.mean(np.abs(sums) >= abs(sums[0]) - slack)), smallest)


def smallest_sign_flip_p(n: int) -> float:
    """The smallest p that n differences, n >= 1, can give: 2 / 2^n, so .25 at 3, .0625 at 5, .03125 at 6.

    Where it is above the level, the test cannot reject, whatever the data.
    """
    return 2.0 ** (1 - n)
