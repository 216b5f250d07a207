"""The words of an effect, from its row in a table: its size, its uncertainty, what it comes to."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ablate.tables.quantities import Quantity, shown, shown_difference, shown_p

DECIDED = ("better", "worse", "higher", "lower")


def evidence(row: pd.Series[Any], what: Quantity, family: int) -> str:
    """A difference with its interval: how large it is, and how sure."""
    if row["n"] == 0:
        return "no seed is complete in both arms."
    size = f"{noun(what)} {shown_difference(row['effect'], what)}{unit_in_words(what)}"
    return f"{size} ({uncertainty(row, what, family, of='pair')})."


def uncertainty(row: pd.Series[Any], what: Quantity, family: int, *, of: str) -> str:
    """Interval, n and p, as they stand in brackets.

    Args:
        row: of the effects table.
        what: its metric.
        family: how many intervals hold together with this one.
        of: what n counts, in the singular.
    """
    n = int(row["n"])
    counted = f"n = {n} {of if n == 1 else f'{of}s'}"
    if not math.isfinite(row["low"]):
        return f"{counted}, no interval"
    simultaneous, adjusted = ("simultaneous ", "adjusted ") if family > 1 else ("", "")
    return f"{simultaneous}95 % interval {ends(row, what)}; {counted}; {adjusted}p {_p(row['p_adjusted'])}"


def unit_in_words(what: Quantity) -> str:
    """The unit of a difference, with the space before it."""
    return {"points": " percentage points"}.get(what.difference_unit, f" {what.difference_unit}".rstrip())


def ends(row: pd.Series[Any], what: Quantity) -> str:
    """The ends of its interval."""
    return f"{shown_difference(row['low'], what)} to {shown_difference(row['high'], what)}"


def _p(p: float) -> str:
    text = shown_p(p)
    return text if text.startswith("<") else f"= {text}"


def conclusion(row: pd.Series[Any], what: Quantity, undecided: str) -> str:
    """The verdict as a sentence; `undecided` is why, where it is that."""
    if row["verdict"] in DECIDED:
        return f"{str(row['verdict']).capitalize()}."
    if row["verdict"] == "equivalent":
        return _equivalent(row, what)
    return f"Undecided{undecided}."


def _equivalent(row: pd.Series[Any], what: Quantity) -> str:
    if row["reason"] == "identical":
        return "Equivalent: the same predictions on every seed."
    within = f"within ±{shown(row['margin'], what)} {what.difference_unit}".rstrip()
    return f"Equivalent {within}{': different, by less than matters' if row['below_margin'] else ''}."


def no_test(reason: str, of: str) -> str:
    """Why there is nothing to judge by; "" where there is."""
    return {
        "too_few_seeds": f": one {of} has no spread to judge by",
        "no_spread": f": all {of}s differ alike, which leaves no spread to judge by",
    }.get(reason, "")


def noun(what: Quantity) -> str:
    """The metric within a sentence; abbreviations keep their capitals."""
    return what.label if what.label[:2].isupper() else what.label[0].lower() + what.label[1:]
