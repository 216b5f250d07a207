"""A search: its points in their order, against each searched field, and which fields matter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ablate.figures import draw
from ablate.figures.context import SUFFIXES, Context, factor_label, level_label
from ablate.figures.draw import Handles
from ablate.figures.registry import Drawing, figure
from ablate.figures.theme import LIGHT, SHADE
from ablate.study.search import Choice, Range
from ablate.tables.quantities import Quantity


@dataclass(frozen=True)
class Role:
    """What a point of a search is, and how it looks."""

    words: str
    marker: str
    size: float
    color: str = LIGHT.ink


SAMPLER = "sampler"
ROLES = {
    SAMPLER: Role("chosen by the sampler", "o", 4.5, LIGHT.muted),
    "anchor": Role("anchor", "^", 6.5),
    "baseline": Role("baseline", "s", 6.5),
    "winner": Role("winner", "*", 11.0),
}
"""The last one lies on top."""
MOST_INTERVALS = 150
"""With more points, intervals would hide them."""
LONGEST_REACH = 0.5
"""Intervals make the axis longer by at most so many times the values' range, to either side."""
FEW_SEEDS, LONG = 4, 3.0
"""With fewer seeds, an interval longer than so many times the range of the points' means is left out."""
FOCUS = 3.0
"""Values lie beyond the axis that are so many times as far from the best as the worst quarter begins."""
MOST_PANELS, MOST_CATEGORIES, MOST_FIELDS = 6, 12, 20
STRIP = 0.3
"""Half the width that a category's points are spread over."""
TWO_SIDED = 1.96
"""Standard deviations of a normal distribution that 95 % lie within."""
BEST_PART, BEST_POINTS, FEW_POINTS = 0.1, 5, 30
"""PED-ANOVA takes this part of the points for the best, at least so many; of few points it is noise."""
POINTS = "Each point is the mean over its seeds on the tuning split, with its 95 % t interval."
BEYOND = " Points much worse than the rest are arrows at the edge; long intervals go on beyond the panel."


@dataclass(frozen=True)
class Objective:
    """One objective of a search: its metric, its columns' suffix, and what titles add where there are two."""

    metric: Quantity
    suffix: str
    more: str


def objectives(context: Context) -> list[Objective]:
    """What was searched for; none where nothing was."""
    metrics = context.tuned.objectives if context.tuned else ()
    named = [f": {metric.label}" if len(metrics) > 1 else "" for metric in metrics]
    return [Objective(*one) for one in zip(metrics, SUFFIXES, named, strict=False)]


def role_of(context: Context, name: str, arm: Any) -> Role:
    """A point's role; where it is more than one of many, in the colour of its arm, if the re-test has it."""
    own = isinstance(arm, str) and arm in context.colors and name != SAMPLER
    return replace(ROLES[name], color=context.colors[arm]) if own else ROLES[name]


def short_of_seeds(left_out: bool) -> str:
    """What a caption says where single runs stand in the place of intervals."""
    if not left_out:
        return ""
    return (
        f" Where fewer than {FEW_SEEDS} seeds give an interval longer than {LONG:g} times the range of the "
        "points' means, the point's single runs are shown in its place."
    )


