"""Two objectives of a search against each other: every point, and those that no other point beats."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ablate.figures.theme import FAINT, HALF, interval_reach, legend_above, names_of, reference_style, shorten
from ablate.figures.tuning_history import ROLES, SIZES, Scored, draw_runs, focused_limits, without_long

MOST_FRONT = 40
"""With more points on the front, only the marked ones carry intervals."""
Middle = tuple[float, float, float]
"""A mean with the ends of its interval, NaN where there is none."""


@dataclass(frozen=True)
class FrontPoint:
    """A complete point in the axes' units.

    Attributes:
        label: its levels in words.
        first: mean of the first objective over seeds, and its interval.
        second: of the second.
        smooth: the two smoothed values.
        role: what the point is.
        on_front: whether no other point is as good in both smoothed values and better in one.
        runs: first and second objective of its single runs, where they are shown in place of an interval.
    """

    label: str
    first: Middle
    second: Middle
    smooth: tuple[float, float]
    role: str
    on_front: bool
    runs: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class TuningFront:
    """What the figure shows: the objectives with units and directions, the points, the axes' ends."""

    labels: tuple[str, str]
    higher: tuple[bool, bool]
    points: tuple[FrontPoint, ...]
    limits: tuple[tuple[float, float], tuple[float, float]]


def prepare_tuning_front(
    points: pd.DataFrame,
    runs: pd.DataFrame,
    words: Mapping[int, str],
    *,
    labels: tuple[str, str],
    higher: tuple[bool, bool],
    factors: tuple[float, float],
) -> TuningFront:
    """Put the points between the two objectives.

    Args:
        points: one row per point: number, role, on_front, and value, low, high and smoothed of the first
            objective, and of the second with the suffix _2.
        runs: one row per training run: number of its point, value, value_2.
        words: number to the point's levels in words.
        labels: the objectives with their units.
        higher: whether higher is better, for each.
        factors: from the tables' units to the labels'.
    """
    known = points[points["value"].notna() & points["value_2"].notna()]
    whole = tuple(
        FrontPoint(
            words[int(row["number"])],
            _middle(row, "", factors[0]),
            _middle(row, "_2", factors[1]),
            (factors[0] * float(row["smoothed"]), factors[1] * float(row["smoothed_2"])),
            str(row["role"]),
            row["on_front"] is not pd.NA and bool(row["on_front"]),
        )
        for row in known.to_dict("records")
    )
    found = _without_long(whole, [_runs(runs, number, factors) for number in known["number"]])
    scored = [
        [Scored(0, *point.first, "") for point in found],
        [Scored(0, *point.second, "") for point in found],
    ]
    smooth = [
        [at for p in found for at in (p.smooth[axis], *(run[axis] for run in p.runs)) if math.isfinite(at)]
        for axis in (0, 1)
    ]
    first, second = (focused_limits(scored[axis], smooth[axis], higher[axis]) for axis in (0, 1))
    return TuningFront(labels, higher, found, (first, second))


