"""Metrics against the levels of a factor, or by seed where there is one arm, beside their noise floors."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ablate.analysis.arms import factor_label, level_label, split_sizes
from ablate.figures import Drawing, draw, figure
from ablate.figures.context import Context, is_number, spread
from ablate.figures.draw import Handles
from ablate.figures.theme import LIGHT, MARKERS, NEAR, REFERENCE, SHADE, TINTS
from ablate.stats.intervals import FloatArray
from ablate.tables.quantities import Quantity, quantity

CALIBRATION = ("ece", "ece_equal_mass", "smece", "classwise_ece", "ece_scaled", "temperature", "nll", "brier")
RANKING = ("auroc_error", "auroc_error_normalised", "aurc", "coverage_at_1")
FAMILIES = (("calibration", "Calibration", CALIBRATION), ("ranking", "Ranking of errors", RANKING))
MOST_LINES, FEW_LINES, MOST_PANELS, MOST_POINTS = 8, 6, 8, 300  # the last two: of figures by metric
LOG_RATIO = 50.0  # levels that span at least this ratio are no longer told apart on a linear axis
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
BLUES = ListedColormap([LIGHT.tint(0, step) for step in range(TINTS)])
FRAME: dict[str, Any] = {"fill": False, "edgecolor": LIGHT.ink, "linewidth": 1.6, "clip_on": False}
PIECE = 0.3  # half the width of the floor's band at a level that stands alone
LONG = " Intervals much longer than the range of the values go on beyond the panel."
BAND = " Shaded: where 95 % of means of a perfectly calibrated network would fall."
FLOOR = " The dashed line is the noise floor: what a perfectly calibrated network would score on average."
Panel = tuple[str, Quantity, list[str]]
FLOORS = ["floor", "floor_low", "floor_high"]
OPTIMUM = "optimum of the smoothed loss, 1 − ε + ε/K"


def metrics_of(context: Context) -> list[Quantity]:
    """The metrics that have a figure each."""
    study = context.plan.study
    names = dict.fromkeys((study.primary, *study.usual("accuracy", "ece", "mean_confidence")))
    return [] if context.complete.empty else [quantity(name) for name in names]


@figure("{0.name}", "{0.label} by level", order=20, each=metrics_of)
def metric_by_level(context: Context, metric: Quantity) -> Drawing | None:
    """A metric against the axis's factor; with three or more factors, a panel per level of one of them."""
    if not context.axis:
        return None
    groups = list(dict.fromkeys(context.means(metric)["arm"].map(context.panel_of))) or [""]
    arms = {group: [arm for arm in context.arms if context.panel_of[arm] == group] for group in groups}
    panels = [(group or metric.axis, metric, arms[group]) for group in groups]
    return _by_level(context, panels, context.line_of, MOST_LINES, runs=True)


