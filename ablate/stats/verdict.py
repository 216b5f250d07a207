"""The verdict on an effect: equivalent, better, worse, or undecided.

It rests on two families of tests, each at a family-wise error of alpha = 1 - confidence, in one step:

- *better* or *worse* when the simultaneous interval excludes 0, which is p_adjusted <= alpha;
- *equivalent* when the equivalence test against the declared margin passes at alpha / comparisons. It is
  asked first: a difference surely there and surely too small to matter is equivalent, and `below_margin`.

The two share one alpha: whatever the true differences, a family holds a false verdict with a probability of
at most alpha. An arm without a difference can only be falsely better or worse; one that differs by the margin
or more can be falsely equivalent or of the wrong sign, and both only where the one-sided test against that
margin rejects. Either has a probability of at most alpha / comparisons.

Equivalence is tested one-sided twice, so it can pass while the shown interval, which is two-sided, reaches a
little beyond the margin; it never passes when the interval lies beyond the margin.
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from ablate.stats.equivalence import tosts
from ablate.stats.intervals import BoolArray, FloatArray
from ablate.stats.multiplicity import bonferroni
from ablate.stats.paired import PairedEffect, PairedEffects, as_arrays
from ablate.stats.power import equivalence_power, fewest_seeds, paired_power

Word = Literal["equivalent", "better", "worse", "higher", "lower", "undecided"]
Reason = Literal["", "incomplete", "identical", "too_few_seeds", "no_spread"]

POWER = 0.8
"""Power at which seeds count as enough to decide."""
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Verdict:
    """What can be said of an effect.

    Attributes:
        word: "better" and "worse" by the metric's direction, "higher" and "lower" without one.
        reason: why, where no test decided: "incomplete" (fewer pairs than planned), "identical" (the same
            predictions on every seed), "too_few_seeds" (fewer than two), "no_spread" (all differences are
            equal, so there is nothing to judge them by); else "".
        below_margin: equivalent, and yet surely different: by less than matters.
        seeds_needed: where undecided, the fewest seeds of a new study that would decide with 80 % power, with
            the sd seen: if the true difference is the one seen, or if it is 0. It is a rough number: of
            simulated studies, such new ones decided in 50 to 100 %, least often where the true difference was
            half the margin. None where it is decided, more than 1,000, or without a spread to tell from.
            Adding seeds to this study until a verdict falls would be another test, with a larger error.
        p_adjusted: p of the paired t test, times comparisons, at most 1; NaN where it is undefined.
        p_equivalence: p of the equivalence test, likewise; NaN without a margin.
    """

    word: Word
    reason: Reason
    below_margin: bool
    seeds_needed: int | None
    p_adjusted: float
    p_equivalence: float


@dataclass(frozen=True)
class Verdicts:
    """Many `Verdict`s, each attribute an array [...] of what it is there; without the seeds needed."""

    word: NDArray[np.str_]
    reason: NDArray[np.str_]
    below_margin: BoolArray
    p_adjusted: FloatArray
    p_equivalence: FloatArray


def verdict(
    found: PairedEffect,
    *,
    planned: int,
    higher_is_better: bool | None,
    margin: float = math.nan,
    identical: bool = False,
) -> Verdict:
    """Judge one effect, at the confidence and for the family that its interval was made for.

    Args:
        found: the arm's effect.
        planned: pairs that the study planned. With fewer the effect stays undecided: seeds that failed may
            not have failed by chance.
        higher_is_better: the metric's direction; None where it has none.
        margin: largest difference that does not matter, > 0, in the metric's unit; NaN where none is
            declared, and then only `identical` can make an effect equivalent.
        identical: the two arms gave the same predictions on every seed. It counts only where all differences
            are 0.

    Raises:
        ValueError: If the margin is 0, negative or infinite, or there are more pairs than planned.
    """
    judged = verdicts(
        as_arrays(found),
        planned=planned,
        higher_is_better=higher_is_better,
        margin=margin,
        identical=identical,
    )
    word = cast(Word, str(judged.word))
    least = found.n + 1 if found.n == planned else planned
    return Verdict(
        word=word,
        reason=cast(Reason, str(judged.reason)),
        below_margin=bool(judged.below_margin),
        seeds_needed=_seeds_to_decide(found, margin, least) if word == "undecided" else None,
        p_adjusted=float(judged.p_adjusted),
        p_equivalence=float(judged.p_equivalence),
    )


def verdicts(
    found: PairedEffects,
    *,
    planned: int,
    higher_is_better: bool | None,
    margin: float = math.nan,
    identical: bool = False,
) -> Verdicts:
    """Judge many effects of one metric at once, as `verdict` does one; the arguments hold for all of them."""
    if (found.n > planned).any():
        raise ValueError(
            f"Expected at most the {planned} pairs planned, got {found.n.max()}; pass the study's seeds."
        )
    p_equivalence = bonferroni(tosts(found, margin), found.comparisons)
    incomplete = found.n < planned
    same = identical & (found.n >= 2) & (found.effect == 0) & (found.sd == 0)
    equivalent = same | (p_equivalence <= 1 - found.confidence)
    above, below = found.low > 0, found.high < 0
    return Verdicts(
        word=np.select(
            [incomplete, equivalent, above, below],
            ["undecided", "equivalent", *_directions(higher_is_better)],
            "undecided",
        ),
        reason=np.select(
            [incomplete, same, found.n < 2, found.sd == 0],
            ["incomplete", "identical", "too_few_seeds", "no_spread"],
            "",
        ),
        below_margin=np.asarray(~incomplete & equivalent & (above | below)),
        p_adjusted=bonferroni(found.p, found.comparisons),
        p_equivalence=p_equivalence,
    )


def _directions(higher_is_better: bool | None) -> tuple[Word, Word]:
    """What an effect above 0 and one below 0 are called."""
    if higher_is_better is None:
        return "higher", "lower"
    return ("better", "worse") if higher_is_better else ("worse", "better")


def _seeds_to_decide(found: PairedEffect, margin: float, least: int) -> int | None:
    if not found.sd > 0:
        return None
    # The power functions take the sd within an arm; without correlation, differences have sqrt(2) times that.
    sd, alpha, family = found.sd / math.sqrt(2), 1 - found.confidence, found.comparisons

    # No power is left to gain beyond a million standard deviations, where scipy's fails.
    effect = min(abs(found.effect), 1e6 * found.sd)

    def power_at(n: int) -> float:
        superior = paired_power(effect, n, sd=sd, alpha=alpha, comparisons=family)
        if math.isnan(margin):
            return superior
        return max(superior, equivalence_power(margin, n, sd=sd, alpha=alpha, comparisons=family))

    least = max(least, 2)
    if least > MOST_SEEDS or power_at(MOST_SEEDS) < POWER:
        return None
    return fewest_seeds(power_at, POWER, least=least)
