"""A comparison as tables for a reader."""

from __future__ import annotations

from rich.console import Console

from ablate.compare.differences import Comparison, Difference
from ablate.compare.words import (
    caution_text,
    difference_text,
    family_text,
    mean_text,
    method_text,
    metric_head,
    p_text,
    verdict_text,
)
from ablate.tables.quantities import quantity
from ablate.terminal import print_line, print_table

HEADS = ("arm", "A", "B", "B - A", "verdict", "p", "compared")


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print the comparison: what differs between the runs first, so that nobody overlooks it."""
    for letter, run in (("A", comparison.a), ("B", comparison.b)):
        complete = run.statuses().get("complete", 0)
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
    if comparison.grave:
        print_line(console, caution_text(comparison))
    if comparison.differences:
        print_line(console, family_text(comparison))
    for metric in dict.fromkeys(item.metric for item in comparison.differences):
        _show_metric(console, comparison, metric)
    for letter, arms in (("A", comparison.only_a), ("B", comparison.only_b)):
        if arms:
            print_line(console, f"only in {letter}: {'; '.join(arms)}")
    if not comparison.differences:
        print_line(console, "The runs have no arm in common, so nothing is compared.")


def _show_metric(console: Console, comparison: Comparison, metric: str) -> None:
    print_line(console, metric_head(comparison, metric))
    own = [item for item in comparison.differences if item.metric == metric]
    print_table(console, HEADS, [difference_row(comparison, item) for item in own])


def difference_row(comparison: Comparison, item: Difference) -> tuple[str, ...]:
    """The cells of one difference, under `HEADS`."""
    what = quantity(item.metric)
    floors = comparison.floors.get((item.arm, item.metric), (None, None))
    return (
        item.arm,
        mean_text(item.a, what, floors[0]),
        mean_text(item.b, what, floors[1]),
        difference_text(item),
        verdict_text(item),
        p_text(item),
        method_text(item),
    )