@figure("heat_map", "Means over both factors", order=15)
def heat_map(context: Context) -> Drawing | None:
    """The primary metric and ECE in a grid of two numeric factors."""
    study, complete, factors = context.plan.study, context.complete, list(context.factors)
    if len(factors) != 2 or not all(map(context.is_ordered, factors)) or study.only or complete.empty:
        return None
    up = next(name for name in factors if name != context.axis)
    known = complete.columns[complete.notna().any()]
    metrics = [quantity(name) for name in dict.fromkeys((study.primary, "ece")) if name in known]
    canvas, axes = draw.panels(len(metrics), height=0.5 + 0.34 * len(context.factors[up]))
    handles, baselines = Handles(), {other for _, other in context.plan.comparisons}
    for ax, metric in zip(axes, metrics, strict=True):
        means, sign = context.means(metric).set_index("arm")["mean"], -1 if metric.better == "lower" else 1
        levels = pd.DataFrame([context.arms[arm].levels for arm in means.index], means.index)
        table = levels.assign(mean=means).pivot(index=up, columns=context.axis, values="mean").iloc[::-1]
        font = min(9.0, 20 * draw.inches(ax) / table.shape[1])
        text = {"fmt": f".{metric.digits}f", "annot_kws": {"color": LIGHT.ink, "fontsize": font}}
        ticks = {"xticklabels": table.columns.map(level_label), "yticklabels": table.index.map(level_label)}
        sns.heatmap(sign * table, annot=table, cmap=BLUES, cbar=False, ax=ax, **text, **ticks)
        ax.set(xlabel=factor_label(context.axis), ylabel=factor_label(up), title=metric.axis)
        ax.tick_params(rotation=0, length=0)
        best = {str((sign * means).idxmax())} if metric.better else set[str]()
        for words, arms, inset, dash in (("baseline", baselines, 0.0, ":"), ("best mean", best, 0.05, "-")):
            for _, own in levels[levels.index.isin(arms)].iterrows():
                x, y = list(table.columns).index(own[context.axis]), list(table.index).index(own[up])
                side = 1 - 2 * inset
                frame = Rectangle((x + inset, y + inset), side, side, linestyle=dash, **FRAME)
                handles[words] = ax.add_patch(frame)
        ax.grid(visible=False)
    caption = "Means over training runs; the deeper, the better. Neighbours may differ by chance alone."
    return Drawing(canvas, caption, "trials", handles)


