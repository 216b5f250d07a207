"""How numbers are shown, by each column's words, unit and digits, and texts from outside."""

import math
import re
from collections.abc import Sequence

import pandas as pd

from ablate.tables.columns import COLUMNS, DECLARED, Column, metric_column

ABSENT = "–"  # shown where there is no number
Quantity = Column  # a column of numbers, as pages and figures speak of it
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Control characters and those that reorder text: a name that holds one could show as another name."""
_QUANTITIES = {column.name: column for table in ("epochs", "trials") for column in COLUMNS[table]}


def quantity(name: str) -> Quantity:
    """The column of the trials or epochs table as a reader sees it."""
    own = DECLARED.get().get(name)
    return metric_column(name, own) if own else _QUANTITIES[name]


def number_columns() -> set[str]:
    """Columns of the trials table that hold a measured number, so that a study can be about them."""
    return {*DECLARED.get(), *(column.name for column in COLUMNS["trials"] if column.kind == "number")}


def shown(value: float | None, what: Quantity, *, signed: bool = False) -> str:
    """A value in the shown unit, without the unit; `signed`, a difference, with a plus too, but not of 0."""
    text = shown_decimal(None if value is None else value * what.factor, what.digits)
    return f"+{text}" if signed and not text.startswith((ABSENT, "−")) and float(text) else text


def ends(low: float, high: float, what: Quantity, absent: str = "", *, signed: bool = False) -> str:
    """Both ends of an interval, or what stands where it has none."""
    both = (shown(end, what, signed=signed) for end in (low, high))
    return " to ".join(both) if math.isfinite(low) else absent


def with_unit(value: float, what: Quantity) -> str:
    """A value in its shown unit, for a sentence."""
    return f"{shown(value, what)} {what.unit}".rstrip()


def shown_decimal(value: float | None, digits: int) -> str:
    """A number without a unit of its own: a typographic minus sign, and no minus zero."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def shown_seeds(few: float | None, many: float | None) -> str:
    """A range of seeds, whose ends are missing above 1,000."""
    first, last = ("> 1,000" if pd.isna(n) else f"{n:,.0f}" for n in (few, many))
    return first if first == last else f"{first} to {last.replace('>', 'more than')}"


def shown_p(p: float | None) -> str:
    """A p-value; one near an end as a bound, because none is 0 and a corrected one is cut off at 1."""
    if p is None or math.isnan(p):
        return ABSENT
    if p > 0.99:
        return "> 0.99"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def clean(text: str) -> str:
    """Text with its unseen characters replaced by �."""
    return UNSEEN.sub("�", text)


def one_line(text: str, longest: int = 300) -> str:
    """Text without line breaks, cut where it is longer than a table can take."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def few(names: Sequence[str], most: int = 4) -> str:
    """The first of some names, and how many others there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
