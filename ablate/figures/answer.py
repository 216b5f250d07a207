"""The picture of the first screen: what was asked, with its verdicts, small enough to be read on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ablate.analysis.arms import factor_label, level_label
from ablate.analysis.claims import Claim, claims
from ablate.figures import Drawing, draw, figure
from ablate.figures.context import Context, is_number
from ablate.figures.draw import Handles
from ablate.figures.effects import MARKS
from ablate.figures.levels import labels_apart, places_of
from ablate.figures.theme import LIGHT, NEAR, PALETTE, REFERENCE
from ablate.tables.quantities import Quantity, quantity

COLORS = {"better": PALETTE[2], "worse": PALETTE[1], "equivalent": PALETTE[0]}
"""Of a verdict: shape and colour say the same."""
WIDTH, MOST_PANELS, MOST_ROWS = 3.4, 3, 8
"""Inches across: an inch is 96 of a page's pixels, and a phone has 318 for it."""


@figure("answer", "What was asked", order=0)
def asked(context: Context) -> Drawing | None:
    """The asked metrics against the levels of a numeric factor, else the differences that were asked for."""
    study, made = context.plan.study, claims(context.all_effects, context.plan)
    made = [one for one in made if one.row["n"]]
    if not made:
        return None
    metrics = list(map(quantity, study.comparison_family[:MOST_PANELS]))
    (levels,) = context.factors.values() if len(context.factors) == 1 else ((),)
    if len(levels) > 2 and all(map(is_number, levels)):
        return _against_levels(context, made, metrics)
    return _forest(made, metrics)


def _against_levels(context: Context, made: Sequence[Claim], metrics: Sequence[Quantity]) -> Drawing:
    """A panel per metric: means with intervals, the baseline's as a line, its margin shaded."""
    factor, baselines = context.axis, dict(context.plan.comparisons).values()
    places = places_of([context.level(arm) for arm in context.arms])
    canvas, axes = draw.panels(
        len(metrics), height=3.5 / len(metrics), columns=1, width=WIDTH, xlabel=factor_label(factor)
    )
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
        ax.set_xlim(-0.07, 1.07)
        labels = [level_label(level) for level in places]
        at = np.array(list(places.values()))
        ax.set_xticks(at, labels_apart(labels, at * (WIDTH - 0.6)))
        ax.grid(visible=False, axis="x")
        trends = [one.word for one in made if one.metric == what and one.term.kind == "trend"]
        ax.set_title(f"{what.axis}{''.join(f'; trend: {word}' for word in trends)}")
    caption = (
        "Means with 95 % intervals over training runs; dashed: the baseline's mean, shaded: its margin. "
        "Verdicts rest on differences, so intervals of two means may overlap."
    )
    return Drawing(canvas, caption, "effects", _legend(marks))


def _forest(made: Sequence[Claim], metrics: Sequence[Quantity]) -> Drawing:
    """A panel per metric, a row per difference, with its interval; the margin shaded."""
    rows = list(dict.fromkeys((one.term.kind, one.place) for one in made))
    shown, left_out = rows[:MOST_ROWS], [place for _, place in rows[MOST_ROWS:]]
    height = 0.3 + 0.42 * len(shown)
    canvas, axes = draw.panels(len(metrics), height=height, columns=1, width=WIDTH)
    marks = Handles()
    for ax, what in zip(axes, metrics, strict=True):
        own = {(one.term.kind, one.place): one for one in made if one.metric == what}
        found = [own[row] for row in shown if row in own]
        margin = what.factor * max([0.0, *(one.row["margin"] for one in found if one.row["margin"] > 0)])
        values = pd.DataFrame([one.row[["effect", "low", "high"]] for one in found]).astype(float)
        values *= what.factor
        ax.axvline(0, **{**REFERENCE, "linestyle": "-"})
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
        unit = f" ({what.difference_unit})" if what.difference_unit else ""
        ax.set_title(f"Δ {what.label}{unit}")
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
    not_asked = {"not asked": marks[""]} if "" in marks else {}
    return {word: marks[word] for word in MARKS if word in marks} | not_asked
