"""Arms compared: what was asked, with its verdicts; differences; what no arm beats in two metrics."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablate.analysis.arms import arm_label, factor_label
from ablate.analysis.effects import Claim, claims
from ablate.figures import Drawing, draw, figure
from ablate.figures.context import Context
from ablate.figures.draw import Handles
from ablate.figures.levels import level_axis, places_of
from ablate.figures.theme import LIGHT, MARKERS, NEAR, PALETTE, REFERENCE
from ablate.stats.intervals import median_interval
from ablate.stats.surrogate import is_on_front
from ablate.tables.quantities import Quantity, quantity

COMPARED = ("accuracy", "ece", "nll")  # shown beside the primary metric and its family
MOST_ROWS, MOST_ASKED, MOST_PANELS = 24, 8, 3
ZERO = {**REFERENCE, "linestyle": "-"}
LONGEST_REACH = 5.0  # an interval is cut where it reaches so many times as far as the effects do
EXPLORATORY = "exploratory"
MARKS = {"better": "^", "worse": "v", "higher": ">", "lower": "<", "equivalent": "s", "undecided": "o"}
COLORS = {"better": PALETTE[2], "worse": PALETTE[1], "equivalent": PALETTE[0]}
"""Verdict to marker, hollow where undecided, and to colour, which says the same."""
WIDTH = 3.4  # inches across of what was asked: an inch is 96 of a page's pixels, and a phone has 318 for it
CLAIMED = (
    " Words are verdicts on what the study asks about, whose intervals are simultaneous: triangles up are "
    "better, down worse; squares are equivalent, hollow circles undecided."
)
PLAIN = " Dots without a word are exploratory, each with an interval of its own."
SAY_MORE = ("identical", "incomplete")  # reasons that say more than their verdict
MOST_NAMED, MOST_ARMS = 8, 60  # arms of the front that its legend names, and that are drawn at all
FRONTS = (("front", "calibration", "ece", "trials"), ("cost", "the time of a step", "step_ms", "timing"))
"""What accuracy is set against: name and words, the quantity, and the table that it is in."""


@figure("answer", "What was asked", order=0)
def asked(context: Context) -> Drawing | None:
    """The asked metrics against the levels of a numeric factor, else the differences that were asked for."""
    made = [one for one in claims(context.tables["effects"], context.plan) if one.row["n"]]
    if not made:
        return None
    metrics = list(map(quantity, context.plan.study.comparison_family[:MOST_PANELS]))
    if len(context.factors) == 1 and len(context.arms) > 2 and context.is_ordered(context.axis):
        return _against_levels(context, made, metrics)
    return _forest(made, metrics)


def _against_levels(context: Context, made: Sequence[Claim], metrics: Sequence[Quantity]) -> Drawing:
    """A panel per metric: means with intervals, the baseline's as a line, its margin shaded."""
    baselines = dict(context.plan.comparisons).values()
    places = places_of([context.level(arm) for arm in context.arms])
    height, label = 3.5 / len(metrics), factor_label(context.axis)
    canvas, axes = draw.panels(len(metrics), height=height, columns=1, width=WIDTH, xlabel=label)
    marks = Handles()
    for ax, what in zip(axes, metrics, strict=True):
        words = {one.term.term: one.word for one in made if one.metric == what and one.term.kind == "arm"}
        means = context.means(what)
        means["x"] = [places[context.level(arm)] for arm in means["arm"]]
        means = means.sort_values("x")
        ax.plot(means["x"], means["mean"], color=LIGHT.muted, linewidth=1.0, zorder=1)
        margin = context.plan.study.all_margins.get(what.name, 0.0) * what.factor
        room = list[float]()
        for level in means.loc[means["arm"].isin(baselines), "mean"]:  # one, where it is complete
            room = [level - margin, level + margin]
            ax.axhline(level, **REFERENCE)
            ax.axhspan(*room, **NEAR)
        row: Any
        for row in means.itertuples():
            word = words.get(str(row.arm), "")
            ax.vlines(row.x, row.low, row.high, colors=COLORS.get(word, LIGHT.muted), linewidth=2.2)
            marks[word] = _mark(ax, row.x, row.mean, word)
        ax.set_ylim(*draw.view_limits([*means["mean"], *room], means[["low", "high"]]))
        level_axis(ax, places, WIDTH - 0.6)
        trends = [one.word for one in made if one.metric == what and one.term.kind == "trend"]
        if trends:
            marks.pop("", None)  # its line asks about every level
        ax.set_title(f"{what.axis}{''.join(f'; trend: {word}' for word in trends)}")
    caption = (
        "Means with 95 % intervals over training runs; dashed: the baseline's mean, shaded: its margin. "
        "Verdicts rest on differences, so intervals of two means may overlap."
    )
    return Drawing(canvas, caption, "effects", _legend(marks))


