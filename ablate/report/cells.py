"""The one form that every table of the report has, so that HTML and Markdown show the same cells.

A table is {"columns": [...], "rows": [[cell, ...], ...]}; a cell is {"text", "notes", "value"}: what is
shown, the lines shown small below it, and the unrounded number or the text that the column is sorted by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from ablate.tables.cells import clean
from ablate.tables.quantities import ABSENT, Quantity, shown, shown_difference

Json = dict[str, Any]
Row = TypeVar("Row")
Column = tuple[Json, Callable[[Row], Json]]
"""A column's head, and what makes its cell of a row."""


def as_json(value: Any) -> Any:
    """JSON values with unseen characters of their texts replaced by � and not-finite numbers by None."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): as_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def view(rows: Iterable[Row], columns: Sequence[Column[Row]]) -> Json:
    """A table of one row each."""
    return {
        "columns": [head for head, _ in columns],
        "rows": [[make(row) for _, make in columns] for row in rows],
    }


def column(
    label: str, make: Callable[[Row], Json], *, unit: str = "", meaning: str = "", numeric: bool = True
) -> Column[Row]:
    """A column by its head and its cells."""
    return {"label": label, "unit": unit, "meaning": meaning, "numeric": numeric}, make


def of_quantity(
    what: Quantity, make: Callable[[Quantity, Row], Json], label: str = "", meaning: str = ""
) -> Column[Row]:
    """The column of a quantity, in its unit; its label and its definition, unless others are given."""
    return column(label or what.label, partial(make, what), unit=what.unit, meaning=meaning or what.meaning)


def cell(text: str, value: float | str | None = None, notes: Sequence[str] = (), **numbers: Any) -> Json:
    """A cell; without a value it is sorted by its text."""
    sort = text if value is None and text != ABSENT else value
    return {"text": text, "notes": [note for note in notes if note], "value": sort, **numbers}


def count(number: Any) -> Json:
    """A cell of a whole number."""
    return cell(str(int(number)), float(number))


def amount(value: float, what: Quantity, notes: Sequence[str] = (), **numbers: Any) -> Json:
    """A cell of a value in its shown unit."""
    return cell(shown(value, what), float(value), notes, **numbers)


def ends(low: float, high: float, what: Quantity, absent: str = "", *, signed: bool = False) -> str:
    """Both ends of an interval, or what stands where it has none; with signs for a difference."""
    show = shown_difference if signed else shown
    return f"{show(low, what)} to {show(high, what)}" if math.isfinite(low) else absent


def difference(value: float, what: Quantity, notes: Sequence[str] = (), **numbers: Any) -> Json:
    """A cell of a difference, with its sign."""
    return cell(shown_difference(value, what), float(value), notes, **numbers)
