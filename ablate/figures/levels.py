"""Metrics against the levels of a factor, or by seed where there is one arm, beside their noise floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from ablate.figures import draw
from ablate.figures.context import Context, factor_label, is_number, level_label, quantity
from ablate.figures.draw import FloatArray, Handles
from ablate.figures.registry import Drawing, figure
from ablate.figures.theme import LIGHT, MARKERS, REFERENCE, SHADE
from ablate.tables.quantities import Quantity

CALIBRATION = ("ece", "ece_equal_mass", "smece", "classwise_ece", "ece_scaled", "temperature", "nll", "brier")
RANKING = ("auroc_error", "auroc_error_normalised", "aurc", "coverage_at_1")
MOST_LINES, FEW_LINES, MOST_PANELS, MOST_POINTS = 8, 6, 8, 300
"""Lines of one metric; lines where every metric has a panel; panels; points of such a figure."""
LOG_RATIO = 50.0
"""Levels that span at least this ratio are no longer told apart on a linear axis."""
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
PIECE = 0.3
"""Half the width of the floor's band at a level that stands alone."""
LONG = " Intervals much longer than the range of the values go on beyond the panel."
BAND = " Shaded: where 95 % of means of a perfectly calibrated network would fall."
FLOOR = " The dashed line is the noise floor: what a perfectly calibrated network would score on average."


def metrics_of(context: Context) -> list[Quantity]:
    """The metrics that have a figure each."""
    names = dict.fromkeys((context.plan.study.primary, "accuracy", "ece", "mean_confidence"))
    return [] if context.complete.empty else [quantity(name) for name in names]


@figure("{0.name}", "{0.label} by level", order=20, each=metrics_of)
def metric_by_level(context: Context, metric: Quantity) -> Drawing | None:
    """A metric against the axis's factor; with three or more factors, a panel per level of one of them."""
    if not context.axis:
        return None
    lines, left_out = draw.spread(list(dict.fromkeys(map(context.line_of, context.arms))), MOST_LINES)
    arms = {arm: context.line_of(arm) for arm in context.arms if context.line_of(arm) in lines}
    levels = Levels(context, metric, arms, context.runs(metric))
    groups = list(dict.fromkeys(map(context.panel_of, levels.means["arm"]))) or [""]
    shown, others = groups[:MOST_PANELS], groups[MOST_PANELS:]
    (rows, columns), wide = draw.grid_of(len(shown)), len(shown) > 1
    width, height = (draw.WIDE, 2.1) if wide else (draw.HALF, 2.6)
    canvas, axes = draw.panels(rows, columns, width=width, height=height, sharey=wide)
    handles = Handles()
    for number, (ax, group) in enumerate(zip(axes, shown, strict=False)):
        handles |= levels.draw(ax, [arm for arm in arms if context.panel_of(arm) == group], width / columns)
        ax.set_title(draw.wrapped(group or metric.axis, canvas, columns))
        ax.set_ylabel(metric.axis if group and number % columns == 0 else "")
    _label(axes, len(shown), columns, context)
    draw.legend_above(canvas, handles)
    caption = "Means with 95 % t intervals over training runs; each faint point is one run."
    caption += "".join(levels.explained()) + draw.without([*left_out, *others])
    return Drawing(canvas, caption, "trials")


@figure("calibration_by_level", "Calibration by level", order=40)
def calibration_by_level(context: Context) -> Drawing | None:
    """The metrics of calibration."""
    return _several(context, CALIBRATION)


@figure("ranking_by_level", "Ranking of errors by level", order=45)
def ranking_by_level(context: Context) -> Drawing | None:
    """How well the confidence tells right from wrong."""
    return _several(context, RANKING)