def _forest(made: Sequence[Claim], metrics: Sequence[Quantity]) -> Drawing:
    """A panel per metric, a row per difference, with its interval; the margin shaded."""
    rows = list(dict.fromkeys((one.term.kind, one.place) for one in made))
    shown, left_out = rows[:MOST_ASKED], [place for _, place in rows[MOST_ASKED:]]
    canvas, axes = draw.panels(len(metrics), height=0.3 + 0.42 * len(shown), columns=1, width=WIDTH)
    marks = Handles()
    for ax, what in zip(axes, metrics, strict=True):
        own = {(one.term.kind, one.place): one for one in made if one.metric == what}
        found = [own[row] for row in shown if row in own]
        margin = what.factor * max([0.0, *(one.row["margin"] for one in found if one.row["margin"] > 0)])
        values = pd.DataFrame([one.row[["effect", "low", "high"]] for one in found]).astype(float)
        values *= what.factor
        ax.axvline(0, **ZERO)
        ax.axvspan(-margin, margin, **NEAR)
        value: Any
        for at, (one, value) in enumerate(zip(found, values.itertuples(), strict=True)):
            ax.hlines(at, value.low, value.high, colors=COLORS.get(one.word, LIGHT.muted), linewidth=2.2)
            marks[one.word] = _mark(ax, value.effect, at, one.word)
            label = f"{'trend in ' if one.term.kind == 'trend' else ''}{one.place}"
            ax.text(0, at - 0.28, draw.shorten(label, 44), transform=ax.get_yaxis_transform(), va="center")
        ax.set_ylim(len(found) - 0.5, -0.6)
        ax.set_yticks([])
        ax.set_xlim(*draw.view_limits([-margin, margin, *values["effect"]], values[["low", "high"]], 5.0))
        ax.set_title(_difference(what))
        ax.grid(visible=False, axis="y")
    caption = "Differences with their simultaneous 95 % intervals; shaded: within the margin."
    return Drawing(canvas, caption, "effects", _legend(marks), left_out)


def _mark(ax: Axes, x: float, y: float, word: str) -> Line2D:
    color = COLORS.get(word, LIGHT.ink if word else LIGHT.muted)
    face = LIGHT.surface if word == "undecided" else color
    style: Any = {"color": color, "markerfacecolor": face, "markersize": 7, "linestyle": "none"}
    (mark,) = ax.plot([x], [y], MARKS.get(word, "D"), **style)
    return mark


def _legend(marks: Handles) -> Handles:
    return {word or "not asked": marks[word] for word in (*MARKS, "") if word in marks}


