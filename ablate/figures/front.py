"""Accuracy against a calibration error: which arms no other arm beats in both."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ablate.figures.theme import (
    HALF,
    MARKERS,
    interval_reach,
    legend_above,
    names_of,
    reference_style,
    shorten,
    view_limits,
)

MOST_NAMED_ARMS = 8
MOST_ARMS = 60
SMALLEST, LARGEST = 5.0, 12.0
"""Points across of the markers of the cheapest and the dearest step."""


@dataclass(frozen=True)
class Point:
    """One arm, or several with the very same means, in the axes' units.

    Attributes:
        label: the arm in words; of several the first, and how many others.
        error: mean, lower and upper end of its interval; the ends are NaN where there is none.
        accuracy: the same.
        step_ms: time of a training step, NaN where it was not measured apart.
        on_front: whether no arm is at least as good in both means and better in one.
        named: whether it has a marker of its own in the legend.
    """

    label: str
    error: tuple[float, float, float]
    accuracy: tuple[float, float, float]
    step_ms: float
    on_front: bool
    named: bool


@dataclass(frozen=True)
class Front:
    """What the figure shows: axis labels, the arms in the study's order, and those that did not fit."""

    error_label: str
    accuracy_label: str
    points: tuple[Point, ...]
    left_out: tuple[str, ...] = ()

    @property
    def costs_differ(self) -> bool:
        """Whether steps take times that differ by more than a twentieth, so that sizes tell something."""
        known = [point.step_ms for point in self.points if math.isfinite(point.step_ms)]
        return bool(known) and max(known) > 1.05 * min(known)


def prepare_front(
    means: pd.DataFrame,
    labels: Mapping[str, str],
    *,
    error_label: str,
    accuracy_label: str,
    factors: tuple[float, float],
    step_ms: Mapping[str, float],
    important: Collection[str] = (),
) -> Front:
    """Find the arms that no other arm beats.

    Args:
        means: one row per arm: arm, and accuracy and error, each also as `_low` and `_high`.
        labels: arm to its words, in the order to draw them; arms without both means are passed over.
        error_label: the error with its unit; less is better.
        accuracy_label: the accuracy with its unit; more is better.
        factors: from the tables' units of error and accuracy to the labels'.
        step_ms: arm to the milliseconds of its step; {} where they were not measured apart.
        important: arms that are named first, after those on the front.
    """
    known = means[means["accuracy"].notna() & means["error"].notna()].set_index("arm")
    places = {
        arm: (float(error), float(right)) for arm, error, right in known[["error", "accuracy"]].itertuples()
    }
    same = dict[tuple[float, float], list[str]]()
    for arm in labels:
        if arm in places:
            same.setdefault(places[arm], []).append(arm)
    front = _front(list(same))
    ranked = sorted(same, key=lambda place: (not {*same[place]} & {*important}, place not in front))
    named, drawn = ranked[:MOST_NAMED_ARMS], {*ranked[:MOST_ARMS], *front}
    points = tuple(
        Point(
            _together([labels[arm] for arm in same[place]]),
            _ends(known, same[place][0], "error", factors[0]),
            _ends(known, same[place][0], "accuracy", factors[1]),
            step_ms.get(same[place][0], math.nan),
            place in front,
            place in named,
        )
        for place in same
        if place in drawn
    )
    left_out = tuple(labels[arm] for place in same if place not in drawn for arm in same[place])
    return Front(error_label, accuracy_label, points, left_out)


def _together(labels: list[str]) -> str:
    """Arms with the very same means, which are one point."""
    return labels[0] if len(labels) == 1 else f"{labels[0]} (and {len(labels) - 1} equal)"


def _front(places: Sequence[tuple[float, float]]) -> set[tuple[float, float]]:
    """Places that none beats: no other has as little error and as much accuracy, and more of one."""
    return {
        (error, accuracy)
        for error, accuracy in places
        if not any(
            other <= error and right >= accuracy and (other, right) != (error, accuracy)
            for other, right in places
        )
    }


def _ends(means: pd.DataFrame, arm: str, name: str, factor: float) -> tuple[float, float, float]:
    row = means[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=np.float64)[means.index.get_loc(arm)]
    return (factor * float(row[0]), factor * float(row[1]), factor * float(row[2]))


def front_size(data: Front) -> tuple[float, float]:
    """Inches that the points and their legend need."""
    return (HALF[0], HALF[1] + 0.19 * max(sum(point.named for point in data.points) - 2, 0))


def draw_front(data: Front, ax: Axes) -> Axes:
    """Draw every arm with both intervals, and the line that joins the front."""
    number = 0
    for point in data.points:
        if point.named:
            _draw_point(point, ax, number, _size(point, data))
            number += 1
        else:
            ax.plot(point.error[0], point.accuracy[0], ".", color=reference_style()["color"], markersize=5)
    front = sorted((point.error[0], point.accuracy[0]) for point in data.points if point.on_front)
    if len(front) > 1:
        x, y = zip(*front, strict=True)
        ax.step(x, y, where="post", **{**reference_style(), "linestyle": "-", "linewidth": 1}, zorder=0)
    ax.set_xlim(*_limits([point.error for point in data.points]))
    ax.set_ylim(*_limits([point.accuracy for point in data.points]))
    ax.set_xlabel(data.error_label)
    ax.set_title(data.accuracy_label)
    legend_above(ax)
    return ax


def _limits(known: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    return view_limits([middle for middle, _, _ in known], [end for _, *ends in known for end in ends])


def _draw_point(point: Point, ax: Axes, number: int, size: float) -> None:
    ax.errorbar(
        [point.error[0]],
        [point.accuracy[0]],
        xerr=interval_reach(*([end] for end in point.error)),
        yerr=interval_reach(*([end] for end in point.accuracy)),
        color=f"C{number}",
        marker=MARKERS[number % len(MARKERS)],
        markersize=size,
        elinewidth=1.0,
        linestyle="none",
        label=shorten(point.label, 60),
    )


def _size(point: Point, data: Front) -> float:
    if not data.costs_differ or not math.isfinite(point.step_ms):
        return 6.5
    known = [other.step_ms for other in data.points if math.isfinite(other.step_ms)]
    along = math.log(point.step_ms / min(known)) / math.log(max(known) / min(known))
    return SMALLEST + (LARGEST - SMALLEST) * along


def describe_front(data: Front) -> str:
    """The figure in words, for those who do not see it."""
    if not data.points:
        return f"{data.accuracy_label} against {data.error_label}: no complete trials."
    front = [point for point in data.points if point.on_front]
    parts = [
        f"{point.label}: {point.accuracy[0]:.4g} at {point.error[0]:.4g}{_cost(point)}" for point in front
    ]
    beaten = [f"{point.label} ({point.accuracy[0]:.4g} at {point.error[0]:.4g})"
              for point in data.points if not point.on_front]  # fmt: skip
    others = f" Beaten in both: {names_of(beaten)}." if beaten else ""
    return f"{data.accuracy_label} against {data.error_label}. Beaten by no arm: {'; '.join(parts)}.{others}"


def _cost(point: Point) -> str:
    return f", step {point.step_ms:.3g} ms" if math.isfinite(point.step_ms) else ""
