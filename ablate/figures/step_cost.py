"""What a training step costs, from the exclusive pass: its time, and its ratio to plain cross-entropy's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablate.figures.theme import (
    WIDE,
    capped,
    interval_reach,
    legend_above,
    not_drawn,
    reference_style,
    shorten,
)

MOST_ROWS = 30
Middle = tuple[float, float, float]
"""A median over rounds with the ends of its 95 % interval, NaN where there are too few rounds."""


@dataclass(frozen=True)
class StepCostRow:
    """One case: all arms whose steps do the same work.

    Attributes:
        label: those arms in words.
        step_ms: milliseconds of the step.
        plain_ms: of the same step with plain cross-entropy.
        ratio: of the two, taken round by round.
        plain: whether it is plain cross-entropy itself.
    """

    label: str
    step_ms: Middle
    plain_ms: Middle
    ratio: Middle
    plain: bool


@dataclass(frozen=True)
class StepCost:
    """The rows in the study's order, and the labels of those that did not fit."""

    rows: tuple[StepCostRow, ...]
    left_out: tuple[str, ...] = ()


def prepare_step_cost(rows: Sequence[StepCostRow]) -> StepCost:
    """Keep as many rows as there is room for."""
    kept, left_out = capped(rows, MOST_ROWS)
    return StepCost(kept, tuple(row.label for row in left_out))


def step_cost_size(data: StepCost) -> tuple[float, float]:
    """Inches that the rows need."""
    return (WIDE, 1.35 + 0.36 * max(len(data.rows), 1))


def draw_step_cost(data: StepCost, figure: Figure) -> None:
    """Draw times to the left and ratios to the right, one row per case, the first at the top."""
    times, ratios = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(data.rows):
        _draw_middle(row.plain_ms, place + 0.16, "D", "C1", "plain cross-entropy", times, hollow=True)
        if not row.plain:
            _draw_middle(row.step_ms, place - 0.16, "o", "C0", "the study's loss", times)
            _draw_middle(row.ratio, place, "o", "C0", "the study's loss", ratios)
            ratios.text(
                1.02, place, f"{row.ratio[0]:.3f} ×", transform=ratios.get_yaxis_transform(), va="center"
            )
    ratios.axvline(1, label="as long", **reference_style())
    times.set_yticks(range(len(data.rows)), [shorten(row.label) for row in data.rows])
    times.set_ylim(max(len(data.rows), 1) - 0.4, -0.6)
    times.set_xlim(left=0)
    times.set_title("training step (ms)")
    ratios.set_title("times as long as with plain cross-entropy")
    for ax in (times, ratios):
        ax.grid(visible=False, axis="y")
    legend_above(times)


def _draw_middle(
    middle: Middle, place: float, marker: str, color: str, label: str, ax: Axes, *, hollow: bool = False
) -> None:
    ax.errorbar(
        [middle[0]],
        [place],
        xerr=interval_reach(*([end] for end in middle)),
        fmt=marker,
        color=color,
        markerfacecolor=ax.get_facecolor() if hollow else color,
        markersize=5.5,
        elinewidth=2,
        capsize=3,
        label=label,
    )


def describe_step_cost(data: StepCost) -> str:
    """The figure in words, for those who do not see it."""
    if not data.rows:
        return "Time of a training step: not measured."
    parts = [_describe(row) for row in data.rows]
    return (
        "Time of a training step in ms, and how many times as long as with plain cross-entropy. "
        f"{'; '.join(parts)}.{not_drawn(data.left_out)}"
    )


def _describe(row: StepCostRow) -> str:
    if row.plain:
        return f"{row.label}: {row.step_ms[0]:.3g} ms, which is plain cross-entropy"
    low, high = row.ratio[1:]
    ends = f" ({low:.3f} to {high:.3f})" if math.isfinite(high - low) else ""
    return f"{row.label}: {row.step_ms[0]:.3g} ms, {row.ratio[0]:.3f} times{ends}"
