"""How numbers are shown: each column's words, unit and digits. The tables hold them unrounded."""

from __future__ import annotations

import math

import pandas as pd

from ablate.tables.columns import COLUMNS, DECLARED, Column, metric_column

ABSENT = "–"  # shown where there is no number
Quantity = Column  # a column of numbers, as pages and figures speak of it
_QUANTITIES = {column.name: column for table in ("epochs", "trials") for column in COLUMNS[table]}


def quantity(name: str) -> Quantity:
    """The column of the trials or epochs table as a reader sees it."""
    own = DECLARED.get().get(name)
    return metric_column(name, own) if own else _QUANTITIES[name]


def number_columns() -> set[str]:
    """Columns of the trials table that hold a measured number, so that a study can be about them."""
    return {*DECLARED.get(), *(column.name for column in COLUMNS["trials"] if column.kind == "number")}


def shown(value: float | None, what: Quantity) -> str:
    """A value in the shown unit, without the unit."""
    return shown_decimal(None if value is None else value * what.factor, what.digits)


def shown_decimal(value: float | None, digits: int) -> str:
    """A number without a unit of its own: a typographic minus sign, and no minus zero."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def shown_difference(value: float | None, what: Quantity) -> str:
    """A difference in the shown unit, always with its sign."""
    text = shown(value, what)
    signed = text in (ABSENT, shown_decimal(0.0, what.digits)) or text.startswith("−")
    return text if signed else f"+{text}"


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
