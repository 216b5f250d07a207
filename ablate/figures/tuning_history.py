"""A search in the order of its points: what each scored, and the best smoothed value so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ablate.figures.theme import FAINT, interval_reach, legend_above, reference_style, shorten, view_limits

ROLES: dict[str, tuple[str, str, str]] = {
    "sampler": ("o", "C0", "chosen by the sampler"),
    "anchor": ("^", "C3", "anchor"),
    "baseline": ("s", "C4", "baseline"),
    "winner": ("*", "C1", "winner"),
}
"""What a point is to marker, colour and words; the last one drawn lies on top."""
SIZES = {"sampler": 4.5, "winner": 11.0}
MOST_INTERVALS = 150
"""With more points, intervals would hide them."""
LONGEST_REACH = 0.5
"""Intervals make the axis longer by at most so many times the values' range, to either side."""
FEW_SEEDS = 4
"""With fewer, an interval may be left out for the single runs."""
LONG = 3.0
"""It is where it is longer than so many times the range of the points' means."""
FOCUS = 3.0
"""Values lie beyond the axis that are so many times as far from the best as the worst quarter begins."""


@dataclass(frozen=True)
class Scored:
    """A complete point in the axis's unit: its place, mean, ends of its interval, and what it is.

    `runs` holds its single runs where they are shown in place of the interval.
    """

    x: float
    mean: float
    low: float
    high: float
    role: str
    runs: tuple[float, ...] = ()


@dataclass(frozen=True)
class TuningHistory:
    """What the figure shows, in the axis's unit.

    Attributes:
        label: the objective with its unit.
        points: the complete points; x is the number.
        best: number of a point, and the best smoothed value among the points up to it.
        pruned: number and last value of points that were given up.
        lost: numbers of points that ended without a value.
        limits: ends of the vertical axis.
    """

    label: str
    points: tuple[Scored, ...]
    best: tuple[tuple[float, float], ...]
    pruned: tuple[tuple[float, float], ...]
    lost: tuple[float, ...]
    limits: tuple[float, float]


def prepare_tuning_history(
    points: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    label: str,
    higher_is_better: bool,
    unit_factor: float = 1.0,
) -> TuningHistory:
    """Put the points into their order.

    Args:
        points: one row per point: number, state, role (of `ROLES`), value, low, high, smoothed, last_seen.
        runs: one row per training run: number of its point, value.
        label: the objective with its unit.
        higher_is_better: its direction.
        unit_factor: from the tables' unit to the label's, 100 for percent.
    """
    points = points.sort_values("number")
    scored = scored_points(points, runs, "number", unit_factor)
    best, found = [], -math.inf
    sign = 1.0 if higher_is_better else -1.0
    for number, smoothed in zip(points["number"], points["smoothed"], strict=True):
        found = max(found, sign * smoothed) if math.isfinite(smoothed) else found
        if math.isfinite(found):
            best.append((float(number), unit_factor * sign * found))
    pruned = points[(points["state"] == "pruned") & points["last_seen"].notna()]
    ended = points[points["state"].isin(["complete", "pruned", "failed"])]
    lost = ended[ended["value"].isna() & ended["last_seen"].isna()]
    given_up = tuple(zip(pruned["number"].map(float), unit_factor * pruned["last_seen"], strict=True))
    heights = [height for _, height in (*best, *given_up)] + [run for point in scored for run in point.runs]
    return TuningHistory(
        label=label,
        points=scored,
        best=tuple(best),
        pruned=given_up,
        lost=tuple(lost["number"].map(float)),
        limits=focused_limits(scored, heights, higher_is_better),
    )


def scored_points(
    points: pd.DataFrame, runs: pd.DataFrame, place: str, unit_factor: float
) -> tuple[Scored, ...]:
    """The points that have a value, at the places that a column holds.

    Of few seeds an interval may be so long that it hides all else: such a point has its single runs instead.
    """
    known = points[points["value"].notna() & points[place].notna()]
    columns = (known[place], *(unit_factor * known[name] for name in ("value", "low", "high")), known["role"])
    scored = tuple(
        Scored(float(x), float(mean), float(low), float(high), str(role))
        for x, mean, low, high, role in zip(*columns, strict=True)
    )
    own = runs.assign(value=unit_factor * runs["value"])[runs["value"].notna()].groupby("number")["value"]
    of_point = {number: tuple(values.map(float)) for number, values in own}
    return without_long(scored, [of_point.get(number, ()) for number in known["number"]])


def without_long(points: Sequence[Scored], runs: Sequence[tuple[float, ...]]) -> tuple[Scored, ...]:
    """The points, of few seeds those with long intervals with their single runs instead.

    Args:
        points: with their intervals.
        runs: of each, its single runs.
    """
    means = [point.mean for point in points]
    longest = LONG * (max(means, default=0.0) - min(means, default=0.0)) or math.inf
    return tuple(
        replace(point, low=math.nan, high=math.nan, runs=own)
        if 0 < len(own) < FEW_SEEDS and point.high - point.low > longest
        else point
        for point, own in zip(points, runs, strict=True)
    )


