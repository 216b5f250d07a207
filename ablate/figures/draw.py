"""What every drawing is made of: panels, the words that fit around them, and the marks in them."""

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from ablate.figures.theme import LIGHT

Handles = dict[str, Artist]  # label to what it stands beside in a legend
HALF, WIDE = 5.4, 11.4  # inches across of a figure that stands beside another, and of one with several panels
ROOM = 0.55  # inches that the words of a panel usually take across
GAP, EDGE = 10.0, 6.0  # points between panels, and at the edges
MOST_COLUMNS = 4


def panels(
    count: int = 1,
    *,
    height: float,
    columns: int = 0,
    width: float = 0.0,
    xlabel: str = "",
    ylabel: str = "",
    **more: Any,
) -> tuple[Figure, list[Axes]]:
    """An empty figure and its axes, row by row, each so many inches high; the outer ones are labelled."""
    columns = columns or math.ceil(count / math.ceil(count / MOST_COLUMNS))
    rows, width = math.ceil(count / columns), width or (HALF if columns == 1 else WIDE)
    figure = Figure(figsize=(width, rows * height))
    between = ROOM * columns / (width - ROOM * columns)  # about what arranging will leave
    figure.subplots_adjust(left=ROOM / width, right=1, bottom=0, top=1, wspace=between, hspace=0)
    axes = list(figure.subplots(rows, columns, squeeze=False, **more).flat)
    for ax in axes[count:]:
        ax.remove()
    for ax in axes[max(count - columns, 0) : count]:
        ax.set_xlabel(xlabel)
        ax.tick_params(labelbottom=True)
    for ax in axes[:count:columns]:
        ax.set_ylabel(ylabel)
    return figure, axes[:count]


def arrange(figure: Figure, handles: Handles) -> None:
    """Put a legend above the panels and make room for the words around them; the height follows."""
    # The words are measured once, where constrained layout measures three times.
    if handles:
        fit = math.floor(12 * figure.get_figwidth() / (max(map(len, handles)) + 6))  # 12 letters an inch
        place: dict[str, Any] = {"loc": "upper left", "borderaxespad": 0, "borderpad": 0}
        figure.legend(handles.values(), handles.keys(), ncols=max(1, min(len(handles), fit)), **place)
    renderer = RendererSVG(*figure.bbox.size, io.StringIO())  # type: ignore[no-untyped-call]
    spots = {ax: cast(Any, ax.get_subplotspec()) for ax in figure.axes}
    rows, columns = next(iter(spots.values())).get_geometry()[:2]
    sides = np.zeros((rows, columns, 4))  # points that words take to the left, right, above, below
    for ax, spot in spots.items():
        outer, inner = cast(Any, ax.get_tightbbox(renderer)), ax.bbox
        words = (inner.x0 - outer.x0, outer.x1 - inner.x1, outer.y1 - inner.y1, inner.y0 - outer.y0)
        sides[spot.rowspan.start, spot.colspan.start] = np.maximum(words, 0)
    (left, right), (top, bottom) = sides[..., :2].max(axis=0).T, sides[..., 2:].max(axis=1).T
    panel = figure.axes[0].get_position(original=True).height * figure.bbox.height
    head = EDGE + sum(legend.get_window_extent(renderer).height + GAP for legend in figure.legends)
    height = head + (top + bottom + panel + GAP).sum() - GAP + EDGE
    width = figure.bbox.width
    across = (width - (left + right + GAP).sum() + GAP - 2 * EDGE) / columns
    figure.set_figheight(height / figure.dpi)
    for ax, spot in spots.items():
        row, column = spot.rowspan.start, spot.colspan.start
        x = EDGE + left[column] + (left + right + across + GAP)[:column].sum()
        down = head + top[row] + (top + bottom + panel + GAP)[:row].sum()
        ax.set_position((x / width, 1 - (down + panel) / height, across / width, panel / height))
    for legend in figure.legends:
        legend.set_bbox_to_anchor((EDGE / width, 1 - EDGE / height), transform=figure.transFigure)


def dots(ax: Axes, x: Any, y: Any, color: str | Iterable[str], *, size: float = 5.5, **style: Any) -> Artist:
    """Draw points so many points across, in one colour or each in its own; gives a handle for a legend."""
    style = {"marker": "o", "zorder": 3, **style}
    colors = [color] if isinstance(color, str) else list(color)
    if np.size(x):
        places, heights = (np.asarray(part, dtype=np.float64) for part in (x, y))
        paint = {"color": color} if isinstance(color, str) else {"c": colors}
        sns.scatterplot(x=places, y=heights, s=size**2, linewidth=0, ax=ax, legend=False, **paint, **style)
    shown = colors[0] if len(set(colors)) == 1 else LIGHT.ink
    return Line2D([], [], color=shown, markersize=size, linestyle="none", **style)


def inches(ax: Axes) -> float:
    """About how wide a panel will be."""
    return float(ax.bbox.width / 72)


def categories(ax: Axes, names: Sequence[str]) -> None:
    """A horizontal axis of names, one at each of 0, 1, ...; turned where they would touch."""
    labels = [shorten(name, 24 if inches(ax) > 2.5 else 14) for name in names]
    long = sum(len(label) + 3 for label in labels) > 15 * inches(ax)
    ax.set_xticks(range(len(labels)), labels, rotation=30 if long else 0, ha="right" if long else "center")
    ax.set_xlim(-0.6, max(len(labels), 1) - 0.4)
    ax.grid(visible=False, axis="x")


def rows_of(ax: Axes, labels: Sequence[str]) -> None:
    """A vertical axis of names, the first at the top."""
    ax.set_yticks(range(len(labels)), [shorten(label) for label in labels])
    ax.set_ylim(max(len(labels), 1) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")


def view_limits(values: ArrayLike, ends: ArrayLike = (), most: float = 3.0) -> tuple[float, float]:
    """Ends of an axis for values and intervals, cut at `most` ranges beyond the values. NaN is none."""
    seen, reach = (np.ravel(np.asarray(part, dtype=np.float64)) for part in (values, ends))
    seen, reach = seen[np.isfinite(seen)], reach[np.isfinite(reach)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    room = most * (high - low) or math.inf
    cut = np.clip(reach, low - room, high + room)
    low, high = min([low, *cut]), max([high, *cut])
    space = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    return float(low - space), float(high + space)


def wrapped(title: str, ax: Axes) -> str:
    """A title in as many lines as its panel asks for."""
    return textwrap.fill(shorten(title), max(12, math.floor(11.5 * inches(ax))))


def shorten(label: str, longest: int = 40) -> str:
    """A label that fits a figure: its middle is left out where it is long."""
    label = f" {label}" if label.startswith("_") else label  # matplotlib's legends pass over underscores
    half = (longest - 1) // 2
    return label if len(label) <= longest else f"{label[:half]}…{label[-half:]}"
