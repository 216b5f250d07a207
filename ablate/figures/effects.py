"""Differences from the baseline: each with its interval, the margin that does not matter, and a verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.figures.theme import WIDE, not_drawn, reference_style, shorten, spread, view_limits

MOST_ROWS = 24
MOST_WORDS = 12
"""With more rows, the two usual verdicts are signs."""
MOST_PANELS = 3
LONGEST_REACH = 5.0
"""An interval is cut where it reaches so many times as far as the effects and the margin do."""
MARKS: Mapping[str, tuple[str, str]] = {
    "better": ("^", "C2"),
    "worse": ("v", "C1"),
    "higher": (">", "C3"),
    "lower": ("<", "C3"),
    "equivalent": ("s", "C0"),
}
"""Verdict to marker and colour; an undecided effect is a hollow circle."""
SIGNS = {"undecided": "?", "equivalent": "="}
IN_WORDS = {"identical": "identical", "incomplete": "incomplete"}
"""Reasons that say more than their verdict."""


@dataclass(frozen=True)
class Effect:
    """One comparison on one metric, in the panel's unit.

    Attributes:
        effect: mean paired difference; NaN without pairs.
        low: lower end of the interval over seeds; NaN where there is none.
        high: upper end of the same.
        low_images: lower end of the interval for new images as well; NaN where there is none.
        high_images: upper end of the same.
        verdict: the verdict's word, which decides the marker.
        word: what stands beside the row: the verdict, its reason where that says more, in brackets where the
            metric is outside the study's family.
    """

    effect: float
    low: float
    high: float
    low_images: float
    high_images: float
    verdict: str
    word: str


@dataclass(frozen=True)
class EffectPanel:
    """One metric.

    Attributes:
        label: the metric with its unit.
        margin: largest difference that does not matter, in that unit; NaN where none is declared.
        rows: per comparison its effect, [C].
        limits: ends of the axis; intervals may reach beyond them.
    """

    label: str
    margin: float
    rows: tuple[Effect, ...]
    limits: tuple[float, float]


@dataclass(frozen=True)
class Effects:
    """The comparisons in words, a panel per metric, and the comparisons that did not fit."""

    labels: tuple[str, ...]
    panels: tuple[EffectPanel, ...]
    left_out: tuple[str, ...] = ()


def prepare_effects(
    effects: pd.DataFrame,
    labels: Mapping[str, str],
    metrics: Mapping[str, tuple[str, float]],
    family: tuple[str, ...],
    important: Collection[str] = (),
) -> Effects:
    """One row per compared arm, one panel per metric.

    Args:
        effects: the effects table.
        labels: compared arm to its words, in the order to draw them; arms without rows are passed over.
        metrics: metric to its words with the unit of differences, and the factor to that unit.
        family: metrics on which verdicts are not exploratory.
        important: arms that are always among the drawn ones.
    """
    effects = effects[effects["kind"] == "arm"]
    present = [arm for arm in labels if (effects["term"] == arm).any()]
    kept, left_out = spread(present, MOST_ROWS, important)
    panels = []
    for metric, (label, factor) in list(metrics.items())[:MOST_PANELS]:
        own = effects[effects["metric"] == metric].set_index("term").reindex(kept)
        rows = tuple(_effect(row, factor, metric in family) for _, row in own.iterrows())
        margin = factor * _number(own["margin"].iloc[0]) if len(own) else math.nan
        panels.append(EffectPanel(label, margin, rows, _limits(rows, margin)))
    return Effects(tuple(labels[arm] for arm in kept), tuple(panels), tuple(labels[arm] for arm in left_out))


def _effect(row: pd.Series[Any], factor: float, inside: bool) -> Effect:
    verdict = _text(row["verdict"]) or "undecided"
    word = IN_WORDS.get(_text(row["reason"]), verdict)
    return Effect(
        effect=factor * _number(row["effect"]),
        low=factor * _number(row["low"]),
        high=factor * _number(row["high"]),
        low_images=factor * _number(row["low_images"]),
        high_images=factor * _number(row["high_images"]),
        verdict=verdict,
        word=word if inside else f"({word})",
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _limits(rows: tuple[Effect, ...], margin: float) -> tuple[float, float]:
    """Ends of the axis: every effect, 0 and the margin, and intervals unless they dwarf all of these."""
    known = [row for row in rows if math.isfinite(row.effect)]
    values = [0.0, *(row.effect for row in known), *((-2 * margin, 2 * margin) if margin > 0 else ())]
    ends = [end for row in known for end in (row.low, row.high, row.low_images, row.high_images)]
    return view_limits(values, ends, LONGEST_REACH)


def effects_size(data: Effects) -> tuple[float, float]:
    """Inches that the rows need."""
    return (WIDE, 1.1 + 0.31 * max(len(data.labels), 1))


def draw_effects(data: Effects, figure: Figure) -> None:
    """Draw the panels side by side, the first comparison at the top."""
    axes = figure.subplots(1, max(len(data.panels), 1), squeeze=False, sharey=True)[0]
    for ax, panel in zip(axes, data.panels, strict=False):
        _draw_panel(panel, ax)
    axes[0].set_yticks(range(len(data.labels)), [shorten(label) for label in data.labels])
    axes[0].set_ylim(max(len(data.labels), 1) - 0.4, -0.6)


def _draw_panel(panel: EffectPanel, ax: Axes) -> None:
    low, high = panel.limits
    if panel.margin > 0:
        ax.axvspan(-panel.margin, panel.margin, color=reference_style()["color"], alpha=0.16, linewidth=0)
    ax.axvline(0, **{**reference_style(), "linestyle": "-"})
    for verdict in dict.fromkeys(row.verdict for row in panel.rows):
        of_it = [(place, row) for place, row in enumerate(panel.rows) if row.verdict == verdict]
        _draw_rows([pair for pair in of_it if math.isfinite(pair[1].effect)], verdict, panel.limits, ax)
    for place, row in enumerate(panel.rows):
        word = row.word if len(panel.rows) <= MOST_WORDS else SIGNS.get(row.word.strip("()"), row.word)
        ax.text(1.02, place, word, transform=ax.get_yaxis_transform(), va="center", fontsize="small")
    ax.set_xlim(low, high)
    ax.set_title(panel.label)
    ax.grid(visible=False, axis="y")


def _draw_rows(
    rows: Sequence[tuple[int, Effect]], verdict: str, limits: tuple[float, float], ax: Axes
) -> None:
    marker, color = MARKS.get(verdict, ("o", "C5"))
    images = [(place, row.low_images, row.high_images) for place, row in rows]
    seeds = [(place, row.low, row.high) for place, row in rows]
    for ends, width in ((images, 0.9), (seeds, 2.4)):
        known = [(place, low, high) for place, low, high in ends if math.isfinite(high - low)]
        if known:
            places, low, high = zip(*known, strict=True)
            ax.hlines(places, np.clip(low, *limits), np.clip(high, *limits), color=color, linewidth=width)
            tips = [(end, at) for at, *both in known for end in both] if width < 1 else []
            ax.plot([x for x, _ in tips], [y for _, y in tips], "|", color=color, markersize=7)
    for side, edge in (("<", limits[0]), (">", limits[1])):
        cut = [place for place, low, high in seeds if (low < edge if side == "<" else high > edge)]
        if cut:  # an empty line that is not clipped would upset the layout
            inside = 0.96 * edge + 0.04 * sum(limits) / 2
            ax.plot([inside] * len(cut), cut, side, color=color, markersize=6, clip_on=False)
    face = color if verdict in MARKS else ax.get_facecolor()
    ax.plot([row.effect for _, row in rows], [place for place, _ in rows], marker, color=color,
            markersize=7, markerfacecolor=face)  # fmt: skip


def describe_effects(data: Effects) -> str:
    """The figure in words, for those who do not see it."""
    if not data.labels:
        return "Differences from the baseline: no comparisons."
    parts = [_describe_panel(panel, data.labels) for panel in data.panels]
    return f"Differences from the baseline with intervals. {' '.join(parts)}{not_drawn(data.left_out)}"


def _describe_panel(panel: EffectPanel, labels: tuple[str, ...]) -> str:
    counts = Counter(row.word for row in panel.rows)
    rows = [f"{label}: {_describe(row)}" for label, row in zip(labels, panel.rows, strict=True)]
    margin = f", margin {panel.margin:.3g}" if panel.margin > 0 else ""
    summary = ", ".join(f"{number} {word}" for word, number in counts.items())
    return f"{panel.label}{margin}: {summary}. {'; '.join(rows)}."


def _describe(row: Effect) -> str:
    if not math.isfinite(row.effect):
        return f"no pairs, {row.word}"
    ends = f" ({row.low:.3g} to {row.high:.3g})" if math.isfinite(row.high - row.low) else ""
    return f"{row.effect:+.3g}{ends}, {row.word}"
