"""One objective against each searched field: training runs, the points' means, the smoothed values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ablate.figures.theme import (
    HALF,
    WIDE,
    capped,
    inches_across,
    legend_above,
    not_drawn,
    reference_style,
    shade_style,
    shorten,
    wrapped,
)
from ablate.figures.tuning_history import ROLES, Scored, draw_runs, draw_scored, focused_limits, scored_points

MOST_PANELS = 6
MOST_COLUMNS = 3
MOST_CATEGORIES = 12
STRIP = 0.3
"""Half the width that a category's points are spread over."""
TWO_SIDED = 1.96
"""Standard deviations of a normal distribution that 95 % lie within."""


@dataclass(frozen=True)
class TuningSlice:
    """One field, in the axis's unit.

    Attributes:
        label: the objective with its unit.
        field: the field in words.
        scale: 'linear', 'log' or 'category'.
        ticks: position and text of each category; empty for numbers.
        points: the complete points where the field is used.
        runs: position and value of each of their training runs.
        smooth: position, smoothed value, and its 95 % ends, in the order of the positions.
        joined: whether the smoothed values follow from this field alone, so that a line joins them.
        limits: ends of the vertical axis.
    """

    label: str
    field: str
    scale: str
    ticks: tuple[tuple[float, str], ...]
    points: tuple[Scored, ...]
    runs: tuple[tuple[float, float], ...]
    smooth: tuple[tuple[float, float, float, float], ...]
    joined: bool
    limits: tuple[float, float]


@dataclass(frozen=True)
class TuningSlices:
    """A panel per field, and the fields that did not fit."""

    panels: tuple[TuningSlice, ...]
    left_out: tuple[str, ...] = ()


def prepare_tuning_slices(panels: Sequence[TuningSlice]) -> TuningSlices:
    """Keep the panels that have something to show and for which there is room."""
    kept, left_out = capped([panel for panel in panels if panel.points], MOST_PANELS)
    return TuningSlices(kept, tuple(panel.field for panel in left_out))


def prepare_slice(
    points: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    label: str,
    field: str,
    higher_is_better: bool,
    categories: Sequence[str] | None = None,
    log: bool = False,
    alone: bool = False,
    unit_factor: float = 1.0,
) -> TuningSlice:
    """Put the points along one field.

    Args:
        points: one row per point where the field is used: number, level, role, value, low, high, smoothed,
            smoothed_sd.
        runs: one row per training run: number of its point, value.
        label: the objective with its unit.
        field: the field in words.
        higher_is_better: the objective's direction.
        categories: the field's values in words, in order; None where they are numbers.
        log: whether numbers lie on a logarithmic axis.
        alone: whether it is the only searched field.
        unit_factor: from the tables' unit to the label's, 100 for percent.
    """
    kept, _ = capped(list(categories or ()), MOST_CATEGORIES)
    placed = points.assign(x=_strip(points, kept) if categories is not None else points["level"])
    placed = placed[placed["x"].notna() & placed["value"].notna()]
    where = dict(zip(placed["number"], placed["x"].map(float), strict=True))
    own = runs[runs["number"].isin(where) & runs["value"].notna()]
    smooth = placed[placed["smoothed"].notna()].sort_values("x", kind="stable")
    reach = TWO_SIDED * smooth["smoothed_sd"]
    columns = (smooth["smoothed"], smooth["smoothed"] - reach, smooth["smoothed"] + reach)
    scored = scored_points(placed, runs, "x", unit_factor)
    return TuningSlice(
        label=label,
        field=field,
        scale="category" if categories is not None else "log" if log else "linear",
        ticks=tuple((float(place), name) for place, name in enumerate(kept)),
        points=scored,
        runs=tuple(
            (where[number], unit_factor * float(value))
            for number, value in zip(own["number"], own["value"], strict=True)
        ),
        smooth=tuple(zip(smooth["x"].map(float), *(unit_factor * part for part in columns), strict=True)),
        joined=alone and categories is None,
        limits=focused_limits(
            scored,
            [*(unit_factor * smooth["smoothed"]), *(run for point in scored for run in point.runs)],
            higher_is_better,
        ),
    )


