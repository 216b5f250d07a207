"""Figures of what a training step costs."""

from __future__ import annotations

import pandas as pd

from ablate.analysis.arms import labels_of
from ablate.analysis.timing import Pass
from ablate.figures.drawing import Drawing, not_drawn
from ablate.figures.placement import case_labels
from ablate.stats import MedianInterval, median_interval
from ablate.store.timing import plain_case
from ablate.study.trials import Plan


def step_cost_drawing(found: Pass, plan: Plan) -> Drawing:
    """What a step costs, from the exclusive pass."""
    from ablate.figures import (
        StepCostRow,
        describe_step_cost,
        draw_step_cost,
        prepare_step_cost,
        step_cost_size,
    )

    rows = []
    for case, label in case_labels(found, plan).items():
        plain = plain_case(case)
        own, other = median_interval(found.times[case]), median_interval(found.times[plain])
        ratio = _ends(found.ratio(case, plain))
        rows.append(StepCostRow(label, _ends(own), _ends(other), ratio, case == plain))
    data = prepare_step_cost(rows)
    caption = (
        "Timed after the trials, one case after the other in turn: medians over rounds with 95 % intervals. "
        "Arms whose steps do the same work are one row; ratios are to plain cross-entropy with the same "
        "network and batch."
    )
    if not found.exclusive:
        part = "an unknown part" if found.others is None else f"{found.others:.0%}"
        caption += f" Other processes used {part} of the machine's cores meanwhile."
    return Drawing(
        caption + not_drawn(data.left_out),
        describe_step_cost(data),
        lambda figure: draw_step_cost(data, figure),
        step_cost_size(data),
        wide=True,
    )


def _ends(interval: MedianInterval) -> tuple[float, float, float]:
    return (interval.median, interval.low, interval.high)


def step_time_drawing(complete: pd.DataFrame, plan: Plan) -> Drawing:
    """What a step took in the trials themselves, where there was no exclusive pass."""
    from ablate.figures import HALF, describe_step_time, draw_step_time, prepare_step_time, step_time_size

    data = prepare_step_time(complete, labels_of(plan))
    caption = (
        "Median over training runs of their median step; the bar spans the 20th to the 80th percentile. "
    )
    caption += "Other trials may have shared the machine."
    return Drawing(
        caption + not_drawn(data.left_out),
        describe_step_time(data),
        lambda figure: draw_step_time(data, figure.subplots()),
        step_time_size(data),
        wide=step_time_size(data) > HALF,
    )
