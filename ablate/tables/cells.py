"""The one form that every table of the report has, so that HTML and Markdown show the same cells.

A table is {"columns": [...], "rows": [[cell, ...], ...]}; a cell is {"text", "notes", "value"}: what is
shown, the lines shown small below it, and the unrounded number or the text that the column is sorted by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from ablate.tables.quantities import ABSENT, Quantity

Json = dict[str, Any]

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Control characters and those that reorder text: a name that holds one could show as another name."""


def clean(value: Any) -> Any:
    """JSON values with unseen characters of their texts replaced by � and not-finite numbers by None."""
    if isinstance(value, str):
        return UNSEEN.sub("�", value)
    if isinstance(value, dict):
        return {clean(name): clean(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return finite(value) if isinstance(value, float) else value


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has none for it."""
    return None if value is None or not math.isfinite(value) else float(value)


def one_line(text: str, longest: int = 300) -> str:
    """Text without line breaks, cut where it is longer than a table can take."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def column(label: str, *, unit: str = "", meaning: str = "", numeric: bool = True) -> Json:
    """A column's head."""
    return {"label": label, "unit": unit, "meaning": meaning, "numeric": numeric}


def quantity_column(what: Quantity) -> Json:
    """The head of a column that shows a quantity."""
    return column(what.label, unit=what.unit, meaning=what.meaning)


def cell(text: str, *, value: float | str | None = None, notes: Sequence[str] = ()) -> Json:
    """A cell; without a value it is sorted by its text."""
    sort = value if not isinstance(value, float) else finite(value)
    return {
        "text": text,
        "notes": [note for note in notes if note],
        "value": text if value is None and text != ABSENT else sort,
    }


def table(columns: Sequence[Json], rows: Sequence[Sequence[Json]]) -> Json:
    """A table; each row has one cell per column."""
    assert all(len(row) == len(columns) for row in rows)
    return {"columns": list(columns), "rows": [list(row) for row in rows]}
