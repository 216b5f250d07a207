"""What every drawing is made of: panels, the words that fit around them, and the marks in them.

A drawing says how large its panels are; `arrange` measures the words around them once, and makes room, where
constrained layout measures three times.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import compress
from typing import Any, TypeVar, cast

import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from ablate.figures.theme import LIGHT

Item = TypeVar("Item")
FloatArray = NDArray[np.float64]
Handles = dict[str, Artist]
"""Label to what it stands beside in a legend."""
HALF, WIDE = 5.4, 11.4
"""Inches across of a figure that stands beside another, and of one with several panels."""
ROOM = 0.55
"""Inches that the words of a panel usually take across."""
GAP, EDGE = 10.0, 6.0
"""Points between panels, and at the edges."""
MOST_NAMED = 4
"""Of things left out, so many are named; the others are counted."""


def panels(
    rows: int, columns: int, *, width: float = HALF, height: float, **more: Any
) -> tuple[Figure, list[Axes]]:
    """An empty figure, so many inches across, and its axes, row by row, each so many inches high."""
    figure = Figure(figsize=(width, rows * height))
    between = ROOM * columns / (width - ROOM * columns)  # about what arranging will leave
    figure.subplots_adjust(left=ROOM / width, right=1, bottom=0, top=1, wspace=between, hspace=0)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **more).flat)


def grid_of(count: int, most_columns: int = 4) -> tuple[int, int]:
    """Rows and columns for so many panels, without a last row of one where that can be."""
    columns = 3 if count in (3, 5, 6, 9) else 2 if count == 4 > most_columns else most_columns
    columns = min(max(count, 1), columns)
    return math.ceil(max(count, 1) / columns), columns


def arrange(figure: Figure) -> None:
    """Make room for the words around the panels; the figure becomes as high as that takes."""
    renderer = RendererSVG(*figure.bbox.size, io.StringIO())  # type: ignore[no-untyped-call]
    left, right, top, bottom = (defaultdict[int, float](float) for _ in range(4))
    spots = {ax: cast(Any, ax.get_subplotspec()) for ax in figure.axes}
    panel = figure.axes[0].get_position(original=True).height * figure.bbox.height
    for ax, spot in spots.items():
        if ax.axison:
            outer, row, column = cast(Any, ax.get_tightbbox(renderer)), spot.rowspan.start, spot.colspan.start
            left[column] = max(left[column], ax.bbox.x0 - outer.x0)
            right[column] = max(right[column], outer.x1 - ax.bbox.x1)
            bottom[row] = max(bottom[row], ax.bbox.y0 - outer.y0)
            top[row] = max(top[row], outer.y1 - ax.bbox.y1)
    rows, columns = next(iter(spots.values())).get_geometry()[:2]
    head = sum(legend.get_window_extent(renderer).height + GAP for legend in figure.legends)
    words = sum(top.values()) + sum(bottom.values())
    height, width = head + words + rows * panel + (rows - 1) * GAP + 2 * EDGE, figure.bbox.width
    free = width - sum(left.values()) - sum(right.values()) - (columns - 1) * GAP - 2 * EDGE
    across = free / columns
    figure.set_figheight(height / figure.dpi)
    for ax, spot in spots.items():
        row, column = spot.rowspan.start, spot.colspan.start
        x = EDGE + left[column] + sum(left[at] + right[at] + across + GAP for at in range(column))
        down = EDGE + head + top[row] + sum(top[at] + bottom[at] + panel + GAP for at in range(row))
        y = height - down - panel
        ax.set_position((x / width, y / height, across / width, panel / height))
    for legend in figure.legends:
        legend.set_bbox_to_anchor((EDGE / width, 1 - EDGE / height), transform=figure.transFigure)


def legend_above(figure: Figure, handles: Handles) -> None:
    """A legend above the panels, in as many columns as its labels leave room for; none without labels."""
    if handles:
        characters = figure.get_figwidth() * 12  # at the legend's font size
        columns = max(1, min(len(handles), math.floor(characters / (max(map(len, handles)) + 6))))
        place: dict[str, Any] = {"loc": "upper left", "borderaxespad": 0, "borderpad": 0}
        figure.legend(handles.values(), handles.keys(), ncols=columns, **place)


def dots(ax: Axes, x: ArrayLike, y: ArrayLike, color: str | Sequence[str], **style: Any) -> Artist:
    """Draw points, all in one colour or each in its own; gives a handle for a legend.

    `style` holds marker, size (in points across), alpha, zorder.
    """
    size = style.pop("size", 5.5)
    style = {"marker": "o", "zorder": 3, **style}
    if np.size(x):
        paint = {"color": color} if isinstance(color, str) else {"c": list(color)}
        places, heights = (np.asarray(part, dtype=np.float64) for part in (x, y))
        sns.scatterplot(x=places, y=heights, s=size**2, linewidth=0, ax=ax, legend=False, **paint, **style)
    shown = color if isinstance(color, str) else color[0] if len(set(color)) == 1 else LIGHT.ink
    return Line2D([], [], color=shown, markersize=size, linestyle="none", **style)


def line(ax: Axes, x: ArrayLike, y: ArrayLike, color: str, **style: Any) -> Artist:
    """Draw a line through points in the order of their x; gives a handle for a legend.

    `style` is what seaborn's `lineplot` takes.
    """
    style = {"linestyle": "-", "linewidth": 1.4, **style}
    if np.size(x):
        places, heights = (np.asarray(part, dtype=np.float64) for part in (x, y))
        exact = {"estimator": None, "errorbar": None, "legend": False}
        sns.lineplot(x=places, y=heights, color=color, ax=ax, **exact, **style)
    return Line2D([], [], color=color, linestyle=style["linestyle"], linewidth=style["linewidth"])


def intervals(
    ax: Axes, at: ArrayLike, low: ArrayLike, high: ArrayLike, color: str | Sequence[str], **style: Any
) -> None:
    """Draw the intervals that are known, upwards or `across`, in one colour or each in its own."""
    lines: Any = ax.hlines if style.pop("across", False) else ax.vlines
    ends = np.column_stack([np.asarray(part, dtype=np.float64) for part in (at, low, high)])
    known: Any = np.isfinite(ends).all(axis=1)
    if known.any():
        colors = color if isinstance(color, str) else list(compress(color, known))
        lines(*ends[known].T, colors=colors, **style)


def categories(ax: Axes, names: Sequence[str], inches: float) -> None:
    """A horizontal axis of names, one at each of 0, 1, ...; turned where they would touch."""
    labels = [shorten(name, 24 if inches > 3 else 14) for name in names]
    long = sum(len(label) + 3 for label in labels) > 14 * inches
    ax.set_xticks(range(len(labels)), labels, rotation=30 if long else 0, ha="right" if long else "center")
    ax.set_xlim(-0.6, max(len(labels), 1) - 0.4)
    ax.grid(visible=False, axis="x")


def rows_of(ax: Axes, labels: Sequence[str]) -> None:
    """A vertical axis of names, the first at the top."""
    ax.set_yticks(range(len(labels)), [shorten(label) for label in labels])
    ax.set_ylim(max(len(labels), 1) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


def view_limits(values: ArrayLike, ends: ArrayLike = (), most: float = 3.0) -> tuple[float, float]:
    """Ends of an axis that shows all values, and interval ends unless they dwarf the values.

    Args:
        values: what must be seen: means, single runs, lines to compare with; NaN where there is none.
        ends: of intervals; NaN where there is none.
        most: an interval is cut where it reaches so many times the values' range beyond them.
    """
    seen, reach = (np.ravel(np.asarray(part, dtype=np.float64)) for part in (values, ends))
    seen, reach = seen[np.isfinite(seen)], reach[np.isfinite(reach)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    room = most * (high - low) or math.inf
    cut = np.clip(reach, low - room, high + room)
    low, high = min([low, *cut]), max([high, *cut])
    space = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    return float(low - space), float(high + space)


def wrapped(title: str, figure: Figure, columns: int) -> str:
    """A title in as many lines as a column of the figure asks for."""
    return textwrap.fill(shorten(title), max(12, math.floor(11.5 * (figure.get_figwidth() / columns - ROOM))))


def shorten(label: str, longest: int = 40) -> str:
    """A label that fits a figure: its middle is left out where it is long.

    Matplotlib's legends pass over labels that begin with an underscore, so one of those gets a space before.
    """
    label = f" {label}" if label.startswith("_") else label
    half = (longest - 1) // 2
    return label if len(label) <= longest else f"{label[:half]}…{label[-half:]}"


def spread(items: Sequence[Item], limit: int, always: Collection[Item] = ()) -> tuple[list[Item], list[Item]]:
    """At most `limit` items in their order, and those left out.

    Those of `always` are kept first of all, the others evenly spread, the first and the last among them.
    """
    kept = [index for index, item in enumerate(items) if item in always][:limit]
    free = [index for index in range(len(items)) if index not in kept]
    room = min(limit - len(kept), len(free))
    kept += [free[round(step * (len(free) - 1) / max(room - 1, 1))] for step in range(room)]
    left_out = [item for index, item in enumerate(items) if index not in kept]
    return [items[index] for index in sorted(kept)], left_out


def names_of(items: Sequence[str]) -> str:
    """A few names, and how many others."""
    others = [f"{len(items) - MOST_NAMED} more"] if len(items) > MOST_NAMED else []
    return ", ".join([*items[:MOST_NAMED], *others])


def without(left_out: Iterable[str | None]) -> str:
    """The end of a caption: what did not fit; empty where everything did."""
    names = [name for name in left_out if name]
    return f" Left out for want of room: {names_of(names)}." if names else ""