class Scores:
    """One objective of a search, in the shown unit.

    Attributes:
        metric: the objective.
        points: in their order, with mean, low, high, smoothed, smoothed_sd, last_seen; `long` marks those of
            few seeds whose intervals would hide all else, and are left out.
        runs: number of a point, trial_id and value of each of its training runs.
    """

    def __init__(self, context: Context, objective: Objective) -> None:
        tuned, suffix, factor = context.tuned, objective.suffix, objective.metric.factor
        assert tuned is not None  # there is an objective
        self.context, self.metric = context, objective.metric
        columns = {"value": "mean"} | {name: name for name in ("low", "high", "smoothed", "smoothed_sd")}
        points = tuned.points.sort_values("number").reset_index(drop=True)
        scores = {new: factor * points[f"{old}{suffix}"].astype("float64") for old, new in columns.items()}
        # What a pruner saw is of the first objective.
        seen = math.nan if suffix else factor * points["last_seen"].astype("float64")
        values = factor * tuned.values[f"value{suffix}"].astype("float64")
        self.runs = tuned.values[["number", "trial_id"]].assign(value=values).dropna(subset=["value"])
        longest = LONG * (scores["mean"].max() - scores["mean"].min()) or math.inf
        seeds = points["number"].map(self.runs.groupby("number").size()).fillna(0)
        long = seeds.between(1, FEW_SEEDS - 1) & (scores["high"] - scores["low"] > longest)
        self.points = points.assign(**scores, last_seen=seen, long=long)
        self.points.loc[long, ["low", "high"]] = math.nan

    def limits(self, points: pd.DataFrame, heights: Iterable[float]) -> tuple[float, float]:
        """Ends of an axis that shows the good points well, and heights; much worse ones lie beyond."""
        runs = self.runs[self.runs["number"].isin(points.loc[points["long"], "number"])]
        values = np.array([*points["mean"], *runs["value"], *heights], dtype=np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return draw.view_limits([])
        sign = 1.0 if self.metric.better == "higher" else -1.0
        best, far = sign * np.quantile(sign * values, [1.0, 0.25])
        room = FOCUS * abs(best - far) or math.inf
        near = points[(points["mean"] - best).abs() <= room]
        return draw.view_limits(values[np.abs(values - best) <= room], near[["low", "high"]], LONGEST_REACH)

    def draw(self, ax: Axes, points: pd.DataFrame, runs_of: pd.DataFrame, heights: Any) -> Handles:
        """Draw points at their `x`, intervals, single runs; those beyond the axis as arrows at its edge."""
        handles, limits = Handles(), self.limits(points, heights)
        runs = self.runs.merge(runs_of[["number", "x"]], on="number")
        if len(runs):
            faint: dict[str, Any] = {"size": 3, "alpha": 0.45, "zorder": 1.5}
            handles["a training run"] = draw.dots(ax, runs["x"], runs["value"], LIGHT.muted, **faint)
        for number, name in enumerate(ROLES):
            own = points[(points["role"] == name) & points["mean"].notna()]
            if own.empty:
                continue
            own = own.assign(color=[role_of(self.context, name, arm).color for arm in own["arm"]])
            inside, role = own[own["mean"].between(*limits)], ROLES[name]
            ends, colors = (inside["x"], inside["low"], inside["high"]), list(inside["color"])
            if len(points) <= MOST_INTERVALS:
                draw.intervals(ax, *ends, colors, linewidth=1.0, zorder=2 + number)
            style = {"marker": role.marker, "size": role.size, "zorder": 2 + number}
            draw.dots(ax, inside["x"], inside["mean"], colors, **style)
            handles[role.words] = draw.dots(ax, [], [], list(own["color"]), **style)
            for arrow, edge in (("v", limits[0]), ("^", limits[1])):
                beyond = own[own["mean"] < edge if arrow == "v" else own["mean"] > edge]
                height = [0.975 * edge + 0.025 * sum(limits) / 2] * len(beyond)
                hollow: Any = {"markersize": 4, "markerfacecolor": LIGHT.surface}
                ax.plot(beyond["x"], height, arrow, color=role.color, **hollow)
        ax.set(ylim=limits, ylabel="")
        ax.grid(visible=False, axis="x")
        return handles


@figure("tuning_history{0.suffix}", "The search{0.more}", order=1, each=objectives)
def tuning_history(context: Context, objective: Objective) -> Drawing:
    """The points in their order: what each scored, and the best smoothed value so far."""
    scores = Scores(context, objective)
    points = scores.points.assign(x=scores.points["number"].astype("float64"))
    higher = objective.metric.better == "higher"
    best = (points["smoothed"].cummax() if higher else points["smoothed"].cummin()).ffill().dropna()
    pruned = points[(points["state"] == "pruned") & points["last_seen"].notna()]
    ended = points["state"].isin(["complete", "pruned", "failed"])
    lost = points[ended & points["mean"].isna() & points["last_seen"].isna()]
    canvas, (ax,) = draw.panels(1, 1, height=2.8)
    handles = scores.draw(ax, points, points[points["long"]], [*best, *pruned["last_seen"]])
    if len(best):
        x = points.loc[best.index, "x"]
        last = max(points.loc[points["mean"].notna(), "x"].max(), x.max()) + 0.5
        steps = {"drawstyle": "steps-post", "zorder": 1}
        handles["best smoothed value so far"] = draw.line(
            ax, [*x, last], [*best, best.iloc[-1]], LIGHT.ink, **steps
        )
    muted: dict[str, Any] = {"color": LIGHT.muted, "clip_on": False}
    if len(pruned):
        seen = pruned["last_seen"].clip(*ax.get_ylim())
        (handles["pruned, at its last value"],) = ax.plot(pruned["x"], seen, "x", markersize=5, **muted)
    if len(lost):
        muted["transform"] = ax.get_xaxis_transform()
        (handles["ended without a value"],) = ax.plot(
            lost["x"], [0.0] * len(lost), "|", markersize=9, **muted
        )
    ax.set_title(draw.shorten(objective.metric.axis))
    ax.set(xlabel="number of the point", ylabel="")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    draw.legend_above(canvas, handles)
    caption = f"{POINTS} The line is the best smoothed value among the points so far, all points known."
    return Drawing(canvas, caption + short_of_seeds(bool(points["long"].any())) + BEYOND, "points")


@figure("tuning_slices{0.suffix}", "By field{0.more}", order=1, each=objectives)
def tuning_slices(context: Context, objective: Objective) -> Drawing:
    """The objective against every searched field."""
    scores, tuned = Scores(context, objective), context.tuned
    assert tuned is not None  # there is an objective
    space = tuned.search.space
    levels = pd.DataFrame([tuned.levels(row) for _, row in scores.points.iterrows()], columns=list(space))
    used = [name for name in space if (levels[name].notna() & scores.points["mean"].notna()).any()]
    shown, left_out = used[:MOST_PANELS], used[MOST_PANELS:]
    rows, columns = draw.grid_of(len(shown), 3)
    canvas, axes = draw.panels(rows, columns, width=draw.WIDE if columns > 1 else draw.HALF, height=2.3)
    handles = Handles()
    for ax, name in zip(axes, shown, strict=False):
        points = scores.points.assign(level=levels[name]).dropna(subset=["level", "mean"])
        inches = canvas.get_figwidth() / columns
        handles |= _draw_slice(ax, scores, points, space[name], inches, alone=len(space) == 1)
        ax.set_title(draw.wrapped(objective.metric.axis, canvas, columns))
        ax.set(xlabel=draw.shorten(factor_label(name)), ylabel="")
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    draw.legend_above(canvas, handles)
    caption = f"{POINTS} Faint points are single training runs."
    if len(space) == 1:
        caption += " The line is the value smoothed over the points, the band its 95 %."
    else:
        caption += " Dashes are values smoothed over all searched fields at once."
    if any(isinstance(space[name], Choice) for name in shown):
        caption += " Within a value without order, points stand side by side in the order of the search."
    if any(dimension.when for dimension in space.values()):
        caption += " A field with a condition shows the points that use it."
    caption += short_of_seeds(bool(scores.points["long"].any())) + BEYOND
    return Drawing(canvas, caption + draw.without([factor_label(name) for name in left_out]), "points")


def _draw_slice(
    ax: Axes, scores: Scores, points: pd.DataFrame, dimension: Range | Choice, inches: float, *, alone: bool
) -> Handles:
    """Draw the points along one field; where it is the only one, a line joins the smoothed values."""
    if isinstance(dimension, Choice):
        names = [level_label(value) for value in dimension.of][:MOST_CATEGORIES]
        points = points.assign(x=_strip([level_label(value) for value in points["level"]], names)).dropna(
            subset=["x"]
        )
        draw.categories(ax, names, inches)
    else:
        points = points.assign(x=points["level"].astype("float64"))
        if dimension.log:
            ax.set_xscale("log")
            ax.set_xlim(points["x"].min() / 1.5, points["x"].max() * 1.5)
            ax.minorticks_off()
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if points["x"].nunique() == 1:
            ax.set_xticks([points["x"].iloc[0]])
    handles, smooth = Handles(), points[points["smoothed"].notna()].sort_values("x", kind="stable")
    if alone and isinstance(dimension, Range) and len(smooth):
        reach = TWO_SIDED * smooth["smoothed_sd"]
        x, middle = smooth["x"], smooth["smoothed"]
        ax.fill_between(x, middle - reach, middle + reach, zorder=0, **SHADE)
        handles["95 % of the smoothed value"] = Patch(**SHADE)
        handles["smoothed value"] = draw.line(ax, x, middle, LIGHT.muted, linewidth=1.6, zorder=1)
    elif len(smooth):
        dash: dict[str, Any] = {"color": LIGHT.ink, "markersize": 9, "markeredgewidth": 1.4, "zorder": 1}
        (handles["smoothed value"],) = ax.plot(smooth["x"], smooth["smoothed"], "_", **dash)
    return handles | scores.draw(ax, points, points, smooth["smoothed"])


def _strip(words: Sequence[str], names: Sequence[str]) -> list[float]:
    """Places beside each other within each category, in the order of the points; NaN for other categories."""
    rows = pd.Series(words, dtype="string")
    order, count = rows.groupby(rows).cumcount(), rows.map(rows.value_counts()).astype("float64")
    place = rows.map({name: float(at) for at, name in enumerate(names)}).astype("float64")
    return list(place + STRIP * ((2 * order + 1) / count - 1))


@figure("tuning_importances", "Importance of the fields", order=5)
def tuning_importances(context: Context) -> Drawing | None:
    """How much each searched field decides whether a point is among the best."""
    tuned = context.tuned
    if tuned is None or len(tuned.search.space) < 2 or tuned.importances.empty:
        return None
    shares = tuned.importances.pivot_table(index="field", columns="objective", values="share", fill_value=0.0)
    metrics = [metric for metric in tuned.objectives if metric.name in shares]
    shares = shares[[metric.name for metric in metrics]].set_axis(
        [metric.label for metric in metrics], axis=1
    )
    shares = shares.reindex([name for name in tuned.search.space if name in shares.index])
    shares = shares.sort_values(list(shares.columns), ascending=False, kind="stable")
    shown, left_out = shares[:MOST_FIELDS], [factor_label(name) for name in shares.index[MOST_FIELDS:]]
    canvas, (ax,) = draw.panels(1, 1, height=0.3 + 0.22 * max(shown.size + len(shown), 4))
    tones = dict(zip(shown.columns, (LIGHT.ink, LIGHT.muted), strict=False))
    long = shown.reset_index().melt("field", var_name="objective", value_name="share")
    plain = {"saturation": 1, "errorbar": None, "legend": False}
    sns.barplot(long, x="share", y="field", hue="objective", palette=tones, ax=ax, **plain)
    for bars in ax.containers:
        ax.bar_label(bars, fmt=" {:.2f}", fontsize=9)  # type: ignore[arg-type]
    draw.rows_of(ax, [draw.shorten(factor_label(name), 24) for name in shown.index])
    ax.set(xlim=(0, 1.12 * float(long["share"].max()) or 1.0), xlabel="", ylabel="")
    ax.set_title("importance (scaled to sum to 1)")
    if len(tones) > 1:
        draw.legend_above(canvas, {label: Patch(color=tone) for label, tone in tones.items()})
    evaluators = ", ".join(dict.fromkeys(tuned.importances["evaluator"]))
    points = int(tuned.facts["points_done"])
    best = f"{100 * BEST_PART:.0f} %" if BEST_PART * points > BEST_POINTS else f"{BEST_POINTS}"
    caption = (
        f"How much each field decides whether a point is among the best: the best {best} of {points} "
        f"complete points, by Optuna's {evaluators}. The numbers are scaled to sum to 1; they are no shares "
        "of the objective's spread, and speak of this search alone."
    )
    if points < FEW_POINTS:
        caption += f" With fewer than {FEW_POINTS} points, as here, much in them is noise."
    return Drawing(canvas, caption + draw.without(left_out), "importances")
