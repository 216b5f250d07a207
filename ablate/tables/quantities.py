"""How numbers are shown: each column's words, unit and digits. The tables hold them unrounded."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from ablate.tables import COLUMNS

ABSENT = "–"
"""Shown where there is no number."""


@dataclass(frozen=True)
class Quantity:
    """One column as a reader sees it: the unit as shown, digits after the point, better as in `Column`.

    `factor` leads from the tables' unit to the shown one: 100 where fractions are shown in percent.
    """

    name: str
    label: str
    unit: str
    factor: float
    digits: int
    meaning: str
    better: str

    @property
    def axis(self) -> str:
        """Label with unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def difference_unit(self) -> str:
        """Unit of a difference between two values."""
        return "points" if self.unit == "%" else self.unit

    @property
    def noun(self) -> str:
        """Label within a sentence; abbreviations keep their capitals."""
        return self.label if self.label[:2].isupper() else self.label[0].lower() + self.label[1:]


@functools.cache
def quantity(name: str) -> Quantity:
    """The column of the trials or epochs table as a reader sees it."""
    column = {column.name: column for table in ("epochs", "trials") for column in COLUMNS[table]}[name]
    percent = column.unit == "fraction"
    unit = {"fraction": "%", "ratio": "", "squared probability": ""}.get(column.unit, column.unit)
    label = column.label or name.replace("_", " ").capitalize()
    factor = 100.0 if percent else 1.0
    return Quantity(name, label, unit, factor, column.digits, column.description, column.better)


def number_columns() -> set[str]:
    """Columns of the trials table that hold a measured number, so that a study can be about them."""
    return {column.name for column in COLUMNS["trials"] if column.kind == "number"}


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


def shown_p(p: float | None) -> str:
    """A p-value; a small one as a bound, because none is 0."""
    if p is None or math.isnan(p):
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
