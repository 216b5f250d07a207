"""One difference in words and numbers, as terminal, Markdown and gate show it."""

from __future__ import annotations

import math

from ablate.compare.differences import Comparison, Difference
from ablate.stats import Interval
from ablate.tables.quantities import Quantity, quantity, shown, shown_difference, shown_p


def mean_text(side: Interval, what: Quantity, floor: float | None = None) -> str:
    """A mean with its own interval and n; with its noise floor, where it has one."""
    ends = f"{shown(side.low, what)} to {shown(side.high, what)}, " if math.isfinite(side.low) else ""
    under = f", floor {shown(floor, what)}" if floor is not None and side.n else ""
    return f"{shown(side.mean, what)} ({ends}n = {side.n}{under})"


def difference_text(item: Difference) -> str:
    """The difference with its interval."""
    what = quantity(item.metric)
    ends = f"{shown_difference(item.low, what)} to {shown_difference(item.high, what)}"
    if not math.isfinite(item.low):
        ends = "no interval"
    return f"{shown_difference(item.difference, what)} ({ends})"


def method_text(item: Difference) -> str:
    """How the two were compared, and over how many trials."""
    if item.method == "welch":
        return f"Welch, n = {item.a.n} and {item.b.n}"
    same = ", equal on every seed" if item.n > 1 and item.difference == 0 and math.isnan(item.low) else ""
    return f"paired by seed, n = {item.n}{same}"


REASONS = {
    "incomplete": "trials have no result",
    "too_few_seeds": "fewer than two seeds",
    "no_spread": "no spread to judge by",
}


def verdict_text(item: Difference) -> str:
    """The verdict in a word, and why, or what would decide it."""
    judged = item.verdict
    if judged.word == "equivalent":
        if judged.reason == "identical":
            return "equivalent: the same predictions"
        return f"equivalent{', different by less than matters' if judged.below_margin else ''}"
    if judged.word != "undecided":
        return judged.word
    reason = REASONS.get(judged.reason)
    needed = f"about {judged.seeds_needed:,} seeds would decide" if judged.seeds_needed else ""
    why = "; ".join(part for part in (reason, needed) if part)
    return f"undecided{f': {why}' if why else ''}"


def p_text(item: Difference) -> str:
    """The corrected p, which is at most 0.05 just where the interval excludes 0."""
    return shown_p(item.verdict.p_adjusted)


def metric_head(comparison: Comparison, metric: str) -> str:
    """What is compared, its unit, and the margin within which a difference does not matter."""
    what = quantity(metric)
    unit = f" in {what.difference_unit}" if what.difference_unit else ""
    margins = {item.margin for item in comparison.differences if item.metric == metric}
    margin = margins.pop()
    known = f"margin {shown(margin, what)}" if math.isfinite(margin) else "no margin declared"
    return f"{what.axis}; B - A{unit}; {known}"


def family_text(comparison: Comparison) -> str:
    """Over what the intervals of the differences hold together."""
    metrics = len({item.metric for item in comparison.differences})
    size = comparison.differences[0].comparisons
    arms = size // metrics
    counted = f"{_counted(arms, 'arm')} x {_counted(metrics, 'metric')} = {_counted(size, 'comparison')}"
    return (
        f"Verdicts are of B against A. Intervals of B - A hold together with 95 % over {counted}, "
        "p is corrected likewise; those of A and B are 95 % each."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def caution_text(comparison: Comparison) -> str:
    """What differs between the runs that can cause a difference by itself; "" where nothing does."""
    if not comparison.grave:
        return ""
    *others, last = comparison.grave
    named = f"{', '.join(others)} and {last}" if others else last
    return f"Take care: the runs differ in {named}, and a difference may come from that alone."
