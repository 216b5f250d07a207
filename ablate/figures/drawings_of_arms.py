"""Figures that set arms beside each other: differences, the front, training, the published run."""

from __future__ import annotations

import pandas as pd

from ablate.analysis.arms import arm_label, labels_of, planned_arms
from ablate.analysis.effects import effects_table
from ablate.analysis.published import Value, published_summaries, published_values
from ablate.analysis.timing import Pass
from ablate.figures.drawing import Drawing, not_drawn
from ablate.figures.placement import axis_factor, important_arms, is_ordered, mean_of, step_times_of
from ablate.study.trials import Plan
from ablate.tables import Tables
from ablate.tables.quantities import Quantity, quantity

COMPARED = ("accuracy", "ece", "nll")
"""Differences that are shown beside those of the primary metric and its family, where there is room."""


def effects_drawing(tables: Tables, complete: pd.DataFrame, plan: Plan) -> Drawing:
    """Differences from the baseline on the primary metric and its family."""
    from ablate.figures import MOST_PANELS, describe_effects, draw_effects, effects_size, prepare_effects

    study, labels = plan.study, labels_of(plan)
    wanted = tuple(dict.fromkeys((study.primary, *study.comparison_family, *COMPARED)))
    whats = [quantity(name) for name in wanted]
    metrics = {what.name: (_difference_label(what), what.factor) for what in whats}
    arms = {arm: labels[arm] for arm, _ in plan.comparisons}
    data = prepare_effects(
        tables["effects"] if "effects" in tables else effects_table(tables, plan),
        arms,
        metrics,
        study.comparison_family,
        important_arms(complete, plan),
    )
    caption = f"Each arm against {arm_label(study.baseline)}, mean over the seeds that both completed. "
    caption += (
        "Thick: 95 % interval over seeds, simultaneous over the study's family; thin, with caps: for new "
        "images as well. Shaded: differences within the margin, which do not matter. Triangles up are "
        "better, down worse; squares (=) are equivalent, hollow circles (?) undecided. Verdicts in brackets "
        "are exploratory. "
        "An arrowhead at the edge: the interval goes on."
    )
    family = [quantity(name).label for name in study.comparison_family if name in wanted[MOST_PANELS:]]
    caption += f" Only in the table: {', '.join(family)}." if family else ""
    return Drawing(
        caption + not_drawn(data.left_out),
        describe_effects(data),
        lambda figure: draw_effects(data, figure),
        effects_size(data),
        wide=True,
    )


def _difference_label(what: Quantity) -> str:
    return f"Δ {what.label} ({what.difference_unit})" if what.difference_unit else f"Δ {what.label}"


def front_drawing(complete: pd.DataFrame, plan: Plan, timing: Pass | None) -> Drawing:
    """Accuracy against ECE."""
    from ablate.figures import describe_front, draw_front, front_size, prepare_front

    error, accuracy = quantity("ece"), quantity("accuracy")
    means = mean_of(complete, plan, accuracy.name, "accuracy")
    data = prepare_front(
        means.merge(mean_of(complete, plan, error.name, "error"), on="arm"),
        labels_of(plan),
        error_label=error.axis,
        accuracy_label=accuracy.axis,
        factors=(error.factor, accuracy.factor),
        step_ms=step_times_of(timing, plan),
        important=important_arms(complete, plan),
    )
    caption = (
        "Means of the arms with their 95 % intervals; up and to the left is better. The line joins the arms "
        "whose means no other arm beats in both: intervals that overlap leave the order open."
    )
    caption += " Larger markers take longer steps." if data.costs_differ else ""
    caption += (
        " Dots are arms that are not named, without their intervals."
        if any(not point.named for point in data.points)
        else ""
    )
    named = sum(point.named for point in data.points)
    return Drawing(
        caption + not_drawn(data.left_out),
        describe_front(data),
        lambda figure: draw_front(data, figure.subplots()),
        front_size(data),
        ordered=named if _one_ordered_factor(plan) else 0,
    )


def curves_drawing(epochs: pd.DataFrame, plan: Plan) -> Drawing:
    """Loss and accuracy over the epochs."""
    from ablate.figures import LIGHT, curves_size, describe_curves, draw_curves, prepare_curves

    grouped = len(plan.study.factors) > 1
    data = prepare_curves(epochs, labels_of(plan), _curve_places(plan) if grouped else None)
    caption = (
        "Means over training runs, the bands from the lowest to the highest run. Solid: reported split; "
    )
    caption += "dashed: training batches as they were seen."
    if "epsilon" in plan.study.factors:
        caption += " With another ε the loss is another one: compare accuracies between arms, not losses."
    drawn = len(data.lines)
    ordered = _one_ordered_factor(plan) or (grouped and drawn > 2 and is_ordered(plan, axis_factor(plan)))
    return Drawing(
        caption + not_drawn(data.left_out),
        describe_curves(data),
        lambda figure: draw_curves(data, figure),
        curves_size(data),
        wide=True,
        ordered=drawn if ordered or drawn > len(LIGHT.palette) else 0,
    )


def _curve_places(plan: Plan) -> dict[str, tuple[str, str]]:
    """Arm to the other factors' levels, which have panels, and to the axis factor's, which has a line."""
    axis = axis_factor(plan)
    return {
        name: (
            arm_label({other: level for other, level in arm.levels.items() if other != axis}),
            arm_label({axis: arm.levels[axis]}),
        )
        for name, arm in planned_arms(plan).items()
    }


def _one_ordered_factor(plan: Plan) -> bool:
    factors = list(plan.study.factors)
    return len(factors) == 1 and len(plan.study.factors[factors[0]]) > 2 and is_ordered(plan, factors[0])


def published_drawing(epochs: pd.DataFrame, plan: Plan) -> Drawing:
    """Every run beside the published one."""
    from ablate.figures import PUBLISHED_SIZE, describe_published, draw_published, prepare_published

    values = pd.DataFrame(published_values(epochs, plan), columns=Value._fields)
    data = prepare_published(epochs, values, labels_of(plan))
    return Drawing(
        "Thin lines are our training runs, bands the 95 % prediction interval of one more, diamonds the "
        f"published run; those in a ring lie outside the band.{not_drawn(data.left_out)}",
        " ".join([*published_summaries(epochs, plan).values(), describe_published(data)]),
        lambda figure: draw_published(data, figure),
        PUBLISHED_SIZE,
        wide=True,
    )
