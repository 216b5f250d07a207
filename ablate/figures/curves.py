"""Loss and accuracy over the epochs, in training and on the reported split, one colour per level or arm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ablate.figures.theme import WIDE, legend_above, not_drawn, shorten, spread

MOST_GROUPS = 6
MOST_CURVES, MOST_LINES = 16, 12
LONGEST_GROUP = 34
MOST_EPOCHS = 40
"""Of longer runs, so many epochs are drawn, evenly spread, the first and the last among them."""
METRICS = (
    ("loss (nats, as trained)", "train_loss", "valid_loss", 1.0),
    ("accuracy (%)", "train_accuracy", "valid_accuracy", 100.0),
)


@dataclass(frozen=True)
class Curve:
    """One column of one arm over the epochs, in the panel's unit.

    Attributes:
        epoch: epochs, 0 the first, [E].
        mean: mean over training runs, [E].
        low: lowest run, [E].
        high: highest run, [E].
    """

    epoch: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class ArmCurves:
    """One arm's curves of a metric: the place of its line's label, training batches, reported split."""

    number: int
    train: Curve
    valid: Curve


@dataclass(frozen=True)
class CurvesPanel:
    """One metric in one group of arms."""

    label: str
    group: str
    arms: tuple[ArmCurves, ...]


@dataclass(frozen=True)
class Curves:
    """What the figure shows.

    Attributes:
        lines: what the colours stand for, in words.
        panels: group by group, a panel per metric.
        left_out: arms that did not fit.
    """

    lines: tuple[str, ...]
    panels: tuple[CurvesPanel, ...]
    left_out: tuple[str, ...] = ()


def prepare_curves(
    epochs: pd.DataFrame, labels: Mapping[str, str], places: Mapping[str, tuple[str, str]] | None = None
) -> Curves:
    """Mean and range over training runs, per arm and epoch.

    Args:
        epochs: the epochs table of complete trials.
        labels: arm to its words, in the order to draw them; arms without rows are passed over.
        places: arm to its group, which has panels of its own, and its line's label; without them all arms are
            in one group.
    """
    present = [arm for arm in labels if (epochs["arm"] == arm).any()]
    placed = {arm: places[arm] if places else ("", labels[arm]) for arm in present}
    groups, _ = spread(list(dict.fromkeys(group for group, _ in placed.values())), MOST_GROUPS)
    most = min(max(MOST_CURVES // max(len(groups), 1), 2), MOST_LINES)
    lines, _ = spread(list(dict.fromkeys(line for _, line in placed.values())), most)
    kept = [arm for arm in present if placed[arm][0] in groups and placed[arm][1] in lines]
    panels = []
    for group in groups:
        own = [(lines.index(placed[arm][1]), epochs[epochs["arm"] == arm])
               for arm in kept if placed[arm][0] == group]  # fmt: skip
        for label, train, valid, unit in METRICS:
            curves = tuple(ArmCurves(at, _curve(rows, train, unit), _curve(rows, valid, unit))
                           for at, rows in own)  # fmt: skip
            panels.append(CurvesPanel(label, group, curves))
    left_out = tuple(labels[arm] for arm in present if arm not in kept)
    return Curves(lines, tuple(panels), left_out)


def _curve(rows: pd.DataFrame, column: str, unit_factor: float) -> Curve:
    by_epoch = rows[rows[column].notna()].groupby("epoch")[column].agg(["mean", "min", "max"])
    if len(by_epoch) > MOST_EPOCHS:
        by_epoch = by_epoch.iloc[np.linspace(0, len(by_epoch) - 1, MOST_EPOCHS).round().astype(int)]
    scaled = by_epoch * unit_factor
    epoch = tuple(int(number) for number in by_epoch.index)
    return Curve(epoch, tuple(scaled["mean"]), tuple(scaled["min"]), tuple(scaled["max"]))


def curves_size(data: Curves) -> tuple[float, float]:
    """Inches that the panels need."""
    rows, columns = _grid(data)
    return (WIDE, 4.4 if columns == 2 else 0.6 + 2.9 * rows)


def _grid(data: Curves) -> tuple[int, int]:
    """Rows and columns: a group's two panels stand side by side, two groups in a row."""
    columns = 2 if len(data.panels) <= 2 else 4
    return max(math.ceil(len(data.panels) / columns), 1), columns


def draw_curves(data: Curves, figure: Figure) -> None:
    """Draw one panel for loss and one for accuracy, of each group."""
    axes = figure.subplots(*_grid(data), squeeze=False).flatten()
    for ax in axes[len(data.panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes, data.panels, strict=False):
        _draw_panel(panel, data.lines, ax)
    for ax in axes[max(len(data.panels) - _grid(data)[1], 0) : len(data.panels)]:
        ax.set_xlabel("epoch (0 is the first)")
    legend_above(*axes)


def _draw_panel(panel: CurvesPanel, lines: tuple[str, ...], ax: Axes) -> None:
    for arm in panel.arms:
        only = len(lines) == 1
        name = "reported split" if only else shorten(lines[arm.number])
        _draw_curve(arm.valid, ax, arm.number, "-", name)
        _draw_curve(arm.train, ax, arm.number, (0, (2, 1.6)), "training batches" if only else None)
    ax.set_title(panel.label)
    if panel.group:
        ax.set_title(f"{panel.label}\n{shorten(panel.group, LONGEST_GROUP)}", fontsize="small")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5 if panel.group else 8, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5 if panel.group else 8))


def _draw_curve(
    curve: Curve, ax: Axes, number: int, linestyle: str | tuple[float, tuple[float, ...]], label: str | None
) -> None:
    marker = "o" if len(curve.epoch) == 1 else None
    if linestyle == "-":
        ax.fill_between(curve.epoch, curve.low, curve.high, color=f"C{number}", alpha=0.15, linewidth=0)
    ax.plot(
        curve.epoch,
        curve.mean,
        color=f"C{number}",
        linestyle=linestyle,
        linewidth=1.5,
        marker=marker,
        markersize=4,
        label=label,
    )


def describe_curves(data: Curves) -> str:
    """The figure in words, for those who do not see it."""
    if not data.lines:
        return "Curves over the epochs: no complete trials."
    parts = []
    for loss, accuracy in zip(data.panels[::2], data.panels[1::2], strict=True):
        for of_loss, of_accuracy in zip(loss.arms, accuracy.arms, strict=True):
            label = ", ".join(filter(None, (data.lines[of_loss.number], loss.group)))
            train, valid = _end(of_accuracy.train), _end(of_accuracy.valid)
            ends = f"accuracy {train} % in training and {valid} % on the reported split"
            parts.append(f"{label}: last {ends}, training loss {_end(of_loss.train)}")
    return (
        f"Loss and accuracy over the epochs, means over training runs. {'; '.join(parts)}."
        f"{not_drawn(data.left_out)}"
    )


def _end(curve: Curve) -> str:
    return f"{curve.mean[-1]:.4g}" if curve.mean else "unknown"
