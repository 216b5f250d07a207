"""Time of a training step by arm: median, and the range that most steps fall in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from ablate.figures.theme import FAINT, HALF, WIDE, capped, not_drawn, shorten

MOST_ARMS = 30
FEW_ARMS = 2
"""Up to so many arms, the figure stands beside another."""


@dataclass(frozen=True)
class StepTime:
    """What the figure shows, in milliseconds.

    Attributes:
        labels: the drawn arms in words, [A].
        median: median over training runs of their median step, [A].
        p20: the same of their 20th percentiles, [A].
        p80: the same of their 80th percentiles, [A].
        runs: per arm the median step of each training run.
        left_out: arms that did not fit.
    """

    labels: tuple[str, ...]
    median: tuple[float, ...]
    p20: tuple[float, ...]
    p80: tuple[float, ...]
    runs: tuple[tuple[float, ...], ...]
    left_out: tuple[str, ...] = ()


def prepare_step_time(trials: pd.DataFrame, labels: Mapping[str, str]) -> StepTime:
    """Medians over training runs.

    Args:
        trials: complete trials: arm, step_ms, step_ms_p20, step_ms_p80.
        labels: arm to its words, in the order to draw them; arms without times are passed over.
    """
    known = trials[trials["step_ms"].notna()]
    present = [arm for arm in labels if (known["arm"] == arm).any()]
    kept, left_out = capped(present, MOST_ARMS)
    own = [known[known["arm"] == arm] for arm in kept]
    return StepTime(
        labels=tuple(labels[arm] for arm in kept),
        median=tuple(float(rows["step_ms"].median()) for rows in own),
        p20=tuple(float(rows["step_ms_p20"].median()) for rows in own),
        p80=tuple(float(rows["step_ms_p80"].median()) for rows in own),
        runs=tuple(tuple(rows["step_ms"]) for rows in own),
        left_out=tuple(labels[arm] for arm in left_out),
    )


def step_time_size(data: StepTime) -> tuple[float, float]:
    """Inches that the arms need."""
    return (HALF[0], 2.6) if len(data.labels) <= FEW_ARMS else (WIDE, 0.9 + 0.3 * len(data.labels))


def draw_step_time(data: StepTime, ax: Axes) -> Axes:
    """Draw one row per arm, the first at the top."""
    for row, (median, low, high) in enumerate(zip(data.median, data.p20, data.p80, strict=True)):
        ax.plot(data.runs[row], [row] * len(data.runs[row]), ".", color="C0", alpha=FAINT, markeredgewidth=0)
        ax.plot([low, high], [row, row], color="C0", linewidth=3, alpha=0.45)
        ax.plot([median], [row], "o", color="C0", markersize=5.5)
    ax.set_yticks(range(len(data.labels)), [shorten(label) for label in data.labels])
    ax.set_ylim(len(data.labels) - 0.4, -0.6)
    ax.set_xlim(left=0, right=1.08 * max((*data.p80, *data.median), default=1.0))
    ax.set_title("training step (ms)")
    ax.grid(visible=False, axis="y")
    return ax


def describe_step_time(data: StepTime) -> str:
    """The figure in words, for those who do not see it."""
    if not data.labels:
        return "Time of a training step: no complete trials."
    rows = zip(data.labels, data.median, data.p20, data.p80, strict=True)
    parts = [f"{label}: {median:.3g} ({low:.3g} to {high:.3g})" for label, median, low, high in rows]
    return (
        f"Training step in ms, median (20th to 80th percentile). {'; '.join(parts)}."
        f"{not_drawn(data.left_out)}"
    )
