"""Reliability diagrams: what share of images is right at each confidence, one panel per arm."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from ablate.figures.theme import HALF, WIDE, not_drawn, reference_style, shorten, spread

MOST_PANELS = 12
LONGEST_TITLE = 36

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One arm, all its training runs pooled.

    Attributes:
        label: the arm in words.
        seeds: how many training runs are pooled.
        lower: lower edges of the bins of confidence, [B].
        upper: upper edges, [B].
        count: images per bin over all runs, [B].
        confidence: mean confidence of a bin's images, [B]; NaN without images.
        accuracy: accuracy of a bin's images, [B]; NaN without images.
    """

    label: str
    seeds: int
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    count: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def gap(self) -> float:
        """Mean confidence minus accuracy over all images; positive is over-confident."""
        weight = np.array(self.count, dtype=float)
        difference = np.array(self.confidence) - np.array(self.accuracy)
        return float(np.nansum(weight * difference) / weight.sum()) if weight.sum() else math.nan


@dataclass(frozen=True)
class Reliability:
    """The panels in the study's order, and the arms that did not fit."""

    panels: tuple[Panel, ...]
    left_out: tuple[str, ...] = ()


def prepare_reliability(
    bins: pd.DataFrame, labels: Mapping[str, str], important: Collection[str] = ()
) -> Reliability:
    """Pool the bins of each arm's training runs.

    Args:
        bins: the reliability table: arm, seed, bin, lower, upper, count, confidence, accuracy.
        labels: arm to its words, in the order to draw them; arms without rows are passed over.
        important: arms that are always among the drawn ones.
    """
    present = [arm for arm in labels if (bins["arm"] == arm).any()]
    kept, left_out = spread(present, MOST_PANELS, important)
    panels = tuple(_pool(labels[arm], bins[bins["arm"] == arm]) for arm in kept)
    return Reliability(panels, tuple(labels[arm] for arm in left_out))


def _pool(label: str, bins: pd.DataFrame) -> Panel:
    rows = bins.assign(
        sure=(bins["count"] * bins["confidence"]).fillna(0.0),
        right=(bins["count"] * bins["accuracy"]).fillna(0.0),
    )
    sums = rows.groupby("bin").agg(
        lower=("lower", "first"),
        upper=("upper", "first"),
        count=("count", "sum"),
        sure=("sure", "sum"),
        right=("right", "sum"),
    )
    count = sums["count"].to_numpy(dtype=float)
    known = np.where(count > 0, count, np.nan)
    return Panel(
        label=label,
        seeds=int(bins["seed"].nunique()),
        lower=tuple(sums["lower"].astype(float)),
        upper=tuple(sums["upper"].astype(float)),
        count=tuple(int(images) for images in count),
        confidence=tuple((sums["sure"].to_numpy(dtype=float) / known).tolist()),
        accuracy=tuple((sums["right"].to_numpy(dtype=float) / known).tolist()),
    )


def reliability_size(data: Reliability) -> tuple[float, float]:
    """Inches that the panels need."""
    columns = _columns(data)
    rows = max(1, math.ceil(len(data.panels) / columns))
    return (WIDE if columns > 2 else HALF[0], 3.3 * rows + 0.2)


def _columns(data: Reliability) -> int:
    count = max(len(data.panels), 1)
    return count if count <= 4 else (3 if count in (5, 6, 9) else 4)


def draw_reliabilities(data: Reliability, figure: Figure) -> None:
    """Draw all panels, each with its counts below."""
    columns = _columns(data)
    rows = max(1, math.ceil(len(data.panels) / columns))
    grid = figure.subplots(2 * rows, columns, height_ratios=[4, 1] * rows, squeeze=False)
    most = max((max(panel.count) for panel in data.panels), default=1)
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        ax, counts = grid[2 * row, column], grid[2 * row + 1, column]
        if place >= len(data.panels):
            ax.set_axis_off()
            counts.set_axis_off()
            continue
        draw_reliability(data.panels[place], ax)
        _draw_counts(data.panels[place], counts, most)
        ax.set_ylabel("accuracy (%)" if column == 0 else "")
        counts.set_ylabel("images" if column == 0 else "")
        counts.set_xlabel("confidence (%)" if place + columns >= len(data.panels) else "")
        ax.tick_params(labelleft=column == 0)
        counts.tick_params(labelleft=column == 0)


def draw_reliability(panel: Panel, ax: Axes) -> Axes:
    """Draw one arm: bars of accuracy, hatched bars over the gap to the confidence, the ideal diagonal."""
    accuracy, confidence = 100 * np.array(panel.accuracy), 100 * np.array(panel.confidence)
    _draw_bars(panel, np.zeros_like(accuracy), accuracy, ax, color="C0", alpha=0.45, linewidth=0)
    gap: dict[str, Any] = {"facecolor": "none", "edgecolor": "C1", "hatch": "////", "linewidth": 0.8}
    _draw_bars(panel, accuracy, confidence, ax, **gap)
    ax.plot([0, 100], [0, 100], **reference_style())
    ax.set(xlim=(0, 100), ylim=(0, 100), xticks=(0, 50, 100), yticks=(0, 50, 100))
    ax.tick_params(labelbottom=False)
    ax.set_title(shorten(panel.label, LONGEST_TITLE), fontsize="small")
    return ax


def _draw_bars(panel: Panel, bottom: FloatArray, top: FloatArray, ax: Axes, **style: Any) -> None:
    """Bars as one path, because a path for each makes the file several times as large."""
    left, right = 100 * np.array(panel.lower), 100 * np.array(panel.upper)
    corners = np.array([[left, right, right, left, left], [bottom, bottom, top, top, bottom]])
    bars = [Path(bar, closed=True) for bar in corners.T[np.array(panel.count) > 0]]
    ax.add_patch(PathPatch(Path.make_compound_path(*bars), **style))


def _draw_counts(panel: Panel, ax: Axes, most: int) -> None:
    count = np.array(panel.count, dtype=np.float64)
    style: dict[str, Any] = {"color": reference_style()["color"], "alpha": 0.55, "linewidth": 0}
    _draw_bars(panel, np.zeros_like(count), count, ax, **style)
    ax.set(xlim=(0, 100), xticks=(0, 50, 100), ylim=(0, most * 1.05 or 1), yticks=(0, most))


def describe_reliability(data: Reliability) -> str:
    """The figure in words, for those who do not see it."""
    if not data.panels:
        return "Reliability diagrams: no complete trials."
    parts = [f"{panel.label}: {_tendency(panel.gap)}" for panel in data.panels]
    return (
        f"Reliability diagrams, training runs pooled per arm. {'; '.join(parts)}.{not_drawn(data.left_out)}"
    )


def _tendency(gap: float) -> str:
    if math.isnan(gap):
        return "no images"
    direction = "more" if gap >= 0 else "less"
    return f"confidence {abs(100 * gap):.1f} points {direction} than accuracy"