@figure("{0[0]}_by_level", "{0[1]} by level", order=40, each=lambda context: FAMILIES)
def family_by_level(context: Context, family: tuple[str, str, Sequence[str]]) -> Drawing | None:
    """Several metrics by level, a panel each."""
    complete = context.complete
    known = [quantity(name) for name in family[2] if name in complete and complete[name].notna().any()]
    if not known or not context.axis:
        return None
    most = max(2, min(FEW_LINES, MOST_POINTS // (len(context.factors[context.axis]) * len(known))))
    lines = {arm: context.words_of(arm, [*context.line, context.panel]) for arm in context.arms}
    return _by_level(context, [(metric.axis, metric, list(context.arms)) for metric in known], lines, most)


def _by_level(
    context: Context, wanted: Sequence[Panel], words: Mapping[str, str], most: int, *, runs: bool = False
) -> Drawing:
    """A panel per title, metric and arms; `words` name each arm's line, `most` of them at most."""
    panels, left_out = wanted[:MOST_PANELS], [title for title, *_ in wanted[MOST_PANELS:]]
    lines, others = spread(list(dict.fromkeys(words.values())), most)
    marks = pd.DataFrame(words.items(), columns=["arm", "line"])
    marks = marks[marks["line"].isin(lines)]
    marks["level"] = marks["arm"].map(context.level)
    study = context.plan.study
    done, numeric = marks["arm"].isin(context.complete["arm"]), context.is_ordered(context.axis)
    places = places_of(marks.loc[done, "level"])
    # Lines stand a little aside of each other, so that their intervals do not overlap.
    step = (0.07 if numeric else 0.6) * min(0.25, 1 / len(lines))
    marks["at"] = marks["level"].map(places)
    marks["x"] = marks["at"] + step * (marks["line"].map(lines.index) - (len(lines) - 1) / 2)
    marks["color"] = marks["arm"].map(context.colors)

    height = 1.75 if not runs else 2.6 if len(panels) == 1 else 2.1
    title, metric, _ = panels[0]
    look: Any = {"ylabel": metric.axis if runs and title != metric.axis else "", "sharey": runs}
    canvas, axes = draw.panels(len(panels), height=height, xlabel=factor_label(context.axis), **look)
    handles, notes = Handles(), dict[str, None]()
    for ax, (title, metric, arms) in zip(axes, panels, strict=True):
        ax.set_title(draw.wrapped(title, ax))
        if numeric:
            level_axis(ax, places, draw.inches(ax) / 1.14)
        else:
            draw.categories(ax, list(places))
        means = context.means(metric).merge(marks, on="arm")
        single = context.runs(metric).merge(marks, on="arm") if runs else means[:0].assign(value=0.0)
        optimum = _optimum(context, metric, places)
        shown = [*np.ravel(means[["mean", *FLOORS]]), *single["value"], *optimum.values()]
        low, high = draw.view_limits(shown, means[["low", "high"]])
        ax.set_ylim((low, high) if np.nan_to_num(shown).any() else (-0.05, 1.05))
        if ((means["low"] < low) | (means["high"] > high)).any():
            notes[LONG] = None
        means, single = (rows[rows["arm"].isin(arms)] for rows in (means, single))
        # To the left of the mean, whose interval would hide them.
        aside = step * (0.8 if len(lines) == 1 else 0.5)
        draw.dots(ax, single["x"] - aside, single["value"], single["color"], size=4, alpha=0.5, zorder=1.5)
        dashes = dict(zip(dict.fromkeys(map(context.panel_of.get, arms)), itertools.cycle(DASHES)))
        for line, marker in zip(lines, itertools.cycle(MARKERS)):
            own = means[means["line"] == line].sort_values("at")
            if len(own):
                joined: Any = dashes[context.panel_of[own["arm"].iloc[0]]] if numeric else "none"
                tone = own["color"].iloc[0] if own["color"].nunique() == 1 else LIGHT.muted
                ax.plot(own["x"], own["mean"], color=tone, linestyle=joined)
                ax.vlines(own["x"], own["low"], own["high"], colors=list(own["color"]))
                draw.dots(ax, own["x"], own["mean"], own["color"], marker=marker)
                look = {"color": tone, "linestyle": joined, "marker": marker, "markersize": 5}
                handles |= {draw.shorten(line): Line2D([], [], **look)} if line else {}
        compared = {other for arm, other in context.plan.comparisons if arm in arms}
        base, margin = means.loc[means["arm"].isin(compared), "mean"], study.all_margins.get(metric.name, 0)
        if len(compared) == len(base) == 1:
            handles["baseline"] = ax.axhline(base.item(), color=LIGHT.muted, linewidth=0.8, zorder=0)
            if margin:
                ends = base.item() + metric.factor * margin * np.array([-1, 1])
                handles["its margin"] = ax.axhspan(*ends, **NEAR)
        floor = means.groupby("at")[FLOORS].mean().dropna(subset="floor")
        if len(floor):
            handles["noise floor"] = _draw_floor(ax, floor, numeric)
            notes |= {BAND: None} if floor["floor_low"].notna().any() else {}
            notes[FLOOR + " Of several lines it is the mean." * (len(lines) > 1)] = None
        if optimum:
            dotted = {**REFERENCE, "linestyle": (0, (1, 1.5)), "linewidth": 1.8}
            (handles[OPTIMUM],) = ax.plot(list(optimum), list(optimum.values()), **dotted)
            notes[" At the dotted line the smoothed loss is least."] = None
    about = "each faint point is one run." if runs else "every panel has its own scale."
    caption = f"Means over training runs with 95 % intervals; {about}{''.join(notes)}"
    return Drawing(canvas, caption, "trials", handles, [*others, *left_out])


def _draw_floor(ax: Axes, floor: pd.DataFrame, numeric: bool) -> Line2D:
    apart = [floor.loc[[at, at]].set_axis([at - PIECE, at + PIECE]) for at in floor.index]
    for piece in [floor] if numeric and len(floor) > 1 else apart:  # between names lies nothing
        if piece["floor_low"].notna().any():
            ax.fill_between(piece.index, piece["floor_low"], piece["floor_high"], **SHADE)
        (line,) = ax.plot(piece.index, piece["floor"], **REFERENCE)
    return line


def _optimum(context: Context, metric: Quantity, places: Mapping[Any, float]) -> dict[float, float]:
    """Place of an ε to the mean confidence (%) at which the smoothed loss is least, 1 − ε + ε/K; else {}."""
    _, classes = split_sizes(context.tables)
    smoothed = (context.complete["loss"] == "label_smoothing").all()
    if metric.name != "mean_confidence" or context.axis != "epsilon" or not smoothed or classes < 2:
        return {}
    return {place: 100 * (1 - level + level / classes) for level, place in places.items()}


def places_of(levels: Iterable[Any]) -> dict[Any, float]:
    """Level to its place: numbers from 0 to 1, spaced as their scale asks for; names 0, 1, ... in order.

    Numbers lie logarithmically where ratios are more alike than differences; a 0 is then a step below them.
    """
    levels = list(dict.fromkeys(levels))
    if not all(map(is_number, levels)):
        return {level: float(place) for place, level in enumerate(levels)}
    along = known = np.unique(np.asarray(levels, dtype=np.float64))
    positive = known[known > 0]
    if len(positive) > 1 and known[0] >= 0:
        steps, gaps = np.diff(np.log(positive)), np.diff(known)
        geometric = len(positive) > 2 and steps.max() / steps.min() < gaps.max() / gaps.min()
        if geometric or positive[-1] / positive[0] >= LOG_RATIO:
            along = np.log(positive)
            if known[0] == 0:
                along = np.array([along[0] - np.median(steps), *along])
    reach = along[-1] - along[0] if len(known) > 1 else 1.0
    return dict(zip(known.tolist(), ((along - along[0]) / reach).tolist(), strict=True))


def level_axis(ax: Axes, places: Mapping[Any, float], inches: float) -> None:
    """A horizontal axis of numbers at their places, so many inches from the first to the last."""
    at, levels = np.array(list(places.values())), np.array(list(places), dtype=np.float64)
    evenly = (levels - levels[0]) / (np.ptp(levels) or 1.0)
    if ax.get_xlabel() and not np.allclose(at, evenly):
        ax.set_xlabel(f"{ax.get_xlabel()} (log scale)")
    ax.set_xlim(-0.07, 1.07)
    ax.set_xticks(at, labels_apart(list(map(level_label, places)), at * inches))
    ax.grid(visible=False, axis="x")


def labels_apart(words: Sequence[str], inches: FloatArray) -> list[str]:
    """The labels at these places, "" for those that would touch; the first and the last are always there."""
    ends, shown = [0.04 * len(word) + 0.04 for word in words], [0]
    for at in range(1, len(words) - 1):
        free = inches[at] - ends[at] > inches[shown[-1]] + ends[shown[-1]]
        if free and inches[at] + ends[at] < inches[-1] - ends[-1]:
            shown.append(at)
    return [word if at in (*shown, len(words) - 1) else "" for at, word in enumerate(words)]


@figure("{0.name}", "{0.label} by seed", order=20, each=metrics_of)
def metric_by_seed(context: Context, metric: Quantity) -> Drawing | None:
    """A metric run by run, with its mean and interval: for studies of one arm."""
    if context.axis:
        return None
    runs, means = context.runs(metric).sort_values("seed"), context.means(metric)
    (color,) = context.colors.values()
    canvas, (ax,) = draw.panels(height=2.6, xlabel="seed")
    caption = "Each point is a training run; the line is their mean, the band its 95 % interval."
    handles: Handles = {"training runs": draw.dots(ax, range(len(runs)), runs["value"], color, size=6)}
    mean: Any
    for mean in means.itertuples():
        handles["mean"] = ax.axhline(mean.mean, color=color)
        if np.isfinite(mean.low):
            handles["95 % interval"] = ax.axhspan(mean.low, mean.high, facecolor=(color, 0.14))
        if np.isfinite(mean.floor_low):
            handles["noise floor, 95 %"] = ax.axhspan(mean.floor_low, mean.floor_high, **SHADE)
            caption += BAND.replace("Shaded", "Grey")
        if np.isfinite(mean.floor):
            handles["noise floor"] = ax.axhline(mean.floor, **REFERENCE)
            caption += FLOOR
    ax.set_title(metric.axis)
    ax.set_xlim(-0.7, max(len(runs), 1) - 0.3)
    ax.set_xticks(range(len(runs)), [str(seed) for seed in runs["seed"]])
    ax.grid(visible=False, axis="x")
    return Drawing(canvas, caption, "trials", handles)
