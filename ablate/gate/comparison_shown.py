"""A comparison for readers: on a terminal, as Markdown for a comment on a forge, as CSV for a program."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ablate.errors import ResultsError
from ablate.gate.compare import SIDE, Comparison
from ablate.tables.files import inert
from ablate.tables.quantities import Quantity, quantity, shown, shown_difference, shown_p
from ablate.terminal import print_line, print_table, printable

HEADS = ("arm", "A", "B", "B - A", "verdict", "p", "compared")
REASONS = {
    "incomplete": "trials have no result",
    "too_few_seeds": "fewer than two seeds",
    "no_spread": "no spread to judge by",
}

Part = str | tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""A line, or a table: its title, heads and rows."""


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print the comparison: what differs between the runs first, so that nobody overlooks it."""
    for letter, run in (("A", comparison.a), ("B", comparison.b)):
        print_line(console, f"{letter}: {run.folder.root} ({run})")
    for part in _parts(comparison, str):
        if isinstance(part, str):
            print_line(console, part)
        else:
            print_line(console, part[0])
            print_table(console, *part[1:])


def write_markdown(path: Path, comparison: Comparison) -> None:
    """Write the comparison as Markdown; what comes from the records stands as code, so that it does nothing.

    Raises:
        ResultsError: the file cannot be written.
    """
    lines = [f"**B:** {_code(str(comparison.b))}, against **A:** {_code(str(comparison.a))}"]
    for part in _parts(comparison, _code):
        if isinstance(part, str):
            lines += ["", f"> {part}" if part == comparison.caution else part]
            continue
        title, heads, rows = part
        table = [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
        if heads == HEADS:
            lines += ["", f"**{title}**", "", *table]
        else:
            lines += ["", f"<details><summary>{title}</summary>", "", *table, "", "</details>"]
    _write(path, "\n".join(lines) + "\n", "--markdown")


def _code(text: str) -> str:
    """Text from a record as inline code: no link, mention or tag in it works, and no cell ends in it."""
    # A bar would end the cell even within code, and forges disagree on how to escape it there.
    line = " ".join(printable(text).replace("|", "¦").split()) or "–"
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{space}{line}{space}{fence}"


CSV_COLUMNS = (
    "arm", "metric", *(f"{side}_{name}" for side in "ab" for name in SIDE),
    "difference", "low", "high", "method", "n", "comparisons", "p", "p_adjusted", "margin", "p_equivalence",
    "verdict", "reason", "below_margin", "seeds_needed",
)  # fmt: skip


def write_csv(path: Path, comparison: Comparison) -> None:
    """Write the differences unrounded, one row per arm and metric; what cannot be told is empty.

    Raises:
        ResultsError: the file cannot be written.
    """
    rows = comparison.differences.rename(columns={"term": "arm", "effect": "difference"})
    rows = rows.reindex(columns=list(CSV_COLUMNS)).astype({"seeds_needed": "Int64"})
    rows["arm"] = rows["arm"].map(inert)
    _write(path, rows.to_csv(index=False, lineterminator="\n"), "--csv")


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"{path}: the table cannot be written ({error.strerror}); name another file with {option}"
        ) from None


def _parts(comparison: Comparison, named: Callable[[str], str]) -> Iterator[Part]:
    """What there is to show, in order; `named` makes text from the records fit for where it is shown."""
    if comparison.unlike:
        differing = [tuple(map(named, row)) for row in comparison.unlike]
        yield "The runs differ in:", ("what", "A", "B"), differing
    else:
        yield "The runs differ in nothing that is recorded of their settings and machines."
    if comparison.caution:
        yield comparison.caution
    if not len(comparison.differences):
        yield "The runs have no arm in common, so nothing is compared."
    else:
        size, arms = len(comparison.differences), len(comparison.pairs)
        counted = (
            f"{_number(arms, 'arm')} x {_number(size // arms, 'metric')} = {_number(size, 'comparison')}"
        )
        yield (
            f"Verdicts are of B against A. Intervals of B - A hold together with 95 % over {counted}, "
            "p is corrected likewise; those of A and B are 95 % each."
        )
        for metric, rows in comparison.differences.groupby("metric", sort=False):
            what, margin = quantity(str(metric)), float(rows["margin"].iloc[0])
            unit = f" in {what.difference_unit}" if what.difference_unit else ""
            known = f"margin {shown(margin, what)}" if math.isfinite(margin) else "no margin declared"
            cells = [(named(str(row.term)), *_cells(row, what)) for row in rows.itertuples()]
            yield f"{what.axis}; B - A{unit}; {known}", HEADS, cells
    for letter, alone in zip("AB", comparison.alone, strict=True):
        if alone:
            yield f"only in {letter}: {'; '.join(map(named, alone))}"


def _cells(row: Any, what: Quantity) -> tuple[str, ...]:
    means = [mean_text(what, *(getattr(row, f"{side}_{name}") for name in (*SIDE, "floor"))) for side in "ab"]
    return *means, difference_text(row), verdict_text(row), shown_p(row.p_adjusted), method_text(row)


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def mean_text(what: Quantity, mean: float, low: float, high: float, n: int, floor: float = math.nan) -> str:
    """A mean with its own interval and n; with its noise floor, where it has one."""
    ends = f"{shown(low, what)} to {shown(high, what)}, " if math.isfinite(low) else ""
    under = f", floor {shown(floor, what)}" if math.isfinite(floor) else ""
    return f"{shown(mean, what)} ({ends}n = {n}{under})"


def difference_text(row: Any) -> str:
    """The difference with its interval."""
    what = quantity(row.metric)
    ends = f"{shown_difference(row.low, what)} to {shown_difference(row.high, what)}"
    return f"{shown_difference(row.effect, what)} ({ends if math.isfinite(row.low) else 'no interval'})"


def method_text(row: Any) -> str:
    """How the two were compared, and over how many trials."""
    if row.method == "welch":
        return f"Welch, n = {row.a_n} and {row.b_n}"
    same = ", equal on every seed" if row.n > 1 and row.effect == 0 and math.isnan(row.low) else ""
    return f"paired by seed, n = {row.n}{same}"


def verdict_text(row: Any) -> str:
    """The verdict in a word, and why, or what would decide it."""
    if row.verdict == "equivalent":
        if row.reason == "identical":
            return "equivalent: the same predictions"
        return f"equivalent{', different by less than matters' if row.below_margin else ''}"
    if row.verdict != "undecided":
        return str(row.verdict)
    seeds = row.seeds_needed
    needed = "" if seeds is None or math.isnan(seeds) else f"about {int(seeds):,} seeds would decide"
    why = "; ".join(part for part in (REASONS.get(row.reason), needed) if part)
    return f"undecided{f': {why}' if why else ''}"
