"""The one form that every table of the report has, so that HTML and Markdown show the same cells.

A table is {"columns": [...], "rows": [[cell, ...], ...]}; a cell is {"text", "notes", "value"}: what is
shown, the lines shown small below it, and the unrounded number or the text that the column is sorted by.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ablate.tables.quantities import ABSENT, Quantity, clean, shown

Json = dict[str, Any]
Row = TypeVar("Row")
Column = tuple[Json, Json]  # a column's head, and its cell in one row


def as_json(value: Any) -> Any:
    """JSON values with unseen characters of their texts replaced by � and not-finite numbers by None."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): as_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def view(
    rows: Iterable[Row], columns: Callable[[Row], Iterable[Column]], *, best: bool = False
) -> Json | None:
    """A table of one row each, with the same heads in every row; None without rows.

    With `best`, the best cells of columns with a better direction are marked, unless all are alike.
    """
    made = [list(columns(row)) for row in rows]
    if not made:
        return None
    for along in zip(*made, strict=True) if best else ():
        known = [own for _, own in along if own["text"] != ABSENT]
        choose = {"higher": max, "lower": min}.get(along[0][0].get("better", ""))
        if choose and len({own["text"] for own in known}) > 1:
            text = choose(known, key=lambda own: own["value"])["text"]
            for own in known:
                own["best"] = own["text"] == text
    return {"columns": [head for head, _ in made[0]], "rows": [[own for _, own in row] for row in made]}


def column(label: str, own: Json, *, unit: str = "", meaning: str = "", numeric: bool = True) -> Column:
    """A row's place in a column: the head, and the row's own cell."""
    return {"label": label, "unit": unit, "meaning": meaning, "numeric": numeric}, own


def worded(label: str, own: Json) -> Column:
    """The same in a column of words."""
    return column(label, own, numeric=False)


def of_quantity(what: Quantity, own: Json, label: str = "", meaning: str = "") -> Column:
    """The same of a quantity in its unit; its label and its definition, unless others are given."""
    head, own = column(label or what.label, own, unit=what.unit, meaning=meaning or what.meaning)
    return {**head, "better": what.better}, own


def cell(text: str, value: float | str | None = None, notes: Sequence[str] = (), **numbers: Any) -> Json:
    """A cell; without a value it is sorted by its text."""
    sort = text if value is None and text != ABSENT else value
    return {"text": text, "notes": [note for note in notes if note], "value": sort, **numbers}


def count(number: Any) -> Json:
    """A cell of a whole number."""
    return cell(str(int(number)), float(number))


def amount(
    value: float, what: Quantity, notes: Sequence[str] = (), *, signed: bool = False, **numbers: Any
) -> Json:
    """A cell of a value in its shown unit, or of a difference, `signed`."""
    return cell(shown(value, what, signed=signed), float(value), notes, **numbers)
