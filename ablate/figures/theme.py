"""How every figure looks, light and dark, and how a figure becomes SVG bytes.

Nothing here changes matplotlib's global settings: the style lives inside one `style.context`, and figures
are made without pyplot. The same data give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib
import matplotlib.style
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import Container
from matplotlib.figure import Figure

Item = TypeVar("Item")
ErrorBars = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Theme:
    """Colours of one variant.

    Attributes:
        surface: background, the same as the report's own.
        ink: text and data that must stand out.
        muted: axes, secondary text, reference lines.
        grid: grid lines.
        palette: colours of categories; told apart with any colour vision, 3:1 or more on the surface.
        ramp: the part of the plasma colour map that ordered levels are taken from.
    """

    surface: str
    ink: str
    muted: str
    grid: str
    palette: tuple[str, ...]
    ramp: tuple[float, float]


LIGHT = Theme(
    surface="#ffffff",
    ink="#1c2530",
    muted="#5d6875",
    grid="#e3e7ec",
    palette=("#0067a5", "#d1520f", "#0aa583", "#7b1f6a", "#554513", "#20262d"),
    ramp=(0.0, 0.62),
)
DARK = Theme(
    surface="#171c23",
    ink="#e6eaef",
    muted="#9aa5b1",
    grid="#2c343e",
    palette=("#58b0e8", "#ff8a4c", "#35dca6", "#dd4fa3", "#f1cf2f", "#ccd0d7"),
    ramp=(0.43, 0.96),
)

HALF = (5.4, 3.6)
"""Inches of a figure that stands beside another."""
WIDE = 11.4
"""Inches across of a figure with several panels."""
FAINT = 0.5
"""Opacity of single seeds behind their mean."""
LONGEST_LABEL = 40
MOST_NAMED = 4
"""Of things left out, so many are named; the others are counted."""
MARKERS = "osD^vPX*"
"""Shapes that go with the colours C0, C1, ..., so that no reader needs the colours."""


def figure_svg(
    draw: Callable[[Figure], Any],
    *,
    size: tuple[float, float] = HALF,
    title: str = "",
    alt: str = "",
    ordered: int = 0,
) -> tuple[bytes, bytes]:
    """Draw a figure and return it as two SVG files, light and dark, that need no font and load nothing.

    Args:
        draw: puts the content into an empty figure.
        size: width and height in inches.
        title: the file's title.
        alt: the file's description: what the figure shows, in words.
        ordered: how many ordered levels the colours C0, C1, ... stand for; 0 gives the palette of categories.
    """
    buffer = io.BytesIO()
    with matplotlib.style.context(["default", _style(LIGHT, ordered)]), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; the table beside it has it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        about = {"Title": title, "Description": alt, "Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", metadata=about)
    light = _slim(buffer.getvalue())
    return light, _darkened(light, ordered)


def _slim(svg: bytes) -> bytes:
    """The same drawing in fewer bytes: places to a hundredth of a point, and nothing that is not drawn."""

    def shorter(found: re.Match[bytes]) -> bytes:
        return re.sub(rb"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".encode(), found[0])

    svg = re.sub(rb"<!--.*?-->", b"", svg, flags=re.DOTALL)
    svg = re.sub(rb'<g id="[^"]*"', b"<g", svg)  # nothing refers to a group
    return re.sub(rb'\s(?:d|x|y)="[^"]*"', shorter, re.sub(rb"\n\s+", b"\n", svg))


def _darkened(light: bytes, ordered: int) -> bytes:
    """The same drawing in the dark theme's colours, which is sooner done than drawing it anew."""
    pairs = zip(_colors(LIGHT, ordered), _colors(DARK, ordered), strict=True)
    dark = {ours.encode(): theirs.encode() for ours, theirs in pairs}
    return re.sub(rb"(?<=: )#[0-9a-f]{6}\b", lambda color: dark.get(color[0], color[0]), light)


def _colors(theme: Theme, ordered: int) -> tuple[str, ...]:
    return (theme.surface, theme.ink, theme.muted, theme.grid, *level_colors(theme, ordered))


def level_colors(theme: Theme, ordered: int) -> tuple[str, ...]:
    """The colours C0, C1, ...: of categories, or of so many ordered levels, the lowest first."""
    if not ordered:
        return theme.palette
    low, high = theme.ramp
    places = [low + (high - low) * place / max(ordered - 1, 1) for place in range(ordered)]
    return tuple(to_hex(matplotlib.colormaps["plasma"](place)) for place in places)


def _style(theme: Theme, ordered: int) -> dict[str, Any]:
    return {
        "svg.hashsalt": "ablate",
        "svg.fonttype": "path",
        "text.parse_math": False,  # a name may hold dollar signs
        "font.family": ["DejaVu Sans"],
        "font.size": 10.0,
        "axes.prop_cycle": cycler(color=level_colors(theme, ordered)),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.muted,
        "axes.titlecolor": theme.ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 10.5,
        "axes.titlepad": 8.0,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.major.size": 3.0,
        "ytick.major.size": 0.0,
        "text.color": theme.ink,
        "legend.frameon": False,
        "legend.labelcolor": theme.ink,
        "legend.fontsize": 9.5,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "hatch.linewidth": 0.7,
        "figure.facecolor": theme.surface,
        "figure.constrained_layout.h_pad": 0.08,  # inches; panels stand clear of those above
        "axes.facecolor": theme.surface,
        "savefig.facecolor": theme.surface,
    }


