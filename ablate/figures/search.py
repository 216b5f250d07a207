"""A search: its points in their order, against each searched field, and which fields matter."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ablate.analysis.arms import factor_label, level_label
from ablate.analysis.tuning import SUFFIXES, Tuned, levels_of
from ablate.figures import Drawing, draw, figure
from ablate.figures.context import Context
from ablate.figures.draw import Handles
from ablate.figures.effects import pareto
from ablate.figures.theme import LIGHT, SHADE
from ablate.study.search import Choice, Range
from ablate.tables.quantities import Quantity

SAMPLER = "sampler"
ROLES = pd.DataFrame([
    (SAMPLER, "chosen by the sampler", "o", 4.5, LIGHT.muted),
    ("anchor", "anchor", "^", 6.5, LIGHT.ink),
    ("baseline", "baseline", "s", 6.5, LIGHT.ink),
    ("winner", "winner", "*", 11.0, LIGHT.ink),
], columns=["role", "words", "marker", "size", "color"]).set_index("role")  # fmt: skip
"""What a point of a search is, and how it looks; the last one lies on top."""
MOST_INTERVALS = 150  # with more points, intervals would hide them
LONGEST_REACH = 0.5  # intervals make the axis longer by at most so many ranges, to either side
FEW_SEEDS, LONG = 4, 3.0  # intervals of fewer seeds that are so many ranges long are left out
FOCUS = 3.0  # values so many times as far from the best as the worst quarter lie beyond the axis
MOST_PANELS, MOST_CATEGORIES, MOST_FIELDS = 6, 12, 20
STRIP = 0.3  # half the width that a category's points are spread over
TWO_SIDED = 1.96  # standard deviations of a normal distribution that 95 % lie within
BEST_PART, BEST_POINTS, FEW_POINTS = 0.1, 5, 30  # PED-ANOVA's best part, at least so many; few are noise
POINTS = "Each point is the mean over its seeds on the tuning split, with its 95 % t interval."
BEYOND = " Points far from the best are arrows at the edge; long intervals go on beyond the panel."
SINGLE = (
    f" Where fewer than {FEW_SEEDS} seeds give an interval longer than {LONG:g} times the range of the "
    "points' means, the point's single runs are shown in its place."
)


class Scores:
    """One objective of a search, in the shown unit; `more` is what titles add where there are two.

    `points` have the looks of `ROLES`; `long` marks those of few seeds whose intervals would hide all else.
    """

    def __init__(self, context: Context, tuned: Tuned, metric: Quantity, suffix: str) -> None:
        self.tuned, self.metric, self.suffix, factor = tuned, metric, suffix, metric.factor
        self.more = f": {metric.label}" if len(tuned.objectives) > 1 else ""
        self.directed = f"{metric.axis}, {'more' if metric.better == 'higher' else 'less'} is better"
        columns = {"value": "mean"} | {name: name for name in ("low", "high", "smoothed", "smoothed_sd")}
        points = tuned.points.sort_values("number").reset_index(drop=True).join(ROLES, on="role")
        scores = {new: factor * points[f"{old}{suffix}"].astype("float64") for old, new in columns.items()}
        # What a pruner saw is of the first objective.
        seen = math.nan if suffix else factor * points["last_seen"].astype("float64")
        values = factor * tuned.values[f"value{suffix}"].astype("float64")
        self.runs = tuned.values[["number", "trial_id"]].assign(value=values).dropna(subset=["value"])
        longest = LONG * (scores["mean"].max() - scores["mean"].min()) or math.inf
        seeds = points["number"].map(self.runs.groupby("number").size()).fillna(0)
        long = seeds.between(1, FEW_SEEDS - 1) & (scores["high"] - scores["low"] > longest)
        # More than one of many has the colour of its arm, if the re-test has it.
        own = points["arm"].where(points["role"] != SAMPLER).map(context.colors)
        self.points = points.assign(**scores, last_seen=seen, long=long, color=own.fillna(points["color"]))
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

    def draw(self, ax: Axes, points: pd.DataFrame, single: pd.DataFrame, heights: Iterable[float]) -> Handles:
        """Draw points at their `x`, intervals, single runs; those beyond the axis as arrows at its edge."""
        handles, (low, high) = Handles(), self.limits(points, heights)
        ax.set_ylim(low, high)
        ax.grid(visible=False, axis="x")
        runs = self.runs.merge(single[["number", "x"]], on="number")
        if len(runs):
            shown = draw.dots(ax, runs["x"], runs["value"], LIGHT.muted, size=3, alpha=0.45, zorder=1.5)
            handles["a training run"] = shown
        for above, (name, role) in enumerate(ROLES.iterrows()):
            own = points[(points["role"] == name) & points["mean"].notna()]
            if own.empty:
                continue
            style: dict[str, Any] = {"marker": role["marker"], "size": role["size"], "zorder": 2 + above}
            inside = own[own["mean"].between(low, high)]
            if len(points) <= MOST_INTERVALS:
                ends = inside["low"], inside["high"]
                ax.vlines(inside["x"], *ends, colors=list(inside["color"]), linewidth=1.0, zorder=2 + above)
            handles[role["words"]] = draw.dots(ax, inside["x"], inside["mean"], inside["color"], **style)
            hollow: Any = {"color": role["color"], "markersize": 4, "markerfacecolor": LIGHT.surface}
            for arrow, edge, beyond in (("v", low, own["mean"] < low), ("^", high, own["mean"] > high)):
                height = 0.975 * edge + 0.025 * (low + high) / 2
                ax.plot(own.loc[beyond, "x"], np.full(beyond.sum(), height), arrow, **hollow)
        return handles


def scores_of(context: Context) -> list[Scores]:
    """What was searched for; none where nothing was."""
    if (tuned := context.tuned) is None:
        return []
    return [Scores(context, tuned, *one) for one in zip(tuned.objectives, SUFFIXES, strict=False)]


@figure("tuning_history{0.suffix}", "The search{0.more}", order=1, each=scores_of)
def tuning_history(context: Context, scores: Scores) -> Drawing:
    """The points in their order: what each scored, and the best smoothed value so far."""
    points = scores.points.assign(x=scores.points["number"].astype("float64"))
    higher = scores.metric.better == "higher"
    best = (points["smoothed"].cummax() if higher else points["smoothed"].cummin()).ffill().dropna()
    pruned = points[(points["state"] == "pruned") & points["last_seen"].notna()]
    ended = points["state"].isin(["complete", "pruned", "failed"])
    lost = points[ended & points["mean"].isna() & points["last_seen"].isna()]
    canvas, (ax,) = draw.panels(height=2.8, xlabel="number of the point")
    handles = scores.draw(ax, points, points[points["long"]], [*best, *pruned["last_seen"]])
    if len(best):
        x = points.loc[best.index, "x"]
        last = max(points.loc[points["mean"].notna(), "x"].max(), x.max()) + 0.5
        line = ax.plot([*x, last], [*best, best.iloc[-1]], color=LIGHT.ink, drawstyle="steps-post", zorder=1)
        (handles["best smoothed value so far"],) = line
    muted: dict[str, Any] = {"color": LIGHT.muted, "clip_on": False}
    if len(pruned):
        seen = pruned["last_seen"].clip(*ax.get_ylim())
        (handles["pruned, at its last value"],) = ax.plot(pruned["x"], seen, "x", markersize=5, **muted)
    if len(lost):
        muted |= {"transform": ax.get_xaxis_transform(), "markersize": 9}
        (handles["ended without a value"],) = ax.plot(lost["x"], np.zeros(len(lost)), "|", **muted)
    ax.set_title(draw.shorten(scores.metric.axis))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    caption = f"{POINTS} The line is the best smoothed value among the points so far, all points known."
    caption += SINGLE * bool(points["long"].any()) + BEYOND
    return Drawing(canvas, caption, "points", handles)


@figure("tuning_slices{0.suffix}", "By field{0.more}", order=1, each=scores_of)
def tuning_slices(context: Context, scores: Scores) -> Drawing:
    """The objective against every searched field."""
    space = scores.tuned.search.space
    known = [levels_of(scores.tuned.search, row) for _, row in scores.points.iterrows()]
    levels = pd.DataFrame(known, columns=list(space))
    used = [name for name in space if (levels[name].notna() & scores.points["mean"].notna()).any()]
    shown, left_out = used[:MOST_PANELS], used[MOST_PANELS:]
    canvas, axes = draw.panels(len(shown), columns=2 if len(shown) == 4 else 0, height=2.3)
    handles = Handles()
    for ax, name in zip(axes, shown, strict=True):
        points = scores.points.assign(level=levels[name]).dropna(subset=["level", "mean"])
        handles |= _draw_slice(ax, scores, points, space[name], alone=len(space) == 1)
        ax.set_title(draw.wrapped(scores.metric.axis, ax))
        ax.set_xlabel(draw.shorten(factor_label(name)) + " (log scale)" * (ax.get_xscale() == "log"))
    caption = f"{POINTS} Faint points are single training runs. Below a cliff nothing is smoothed."
    line = " The line is the value smoothed over the points, the band its 95 %."
    caption += line if len(space) == 1 else " Dashes are values smoothed over all searched fields at once."
    if any(isinstance(space[name], Choice) for name in shown):
        caption += " Within a value without order, points stand side by side in the order of the search."
    if any(dimension.when for dimension in space.values()):
        caption += " A field with a condition shows the points that use it."
    caption += SINGLE * bool(scores.points["long"].any()) + BEYOND
    return Drawing(canvas, caption, "points", handles, list(map(factor_label, left_out)))


def _draw_slice(
    ax: Axes, scores: Scores, points: pd.DataFrame, dimension: Range | Choice, *, alone: bool
) -> Handles:
    """Draw the points along one field; where it is the only one, a line joins the smoothed values."""
    if isinstance(dimension, Choice):
        names = list(map(level_label, dimension.of))[:MOST_CATEGORIES]
        words = points["level"].map(level_label)
        # Beside each other within each category, in the order of the points.
        order, count = words.groupby(words).cumcount(), words.map(words.value_counts())
        place = words.map({name: float(at) for at, name in enumerate(names)})
        points = points.assign(x=place + STRIP * ((2 * order + 1) / count - 1)).dropna(subset=["x"])
        draw.categories(ax, names)
    else:
        points = points.assign(x=points["level"].astype("float64"))
        if dimension.log:
            ax.set_xscale("log")
            ax.set_xlim(points["x"].min() / 1.5, points["x"].max() * 1.5)
            ax.minorticks_off()
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if points["x"].nunique() == 1:
            ax.set_xticks([points["x"].iloc[0]])
    handles, smooth = Handles(), points.sort_values("x", kind="stable")  # a gap where left out
    x, middle = smooth["x"], smooth["smoothed"]
    if alone and isinstance(dimension, Range) and middle.notna().any():
        reach = TWO_SIDED * smooth["smoothed_sd"]
        band = ax.fill_between(x, middle - reach, middle + reach, zorder=0, **SHADE)
        handles["95 % of the smoothed value"] = band
        (handles["smoothed value"],) = ax.plot(x, middle, color=LIGHT.muted, linewidth=1.6, zorder=1)
    elif middle.notna().any():
        dash: dict[str, Any] = {"color": LIGHT.ink, "markersize": 9, "markeredgewidth": 1.4, "zorder": 1}
        (handles["smoothed value"],) = ax.plot(x, middle, "_", **dash)
    return handles | scores.draw(ax, points, points, middle)


@figure("tuning_importances", "Importance of the fields", order=5)
def tuning_importances(context: Context) -> Drawing | None:
    """How much each searched field decides whether a point is among the best."""
    tuned = context.tuned
    if tuned is None or len(tuned.search.space) < 2 or tuned.importances.empty:
        return None
    shares = tuned.importances.pivot_table(index="field", columns="objective", values="share", fill_value=0.0)
    metrics = {metric.name: metric.label for metric in tuned.objectives if metric.name in shares}
    shares = shares[list(metrics)].rename(columns=metrics)
    shares = shares.reindex([name for name in tuned.search.space if name in shares.index])
    shares = shares.sort_values(list(shares.columns), ascending=False, kind="stable")
    shown, left_out = shares[:MOST_FIELDS], [factor_label(name) for name in shares.index[MOST_FIELDS:]]
    canvas, (ax,) = draw.panels(height=0.3 + 0.22 * max(shown.size + len(shown), 4))
    tones = dict(zip(shown.columns, (LIGHT.ink, LIGHT.muted), strict=False))
    long = shown.reset_index().melt("field", var_name="objective", value_name="share")
    plain = {"saturation": 1, "errorbar": None, "legend": False}
    sns.barplot(long, x="share", y="field", hue="objective", palette=tones, ax=ax, **plain)
    for bars in ax.containers:
        ax.bar_label(bars, fmt=" {:.2f}", fontsize=9)  # type: ignore[arg-type]
    draw.rows_of(ax, [draw.shorten(factor_label(name), 24) for name in shown.index])
    ax.set(xlim=(0, 1.12 * float(long["share"].max()) or 1.0), xlabel="", ylabel="")
    ax.set_title("importance (scaled to sum to 1)")
    handles: Handles = {label: Patch(color=tone) for label, tone in tones.items() if len(tones) > 1}
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
    return Drawing(canvas, caption, "importances", handles, left_out)


@figure("tuning_front", "The two objectives of the search", order=6)
def tuning_front(context: Context) -> Drawing | None:
    """A search's points between its two objectives, and the smoothed values that no other point beats."""
    objectives = scores_of(context)
    if len(objectives) < 2:
        return None
    up, along = objectives
    beside = along.points[["mean", "low", "high", "smoothed", "long"]]
    points = up.points.merge(beside, left_index=True, right_index=True, suffixes=("_y", "_x"))
    points = points.rename(columns={"mean_x": "x", "mean_y": "y"}).dropna(subset=["x", "y"])
    on_front, long = points["on_front"].fillna(False).astype(bool), points["long_x"] | points["long_y"]
    words, sampled = points["words"], points["role"] == SAMPLER
    labels = words.mask(sampled, (words + ", on the front").where(on_front, ""))
    won = words + ": " + points["label"].map(draw.shorten)
    points["label"] = labels.mask(points["role"] == "winner", won)
    line = points[["smoothed_x", "smoothed_y"]].set_axis(["x", "y"], axis=1)
    runs = along.runs.merge(up.runs, on=["number", "trial_id"], suffixes=("_x", "_y"))
    runs = runs[runs["number"].isin(points.loc[long, "number"])]
    canvas, (ax,) = draw.panels(height=3.1, xlabel=along.directed)
    shown = draw.dots(ax, runs["value_x"], runs["value_y"], LIGHT.muted, size=3, alpha=0.5)
    handles: Handles = {"a training run": shown} if len(runs) else {}
    steps = "steps-pre" if along.metric.better == "higher" else "steps-post"
    handles |= pareto(ax, points, line[on_front], steps)
    shown = draw.dots(ax, line.loc[on_front, "x"], line.loc[on_front, "y"], LIGHT.muted, marker="d", size=4)
    handles["front of the smoothed values"] = shown
    ax.set_xlim(along.limits(along.points.loc[points.index], [*line["x"], *runs["value_x"]]))
    ax.set_ylim(up.limits(up.points.loc[points.index], [*line["y"], *runs["value_y"]]))
    ax.set_title(up.directed)
    caption = (
        "Means over seeds on the tuning split with 95 % t intervals. The line joins the smoothed values "
        "that no other point beats in both objectives; dots are beaten. Points far off are outside."
    )
    return Drawing(canvas, caption + SINGLE * bool(long.any()), "points", handles)
