"""Penultimate features of a few classes in two dimensions, training images above held-out ones, by arm.

After figure 1 of Müller et al. 2019, https://arxiv.org/abs/1906.02629.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ablate.figures.theme import MARKERS, WIDE, legend_above, names_of, not_drawn, shorten, spread

FloatArray = NDArray[np.float64]
MOST_ARMS = 4
MOST_CLASSES = 6
MOST_POINTS = 1000
"""So many in all, since each is a mark of its own in the file."""
SPLITS: Mapping[str, str] = {"train": "training images", "valid": "reported split"}


@dataclass(frozen=True)
class ProjectionPanel:
    """One arm and split.

    Attributes:
        arm: the arm in words.
        split: the split in words.
        points: per drawn class the places of its images, [C][P] pairs.
        limits: left, right, lower and upper end of the axes: a square, the same for all splits of an arm.
        spread: mean distance of an image to its class's centre, over the mean distance between the centres of
            classes; NaN without two classes.
    """

    arm: str
    split: str
    points: tuple[tuple[tuple[float, float], ...], ...]
    limits: tuple[float, float, float, float]
    spread: float


@dataclass(frozen=True)
class Projection:
    """What the figure shows.

    Attributes:
        classes: the drawn classes in words.
        arms: the drawn arms in words.
        panels: split by split, the arms in order.
        left_out: arms that did not fit.
        classes_left_out: classes that did not fit.
    """

    classes: tuple[str, ...]
    arms: tuple[str, ...]
    panels: tuple[ProjectionPanel, ...]
    left_out: tuple[str, ...] = ()
    classes_left_out: tuple[str, ...] = ()


def prepare_projection(
    projection: pd.DataFrame,
    labels: Mapping[str, str],
    class_labels: Mapping[str, str],
    important: Collection[str] = (),
) -> Projection:
    """Choose arms, classes and points.

    Args:
        projection: the projection table: arm, split, class, x, y.
        labels: arm to its words, in the order to draw them; arms without rows are passed over.
        class_labels: class to its words.
        important: arms that are always among the drawn ones.
    """
    known = projection[projection["x"].notna() & projection["y"].notna()]
    present = [arm for arm in labels if (known["arm"] == arm).any()]
    arms, left_out = spread(present, MOST_ARMS, important)
    classes, others = spread(list(dict.fromkeys(known["class"])), MOST_CLASSES)
    splits = [split for split in SPLITS if (known["split"] == split).any()]
    most = MOST_POINTS // max(len(arms) * len(splits) * len(classes), 1)
    shown = known[known["class"].isin(classes)]
    limits = {arm: _square(shown.loc[shown["arm"] == arm, ["x", "y"]].to_numpy()) for arm in arms}
    panels = []
    for split in splits:
        for arm in arms:
            rows = shown[(shown["arm"] == arm) & (shown["split"] == split)]
            panels.append(_panel(rows, labels[arm], SPLITS[split], classes, most, limits[arm]))
    return Projection(
        tuple(class_labels[name] for name in classes),
        tuple(labels[arm] for arm in arms),
        tuple(panels),
        tuple(labels[arm] for arm in left_out),
        tuple(class_labels[name] for name in others),
    )


def _panel(
    rows: pd.DataFrame,
    arm: str,
    split: str,
    classes: tuple[str, ...],
    most: int,
    limits: tuple[float, float, float, float],
) -> ProjectionPanel:
    clouds = [rows.loc[rows["class"] == name, ["x", "y"]].to_numpy(dtype=np.float64) for name in classes]
    thinned = [cloud[np.unique(np.linspace(0, len(cloud) - 1, most).astype(int))] if len(cloud) else cloud
               for cloud in clouds]  # fmt: skip
    points = tuple(tuple((float(x), float(y)) for x, y in cloud) for cloud in thinned)
    return ProjectionPanel(arm, split, points, limits, _spread([cloud for cloud in clouds if len(cloud)]))


def _square(places: FloatArray) -> tuple[float, float, float, float]:
    low, high = places.min(axis=0), places.max(axis=0)
    middle, half = (low + high) / 2, 0.54 * float((high - low).max()) or 1.0
    return (middle[0] - half, middle[0] + half, middle[1] - half, middle[1] + half)


def _spread(clouds: list[FloatArray]) -> float:
    if len(clouds) < 2:
        return float("nan")
    centres = np.array([cloud.mean(axis=0) for cloud in clouds])
    images = np.concatenate([cloud - centre for cloud, centre in zip(clouds, centres, strict=True)])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)[np.triu_indices(len(clouds), 1)]
    return float(np.linalg.norm(images, axis=1).mean() / apart.mean()) if apart.mean() > 0 else float("nan")


def projection_size(data: Projection) -> tuple[float, float]:
    """Inches that the panels need."""
    columns = max(len(data.arms), 1)
    rows = max(len(data.panels) // columns, 1)
    side = min(WIDE / columns, 4.0)
    return (min(WIDE, side * columns), 0.6 + (side + 0.15) * rows)


def draw_projection(data: Projection, figure: Figure) -> None:
    """Draw a column per arm and a row per split; the arms have spaces of their own, so axes differ."""
    columns = max(len(data.arms), 1)
    rows = max(len(data.panels) // columns, 1)
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, panel in enumerate(data.panels):
        row, column = divmod(place, columns)
        _draw_panel(panel, data.classes, axes[row, column])
        if row == 0:
            axes[row, column].set_title(shorten(panel.arm))
        if column == 0:
            axes[row, column].set_ylabel(panel.split)
    legend_above(*axes.flatten())


def _draw_panel(panel: ProjectionPanel, classes: tuple[str, ...], ax: Axes) -> None:
    for number, (name, points) in enumerate(zip(classes, panel.points, strict=True)):
        if points:
            x, y = zip(*points, strict=True)
            marker, color = MARKERS[number % len(MARKERS)], f"C{number}"
            ax.plot(
                x, y, marker, color=color, alpha=0.65, markersize=4.2, markeredgewidth=0, label=shorten(name)
            )
    left, right, lower, upper = panel.limits
    ax.set(xlim=(left, right), ylim=(lower, upper), aspect="equal", xticks=[], yticks=[])
    ax.spines[["top", "right"]].set_visible(True)


def describe_projection(data: Projection) -> str:
    """The figure in words, for those who do not see it."""
    if not data.panels:
        return "Penultimate features in two dimensions: none."
    parts = [
        f"{panel.arm}, {panel.split}: {panel.spread:.2f}"
        for panel in data.panels
        if panel.spread == panel.spread
    ]
    classes = f"Classes: {names_of(data.classes)}."
    return (
        "Penultimate features of single images in two dimensions. Mean distance to the class's centre, as a "
        f"share of the distance between centres: {'; '.join(parts) or 'unknown'}. {classes}"
        f"{not_drawn(data.left_out)}"
    )
