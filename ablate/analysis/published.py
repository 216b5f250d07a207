"""Our epochs beside a table that somebody else published of the same run: which of its values could be ours.

Could be: the value lies inside the 95 % prediction interval of one more training run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from ablate.analysis.arms import finite_numbers, interval_text, labels_of
from ablate.stats import Interval, prediction_interval
from ablate.study.trials import Plan
from ablate.tables.cells import Json, cell, column, table
from ablate.tables.quantities import quantity, shown
from ablate.tables.wording import noun

COMPARED = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
"""Columns of the epochs table; times are left out, because the machines differ."""
CAUTION = (
    "The interval is mean ± t · sd · sqrt(1 + 1/n) over n complete runs of different seeds; it holds one "
    "more run of the same normal population in 95 % of cases, and of few runs it is wide. Each interval "
    "stands for itself, so about 5 % of the values are expected outside even if both tables come from one "
    "process; and since the values of a run are correlated, several tend to miss together."
)
PLACES = {True: "inside", False: "outside", None: "cannot be told"}


class Value(NamedTuple):
    """One column of one epoch: where one more run of ours would lie, and the published value.

    Attributes:
        theirs: NaN where it is not published.
        inside: whether it lies in our interval; None where that cannot be told.
    """

    arm: str
    epoch: int
    name: str
    ours: Interval
    theirs: float
    inside: bool | None


def published_values(epochs: pd.DataFrame, plan: Plan) -> list[Value]:
    """Every published column of every epoch, arm by arm; empty where the study names no published table.

    Args:
        epochs: the epochs table of complete trials.
        plan: the study's plan.
    """
    rows = plan.study.published.epochs if plan.study.published else ()
    theirs = {int(row["epoch"]): row for row in rows if "epoch" in row}
    names = [name for name in COMPARED if any(name in row for row in theirs.values())]
    values = []
    for arm in labels_of(plan):
        own = epochs[epochs["arm"] == arm]
        for epoch in sorted({*own["epoch"].dropna().astype(int), *theirs}):
            of_epoch = own[own["epoch"] == epoch]
            for name in names:
                ours = prediction_interval(finite_numbers(of_epoch[name]))
                value = theirs.get(epoch, {}).get(name, math.nan)
                inside = None if math.isnan(value - ours.low) else ours.low <= value <= ours.high
                values.append(Value(arm, epoch, name, ours, value, inside))
    return values


def published_view(epochs: pd.DataFrame, plan: Plan) -> Json | None:
    """The comparison, arm by arm, and in a sentence; None when the study names no published table.

    Args:
        epochs: the epochs table of complete trials.
        plan: the study's plan.
    """
    published, labels = plan.study.published, labels_of(plan)
    if published is None:
        return None
    values, runs = published_values(epochs, plan), epochs.groupby("arm")["trial_id"].nunique()
    tables = [
        _arm(label, [value for value in values if value.arm == arm], int(runs.get(arm, 0)), len(labels) == 1)
        for arm, label in labels.items()
    ]
    summary = " ".join(part["summary"] for part in tables if len(epochs))
    about = {"source": published.source, "differences": published.differences, "caution": CAUTION}
    return {**about, "summary": summary, "tables": tables}


def _arm(label: str, values: Sequence[Value], runs: int, alone: bool) -> Json:
    told = [value for value in values if not math.isnan(value.theirs)]
    rows: dict[int, list[Json]] = {}
    for value in values:
        rows.setdefault(value.epoch, [cell(str(value.epoch), value=float(value.epoch))]).extend(_cells(value))
    heads = [column("Epoch", meaning="0 is the first"), *_heads(dict.fromkeys(own.name for own in values))]
    return {
        "arm": label,
        "runs": runs,
        "published": len(told),
        "inside": sum(value.inside is True for value in told),
        "outside": [_outside(value) for value in told if value.inside is False],
        "summary": f"{'' if alone else f'{label}: '}{_sentence(told, runs)}",
        **table(heads, list(rows.values())),
    }


def _sentence(told: Sequence[Value], runs: int) -> str:
    """How many published values lie inside, and of which columns the others are."""
    count, total = Counter(value.inside for value in told), len(told)
    if not total:
        return "The published table has none of the columns that are compared."
    if count[None] == total:
        return (
            f"Whether the source's {total} published values could be of a run here cannot be told: a "
            f"prediction interval takes at least 2 complete runs that differ; complete: {runs}."
        )
    outside = Counter(noun(quantity(value.name)) for value in told if value.inside is False)
    missed = ", ".join(f"{number} of {name}" for name, number in sorted(outside.items()))
    return (
        f"{count[True]} of the source's {total} published values lie inside the 95 % prediction interval of "
        f"{runs} runs here{f'; outside: {missed}' if missed else ''}"
        f"{f'; {count[None]} cannot be told' if count[None] else ''}."
    )


def _outside(value: Value) -> str:
    what = quantity(value.name)
    theirs, ours = f"{shown(value.theirs, what)} {what.unit}".rstrip(), interval_text(value.ours, what)
    return f"epoch {value.epoch}, {noun(what)}: published {theirs}, ours {ours}"


def _heads(names: dict[str, None]) -> list[Json]:
    heads = []
    for what in map(quantity, names):
        meaning = f"{what.meaning}; mean, 95 % prediction interval"
        heads.append(column(f"{what.label}: ours", unit=what.unit, meaning=meaning))
        heads.append(column("published", unit=what.unit, meaning=what.meaning))
    return heads


def _cells(value: Value) -> tuple[Json, Json]:
    what, ours, theirs = quantity(value.name), value.ours, value.theirs
    place = "" if math.isnan(theirs) else PLACES[value.inside]
    own = cell(shown(ours.mean, what), value=ours.mean, notes=[interval_text(ours, what)])
    return (
        {**own, "n": ours.n, "low": ours.low, "high": ours.high},
        {**cell(shown(theirs, what), value=theirs, notes=[place]), "inside": value.inside},
    )