def reference_style() -> dict[str, Any]:
    """The running style's keywords of a reference line."""
    return {"color": matplotlib.rcParams["xtick.color"], "linestyle": (0, (4, 3)), "linewidth": 1.2}


def shade_style() -> dict[str, Any]:
    """The running style's keywords of a shaded band; its edges are drawn, so that print shows it too."""
    color = matplotlib.rcParams["xtick.color"]
    return {"facecolor": (color, 0.16), "edgecolor": (color, 0.55), "linewidth": 0.6}


def shorten(label: str, longest: int = LONGEST_LABEL) -> str:
    """A label that fits a figure: its middle is left out where it is long.

    Matplotlib's legends pass over labels that begin with an underscore, so one of those gets a space before.
    """
    if label.startswith("_"):
        label = f" {label}"
    if len(label) <= longest:
        return label
    half = (longest - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


def capped(items: Sequence[Item], limit: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """The first `limit` items, and those left out."""
    return tuple(items[:limit]), tuple(items[limit:])


def spread(
    items: Sequence[Item], limit: int, always: Collection[Item] = ()
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """At most `limit` items in their order, and those left out.

    Those of `always` are kept first of all, the others evenly spread, the first and the last among them.
    """
    kept = [place for place, item in enumerate(items) if item in always][:limit]
    free = [place for place in range(len(items)) if place not in kept]
    room = min(limit - len(kept), len(free))
    kept += [free[round(step * (len(free) - 1) / max(room - 1, 1))] for step in range(room)]
    left_out = tuple(item for place, item in enumerate(items) if place not in kept)
    return tuple(items[place] for place in sorted(kept)), left_out


def names_of(left_out: Sequence[str]) -> str:
    """What is left out, in words: a few names, and how many others."""
    named, others = capped(left_out, MOST_NAMED)
    return ", ".join([*named, f"{len(others)} more"]) if others else ", ".join(named)


def not_drawn(left_out: Sequence[str]) -> str:
    """The end of a description: what did not fit; empty where everything did."""
    return f" Not drawn: {names_of(left_out)}." if left_out else ""


def legend_above(*axes: Axes) -> None:
    """A legend above the figure of all that these axes label, once each; none without labels.

    It has as many columns as its labels leave room for. Lines to compare with come last.
    """
    found: list[tuple[Any, str]] = [
        pair for ax in axes for pair in zip(*ax.get_legend_handles_labels(), strict=True)
    ]
    handles: dict[str, Artist] = {}
    for handle, label in sorted(found, key=lambda pair: not isinstance(pair[0], Container)):
        handles.setdefault(label, handle)
    if not handles:
        return
    figure = axes[0].get_figure(root=True)
    assert figure is not None  # axes that are drawn on have a figure
    characters = figure.get_figwidth() * 12  # at the legend's font size
    columns = max(1, min(len(handles), math.floor(characters / (max(map(len, handles)) + 6))))
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=columns)


def inches_across(ax: Axes) -> float:
    """About how wide axes are, before the layout is settled."""
    figure = ax.get_figure(root=True)
    assert figure is not None  # axes that are drawn on have a figure
    return float(ax.get_position().width * figure.get_figwidth())


def wrapped(title: str, ax: Axes) -> str:
    """A title in as many lines as the width of its axes asks for."""
    return textwrap.fill(title, max(12, math.floor(11.5 * inches_across(ax))))


def view_limits(values: Sequence[float], ends: Sequence[float], most: float = 3.0) -> tuple[float, float]:
    """Ends of an axis that shows all values, and interval ends unless they dwarf the values.

    Args:
        values: what must be seen: means, single runs, lines to compare with.
        ends: of intervals; not finite where there is none.
        most: an interval is cut where it reaches so many times the values' range beyond them.
    """
    seen = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(seen), max(seen)
    room = most * (high - low) or math.inf
    cut = [min(max(end, low - room), high + room) for end in ends if math.isfinite(end)]
    low, high = min([low, *cut]), max([high, *cut])
    space = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
    return low - space, high + space


def interval_reach(mean: Sequence[float], low: Sequence[float], high: Sequence[float]) -> ErrorBars:
    """How far intervals reach below and above their means, for `errorbar`; 0 where there is none."""
    below = [_reach(middle - end) for middle, end in zip(mean, low, strict=True)]
    above = [_reach(end - middle) for middle, end in zip(mean, high, strict=True)]
    return below, above


def _reach(length: float) -> float:
    # A median interval never ends on the wrong side of its middle; a mean's rounding may by a last bit.
    return max(length, 0.0) if math.isfinite(length) else 0.0
