"""Figures of what networks say of single images: reliability, confusion of classes, features."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from ablate.analysis.arms import labels_of
from ablate.figures.drawing import Drawing, not_drawn
from ablate.figures.placement import confusion_arms, important_arms
from ablate.study.trials import Plan
from ablate.tables.cells import clean, one_line


def reliability_drawing(bins: pd.DataFrame, complete: pd.DataFrame, plan: Plan) -> Drawing:
    """Reliability diagrams."""
    from ablate.figures import describe_reliability, draw_reliabilities, prepare_reliability, reliability_size

    data = prepare_reliability(bins, labels_of(plan), important_arms(complete, plan))
    caption = (
        "Accuracy by confidence, training runs pooled; hatched is the gap to the mean confidence of the "
    )
    caption += "bin, the diagonal is perfect calibration. Below, images per bin: bins with few say little."
    return Drawing(
        caption + not_drawn(data.left_out),
        describe_reliability(data),
        lambda figure: draw_reliabilities(data, figure),
        reliability_size(data),
        wide=len(data.panels) > 2,
    )


def confusion_drawing(confusion: pd.DataFrame, complete: pd.DataFrame, plan: Plan) -> Drawing:
    """Which classes are taken for which, in a baseline and in the best arm."""
    from ablate.figures import confusion_size, describe_confusion, draw_confusion, prepare_confusion

    arms, labels = confusion_arms(complete, plan), labels_of(plan)
    classes = _class_labels(confusion["class"])
    data = prepare_confusion(confusion, {arm: labels[arm] for arm in arms}, classes)
    compared = data.difference is not None
    which = "the baseline and the arm with the best mean of the primary metric" if compared else "one arm"
    caption = f"Rows are the classes of the images, columns what they were taken for: {which}, runs pooled. "
    caption += "Blue cells are right, orange ones mistakes; small ones are left blank."
    if compared:
        caption += " In the last panel blue is better in the second arm than in the first, orange is worse."
    return Drawing(
        caption,
        describe_confusion(data),
        lambda figure: draw_confusion(data, figure),
        confusion_size(data),
        wide=compared,
    )


def _class_labels(classes: Iterable[str]) -> dict[str, str]:
    """Class to its words."""
    return {name: one_line(str(clean(name)), longest=60) for name in dict.fromkeys(classes)}


def projection_drawing(projection: pd.DataFrame, complete: pd.DataFrame, plan: Plan) -> Drawing:
    """Features of single images in a plane."""
    from ablate.figures import (
        describe_projection,
        draw_projection,
        names_of,
        prepare_projection,
        projection_size,
    )

    classes = _class_labels(projection["class"])
    data = prepare_projection(projection, labels_of(plan), classes, important_arms(complete, plan))
    caption = (
        "What the last layer sees of single images, projected to a plane; one training run per arm, a sample "
        "of the images. Tight, separate groups are classes whose images look alike to the network. Each arm "
        "has its own axes."
    )
    if data.classes_left_out:
        caption += f" Classes left out: {names_of(data.classes_left_out)}."
    return Drawing(
        caption + not_drawn(data.left_out),
        describe_projection(data),
        lambda figure: draw_projection(data, figure),
        projection_size(data),
        wide=len(data.arms) > 1,
    )