def _strip(points: pd.DataFrame, categories: Sequence[str]) -> pd.Series[Any]:
    """Places beside each other within each category, in the order of the points."""
    levels = points["level"].astype("string")
    order, count = points.groupby(levels).cumcount(), levels.map(levels.value_counts()).astype(float)
    aside = STRIP * ((2 * order + 1) / count - 1)
    return levels.map({name: float(place) for place, name in enumerate(categories)}).astype("Float64") + aside


def tuning_slices_size(data: TuningSlices) -> tuple[float, float]:
    """Inches that the panels need."""
    columns, rows = _grid(data)
    return (HALF[0] if columns == 1 else WIDE, 0.6 + 3.0 * rows)


def _grid(data: TuningSlices) -> tuple[int, int]:
    columns = min(max(len(data.panels), 1), 2 if len(data.panels) in (2, 4) else MOST_COLUMNS)
    return columns, max(1, math.ceil(len(data.panels) / columns))


def draw_tuning_slices(data: TuningSlices, figure: Figure) -> None:
    """Draw all panels under one legend."""
    columns, rows = _grid(data)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for place, ax in enumerate(axes):
        if place >= len(data.panels):
            ax.set_axis_off()
            continue
        draw_slice(data.panels[place], ax)
    legend_above(*axes[: len(data.panels)])


def draw_slice(data: TuningSlice, ax: Axes) -> None:
    """Draw one panel."""
    if data.scale == "log":
        ax.set_xscale("log")
        ax.minorticks_off()
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        places = {point.x for point in data.points}
        if len(places) == 1:
            (only,) = places  # nothing else gives the axis a width
            ax.set_xlim(only / 2, 2 * only)
    draw_runs(data.runs, ax)
    _draw_smooth(data, ax)
    draw_scored(data.points, data.limits, ax)
    ax.set_title(wrapped(shorten(data.label), ax))
    ax.set_xlabel(shorten(data.field))
    ax.set_ylim(*data.limits)
    ax.grid(visible=False, axis="x")
    if data.scale == "category":
        words = [shorten(text, 24) for _, text in data.ticks]
        long = sum(len(text) + 3 for text in words) > 14 * inches_across(ax)
        ax.set_xticks(
            [x for x, _ in data.ticks], words, rotation=30 if long else 0, ha="right" if long else "center"
        )
        ax.set_xlim(-0.6, max(len(data.ticks), 1) - 0.4)


def _draw_smooth(data: TuningSlice, ax: Axes) -> None:
    if not data.smooth:
        return
    x, middle, low, high = zip(*data.smooth, strict=True)
    color = reference_style()["color"]
    if data.joined:
        ax.fill_between(x, low, high, label="95 % of the smoothed value", zorder=0, **shade_style())
        ax.plot(x, middle, color=color, linewidth=1.6, label="smoothed value", zorder=1)
    else:
        ax.plot(
            x, middle, "_", color=color, markersize=9, markeredgewidth=1.6, label="smoothed value", zorder=1
        )


def describe_tuning_slices(data: TuningSlices) -> str:
    """The figure in words, for those who do not see it."""
    if not data.panels:
        return "The objective against the searched fields: no point is complete."
    panels = " ".join(_describe(panel) for panel in data.panels)
    return f"{panels}{not_drawn(data.left_out)}"


def _describe(panel: TuningSlice) -> str:
    marked = [p for p in panel.points if p.role != "sampler"]
    names = dict(panel.ticks)
    parts = [f"{ROLES[p.role][2]} at {_place(p.x, names)}: {p.mean:.4g}" for p in marked]
    middle = [height for _, height, _, _ in panel.smooth]
    smooth = f"; smoothed values {min(middle):.4g} to {max(middle):.4g}" if middle else ""
    listed = f" {'; '.join(parts)}." if parts else ""
    return f"{panel.label} against {panel.field}, {len(panel.points)} points{smooth}.{listed}"


def _place(x: float, names: dict[float, str]) -> str:
    return names[round(x)] if names else f"{x:.4g}"
