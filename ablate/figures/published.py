"""Our epochs beside a published table of the same run, and where one more run of ours would lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.figures.theme import WIDE, capped, legend_above, not_drawn, reference_style, shorten

MOST_ARMS = 6
PUBLISHED_SIZE = (WIDE, 7.6)
PANELS = (
    ("accuracy on the reported split (%)", "valid_accuracy", 100.0),
    ("training accuracy (%)", "train_accuracy", 100.0),
    ("loss on the reported split (nats)", "valid_loss", 1.0),
    ("training loss (nats)", "train_loss", 1.0),
)
Points = tuple[tuple[int, float], ...]
Band = tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class PublishedPanel:
    """One column, in the panel's unit.

    Attributes:
        label: the column in words, with its unit.
        runs: per drawn arm, the points (epoch, value) of each of its training runs.
        bands: per drawn arm, the prediction interval (epoch, low, high), NaN where there is none.
        outside: per drawn arm, the published points outside of it.
        published: the published points; empty where the table lacks the column.
    """

    label: str
    runs: tuple[tuple[Points, ...], ...]
    bands: tuple[Band, ...]
    outside: tuple[Points, ...]
    published: Points


@dataclass(frozen=True)
class PublishedCurves:
    """The panels, the drawn arms in words, and the arms that did not fit."""

    labels: tuple[str, ...]
    panels: tuple[PublishedPanel, ...]
    left_out: tuple[str, ...] = ()


def prepare_published(
    epochs: pd.DataFrame, published: pd.DataFrame, labels: Mapping[str, str]
) -> PublishedCurves:
    """Put every training run beside the published table.

    Args:
        epochs: the epochs table of complete trials.
        published: per arm, epoch and column (arm, epoch, name) the published value (theirs), our interval
            (ours, with low and high) and whether the value lies in it (inside).
        labels: arm to its words, in the order to draw them; arms without rows are passed over.
    """
    present = [arm for arm in labels if (epochs["arm"] == arm).any()]
    kept, left_out = capped(present, MOST_ARMS)
    panels = tuple(
        PublishedPanel(
            label,
            tuple(_runs(epochs[epochs["arm"] == arm], column, unit) for arm in kept),
            *_of_column(published[published["name"] == column], kept, unit),
        )
        for label, column, unit in PANELS
    )
    return PublishedCurves(tuple(labels[arm] for arm in kept), panels, tuple(labels[arm] for arm in left_out))


def _of_column(
    rows: pd.DataFrame, arms: tuple[str, ...], unit: float
) -> tuple[tuple[Band, ...], tuple[Points, ...], Points]:
    """Bands and points outside, arm by arm, and all published points, which are the same for every arm."""
    of_arm = [rows[rows["arm"] == arm] for arm in arms]
    bands = tuple(
        tuple(
            (at, ours.low * unit, ours.high * unit)
            for at, ours in zip(own["epoch"], own["ours"], strict=True)
        )
        for own in of_arm
    )
    outside = tuple(_points(own[own["inside"].eq(False)], unit) for own in of_arm)
    return bands, outside, _points(rows.drop_duplicates("epoch"), unit)


def _points(rows: pd.DataFrame, unit: float) -> Points:
    known = rows[rows["theirs"].notna()]
    return tuple(zip(known["epoch"].astype(int), known["theirs"] * unit, strict=True))


def _runs(rows: pd.DataFrame, column: str, unit_factor: float) -> tuple[Points, ...]:
    known = rows[rows[column].notna()].sort_values(["seed", "epoch"])
    return tuple(
        tuple(zip(run["epoch"].astype(int), run[column] * unit_factor, strict=True))
        for _, run in known.groupby("trial_id", sort=False)
    )


def draw_published(data: PublishedCurves, figure: Figure) -> None:
    """Draw one panel per column: our runs as lines in their band, the published run dotted, rings outside."""
    axes = figure.subplots(2, 2).flat
    for ax, panel in zip(axes, data.panels, strict=True):
        _draw_panel(panel, data.labels, ax)
    legend_above(axes[0])


def _draw_panel(panel: PublishedPanel, labels: tuple[str, ...], ax: Axes) -> None:
    for number, runs in enumerate(panel.runs):
        name = "ours, each training run" if len(labels) == 1 else shorten(labels[number])
        for place, points in enumerate(runs):
            x, y = zip(*points, strict=True)
            ax.plot(x, y, color=f"C{number}", linewidth=1.0, alpha=0.8, label=name if place == 0 else None)
        if panel.bands[number]:
            x, low, high = zip(*panel.bands[number], strict=True)
            ax.fill_between(x, low, high, color=f"C{number}", alpha=0.18, linewidth=0)
        if panel.outside[number]:
            x, y = zip(*panel.outside[number], strict=True)
            size = 8 + 2.5 * number  # one ring around the other
            ax.plot(x, y, "o", markersize=size, markerfacecolor="none", markeredgecolor=f"C{number}")
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
