"""How numbers are shown: each column's words, unit and digits. The tables hold them unrounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from ablate.tables.columns import COLUMNS, Column

ABSENT = "–"
"""Shown where there is no number."""
Quantity = Column
"""A column of numbers, as pages and figures speak of it."""
_EPOCHS, _OWN = ({column.name: column for column in COLUMNS[table]} for table in ("epochs", "trials"))
_TRIALS: ContextVar[Mapping[str, Quantity]] = ContextVar("columns of the trials table", default=_OWN)


def quantity(name: str) -> Quantity:
    """The column of the trials or epochs table as a reader sees it."""
    trials = _TRIALS.get()
    return trials[name] if name in trials else _EPOCHS[name]


def number_columns() -> set[str]:
    """Columns of the trials table that hold a measured number, so that a study can be about them."""
    return {name for name, column in _TRIALS.get().items() if column.kind == "number"}


@contextmanager
def quantities_of(external: Iterable[Quantity]) -> Iterator[None]:
    """Have these in the place of ablate's own metrics, while runs of another tool are reported here."""
    token = _TRIALS.set({column.name: column for column in external})
    try:
        yield
    finally:
        _TRIALS.reset(token)


def usual(*names: str) -> tuple[str, ...]:
    """What is shown beside what a study is about: these of ablate's metrics, or all that another tool has."""
    return names if _TRIALS.get() is _OWN else tuple(_TRIALS.get())


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
