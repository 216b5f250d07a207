"""How numbers are shown: each column's words, unit and digits. The tables hold them unrounded."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from ablate.metrics import METRICS
from ablate.tables import COLUMNS

ABSENT = "–"
"""Shown where there is no number."""

LABELS = {
    "accuracy": "Accuracy",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
    "ece_floor": "ECE noise floor",
    "mean_confidence": "Mean confidence",
    "confidence_gap": "Confidence gap",
    "temperature": "Temperature",
    "ece_scaled": "ECE, scaled",
    "ece_equal_mass": "ECE, equal mass",
    "ece_debiased": "ECE, debiased",
    "smece": "Smooth ECE",
    "classwise_ece": "Classwise ECE",
    "mce": "MCE",
    "auroc_error": "AUROC of errors",
    "auroc_error_normalised": "AUROC of errors, normalised logit",
    "aurc": "AURC",
    "eaurc": "E-AURC",
    "coverage_at_1": "Coverage at 1 % risk",
    "coverage_at_2": "Coverage at 2 % risk",
    "scatter_within": "Scatter within classes",
    "scatter_between": "Scatter between classes",
    "nll_scaled": "NLL, scaled",
    "step_ms": "Training step",
    "train_seconds": "Training time",
    "train_loss": "Training loss",
    "train_accuracy": "Training accuracy",
    "valid_loss": "Loss, reported split",
    "valid_accuracy": "Accuracy, reported split",
}
FRACTIONS = {"train_accuracy", "valid_accuracy"}
DIGITS = {
    "scatter_within": 4,
    "scatter_between": 4,
    "nll": 4,
    "brier": 4,
    "nll_scaled": 4,
    "temperature": 3,
    "train_loss": 4,
    "valid_loss": 4,
}


@dataclass(frozen=True)
class Quantity:
    """One column as a reader sees it.

    Attributes:
        name: the column.
        label: in words.
        unit: as shown; "" where there is none.
        factor: from the tables' unit to the shown one: 100 where fractions are shown in percent.
        digits: after the decimal point.
        meaning: its definition.
        better: 'higher', 'lower' or ''.
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


@functools.cache
def quantity(name: str) -> Quantity:
    """The column of the trials or epochs table as a reader sees it."""
    columns = {column.name: column for table in ("epochs", "trials") for column in COLUMNS[table]}
    column = columns[name]
    percent = column.unit == "fraction" or name in FRACTIONS
    unit = "%" if percent else ("" if column.unit in ("ratio", "squared probability") else column.unit)
    return Quantity(
        name=name,
        label=LABELS.get(name, name.replace("_", " ").capitalize()),
        unit=unit,
        factor=100.0 if percent else 1.0,
        digits=DIGITS.get(name, 2),
        meaning=column.description,
        better=column.better,
    )


def number_columns() -> set[str]:
    """Columns of the trials table that hold a measured number, so that a study can be about them."""
    settings = {"seed", "repeat"}
    return {c.name for c in COLUMNS["trials"] if c.kind == "number" and c.name not in settings} | set(METRICS)


def shown(value: float | None, what: Quantity) -> str:
    """A value in the shown unit, without the unit."""
    return shown_decimal(None if value is None else value * what.factor, what.digits)


def shown_decimal(value: float | None, digits: int) -> str:
    """A number without a unit of its own."""
    return ABSENT if value is None or not math.isfinite(value) else _decimal(value, digits)


def shown_difference(value: float | None, what: Quantity) -> str:
    """A difference in the shown unit, always with its sign."""
    text = shown(value, what)
    positive = text not in (ABSENT, _decimal(0.0, what.digits)) and not text.startswith("−")
    return f"+{text}" if positive else text


def shown_p(p: float | None) -> str:
    """A p-value; a small one as a bound, because none is 0."""
    if p is None or math.isnan(p):
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _decimal(value: float, digits: int) -> str:
    """A typographic minus sign, and no minus zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")
