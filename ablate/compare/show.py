"""A comparison as tables for a reader, and as a CSV file."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
from rich.console import Console

from ablate.compare.differences import Comparison, Difference
from ablate.compare.run import Run
from ablate.errors import ResultsError
from ablate.report.arms import FLOOR
from ablate.report.quantities import quantity, shown, shown_difference
from ablate.stats import Interval, mean_interval
from ablate.terminal import print_line, print_table


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print the comparison: what differs between the runs first, so that nobody overlooks it."""
    for letter, run in (("A", comparison.a), ("B", comparison.b)):
        complete = int((run.trials["status"] == "complete").sum())
        name = f"{run.plan.study.name}, profile {run.plan.profile}"
        print_line(
            console,
            f"{letter}: {run.folder.root} ({name}; {complete} of {len(run.plan.trials)} trials complete)",
        )
    if comparison.unlike:
        print_line(console, "The runs differ in:")
        print_table(console, ("what", "A", "B"), comparison.unlike)
    else:
        print_line(console, "The runs differ in nothing that is recorded of their settings and machines.")
    for metric in dict.fromkeys(item.metric for item in comparison.differences):
        _show_metric(console, comparison, metric)
    for letter, arms in (("A", comparison.only_a), ("B", comparison.only_b)):
        if arms:
            print_line(console, f"only in {letter}: {'; '.join(arms)}")
    if not comparison.differences:
        print_line(console, "The runs have no arm in common, so nothing is compared.")


def _show_metric(console: Console, comparison: Comparison, metric: str) -> None:
    what = quantity(metric)
    unit = f" in {what.difference_unit}" if what.difference_unit else ""
    print_line(console, f"{what.axis}; B - A{unit}; 95 % intervals, each by itself")
    own = [item for item in comparison.differences if item.metric == metric]
    rows = [_difference_row(comparison, item) for item in own]
    print_table(console, ("arm", "A", "B", "B - A", "compared"), rows)


def _difference_row(comparison: Comparison, item: Difference) -> tuple[str, ...]:
    what = quantity(item.metric)
    ends = f"{shown_difference(item.low, what)} to {shown_difference(item.high, what)}"
    if not math.isfinite(item.low):
        ends = "no interval"
    return (
        item.arm,
        _mean_text(comparison.a, item, item.a),
        _mean_text(comparison.b, item, item.b),
        f"{shown_difference(item.difference, what)} ({ends})",
        _method_text(item),
    )


def _mean_text(run: Run, item: Difference, side: Interval) -> str:
    what = quantity(item.metric)
    ends = f"{shown(side.low, what)} to {shown(side.high, what)}, " if math.isfinite(side.low) else ""
    floor = ""
    if item.metric in FLOOR and side.n:
        values = np.array(list(run.values(item.arm, FLOOR[item.metric]).values()), dtype=np.float64)
        floor = f", floor {shown(mean_interval(values).mean, what)}"
    return f"{shown(side.mean, what)} ({ends}n = {side.n}{floor})"


def _method_text(item: Difference) -> str:
    if item.method == "welch":
        return f"Welch, n = {item.a.n} and {item.b.n}"
    same = ", equal on every seed" if item.n > 1 and item.difference == 0 and math.isnan(item.low) else ""
    return f"paired by seed, n = {item.n}{same}"


CSV_HEAD = (
    "arm", "metric", "a_mean", "a_low", "a_high", "a_n", "b_mean", "b_low", "b_high", "b_n",
    "difference", "low", "high", "method", "n",
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
        row = [item.arm, item.metric, *sides, item.difference, item.low, item.high, item.method, item.n]
        writer.writerow(["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row])
    try:
        path.write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"{path}: the table cannot be written ({error.strerror}); name another file with --csv"
        ) from None
