"""A comparison as files: CSV for a program, Markdown for a comment on a forge."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ablate.compare.differences import Comparison
from ablate.compare.run import Run
from ablate.compare.show import HEADS, difference_row
from ablate.compare.words import caution_text, family_text, metric_head
from ablate.errors import ResultsError
from ablate.report.markdown import code, escape
from ablate.tables.files import FORMULA_STARTS
from ablate.terminal import printable

CSV_HEAD = (
    "arm", "metric", "a_mean", "a_low", "a_high", "a_n", "b_mean", "b_low", "b_high", "b_n",
    "difference", "low", "high", "method", "n", "comparisons", "p", "p_adjusted", "margin", "p_equivalence",
    "verdict", "reason", "below_margin", "seeds_needed",
)  # fmt: skip


def write_csv(path: Path, comparison: Comparison) -> None:
    """Write the differences unrounded, one row per arm and metric; what cannot be told is empty.

    Raises:
        ResultsError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for item in comparison.differences:
        sides = [value for side in (item.a, item.b) for value in (side.mean, side.low, side.high, side.n)]
        judged = item.verdict
        row = [
            *(_no_formula(item.arm), item.metric, *sides),
            *(item.difference, item.low, item.high, item.method, item.n, item.comparisons),
            *(item.p, judged.p_adjusted, item.margin, judged.p_equivalence),
            *(judged.word, judged.reason, judged.below_margin, judged.seeds_needed),
        ]
        writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    _write(path, text.getvalue(), "--csv")


def _no_formula(arm: str) -> str:
    """As in the other tables, an apostrophe keeps a spreadsheet from reading a name as a formula."""
    return f"'{arm}" if arm.startswith(FORMULA_STARTS) else arm


def write_markdown(path: Path, comparison: Comparison) -> None:
    """Write the comparison as Markdown; what comes from the records stands as code, so that it does nothing.

    Raises:
        ResultsError: the file cannot be written.
    """
    _write(path, "\n".join(_markdown(comparison)) + "\n", "--markdown")


def _write(path: Path, text: str, option: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"{path}: the table cannot be written ({error.strerror}); name another file with {option}"
        ) from None


def _markdown(comparison: Comparison) -> Iterator[str]:
    yield f"**B:** {_named(comparison.b)}, against **A:** {_named(comparison.a)}"
    if comparison.grave:
        yield from ("", f"> {caution_text(comparison)}")
    for metric in dict.fromkeys(item.metric for item in comparison.differences):
        own = [item for item in comparison.differences if item.metric == metric]
        rows = [difference_row(comparison, item) for item in own]
        yield from ("", f"**{escape(metric_head(comparison, metric))}**", "")
        yield from _table(HEADS, [(inert(arm), *map(escape, cells)) for arm, *cells in rows])
    if comparison.differences:
        yield from ("", escape(family_text(comparison)))
    else:
        yield from ("", "The runs have no arm in common, so nothing is compared.")
    for letter, arms in (("A", comparison.only_a), ("B", comparison.only_b)):
        if arms:
            yield from ("", f"Only in {letter}: {', '.join(map(inert, arms))}")
    if comparison.unlike:
        yield from ("", "<details><summary>What differs between the runs</summary>", "")
        yield from _table(("what", "A", "B"), [tuple(map(inert, row)) for row in comparison.unlike])
        yield from ("", "</details>")


def _named(run: Run) -> str:
    complete = run.statuses().get("complete", 0)
    name, profile = inert(run.plan.study.name), inert(run.plan.profile)
    return f"{name}, profile {profile}, {complete} of {len(run.plan.trials)} trials complete"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(cells)} |"


def inert(text: str) -> str:
    """Text from a record as inline code: no link, mention or tag in it works, and no cell ends in it."""
    # A bar would end the cell even within code, and forges disagree on how to escape it there.
    return str(code(printable(text).replace("|", "¦") or "–"))
