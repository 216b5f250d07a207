"""Two quantities against each other, and what nothing beats in both: of arms, and of a search's points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ablate.figures import draw
from ablate.figures.context import Context, quantity
from ablate.figures.draw import Handles
from ablate.figures.registry import Drawing, figure
from ablate.figures.search import SAMPLER, Scores, objectives, role_of, short_of_seeds
from ablate.figures.theme import LIGHT, MARKERS

MOST_NAMED, MOST_ARMS = 8, 60
SMALLEST, LARGEST, USUAL = 5.0, 12.0, 6.5
"""Points across of the markers of the cheapest and the dearest step, and of others."""


def pareto(ax: Axes, points: pd.DataFrame, front: pd.DataFrame, steps: str = "steps-post") -> Handles:
    """Draw points between two quantities, and the line of those that nothing beats.

    Args:
        ax: to draw on.
        points: x and y, each with its interval as `_low` and `_high`; color, marker, size; label, "" for dots
            without a name.
        front: x and y of the line's corners.
        steps: drawstyle of the line: up after a corner, or before it where more of x is better.
    """
    others, named = points[points["label"] == ""], points[points["label"] != ""]
    draw.dots(ax, others["x"], others["y"], LIGHT.muted, size=3.7, alpha=0.6)
    colors = list(named["color"])
    draw.intervals(ax, named["x"], named["y_low"], named["y_high"], colors, linewidth=1.0)
    draw.intervals(ax, named["y"], named["x_low"], named["x_high"], colors, linewidth=1.0, across=True)
    if len(front) > 1:
        corners = front.sort_values(["x", "y"])
        draw.line(ax, corners["x"], corners["y"], LIGHT.muted, linewidth=1.0, drawstyle=steps, zorder=0)
    handles = Handles()
    for label, own in named.groupby("label", sort=False):
        color, marker, size = own[["color", "marker", "size"]].iloc[0]
        handles[str(label)] = draw.dots(ax, own["x"], own["y"], color, marker=marker, size=size)
    return handles


def unbeaten(x: Sequence[float], y: Sequence[float]) -> list[bool]:
    """Which places no other one equals or beats in both, where less of x and more of y are better."""
    places = list(zip(x, y, strict=True))
    return [not any(a <= one[0] and b >= one[1] and (a, b) != one for a, b in places) for one in places]


@figure("front", "Accuracy against calibration", order=30)
def front(context: Context) -> Drawing | None:
    """Accuracy against ECE, with the arms that no other arm beats in both."""
    if len(set(context.complete["arm"])) < 2:
        return None
    error, accuracy = quantity("ece"), quantity("accuracy")
    sides = []
    for metric, side in ((error, "x"), (accuracy, "y")):
        numbers = {"mean": side, "low": f"{side}_low", "high": f"{side}_high"}
        sides.append(context.means(metric)[["arm", *numbers]].rename(columns=numbers))
    points = sides[0].merge(sides[1], on="arm")
    together = points.groupby(["x", "y"], sort=False)["arm"].agg(list)  # equal means are one point
    points = points.drop_duplicates(["x", "y"]).assign(arms=together.to_numpy(), color="")
    points["front"] = unbeaten(list(points["x"]), list(points["y"]))
    points["matters"] = [bool({*arms} & {*context.important}) for arms in points["arms"]]
    ranked = points.sort_values(["matters", "front"], ascending=False, kind="stable").index
    drawn = points[points["front"] | points.index.isin(ranked[:MOST_ARMS])]
    named = drawn.index.isin(ranked[:MOST_NAMED])
    sizes, costs_differ = _sizes(context, list(drawn["arm"]))
    equal = [f" (and {len(arms) - 1} equal)" if len(arms) > 1 else "" for arms in drawn["arms"]]
    labels = [draw.shorten(label, 60) for label in drawn["arm"].map(context.labels) + equal]
    drawn = drawn.assign(
        label=np.where(named, labels, ""),
        color=drawn["arm"].map(context.colors),
        marker=[MARKERS[number % len(MARKERS)] for number in np.cumsum(named) - 1],
        size=sizes,
    )
    canvas, (ax,) = draw.panels(1, 1, height=2.9)
    draw.legend_above(canvas, pareto(ax, drawn, drawn[drawn["front"]]))
    ax.set(xlim=draw.view_limits(drawn["x"], drawn[["x_low", "x_high"]]), xlabel=error.axis)
    ax.set(ylim=draw.view_limits(drawn["y"], drawn[["y_low", "y_high"]]), ylabel="")
    ax.set_title(accuracy.axis)
    caption = (
        "Means of the arms with their 95 % intervals; up and to the left is better. The line joins the arms "
        "whose means no other arm beats in both: intervals that overlap leave the order open."
    )
    caption += " Larger markers take longer steps." if costs_differ else ""
    caption += "" if named.all() else " Dots are arms that are not named, without their intervals."
    left_out = points.loc[points.index.difference(drawn.index), "arms"].explode()
    return Drawing(canvas, caption + draw.without(left_out.map(context.labels).dropna()), "trials")


def _sizes(context: Context, arms: Sequence[str]) -> tuple[list[float], bool]:
    """Sizes of markers, and whether they tell the cost: where steps differ by more than a twentieth."""
    times = {arm: float(np.median(context.timing.times[case])) for arm, case in context.cases.items()}
    known = [time for arm, time in times.items() if arm in arms and math.isfinite(time)]
    if not known or max(known) <= 1.05 * min(known):
        return [USUAL] * len(arms), False
    along = np.log([times.get(arm, math.nan) / min(known) for arm in arms]) / math.log(
        max(known) / min(known)
    )
    return list(np.where(np.isfinite(along), SMALLEST + (LARGEST - SMALLEST) * along, USUAL)), True


@figure("tuning_front", "The two objectives of the search", order=6)
def tuning_front(context: Context) -> Drawing | None:
    """A search's points between its two objectives, and the smoothed values that no other point beats."""
    if len(objectives(context)) < 2:
        return None
    up, along = (Scores(context, objective) for objective in objectives(context))
    known = up.points["mean"].notna() & along.points["mean"].notna()
    sides, points = (up.points[known], along.points[known]), up.points[known]
    for side, name in zip(sides, "yx", strict=True):
        ends = {name: side["mean"], f"{name}_low": side["low"], f"{name}_high": side["high"]}
        points = points.assign(**ends)
    on_front, long = points["on_front"].fillna(False).astype(bool), sides[0]["long"] | sides[1]["long"]
    looks = []
    for row, best in zip(cast(Any, points.itertuples()), on_front, strict=True):
        role = role_of(context, row.role, row.arm)
        words = f"{role.words}: {draw.shorten(row.label, 48)}" if row.role == "winner" else role.words
        if row.role == SAMPLER:
            words = f"{words}, on the front" if best else ""
        looks.append((words, role.color, role.marker, role.size))
    points[["label", "color", "marker", "size"]] = looks
    corners = pd.DataFrame({"x": sides[1]["smoothed"], "y": sides[0]["smoothed"]})
    runs = along.runs.merge(up.runs, on=["number", "trial_id"])
    runs = runs[runs["number"].isin(points.loc[long, "number"])]
    canvas, (ax,) = draw.panels(1, 1, height=3.1)
    shown = draw.dots(ax, runs["value_x"], runs["value_y"], LIGHT.muted, size=3, alpha=0.5)
    handles: Handles = {"a training run": shown} if len(runs) else {}
    steps = "steps-pre" if along.metric.better == "higher" else "steps-post"
    handles |= pareto(ax, points, corners[on_front], steps)
    line = corners[on_front]
    shown = draw.dots(ax, line["x"], line["y"], LIGHT.muted, marker="d", size=4)
    handles["front of the smoothed values"] = shown
    ax.set(ylim=up.limits(sides[0], [*corners["y"], *runs["value_y"]]), ylabel="")
    ax.set(xlim=along.limits(sides[1], [*corners["x"], *runs["value_x"]]), xlabel=_directed(along))
    ax.set_title(_directed(up))
    draw.legend_above(canvas, handles)
    caption = (
        "Means over seeds on the tuning split with 95 % t intervals. The line joins the smoothed values "
        "that no other point beats in both objectives; dots are beaten. Points far off are outside."
    )
    return Drawing(canvas, caption + short_of_seeds(bool(long.any())), "points")


def _directed(scores: Scores) -> str:
    return f"{scores.metric.axis}, {'more' if scores.metric.better == 'higher' else 'less'} is better"
