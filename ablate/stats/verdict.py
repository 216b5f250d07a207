"""The verdict on an effect: equivalent, better, worse, or undecided.

It is read off the simultaneous interval, of a family-wise error of alpha = 0.05, in one step:

- *equivalent* when the interval lies inside the declared margin: two one-sided t tests against it, each at
  alpha / (2 comparisons). Asked first: a difference surely there and surely too small is `below_margin`;
- *better* or *worse* when the interval excludes 0, which is p_adjusted <= alpha.

Source: Schuirmann 1987, two one-sided tests, https://doi.org/10.1007/BF01068419;
Strassburger and Bretz 2008, bounds that agree with Holm's, https://doi.org/10.1002/sim.3338
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablate.stats.effect import Effect
from ablate.stats.intervals import CONFIDENCE, BoolArray, FloatArray


@dataclass(frozen=True)
class Verdict:
    """What can be said of effects. Each attribute is an array [...]."""

    word: NDArray[np.str_]  # "better" and "worse" by the metric's direction, "higher" and "lower" without one
    reason: NDArray[np.str_]  # why, where no test decided, such as differences without a spread to judge by
    below_margin: BoolArray  # equivalent, and yet surely different: by less than matters
    p_adjusted: FloatArray  # p of the t test, times comparisons, at most 1; NaN where it is undefined
    p_equivalence: FloatArray  # likewise of the equivalence test; NaN without a margin


def verdict(
    effect: Effect,
    *,
    planned: int,
    higher_is_better: bool | None,
    margin: float = math.nan,
    identical: bool = False,
) -> Verdict:
    """Judge effects of one metric, for the family that their intervals were made for.

    With fewer pairs than `planned` an effect stays undecided: seeds may not have failed by chance. `margin`
    is > 0, or NaN. That arms are `identical` on every seed is believed if all differences are 0.
    """
    if (effect.n > planned).any():
        raise ValueError(
            f"Expected at most the {planned} pairs planned, got {effect.n.max()}; pass the study's seeds."
        )
    # Against the nearer bound the one-sided p is the larger of the two.
    p_beyond = effect.p_beyond(margin - np.abs(effect.effect))
    p_adjusted, p_equivalence = (np.minimum(effect.comparisons * p, 1.0) for p in (effect.p, 2 * p_beyond))
    incomplete = effect.n < planned
    same = identical & (effect.n >= 2) & (effect.effect == 0) & (effect.sd == 0)
    equivalent = same | (p_equivalence <= 1 - CONFIDENCE)
    above, below = effect.low > 0, effect.high < 0
    signed = {True: ("better", "worse"), False: ("worse", "better"), None: ("higher", "lower")}
    return Verdict(
        word=np.select(
            [incomplete, equivalent, above, below],
            ["undecided", "equivalent", *signed[higher_is_better]],
            "undecided",
        ),
        reason=np.select(
            [incomplete, same, effect.n < 2, effect.sd == 0],
            ["incomplete", "identical", "too_few_seeds", "no_spread"],
            "",
        ),
        below_margin=np.asarray(~incomplete & equivalent & (above | below)),
        p_adjusted=p_adjusted,
        p_equivalence=p_equivalence,
    )
