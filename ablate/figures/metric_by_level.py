"""A metric against the levels of a factor: means with intervals, single training runs behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ablate.figures.noise_floor import Band, Floor, describe_floor, draw_floor, prepare_floor
from ablate.figures.theme import (
    FAINT,
    MARKERS,
    inches_across,
    interval_reach,
    legend_above,
    not_drawn,
    reference_style,
    shorten,
    spread,
    view_limits,
    wrapped,
)

MOST_LINES = 8
LONGEST_TICK = 24
MOST_CAPS = 16
"""With more intervals, their ends have no caps, which would touch."""
LOG_FROM = 50.0
"""Positive levels that span at least this ratio get a logarithmic axis."""


@dataclass(frozen=True)
class Line:
    """One combination of the other factors' levels.

    Attributes:
        label: that combination in words; "" when there is no other factor.
        number: its place among all combinations, which decides colour and marker.
        x: positions of the levels, [L].
        mean: mean over training runs, [L].
        low: lower end of the interval, [L]; NaN where there is none.
        high: upper end of the same.
        runs: position and value of every training run.
    """

    label: str
    number: int
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    runs: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MetricByLevel:
    """What the figure shows, in the axis's unit.

    Attributes:
        label: the metric with its unit.
        factor: the factor on the horizontal axis.
        scale: 'linear', 'log', or 'category' (levels in order, evenly spaced).
        ticks: position and text of each level.
        lines: one per combination of the other factors' levels.
        floor: position and height of the noise floor at each level; empty without one.
        band: position, lower and upper end of what 95 % of calibrated networks score; empty where not known.
        reference: words for a line to compare with, and its position and height at each level; empty without.
        left_out: labels of lines that did not fit.
    """

    label: str
    factor: str
    scale: str
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    floor: Floor = ()
    band: Band = ()
    reference: tuple[str, tuple[tuple[float, float], ...]] = ("", ())
    left_out: tuple[str, ...] = ()


def prepare_metric_by_level(
    means: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    factor: str,
    label: str,
    unit_factor: float = 1.0,
    reference: tuple[str, Mapping[Any, float]] = ("", {}),
    order: Sequence[str] = (),
    most: int = MOST_LINES,
) -> MetricByLevel:
    """Put arm means and single runs into lines.

    Args:
        means: one row per arm: level, line, mean, low, high, and floor where the metric has a noise floor,
            with floor_low and floor_high where its band is known.
        runs: one row per complete training run: level, line, value.
        factor: name of the factor that `level` holds.
        label: the metric with its unit.
        unit_factor: from the tables' unit to the label's, 100 for percent.
        reference: words for a line to compare with, and its height at each level, in the tables' unit.
        order: all combinations, where the table may lack some that other panels show.
        most: lines that there is room for.
    """
    means = means[means["mean"].notna()]
    levels = list(dict.fromkeys(means["level"]))
    scale = _scale(levels)
    place = {level: float(level) if scale != "category" else float(i) for i, level in enumerate(levels)}
    lines = list(order) or list(dict.fromkeys(means["line"]))
    kept, left_out = spread(lines, most)
    words, heights = reference
    floor, band = prepare_floor(means, place, unit_factor)
    compared = tuple((place[level], heights[level] * unit_factor) for level in levels if level in heights)
    return MetricByLevel(
        label=label,
        factor=factor,
        scale=scale,
        ticks=tuple((place[level], level_text(level)) for level in levels),
        lines=tuple(
            _line(name, number, means, runs, place, unit_factor)
            for number, name in enumerate(kept)
            if (means["line"] == name).any()
        ),
        floor=floor,
        band=band,
        reference=(words if compared else "", tuple(sorted(compared))),
        left_out=left_out,
    )


def level_text(level: Any) -> str:
    """A level in words: floats without needless digits."""
    return f"{level:.12g}" if isinstance(level, float) else str(level)


def _scale(levels: list[Any]) -> str:
    if not all(isinstance(level, (int, float)) and not isinstance(level, bool) for level in levels):
        return "category"
    if len(levels) > 1 and min(levels) > 0 and max(levels) / min(levels) >= LOG_FROM:
        return "log"
    return "linear"


def _line(
    name: str,
    number: int,
    means: pd.DataFrame,
    runs: pd.DataFrame,
    place: dict[Any, float],
    unit_factor: float,
) -> Line:
    own = means[means["line"] == name].sort_values("level", key=lambda levels: levels.map(place))
    single = runs[(runs["line"] == name) & runs["value"].notna() & runs["level"].isin(place)]
    return Line(
        label=name,
        number=number,
        x=tuple(place[level] for level in own["level"]),
        mean=tuple(own["mean"] * unit_factor),
        low=tuple(own["low"] * unit_factor),
        high=tuple(own["high"] * unit_factor),
        runs=tuple(
            (place[level], value * unit_factor)
            for level, value in zip(single["level"], single["value"], strict=True)
        ),
    )


def draw_metric_by_level(data: MetricByLevel, ax: Axes, *, legend: bool = True) -> Axes:
    """Draw lines with interval bars; the runs behind them are faint."""
    width = inches_across(ax)
    for line in data.lines:
        _draw_line(data, line, ax, 0.05 / width)
    if data.floor:
        draw_floor(data.floor, data.band, ax, apart=data.scale == "category")
    if data.reference[1]:
        x, height = zip(*data.reference[1], strict=True)
        dotted = {**reference_style(), "linestyle": (0, (1, 1.5)), "linewidth": 1.8}
        ax.plot(x, height, label=data.reference[0], **dotted)
    ax.set_title(wrapped(shorten(data.label), ax))
    ax.set_xlabel(data.factor)
    _draw_levels(data, ax, width)
    ax.set_ylim(*value_limits([data]))
    if legend:
        legend_above(ax)
    return ax


def value_limits(panels: Sequence[MetricByLevel]) -> tuple[float, float]:
    """Ends of the vertical axis of one or several panels; intervals that dwarf all else go on beyond it."""
    lines = [line for panel in panels for line in panel.lines]
    heights = [height for panel in panels for _, height in (*panel.floor, *panel.reference[1])]
    heights += [end for panel in panels for _, *ends in panel.band for end in ends]
    heights += [0.0] if any(panel.floor and not panel.band for panel in panels) else []
    runs = [value for line in lines for _, value in line.runs]
    means = [mean for line in lines for mean in line.mean]
    return view_limits([*means, *runs, *heights], [end for line in lines for end in (*line.low, *line.high)])


def goes_beyond(panels: Sequence[MetricByLevel]) -> bool:
    """Whether an interval is cut in panels of one axis."""
    low, high = value_limits(panels)
    ends = [end for panel in panels for line in panel.lines for end in (*line.low, *line.high)]
    return any(end < low or end > high for end in ends)


def _draw_line(data: MetricByLevel, line: Line, ax: Axes, step: float) -> None:
    place = {x: _beside(data, x, line.number, step) for x, _ in data.ticks}
    if line.runs:
        # To the left of the mean, whose interval would hide them.
        x, value = zip(
            *((_beside(data, x, line.number - 1.2, step), value) for x, value in line.runs), strict=True
        )
        ax.plot(x, value, "o", color=f"C{line.number}", alpha=FAINT, markersize=4, markeredgewidth=0)
    ax.errorbar(
        [place[x] for x in line.x],
        line.mean,
        yerr=interval_reach(line.mean, line.low, line.high),
        color=f"C{line.number}",
        marker=MARKERS[line.number % len(MARKERS)],
        markersize=5,
        linestyle="none" if data.scale == "category" else "-",
        linewidth=1.4,
        elinewidth=1.4,
        capsize=3 if len(data.lines) * len(data.ticks) <= MOST_CAPS else 0,
        label=shorten(line.label) if line.label else None,
    )


def _beside(data: MetricByLevel, x: float, number: float, step: float) -> float:
    """A place slightly beside the level, so that the intervals of several lines do not overlap."""
    count = 1 + max(line.number for line in data.lines)
    aside = number - (count - 1) / 2
    if data.scale == "category":
        return x + aside * min(0.1, 0.6 / count)
    lowest, highest = min(place for place, _ in data.ticks), max(place for place, _ in data.ticks)
    if data.scale == "log":
        return float(x * (highest / lowest) ** (step * aside))
    return x + step * aside * (highest - lowest)


def _draw_levels(data: MetricByLevel, ax: Axes, width: float) -> None:
    if data.scale == "log":
        ax.set_xscale("log")
        ax.minorticks_off()
    if data.scale == "category":
        ax.set_xlim(-0.6, max(len(data.ticks), 1) - 0.4)
    places = [place for place, _ in data.ticks]
    words = [shorten(text, LONGEST_TICK) for _, text in data.ticks]
    long = data.scale == "category" and sum(len(text) + 3 for text in words) > 14 * width
    labels = words if data.scale == "category" else _uncrowded(data, width)
    ax.set_xticks(places, labels, rotation=30 if long else 0, ha="right" if long else "center")
    ax.grid(visible=False, axis="x")


def _uncrowded(data: MetricByLevel, width: float) -> list[str]:
    """Tick labels of a numeric axis, without those that would touch the one before."""
    if len(data.ticks) < 2:
        return [text for _, text in data.ticks]
    along = [math.log(place) if data.scale == "log" else place for place, _ in data.ticks]
    room = (max(along) - min(along)) * 0.27 / width
    labels, last = {}, -math.inf
    for place, (_, text) in sorted(zip(along, data.ticks, strict=True)):
        labels[place] = text if place - last >= room else ""
        last = place if labels[place] else last
    return [labels[place] for place in along]


def describe_metric_by_level(data: MetricByLevel) -> str:
    """The figure in words, for those who do not see it."""
    if not data.lines:
        return f"{data.label} against {data.factor}: no complete trials."
    text = dict(data.ticks)
    parts = []
    for line in data.lines:
        points = [f"{text[x]}: {mean:.4g}" for x, mean in zip(line.x, line.mean, strict=True)]
        parts.append(f"{line.label + ': ' if line.label else ''}{', '.join(points)}")
    floor = describe_floor(data.floor, data.band, text)
    words, heights = data.reference
    compared = [f"{text[x]}: {height:.4g}" for x, height in heights]
    reference = f" {words[:1].upper()}{words[1:]}: {', '.join(compared)}." if compared else ""
    return (
        f"{data.label}, mean by {data.factor}. {'; '.join(parts)}.{floor}{reference}"
        f"{not_drawn(data.left_out)}"
    )