def focused_limits(
    points: Sequence[Scored], heights: Iterable[float], higher_is_better: bool
) -> tuple[float, float]:
    """Ends of an axis that shows the good points well; much worse ones lie beyond it.

    Args:
        points: the complete points.
        heights: what else is drawn.
        higher_is_better: the objective's direction.
    """
    values = np.array([*(point.mean for point in points), *heights])
    if not len(values):
        return view_limits([], [])
    sign = 1.0 if higher_is_better else -1.0
    best, far = (sign * float(np.quantile(sign * values, part)) for part in (1.0, 0.25))
    room = FOCUS * abs(best - far) or math.inf
    seen = values[np.abs(values - best) <= room]
    near = [point for point in points if abs(point.mean - best) <= room]
    return view_limits(
        seen.tolist(), [end for point in near for end in (point.low, point.high)], LONGEST_REACH
    )


def draw_tuning_history(data: TuningHistory, ax: Axes) -> Axes:
    """Draw the points with their intervals over the step line of the best."""
    if data.best:
        x, height = zip(*data.best, strict=True)
        last = max((point.x for point in data.points), default=x[-1])
        ax.plot([*x, last + 0.5], [*height, height[-1]], color="C1", drawstyle="steps-post", linewidth=1.4,
                label="best smoothed value so far", zorder=1)  # fmt: skip
    draw_runs([(point.x, run) for point in data.points for run in point.runs], ax)
    draw_scored(data.points, data.limits, ax)
    muted = reference_style()["color"]
    if data.pruned:
        x, height = zip(*data.pruned, strict=True)
        inside = np.clip(height, *data.limits)
        ax.plot(x, inside, "x", color=muted, markersize=5, clip_on=False, label="pruned, at its last value")
    if data.lost:
        ax.plot(data.lost, [0.0] * len(data.lost), "|", color=muted, markersize=9, clip_on=False,
                transform=ax.get_xaxis_transform(), label="ended without a value")  # fmt: skip
    ax.set_ylim(*data.limits)
    ax.set_title(shorten(data.label))
    ax.set_xlabel("number of the point")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=False, axis="x")
    legend_above(ax)
    return ax


def draw_runs(runs: Sequence[tuple[float, float]], ax: Axes) -> None:
    """Draw single training runs, faint."""
    if runs:
        x, value = zip(*runs, strict=True)
        ax.plot(x, value, "o", color="C0", alpha=FAINT, markersize=3, markeredgewidth=0,
                label="a training run")  # fmt: skip


def draw_scored(
    points: Sequence[Scored], limits: tuple[float, float], ax: Axes, *, intervals: bool | None = None
) -> None:
    """Draw complete points with their intervals; those beyond the limits as arrows at the edge."""
    intervals = len(points) <= MOST_INTERVALS if intervals is None else intervals
    for role, (marker, color, words) in ROLES.items():
        own = [point for point in points if point.role == role]
        inside = [point for point in own if limits[0] <= point.mean <= limits[1]]
        style: dict[str, Any] = {"color": color, "linestyle": "none", "marker": marker, "label": words}
        style |= {
            "markersize": SIZES.get(role, 6.5),
            "elinewidth": 1.0,
            "zorder": 2 + list(ROLES).index(role),
        }
        if own:
            reach = (
                interval_reach(*zip(*((p.mean, p.low, p.high) for p in inside), strict=True))
                if inside
                else None
            )
            ax.errorbar([p.x for p in inside], [p.mean for p in inside],
                        yerr=reach if intervals else None, **style)  # fmt: skip
        for arrow, edge in (("v", limits[0]), ("^", limits[1])):
            cut = [p.x for p in own if (p.mean < edge if arrow == "v" else p.mean > edge)]
            at = 0.975 * edge + 0.025 * sum(limits) / 2
            ax.plot(
                cut, [at] * len(cut), arrow, color=color, markersize=4, markerfacecolor=ax.get_facecolor()
            )


def describe_tuning_history(data: TuningHistory) -> str:
    """The figure in words, for those who do not see it."""
    if not data.points:
        return f"{data.label} of each point of the search: no point is complete."
    values = [point.mean for point in data.points]
    parts = [
        f"{data.label} of {len(values)} complete points of the search in their order, "
        f"{min(values):.4g} to {max(values):.4g}"
    ]
    parts += [
        f"{ROLES[p.role][2]}, point {p.x:.0f}: {p.mean:.4g}" for p in data.points if p.role != "sampler"
    ]
    steps = [at for at, (_, height) in enumerate(data.best) if at == 0 or height != data.best[at - 1][1]]
    parts.append(
        "best smoothed value so far: "
        + ", ".join(f"{data.best[at][1]:.4g} from point {data.best[at][0]:.0f}" for at in steps)
    )
    parts += [f"{len(data.pruned)} pruned"] if data.pruned else []
    parts += [f"{len(data.lost)} without a value"] if data.lost else []
    return f"{'; '.join(parts)}."
