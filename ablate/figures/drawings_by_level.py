"""Figures of metrics by level, or by seed where there is one arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from ablate.analysis.arms import arm_interval, factor_label, planned_arms
from ablate.analysis.floors import floor_bands, floor_of
from ablate.figures.drawing import Drawing, not_drawn
from ablate.figures.placement import (
    axis_factor,
    is_ordered,
    level_means,
    line_factors,
    panel_factor,
    placed,
)
from ablate.study.trials import Plan
from ablate.tables.quantities import Quantity, quantity

if TYPE_CHECKING:
    from ablate.figures import MetricByLevel

MOST_LINES = 8
BAND = (
    " Shaded: where 95 % of means of a perfectly calibrated network would fall; the line is their mean, "
    "the noise floor."
)
BAND_BESIDE = (
    " The grey band is where 95 % of means of a perfectly calibrated network would fall; the dashed line in "
    "it is their mean, the noise floor."
)
FEW_LINES, MOST_POINTS = 6, 300
"""Of a figure with a panel per metric: lines in a panel, and points in all."""


def by_level_drawing(
    complete: pd.DataFrame,
    plan: Plan,
    what: Quantity,
    optimum: dict[Any, float],
    floors: pd.DataFrame | None = None,
) -> Drawing:
    """A metric against the axis's factor; with three or more factors, a panel per level of one of them."""
    from ablate.figures import (
        HALF,
        describe_metric_by_level,
        describe_metrics_by_level,
        draw_metric_by_level,
        draw_metrics_by_level,
        metrics_by_level_size,
        prepare_metrics_by_level,
    )

    means = level_means(complete, plan, what.name, floors=floors)
    runs = placed(complete[["arm", what.name]].rename(columns={what.name: "value"}), plan)
    titled = panel_factor(plan) is not None
    panels = [
        _panel(
            means[means["panel"] == panel],
            plan,
            what,
            panel if titled else what.axis,
            runs=runs[runs["panel"] == panel],
            order=list(dict.fromkeys(means["line"])),
            optimum=optimum,
        )
        for panel in dict.fromkeys(means["panel"])
    ]
    first, lines = panels[0], min(len(dict.fromkeys(means["line"])), MOST_LINES)
    ordered = _ordered_lines(plan, lines)
    caption = "Means with 95 % t intervals over training runs; each faint point is one run."
    caption += _explained(panels, one_axis=True) + not_drawn(first.left_out)
    if not titled:
        alt = describe_metric_by_level(first)
        return Drawing(
            caption, alt, lambda figure: draw_metric_by_level(first, figure.subplots()), HALF, ordered=ordered
        )
    data = prepare_metrics_by_level(panels, axis=what.axis)
    return Drawing(
        caption + not_drawn(data.left_out),
        describe_metrics_by_level(data),
        lambda figure: draw_metrics_by_level(data, figure),
        metrics_by_level_size(data),
        wide=True,
        ordered=ordered,
    )


def _explained(panels: Sequence[MetricByLevel], *, one_axis: bool) -> str:
    """What a caption says of that which not every such figure has."""
    from ablate.figures import goes_beyond

    axes = [panels] if one_axis else [[panel] for panel in panels]
    several = any(len(panel.lines) > 1 for panel in panels)
    beyond = any(goes_beyond(axis) for axis in axes)
    said = " Intervals much longer than the range of the values go on beyond the panel." if beyond else ""
    if any(panel.band for panel in panels):
        said += BAND + (" Of several lines, both are means." if several else "")
    elif any(panel.floor for panel in panels):
        said += (
            " Shaded is the noise floor: its upper end is what a perfectly calibrated network would score "
        )
        said += "on average."
    if any(panel.reference[1] for panel in panels):
        said += " At the dotted line the smoothed loss is least."
    return said


def _panel(
    means: pd.DataFrame,
    plan: Plan,
    what: Quantity,
    label: str,
    *,
    runs: pd.DataFrame,
    order: Sequence[str],
    optimum: dict[Any, float],
    most: int = MOST_LINES,
) -> MetricByLevel:
    from ablate.figures import prepare_metric_by_level

    return prepare_metric_by_level(
        means,
        runs,
        factor=factor_label(axis_factor(plan)),
        label=label,
        unit_factor=what.factor,
        reference=("optimum of the smoothed loss, 1 − ε + ε/K", optimum),
        order=order,
        most=most,
    )


def _ordered_lines(plan: Plan, lines: int, *, panels: bool = True) -> int:
    """The number of colours where the lines are ordered, or too many for the palette of categories."""
    from ablate.figures import LIGHT

    factors = line_factors(plan) if panels else [n for n in plan.study.factors if n != axis_factor(plan)]
    ordered = len(factors) == 1 and is_ordered(plan, factors[0])
    return lines if ordered or lines > len(LIGHT.palette) else 0


def several_metrics_drawing(
    complete: pd.DataFrame, plan: Plan, metrics: Sequence[str], floors: pd.DataFrame | None = None
) -> Drawing:
    """Several metrics by level, a panel each."""
    from ablate.figures import (
        describe_metrics_by_level,
        draw_metrics_by_level,
        metrics_by_level_size,
        prepare_metrics_by_level,
    )

    panels, lines = [], list[str]()
    levels = len(plan.study.factors[axis_factor(plan)])
    most = max(2, min(FEW_LINES, MOST_POINTS // (levels * len(metrics))))
    none = pd.DataFrame({"level": [], "line": [], "value": []})
    for metric in metrics:
        what, means = quantity(metric), level_means(complete, plan, metric, panels=False, floors=floors)
        lines = list(dict.fromkeys(means["line"]))
        panels.append(_panel(means, plan, what, what.axis, runs=none, order=lines, optimum={}, most=most))
    data = prepare_metrics_by_level(panels)
    caption = "Means with 95 % t intervals over training runs; every panel has its own scale."
    caption += _explained(data.panels, one_axis=False)
    caption += not_drawn(data.panels[0].left_out if data.panels else ())
    return Drawing(
        caption,
        describe_metrics_by_level(data),
        lambda figure: draw_metrics_by_level(data, figure),
        metrics_by_level_size(data),
        wide=len(data.panels) > 1,
        ordered=_ordered_lines(plan, min(len(lines), most), panels=False),
    )


def by_seed_drawing(
    complete: pd.DataFrame, plan: Plan, what: Quantity, floors: pd.DataFrame | None = None
) -> Drawing:
    """A metric run by run, for studies of one arm."""
    from ablate.figures import HALF, describe_metric_by_seed, draw_metric_by_seed, prepare_metric_by_seed

    (arm,) = planned_arms(plan)
    interval = arm_interval(complete, arm, what.name)
    column = floor_of(what.name, complete)
    floor = arm_interval(complete, arm, column).mean if column else math.nan
    data = prepare_metric_by_seed(
        complete[["seed", what.name]].rename(columns={what.name: "value"}),
        (interval.mean, interval.low, interval.high),
        label=what.axis,
        unit_factor=what.factor,
        floor=floor,
        band=floor_bands(floors, what.name).get(arm, (math.nan, math.nan)),
    )
    caption = "Each point is a training run; the line is their mean, the band its 95 % t interval."
    if math.isfinite(data.band[1]):
        caption += BAND_BESIDE
    elif math.isfinite(floor):
        caption += " The dashed line is the noise floor, which a perfectly calibrated network would score."
    return Drawing(
        caption,
        describe_metric_by_seed(data),
        lambda figure: draw_metric_by_seed(data, figure.subplots()),
        HALF,
    )
