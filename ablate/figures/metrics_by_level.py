"""Small multiples of a metric by level: one panel per metric, or one per level of another factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from ablate.figures.metric_by_level import (
    MetricByLevel,
    describe_metric_by_level,
    draw_metric_by_level,
    value_limits,
)
from ablate.figures.theme import HALF, WIDE, capped, legend_above, not_drawn

MOST_PANELS = 8
MOST_COLUMNS = 4


@dataclass(frozen=True)
class MetricsByLevel:
    """What the figure shows.

    Attributes:
        panels: what each panel shows; their `label` is the title.
        axis: the quantity that all panels show on one scale; "" where each shows its own.
        left_out: titles of panels that did not fit.
    """

    panels: tuple[MetricByLevel, ...]
    axis: str = ""
    left_out: tuple[str, ...] = ()


def prepare_metrics_by_level(panels: Sequence[MetricByLevel], *, axis: str = "") -> MetricsByLevel:
    """Keep the panels that have something to show.

    Args:
        panels: one per metric, or per level of a factor, in the order to draw them; `label` is the title.
        axis: the quantity with its unit where all panels show the same one, so that their heights compare.
    """
    kept, left_out = capped([panel for panel in panels if panel.lines], MOST_PANELS)
    return MetricsByLevel(kept, axis, tuple(panel.label for panel in left_out))


def metrics_by_level_size(data: MetricsByLevel) -> tuple[float, float]:
    """Inches that the panels need."""
    columns = _columns(data)
    rows = max(1, math.ceil(len(data.panels) / columns))
    return (HALF[0] if columns == 1 else WIDE, 0.5 + 2.7 * rows + (0.5 if rows == 1 else 0))


def _columns(data: MetricsByLevel) -> int:
    count = max(len(data.panels), 1)
    return min(count, 3 if count in (3, 5, 6) else MOST_COLUMNS)


def draw_metrics_by_level(data: MetricsByLevel, figure: Figure) -> None:
    """Draw all panels under one legend."""
    columns = _columns(data)
    rows = max(1, math.ceil(len(data.panels) / columns))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=bool(data.axis)).flatten()
    for place, ax in enumerate(axes):
        if place >= len(data.panels):
            ax.set_axis_off()
            continue
        draw_metric_by_level(data.panels[place], ax, legend=False)
        ax.set_ylabel(data.axis if place % columns == 0 else "")
        if data.axis:
            ax.set_ylim(*value_limits(data.panels))
        if place + columns < len(data.panels):
            ax.set_xlabel("")
    legend_above(*axes[: len(data.panels)])


def describe_metrics_by_level(data: MetricsByLevel) -> str:
    """The figure in words, for those who do not see it."""
    if not data.panels:
        return "Metrics by level: no complete trials."
    panels = " ".join(describe_metric_by_level(panel) for panel in data.panels)
    return f"{data.axis + '. ' if data.axis else ''}{panels}{not_drawn(data.left_out)}"