@figure("effects", "Differences from the baseline", order=10)
def effects(context: Context) -> Drawing | None:
    """A row per compared arm, a panel per metric."""
    if context.complete.empty or not context.plan.comparisons:
        return None
    study, table = context.plan.study, context.tables["effects"]
    table = table[table["kind"] == "arm"].rename(columns={"term": "arm"})
    about = dict.fromkeys((study.primary, *study.comparison_family, *study.usual(*COMPARED)))
    metrics = list(about)[:MOST_PANELS]
    arms, left_out = context.fitting(table, MOST_ROWS)
    pairs, two_ends = [pair for pair in context.plan.comparisons if pair[0] in arms], study.design == "both"
    canvas, axes = draw.panels(len(metrics), height=0.25 + 0.31 * max(len(pairs), 1), sharey=True)
    names = [[context.labels[one] for one in pair][: 1 + two_ends] for pair in pairs]
    draw.rows_of(axes[0], list(map(" against ".join, names)))
    claimed = set[bool]()
    for ax, name in zip(axes, metrics, strict=True):
        metric, numbers = quantity(name), ["effect", "low", "high", "low_images", "high_images", "margin"]
        rows = table[table["metric"] == name].set_index(["arm", "against"]).reindex(pairs)
        rows[numbers] = metric.factor * rows[numbers].astype("float64")
        rows = rows.assign(color=[context.colors[arm] for arm, _ in pairs], place=range(len(pairs)))
        claimed |= set(rows["verdict"].dropna() != EXPLORATORY)
        _draw_metric(ax, rows)
        ax.set_title(_difference(metric))
    images = "; thin, with caps: for new images as well" if table["low_images"].notna().any() else ""
    caption = (
        f"Each arm{'' if two_ends else f' against {arm_label(study.baseline)}'}, difference of means. "
        f"Thick: 95 % interval{images}. Shaded: within the margin. An arrowhead at the edge: the interval "
        "goes on."
    )
    caption += CLAIMED * (True in claimed) + PLAIN * (False in claimed)
    family = [quantity(name).label for name in study.comparison_family if name not in metrics]
    caption += f" Only in the table: {', '.join(family)}." if family else ""
    return Drawing(canvas, caption, "effects", left_out=left_out)