def _runs(runs: pd.DataFrame, number: int, factors: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    own = runs[(runs["number"] == number) & runs["value"].notna() & runs["value_2"].notna()]
    pairs = zip(factors[0] * own["value"], factors[1] * own["value_2"], strict=True)
    return tuple((float(first), float(second)) for first, second in pairs)


def _without_long(
    points: tuple[FrontPoint, ...], runs: list[tuple[tuple[float, float], ...]]
) -> tuple[FrontPoint, ...]:
    """The points, those whose interval of either objective is left out with their single runs."""
    scored = [
        without_long(
            [Scored(0, *ends, "") for ends in middles],
            [tuple(run[axis] for run in own) for own in runs],
        )
        for axis, middles in enumerate(([p.first for p in points], [p.second for p in points]))
    ]
    return tuple(
        replace(
            point,
            first=(one.mean, one.low, one.high),
            second=(other.mean, other.low, other.high),
            runs=own if one.runs or other.runs else (),
        )
        for point, one, other, own in zip(points, *scored, runs, strict=True)
    )


def _middle(row: Mapping[Hashable, Any], suffix: str, factor: float) -> Middle:
    mean, low, high = (factor * float(row[f"{name}{suffix}"]) for name in ("value", "low", "high"))
    return (mean, low, high)


def draw_tuning_front(data: TuningFront, ax: Axes) -> Axes:
    """Draw the first objective upwards and the second to the right."""
    _draw_line(data, ax)
    draw_runs([(second, first) for point in data.points for first, second in point.runs], ax)
    marker, color, words = ROLES["sampler"]
    beaten = [point for point in data.points if point.role == "sampler" and not point.on_front]
    if beaten:
        x, y = [point.second[0] for point in beaten], [point.first[0] for point in beaten]
        ax.plot(
            x, y, marker, color=color, alpha=FAINT, markersize=4, markeredgewidth=0, label=f"{words}, beaten"
        )
    many = sum(point.on_front for point in data.points) > MOST_FRONT
    winners = 0
    for role, words, group in _groups(data):
        winners += role == "winner"
        color = f"C{winners}" if role == "winner" else ROLES[role][1]
        _draw_points(group, ax, role, color, words, intervals=role != "sampler" or not many)
    ax.set_xlim(*data.limits[1])
    ax.set_ylim(*data.limits[0])
    ax.set_xlabel(f"{data.labels[1]}, {_better(data.higher[1])}")
    ax.set_title(f"{data.labels[0]}, {_better(data.higher[0])}")
    legend_above(ax)
    return ax


def _groups(data: TuningFront) -> list[tuple[str, str, list[FrontPoint]]]:
    """Role, words and points of each entry of the legend; every winner has one of its own."""
    groups = []
    for role, (_, _, words) in ROLES.items():
        own = [p for p in data.points if p.role == role and (p.on_front or role != "sampler")]
        if role == "winner":
            groups += [(role, f"{words}: {shorten(point.label, 48)}", [point]) for point in own]
        elif own:
            groups.append((role, f"{words}, on the front" if role == "sampler" else words, own))
    return groups


def _better(higher: bool) -> str:
    return "more is better" if higher else "less is better"


def _draw_points(
    points: Sequence[FrontPoint], ax: Axes, role: str, color: str, words: str, *, intervals: bool
) -> None:
    first, second = (zip(*(getattr(p, name) for p in points), strict=True) for name in ("first", "second"))
    (y, *y_ends), (x, *x_ends) = first, second
    ax.errorbar(
        x,
        y,
        xerr=interval_reach(x, *x_ends) if intervals else None,
        yerr=interval_reach(y, *y_ends) if intervals else None,
        color=color,
        marker=ROLES[role][0],
        markersize=SIZES.get(role, 6.5),
        elinewidth=1.0,
        linestyle="none",
        label=words,
    )


def _draw_line(data: TuningFront, ax: Axes) -> None:
    front = sorted((point.smooth[1], point.smooth[0]) for point in data.points if point.on_front)
    if not front:
        return
    x, y = zip(*front, strict=True)
    style = {**reference_style(), "linestyle": "-", "linewidth": 1.2, "zorder": 0}
    ax.step(x, y, where="pre" if data.higher[1] else "post", label="front of the smoothed values", **style)
    ax.plot(x, y, "d", color=style["color"], markersize=3.5, zorder=1)


def tuning_front_size(data: TuningFront) -> tuple[float, float]:
    """Inches that the points and their legend need."""
    winners = sum(point.role == "winner" for point in data.points)
    return (HALF[0], HALF[1] + 0.5 + 0.19 * winners)


def describe_tuning_front(data: TuningFront) -> str:
    """The figure in words, for those who do not see it."""
    about = (
        f"{data.labels[0]} ({_better(data.higher[0])}) against {data.labels[1]} ({_better(data.higher[1])})"
    )
    if not data.points:
        return f"{about}: no point is complete."
    winners = [p for p in data.points if p.role == "winner"]
    parts = [f"winner {p.label}: {p.first[0]:.4g} and {p.second[0]:.4g}" for p in winners]
    front = [f"{p.label} ({p.first[0]:.4g}, {p.second[0]:.4g})" for p in data.points if p.on_front]
    parts += [f"on the front of the smoothed values: {names_of(front)}"] if front else []
    return f"{about}, {len(data.points)} points. {'; '.join(parts)}."
