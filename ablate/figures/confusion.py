"""Which classes are taken for which, in two arms, and what differs between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ablate.figures.theme import WIDE, shorten

MOST_ARMS = 2
MOST_CELLS = {True: 100, False: 60}
"""Cells that are drawn of a panel, the largest first: of at most MOST_NAMED classes, and of more."""
MOST_NAMED = 12
"""Of more classes, the columns are numbered."""
LONGEST_CLASS = 16
SMALLEST_SHOWN = 0.5
"""Shares and differences below so many percent are left blank: they would be written 0."""
DARKEST = 0.55
"""Opacity of the deepest colour, on which the ink can still be read."""
DESCRIBED = 5

FloatArray = NDArray[np.float64]
CellColor = Callable[[int, int, float, float], tuple[str, float]]
"""Row, column, value and the largest value to a colour and its opacity."""


@dataclass(frozen=True)
class Confusion:
    """What the figure shows.

    Attributes:
        classes: the classes in words, [K].
        labels: the arms in words, [A].
        shares: per arm, [K, K] percent of a class's images (row) taken for each class (column).
    """

    classes: tuple[str, ...]
    labels: tuple[str, ...]
    shares: tuple[FloatArray, ...]

    @property
    def difference(self) -> FloatArray | None:
        """The second arm's percentages minus the first's, [K, K]; None for one arm."""
        return self.shares[1] - self.shares[0] if len(self.shares) == 2 else None


def prepare_confusion(
    confusion: pd.DataFrame, labels: Mapping[str, str], class_labels: Mapping[str, str]
) -> Confusion:
    """Counts as percentages of each class's images.

    Args:
        confusion: the confusion table.
        labels: the arms to show, at most two, with their words; arms without rows are passed over.
        class_labels: class to its words.
    """
    kept = [arm for arm in labels if (confusion["arm"] == arm).any()][:MOST_ARMS]
    own = [confusion[confusion["arm"] == arm] for arm in kept]
    classes = list(dict.fromkeys(own[0]["class"])) if own else []
    shares = tuple(_shares(rows, classes) for rows in own)
    return Confusion(
        tuple(class_labels[name] for name in classes), tuple(labels[arm] for arm in kept), shares
    )


def _shares(rows: pd.DataFrame, classes: list[str]) -> FloatArray:
    counts = rows.pivot_table(index="class", columns="predicted", values="count", aggfunc="sum")
    table = counts.reindex(index=classes, columns=classes).to_numpy(dtype=np.float64, na_value=0.0)
    return np.asarray(100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1))


def confusion_size(data: Confusion) -> tuple[float, float]:
    """Inches that the panels need."""
    words = 0.09 * max(map(len, _class_words(data.classes)), default=0)
    if data.difference is not None:
        return (WIDE, (WIDE - words - 0.9) / 3 + _below(data, words) + 0.75)
    return (5.4, 5.4 - words + _below(data, words))


def _below(data: Confusion, words: float) -> float:
    return max(words, 0.25) if len(data.classes) <= MOST_NAMED else 0.25


def draw_confusion(data: Confusion, figure: Figure) -> None:
    """Draw a panel per arm and, of two arms, a third with their difference."""
    difference = data.difference
    axes = figure.subplots(1, len(data.labels) + (difference is not None) or 1, squeeze=False)[0]
    worst = max((float(_errors(shares).max()) for shares in data.shares), default=0.0)
    for ax, label, shares in zip(axes, data.labels, data.shares, strict=False):
        ax.set_title(f"{shorten(label)} (%)")
        _draw_cells(shares, _share_color, max(worst, 5.0), "{:.0f}", ax)
    if difference is not None:
        axes[-1].set_title("second − first (points)")
        _draw_cells(
            difference, _difference_color, max(float(np.abs(difference).max()), 2.0), "{:+.0f}", axes[-1]
        )
    for place, ax in enumerate(axes):
        _draw_classes(data.classes, ax, named=place == 0)


def _errors(shares: FloatArray) -> FloatArray:
    return np.where(np.eye(len(shares), dtype=bool), 0.0, shares)


def _share_color(row: int, column: int, value: float, most: float) -> tuple[str, float]:
    """Right predictions in one faint colour; mistakes the deeper the more there are."""
    return ("C0", 0.3) if row == column else ("C1", _depth(value, most))


def _difference_color(row: int, column: int, value: float, most: float) -> tuple[str, float]:
    """More that is right, or less that is wrong, in one colour; the opposite in another."""
    return ("C0" if (value > 0) == (row == column) else "C1", _depth(value, most))


def _depth(value: float, most: float) -> float:
    return 0.08 + (DARKEST - 0.08) * min(abs(value) / most, 1.0)


def _draw_cells(table: FloatArray, color_of: CellColor, most: float, form: str, ax: Axes) -> None:
    size = 8.5 if len(table) <= 10 else 6.5 if len(table) <= 14 else 5.5
    for row, column in _largest(table, MOST_CELLS[len(table) <= MOST_NAMED]):
        value = float(table[row, column])
        color, depth = color_of(row, column, value, most)
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, alpha=depth, linewidth=0))
        text = form.format(value).replace("-", "−")
        ax.text(column, row, text, ha="center", va="center", fontsize=size)


def _largest(table: FloatArray, most: int) -> list[tuple[int, int]]:
    """Places of the largest shares or differences, the largest first."""
    order = np.argsort(-np.abs(table), axis=None, kind="stable")[:most]
    places = [(int(at) // len(table), int(at) % len(table)) for at in order]
    return [(row, column) for row, column in places if abs(table[row, column]) >= SMALLEST_SHOWN]


def _draw_classes(classes: tuple[str, ...], ax: Axes, *, named: bool) -> None:
    places, words = range(len(classes)), _class_words(classes)
    columns = [word.partition(" ")[0] for word in words] if len(classes) > MOST_NAMED else words
    short = max(map(len, columns), default=0) <= 2
    ax.set_xticks(places, columns, rotation=0 if short else 90)
    ax.set_yticks(places, words if named else [])
    end = max(len(classes), 1) - 0.5
    ax.set(xlim=(-0.5, end), ylim=(end, -0.5), aspect="equal")
    ax.set_xlabel("predicted")
    ax.set_ylabel("class" if named else "")
    ax.tick_params(labelsize="small", length=0)
    ax.grid(visible=False)
    ax.spines[["top", "right"]].set_visible(True)


def _class_words(classes: tuple[str, ...]) -> list[str]:
    """The classes' names; with a number before each where the columns have room for no more."""
    words = [shorten(name, LONGEST_CLASS) for name in classes]
    if len(classes) <= MOST_NAMED:
        return words
    return [f"{number} {word.strip()}" for number, word in enumerate(words, start=1)]


def describe_confusion(data: Confusion) -> str:
    """The figure in words, for those who do not see it."""
    if not data.labels:
        return "Confusion of classes: no complete trials."
    parts = [
        f"{label}: {_mistakes(data.classes, _errors(shares), '{:.0f} %')}"
        for label, shares in zip(data.labels, data.shares, strict=True)
    ]
    difference = data.difference
    if difference is not None:
        parts.append(f"differences: {_mistakes(data.classes, difference, '{:+.0f} points')}")
    return f"Percent of each class's images by predicted class, most first. {'; '.join(parts)}."


def _mistakes(classes: tuple[str, ...], table: FloatArray, form: str) -> str:
    words = []
    for row, column in _largest(table, DESCRIBED):
        taken = "right" if row == column else f"as {classes[column]}"
        words.append(f"{classes[row]} {taken} {form.format(table[row, column]).replace('-', '−')}")
    return ", ".join(words) or "none above half a percent"