def _several(context: Context, metrics: Sequence[str]) -> Drawing | None:
    """Several metrics by level, a panel each."""
    complete = context.complete
    known = [quantity(name) for name in metrics if name in complete and complete[name].notna().any()]
    if not known or not context.axis:
        return None
    most = max(2, min(FEW_LINES, MOST_POINTS // (len(context.factors[context.axis]) * len(known))))
    words = {arm: context.words_of(arm, [*context.line, context.panel]) for arm in context.arms}
    lines, left_out = draw.spread(list(dict.fromkeys(words.values())), most)
    arms = {arm: words[arm] for arm in context.arms if words[arm] in lines}
    rows, columns = draw.grid_of(len(known))
    canvas, axes = draw.panels(rows, columns, width=draw.WIDE if columns > 1 else draw.HALF, height=1.75)
    handles, explained = Handles(), dict[str, None]()
    for ax, metric in zip(axes, known, strict=False):
        levels = Levels(context, metric, arms)
        handles |= levels.draw(ax, list(arms), canvas.get_figwidth() / columns)
        ax.set_title(draw.wrapped(metric.axis, canvas, columns))
        explained |= dict.fromkeys(levels.explained())
    _label(axes, len(known), columns, context)
    draw.legend_above(canvas, handles)
    caption = "Means with 95 % t intervals over training runs; every panel has its own scale."
    return Drawing(canvas, caption + "".join(explained) + draw.without(left_out), "trials")


def _label(axes: Sequence[Axes], shown: int, columns: int, context: Context) -> None:
    """Name the axis below the lowest panels, and take away those that are empty."""
    for number, ax in enumerate(axes):
        ax.set_xlabel(factor_label(context.axis) if number + columns >= shown else "")
        if number >= shown:
            ax.set_axis_off()


class Levels:
    """One metric of some arms by level, to be put into panels.

    Args:
        context: the study.
        metric: the metric.
        line_of: the drawn arms, each with the words of its line.
        runs: single training runs, as of `Context.runs`, drawn faint.
    """

    def __init__(
        self, context: Context, metric: Quantity, line_of: Mapping[str, str], runs: pd.DataFrame | None = None
    ) -> None:
        self.context, self.line_of, self.lines = context, line_of, list(dict.fromkeys(line_of.values()))
        means = context.means(metric)
        self.means = means[means["arm"].isin(line_of)]
        self.runs = self.means[:0].assign(value=0.0) if runs is None else runs[runs["arm"].isin(line_of)]
        present, heights = set(self.means["arm"]), context.optimum(metric)
        self.axis = LevelAxis([context.level(arm) for arm in line_of if arm in present])
        self.optimum = {level: heights[level] for level in sorted(heights) if level in self.axis.levels}
        shown = np.ravel(self.means[["mean", "floor", "floor_low", "floor_high"]])
        seen = [*shown, *self.runs["value"], *self.optimum.values()]
        self.limits = draw.view_limits(seen, self.means[["low", "high"]])

    def explained(self) -> list[str]:
        """What a caption says of that which not every such figure has."""
        beyond = (self.means["low"] < self.limits[0]) | (self.means["high"] > self.limits[1])
        floor, band = self.means[["floor", "floor_low"]].notna().any()
        several = " Of several lines it is the mean." if len(self.lines) > 1 else ""
        said = [LONG] * bool(beyond.any()) + [BAND] * bool(band) + [FLOOR + several] * bool(floor)
        return [*said, *[" At the dotted line the smoothed loss is least."] * bool(self.optimum)]

    def draw(self, ax: Axes, arms: Sequence[str], inches: float) -> Handles:
        """Draw the arms of one panel of about so many inches; gives what a legend explains."""
        colors, handles = self.context.colors, Handles()
        self.axis.prepare(ax, inches)
        runs, means = (rows[rows["arm"].isin(arms)] for rows in (self.runs, self.means))
        # To the left of the mean, whose interval would hide them.
        places = self._places(ax, runs["arm"], -0.8 if len(self.lines) == 1 else -0.5)
        tones = [colors[arm] for arm in runs["arm"]]
        draw.dots(ax, places, runs["value"], tones, size=4, alpha=0.5, zorder=1.5)
        means = means.assign(x=self._places(ax, means["arm"])).sort_values("x", kind="stable")
        for number, words in enumerate(self.lines):
            own = means[means["arm"].map(self.line_of) == words]
            if own.empty:
                continue
            tones, marker = [colors[arm] for arm in own["arm"]], MARKERS[number % len(MARKERS)]
            tone = tones[0] if len(set(tones)) == 1 else LIGHT.muted
            dash = self._dash(own["arm"].iloc[0], arms)
            if self.axis.numeric:
                draw.line(ax, own["x"], own["mean"], tone, linestyle=dash)
            draw.intervals(ax, own["x"], own["low"], own["high"], tones, linewidth=1.4)
            draw.dots(ax, own["x"], own["mean"], tones, marker=marker)
            if words:
                joined: Any = dash if self.axis.numeric else "none"
                handle = Line2D([], [], color=tone, linestyle=joined, marker=marker, markersize=5)
                handles[draw.shorten(words)] = handle
        handles |= self._draw_floor(ax, means)
        if self.optimum:
            dotted = {**REFERENCE, "linestyle": (0, (1, 1.5)), "linewidth": 1.8}
            (dots,) = ax.plot(list(self.optimum), list(self.optimum.values()), **dotted)
            handles["optimum of the smoothed loss, 1 − ε + ε/K"] = dots
        ax.set(ylim=self.limits, xlabel="", ylabel="")
        return handles

    def _places(self, ax: Axes, arms: pd.Series[str], aside: float = 0.0) -> FloatArray:
        """Places of arms on prepared axes, those of each line a little aside."""
        number = arms.map(self.line_of).map(self.lines.index).to_numpy(dtype=np.float64)
        steps = min(0.25, 1 / len(self.lines)) * (number - (len(self.lines) - 1) / 2 + aside)
        return self.axis.places(ax, [self.context.level(arm) for arm in arms], steps)

    def _dash(self, arm: str, drawn: Sequence[str]) -> Any:
        """Where lines of all panels share one, those of each panel have dashes of their own."""
        panels = list(dict.fromkeys(map(self.context.panel_of, drawn)))
        return DASHES[panels.index(self.context.panel_of(arm)) % len(DASHES)]

    def _draw_floor(self, ax: Axes, means: pd.DataFrame) -> Handles:
        """The noise floor as a line in its band; of several lines the mean."""
        names, levels = ["floor", "floor_low", "floor_high"], means["arm"].map(self.context.level)
        floor = means.groupby(levels, sort=False)[names].mean().dropna(subset="floor")
        if floor.empty:
            return {}
        floor = floor.assign(x=self.axis.places(ax, list(floor.index), 0.0)).sort_values("x")
        apart = [floor[at : at + 1] for at in range(len(floor))]  # between names lies nothing
        for piece in [floor] if self.axis.numeric and len(floor) > 1 else apart:
            x, height, low, high = (piece[name].to_numpy() for name in ("x", *names))
            if len(x) == 1:
                x = np.add(x, [-PIECE, PIECE])
                height, low, high = (np.repeat(end, 2) for end in (height, low, high))
            ax.fill_between(x, low, high, **SHADE)
            ax.plot(x, height, **REFERENCE)
        return {"noise floor": Line2D([], [], **REFERENCE)}


class LevelAxis:
    """Where levels lie in all panels of a figure: numbers on the scale that fits, or names in order."""

    def __init__(self, levels: Sequence[Any]) -> None:
        self.levels = list(dict.fromkeys(levels))
        self.numeric = all(map(is_number, self.levels))
        self.scale = scale_of(self.levels) if self.numeric else "category"

    def prepare(self, ax: Axes, inches: float) -> None:
        """Give axes of about so many inches the scale, its ends and its labels."""
        if not self.numeric:
            draw.categories(ax, self.levels, inches)
        if not self.numeric or not self.levels:
            return
        known = np.unique(np.asarray(self.levels, dtype=np.float64))
        if self.scale == "symlog":
            positive = known[known > 0]
            step = float(np.median(np.diff(np.log10(positive))))  # from 0 to the first as on to the next
            ax.set_xscale("symlog", linthresh=positive[0], linscale=max(step, 0.2))
        else:
            ax.set_xscale(self.scale)
        ax.minorticks_off()
        ax.grid(visible=False, axis="x")
        along = self._along(ax, known)
        length = along[-1] - along[0] or abs(along[0]) or 1.0
        ax.set_xlim(*self._values(ax, [along[0] - 0.07 * length, along[-1] + 0.07 * length]))
        words = [level_label(float(level)) for level in known]
        ax.set_xticks(known, labels_apart(words, (along - along[0]) / length * inches * 0.8))

    def places(self, ax: Axes, levels: Sequence[Any], steps: ArrayLike) -> FloatArray:
        """Places of levels on prepared axes, each so many steps aside, so that intervals do not overlap."""
        if not self.numeric:
            return np.array([self.levels.index(level) for level in levels]) + 0.6 * np.asarray(steps)
        low, high = self._along(ax, ax.get_xlim())
        return self._values(ax, self._along(ax, levels) + 0.06 * (high - low) * np.asarray(steps))

    def _along(self, ax: Axes, values: ArrayLike) -> FloatArray:
        return np.asarray(ax.xaxis.get_transform().transform(np.asarray(values, dtype=np.float64)))

    def _values(self, ax: Axes, along: ArrayLike) -> FloatArray:
        return np.asarray(ax.xaxis.get_transform().inverted().transform(np.asarray(along, dtype=np.float64)))


def scale_of(levels: Sequence[float]) -> str:
    """The scale that fits numeric levels: linear; log where they are geometric, symlog where also 0 is one.

    Geometric are three positive levels or more whose ratios are more alike than their differences.
    """
    known = np.unique(np.asarray(levels, dtype=np.float64))
    positive = known[known > 0]
    if len(positive) < 2 or known[0] < 0:
        return "linear"
    ratios, gaps = np.diff(np.log(positive)), np.diff(known)
    geometric = len(positive) > 2 and ratios.max() / ratios.min() < gaps.max() / gaps.min()
    if not geometric and positive[-1] / positive[0] < LOG_RATIO:
        return "linear"
    return "log" if known[0] > 0 else "symlog"


def labels_apart(words: Sequence[str], inches: FloatArray) -> list[str]:
    """The labels at these places, "" for those that would touch; the first and the last are always there."""
    ends = [0.04 * len(word) + 0.04 for word in words]
    last, shown = 0, {0, len(words) - 1}
    for at in range(1, len(words) - 1):
        free = inches[at] - ends[at] > inches[last] + ends[last]
        if free and inches[at] + ends[at] < inches[-1] - ends[-1]:
            last = at
            shown.add(at)
    return [word if at in shown else "" for at, word in enumerate(words)]


@figure("{0.name}", "{0.label} by seed", order=20, each=metrics_of)
def metric_by_seed(context: Context, metric: Quantity) -> Drawing | None:
    """A metric run by run, with its mean and interval: for studies of one arm."""
    if context.axis:
        return None
    runs, means = context.runs(metric).sort_values("seed"), context.means(metric)
    (color,) = context.colors.values()
    canvas, (ax,) = draw.panels(1, 1, height=2.6)
    caption = "Each point is a training run; the line is their mean, the band its 95 % t interval."
    handles: Handles = {"training runs": draw.dots(ax, range(len(runs)), runs["value"], color, size=6)}
    names, tinted = ["mean", "low", "high", "floor", "floor_low", "floor_high"], (color, 0.14)
    for mean, low, high, floor, floor_low, floor_high in means[names].to_numpy(dtype=np.float64):
        handles["mean"] = ax.axhline(mean, color=color, linewidth=1.4)
        if np.isfinite(low):
            ax.axhspan(low, high, facecolor=tinted)
            handles["95 % interval"] = Patch(facecolor=tinted)
        if np.isfinite(floor_high):
            ax.axhspan(floor_low, floor_high, **SHADE)
            handles["noise floor, 95 %"] = Patch(**SHADE)
            caption += BAND.replace("Shaded", "Grey")
        if np.isfinite(floor):
            handles["noise floor"] = ax.axhline(floor, **REFERENCE)
            caption += FLOOR
    ax.set_title(metric.axis)
    ax.set(xlabel="seed", ylabel="", xlim=(-0.7, max(len(runs), 1) - 0.3))
    ax.set_xticks(range(len(runs)), [str(seed) for seed in runs["seed"]])
    ax.grid(visible=False, axis="x")
    draw.legend_above(canvas, handles)
    return Drawing(canvas, caption, "trials")