def _draw_metric(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the differences of one metric, in its shown unit; the claims with their verdicts in words."""
    margin, known = rows["margin"].max(), rows[rows["effect"].notna()]
    room = [-2 * margin, 2 * margin] if margin > 0 else []
    ends = known[["low", "high", "low_images", "high_images"]]
    limits = draw.view_limits([0.0, *known["effect"], *room], ends, LONGEST_REACH)
    if margin > 0:
        ax.axvspan(-margin, margin, **NEAR)
    ax.axvline(0, **ZERO)
    for suffix, width in (("_images", 0.9), ("", 2.4)):
        low, high = (known[f"{end}{suffix}"].clip(*limits) for end in ("low", "high"))
        ax.hlines(known["place"], low, high, colors=list(known["color"]), linewidth=width)
    row: Any
    for row in rows.itertuples():
        verdict, reason = (words if isinstance(words, str) else "" for words in (row.verdict, row.reason))
        if verdict != EXPLORATORY:
            word = reason if reason in SAY_MORE else verdict or "undecided"
            ax.text(1.02, row.place, word, transform=ax.get_yaxis_transform(), va="center", fontsize="small")
        if np.isnan(row.effect):
            continue
        ax.plot([row.low_images, row.high_images], [row.place] * 2, "|", color=row.color, markersize=7)
        beyond = (row.low < limits[0], row.high > limits[1])
        for arrow, edge, goes_on in zip("<>", limits, beyond, strict=True):
            if goes_on:
                ax.plot(0.96 * edge + 0.04 * sum(limits) / 2, row.place, arrow, color=row.color, markersize=6)
        marker = "." if verdict == EXPLORATORY else MARKS.get(verdict, "o")
        face = LIGHT.surface if marker == "o" else row.color
        ax.plot([row.effect], [row.place], marker, color=row.color, markersize=7, markerfacecolor=face)
    ax.set_xlim(*limits)
    ax.grid(visible=False, axis="y")


def _difference(what: Quantity) -> str:
    return f"Δ {what.label}" + (f" ({what.difference_unit})" if what.difference_unit else "")


def pareto(ax: Axes, points: pd.DataFrame, front: pd.DataFrame, steps: str = "steps-post") -> Handles:
    """Draw points between two quantities, and the line of those that nothing beats, the `front`.

    Points have x, y, low_x, high_x, low_y, high_y, color, marker, size and label, "" for dots without a name.
    """
    others, named = points[points["label"] == ""], points[points["label"] != ""]
    draw.dots(ax, others["x"], others["y"], LIGHT.muted, size=3.7, alpha=0.6)
    thin: Any = {"colors": list(named["color"]), "linewidth": 1.0}
    ax.vlines(named["x"], named["low_y"], named["high_y"], **thin)
    ax.hlines(named["y"], named["low_x"], named["high_x"], **thin)
    corners = front.sort_values(["x", "y"])
    ax.plot(corners["x"], corners["y"], color=LIGHT.muted, linewidth=1.0, drawstyle=steps, zorder=0)
    handles = Handles()
    for label, own in named.groupby("label", sort=False):
        color, marker, size = own[["color", "marker", "size"]].iloc[0]
        handles[str(label)] = draw.dots(ax, own["x"], own["y"], color, marker=marker, size=size)
    return handles


@figure("{0[0]}", "Accuracy against {0[1]}", order=30, each=lambda context: FRONTS)
def front(context: Context, against: tuple[str, str, str, str]) -> Drawing | None:
    """Accuracy against ECE or the time of a step, with the arms that no other arm beats in both."""
    *_, name, table = against
    accuracy, cost = quantity("accuracy"), quantity(name)
    if table == "trials":
        along = context.means(cost)
    else:
        cases = context.cases if len({*context.cases.values()}) > 1 else {}  # not all do the same work
        medians = {arm: median_interval(context.timing.times[case]) for arm, case in cases.items()}
        rows = [(arm, step.median, step.low, step.high) for arm, step in medians.items()]
        along = pd.DataFrame(rows, columns=["arm", "mean", "low", "high"])
    points = along.merge(context.means(accuracy), on="arm", suffixes=("_x", "_y"))
    points = points.rename(columns={"mean_x": "x", "mean_y": "y"})
    if len(points) < 2:
        return None
    together = points.groupby(["x", "y"], sort=False)["arm"].agg(list)  # equal means are one point
    points = points.drop_duplicates(["x", "y"]).assign(arms=together.to_numpy())
    points["front"] = is_on_front(np.column_stack([-points["x"], points["y"]]))
    points["matters"] = [bool({*arms} & {*context.important}) for arms in points["arms"]]
    ranked = points.sort_values(["matters", "front"], ascending=False, kind="stable").index
    drawn = points[points["front"] | points.index.isin(ranked[:MOST_ARMS])]
    named = drawn.index.isin(ranked[:MOST_NAMED])
    equal = [f" (and {len(arms) - 1} equal)" if len(arms) > 1 else "" for arms in drawn["arms"]]
    labels = [draw.shorten(label, 60) for label in drawn["arm"].map(context.labels) + equal]
    drawn = drawn.assign(
        label=np.where(named, labels, ""),
        color=drawn["arm"].map(context.colors),
        marker=[MARKERS[number % len(MARKERS)] for number in np.cumsum(named) - 1],
        size=6.5,
    )
    canvas, (ax,) = draw.panels(height=2.9, xlabel=cost.axis)
    handles = pareto(ax, drawn, drawn[drawn["front"]])
    ax.set_xlim(draw.view_limits(drawn["x"], drawn[["low_x", "high_x"]]))
    ax.set_ylim(draw.view_limits(drawn["y"], drawn[["low_y", "high_y"]]))
    ax.set_title(accuracy.axis)
    caption = (
        "Means of the arms with their 95 % intervals; up and to the left is better. The line joins the arms "
        "whose means no other arm beats in both: intervals that overlap leave the order open."
    )
    caption += " Times are medians of steps that were timed apart from the trials." * (table == "timing")
    caption += "" if named.all() else " Dots are arms that are not named, without their intervals."
    left_out = points.loc[points.index.difference(drawn.index), "arms"].explode().dropna()
    return Drawing(canvas, caption, table, handles, list(left_out.map(context.labels)))
