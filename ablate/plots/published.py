"""Our epochs beside a published table of the same run: accuracy on the reported split, and training loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.plots.theme import WIDE, capped, legend_above, not_drawn, reference_style, shorten

MOST_ARMS = 6
PUBLISHED_SIZE = (WIDE, 4.2)
PANELS = (
    ("accuracy on the reported split (%)", "valid_accuracy", 100.0),
    ("training loss (nats)", "train_loss", 1.0),
)
Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class PublishedPanel:
    """One column, in the panel's unit.

    Attributes:
        label: the column in words, with its unit.
        runs: per drawn arm, the points (epoch, value) of each of its training runs.
        published: the published points; empty where the table lacks the column.
    """

    label: str
    runs: tuple[tuple[Points, ...], ...]
    published: Points


@dataclass(frozen=True)
class PublishedCurves:
    """The panels, the drawn arms in words, and the arms that did not fit."""

    labels: tuple[str, ...]
    panels: tuple[PublishedPanel, ...]
    left_out: tuple[str, ...] = ()


def prepare_published(
    epochs: pd.DataFrame, published: Sequence[Mapping[str, float]], labels: Mapping[str, str]
) -> PublishedCurves:
    """Put every training run beside the published table.

    Args:
        epochs: the epochs table of complete trials.
        published: one mapping per epoch, named as the epochs table's columns.
        labels: arm to its words, in the order to draw them; arms without rows are passed over.
    """
    present = [arm for arm in labels if (epochs["arm"] == arm).any()]
    kept, left_out = capped(present, MOST_ARMS)
    panels = tuple(
        PublishedPanel(
            label,
            tuple(_runs(epochs[epochs["arm"] == arm], column, unit) for arm in kept),
            _published_points(published, column, unit),
        )
        for label, column, unit in PANELS
    )
    return PublishedCurves(tuple(labels[arm] for arm in kept), panels, tuple(labels[arm] for arm in left_out))


def _published_points(rows: Sequence[Mapping[str, float]], column: str, unit_factor: float) -> Points:
    return tuple(
        (int(row["epoch"]), row[column] * unit_factor) for row in rows if {"epoch", column} <= set(row)
    )


def _runs(rows: pd.DataFrame, column: str, unit_factor: float) -> tuple[Points, ...]:
    known = rows[rows[column].notna()].sort_values(["seed", "epoch"])
    return tuple(
        tuple(zip(run["epoch"].astype(int), run[column] * unit_factor, strict=True))
        for _, run in known.groupby("trial_id", sort=False)
    )


def draw_published(data: PublishedCurves, figure: Figure) -> None:
    """Draw one panel per column: our runs as thin lines, the published run as a dotted one."""
    axes = figure.subplots(1, len(data.panels), squeeze=False)[0]
    for ax, panel in zip(axes, data.panels, strict=True):
        _draw_panel(panel, data.labels, ax)
    legend_above(axes[0])


def _draw_panel(panel: PublishedPanel, labels: tuple[str, ...], ax: Axes) -> None:
    for number, runs in enumerate(panel.runs):
        name = "ours, each training run" if len(labels) == 1 else shorten(labels[number])
        for place, points in enumerate(runs):
            x, y = zip(*points, strict=True)
            ax.plot(x, y, color=f"C{number}", linewidth=1.0, alpha=0.8, label=name if place == 0 else None)
    if panel.published:
        x, y = zip(*panel.published, strict=True)
        ax.plot(x, y, label="published", marker="D", markersize=3.5, **reference_style())
    ax.set_title(panel.label)
    ax.set_xlabel("epoch (0 is the first)")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))


def describe_published(data: PublishedCurves) -> str:
    """The figure in words, for those who do not see it."""
    parts = []
    for panel in data.panels:
        ours = [run[-1][1] for runs in panel.runs for run in runs if run]
        mine = f"ours {min(ours):.4g} to {max(ours):.4g}" if ours else "none of ours"
        theirs = f"published {panel.published[-1][1]:.4g}" if panel.published else "not published"
        parts.append(f"{panel.label}: {mine}, {theirs}")
    return (
        f"Our training runs beside the published one; at the last epoch, {'; '.join(parts)}."
        f"{not_drawn(data.left_out)}"
    )
