"""Our epochs beside a table published of the same run: which of its values one more run could have."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from ablate.analysis.arms import finite_numbers, labels_of
from ablate.stats.intervals import Interval, prediction_interval
from ablate.study.trials import Plan
from ablate.tables.quantities import quantity

COMPARED = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
"""Columns of the epochs table; times are left out, because the machines differ."""


class Value(NamedTuple):
    """One column of one epoch: where one more run would lie; `theirs` or NaN; `inside`, None if untold."""

    arm: str
    epoch: int
    name: str
    ours: Interval
    theirs: float
    inside: bool | None


def published_values(epochs: pd.DataFrame, plan: Plan) -> Iterator[Value]:
    """Every published column and epoch of complete trials, arm by arm; none without a published table."""
    rows = plan.study.published.epochs if plan.study.published else ()
    theirs = {int(row["epoch"]): row for row in rows if "epoch" in row}
    names = [name for name in COMPARED if any(name in row for row in theirs.values())]
    for arm in labels_of(plan):
        own = epochs[epochs["arm"] == arm]
        for epoch in sorted({*own["epoch"].dropna().astype(int), *theirs}):
            of_epoch = own[own["epoch"] == epoch]
            for name in names:
                ours = prediction_interval(finite_numbers(of_epoch[name]))
                value = theirs.get(epoch, {}).get(name, math.nan)
                inside = None if math.isnan(value - ours.low) else ours.low <= value <= ours.high
                yield Value(arm, epoch, name, ours, value, inside)


def published_summaries(epochs: pd.DataFrame, plan: Plan) -> dict[str, str]:
    """Arm to how many published values lie inside, and of which columns the others are."""
    values, labels = list(published_values(epochs, plan)), labels_of(plan)
    sentences = {}
    for arm, label in labels.items():
        known = [value for value in values if value.arm == arm and not math.isnan(value.theirs)]
        count, total = Counter(value.inside for value in known), len(known)
        runs = epochs.loc[epochs["arm"] == arm, "trial_id"].nunique()
        outside = Counter(quantity(value.name).noun for value in known if value.inside is False)
        missed = ", ".join(f"{number} of {name}" for name, number in sorted(outside.items()))
        said = (
            f"{count[True]} of the source's {total} published values lie inside the 95 % prediction interval "
            f"of {runs} runs here{f'; outside: {missed}' if missed else ''}"
            f"{f'; {count[None]} cannot be told' if count[None] else ''}."
        )
        if not total:
            said = "The published table has none of the columns that are compared."
        elif count[None] == total:
            said = (
                f"Whether the source's {total} published values could be of a run here cannot be told: a "
                f"prediction interval takes at least 2 complete runs that differ; complete: {runs}."
            )
        sentences[arm] = f"{label}: {said}" if len(labels) > 1 else said
    return sentences
