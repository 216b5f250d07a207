"""Differences from the baseline: each with its interval, the margin that does not matter, and a verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ablate.figures import draw
from ablate.figures.context import Context, arm_label, quantity
from ablate.figures.registry import Drawing, figure
from ablate.figures.theme import LIGHT, REFERENCE

COMPARED = ("accuracy", "ece", "nll")
"""Differences that are shown beside those of the primary metric and its family, where there is room."""
MOST_ROWS, MOST_PANELS = 24, 3
LONGEST_REACH = 5.0
"""An interval is cut where it reaches so many times as far as the effects and the margin do."""
MARKS = {"better": "^", "worse": "v", "higher": ">", "lower": "<", "equivalent": "s"}
"""Verdict to marker; an undecided effect is a hollow circle."""
SAY_MORE = ("identical", "incomplete")
"""Reasons that say more than their verdict."""


@figure("effects", "Differences from the baseline", order=10)
def effects(context: Context) -> Drawing | None:
    """A row per compared arm, a panel per metric."""
    if context.complete.empty or not context.plan.comparisons:
        return None
    study, table = context.plan.study, context.effects
    metrics = list(dict.fromkeys((study.primary, *study.comparison_family, *COMPARED)))[:MOST_PANELS]
    present = [arm for arm, _ in context.plan.comparisons if (table["arm"] == arm).any()]
    arms, left_out = draw.spread(present, MOST_ROWS, context.important)
    height = 0.25 + 0.31 * max(len(arms), 1)
    canvas, axes = draw.panels(1, len(metrics), width=draw.WIDE, height=height, sharey=True)
    draw.rows_of(axes[0], [context.labels[arm] for arm in arms])
    for ax, name in zip(axes, metrics, strict=True):
        metric, numbers = quantity(name), ["effect", "low", "high", "low_images", "high_images", "margin"]
        rows = table[table["metric"] == name].set_index("arm").reindex(arms)
        rows[numbers] = metric.factor * rows[numbers].astype("float64")
        rows = rows.assign(color=[context.colors[arm] for arm in arms], place=range(len(arms)))
        _draw_metric(ax, rows, "{}" if name in study.comparison_family else "({})")
        unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
        ax.set_title(f"Δ {metric.label}{unit}")
    caption = (
        f"Each arm against {arm_label(study.baseline)}, mean over the seeds that both completed. Thick: 95 % "
        "interval over seeds, simultaneous over the study's family; thin, with caps: for new images as "
        "well. Shaded: differences within the margin, which do not matter. Triangles up are better, down "
        "worse; squares are equivalent, hollow circles undecided. Verdicts in brackets are exploratory. An "
        "arrowhead at the edge: the interval goes on."
    )
    family = [quantity(name).label for name in study.comparison_family if name not in metrics]
    caption += f" Only in the table: {', '.join(family)}." if family else ""
    return Drawing(canvas, caption + draw.without(map(context.labels.get, left_out)), "effects")


def _draw_metric(ax: Axes, rows: pd.DataFrame, form: str) -> None:
    """Draw the differences of one metric, in its shown unit, with their verdicts in words."""
    margin, known = rows["margin"].max(), rows[rows["effect"].notna()]
    room = [-2 * margin, 2 * margin] if margin > 0 else []
    ends = known[["low", "high", "low_images", "high_images"]]
    limits = draw.view_limits([0.0, *known["effect"], *room], ends, LONGEST_REACH)
    if margin > 0:
        ax.axvspan(-margin, margin, color=LIGHT.muted, alpha=0.16, linewidth=0)
    ax.axvline(0, **{**REFERENCE, "linestyle": "-"})
    for suffix, width in (("_images", 0.9), ("", 2.4)):
        low, high = (known[f"{end}{suffix}"].clip(*limits) for end in ("low", "high"))
        draw.intervals(ax, known["place"], low, high, list(known["color"]), linewidth=width, across=True)
    row: Any
    for row in rows.itertuples():
        verdict, reason = (words if isinstance(words, str) else "" for words in (row.verdict, row.reason))
        word = form.format(reason if reason in SAY_MORE else verdict or "undecided")
        ax.text(1.02, row.place, word, transform=ax.get_yaxis_transform(), va="center", fontsize="small")
        if np.isnan(row.effect):
            continue
        ax.plot([row.low_images, row.high_images], [row.place] * 2, "|", color=row.color, markersize=7)
        for arrow, edge, goes_on in (
            ("<", limits[0], row.low < limits[0]),
            (">", limits[1], row.high > limits[1]),
        ):
            inside = [0.96 * edge + 0.04 * sum(limits) / 2] * goes_on
            ax.plot(inside, [row.place] * goes_on, arrow, color=row.color, markersize=6)
        marker, face = MARKS.get(verdict, "o"), row.color if verdict in MARKS else LIGHT.surface
        ax.plot([row.effect], [row.place], marker, color=row.color, markersize=7, markerfacecolor=face)
    ax.set_xlim(*limits)
    ax.grid(visible=False, axis="y")
