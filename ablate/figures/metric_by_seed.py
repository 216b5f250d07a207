"""A metric run by run, with its mean and interval: for studies of one arm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from ablate.figures.theme import legend_above, reference_style, shade_style


@dataclass(frozen=True)
class MetricBySeed:
    """What the figure shows, in the axis's unit.

    Attributes:
        label: the metric with its unit.
        seeds: seed of each complete training run, [S].
        values: its value, [S].
        mean: mean over the runs; NaN without runs.
        low: lower end of the interval; NaN where there is none.
        high: upper end of the same.
        floor: mean noise floor of the metric; NaN where it has none.
        band: lower and upper end of what 95 % of calibrated networks score; NaN where they are not known.
    """

    label: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    floor: float = math.nan
    band: tuple[float, float] = (math.nan, math.nan)


def prepare_metric_by_seed(
    runs: pd.DataFrame,
    interval: tuple[float, float, float],
    *,
    label: str,
    unit_factor: float = 1.0,
    floor: float = math.nan,
    band: tuple[float, float] = (math.nan, math.nan),
) -> MetricBySeed:
    """Order the runs by seed.

    Args:
        runs: one row per complete training run: seed, value.
        interval: mean, low and high over the runs; NaN where there is none.
        label: the metric with its unit.
        unit_factor: from the tables' unit to the label's, 100 for percent.
        floor: mean noise floor, in the tables' unit.
        band: ends of the noise floor's band, in the tables' unit.
    """
    known = runs[runs["value"].notna()].sort_values("seed")
    mean, low, high = (end * unit_factor for end in interval)
    return MetricBySeed(
        label=label,
        seeds=tuple(int(seed) for seed in known["seed"]),
        values=tuple(known["value"] * unit_factor),
        mean=mean,
        low=low,
        high=high,
        floor=floor * unit_factor,
        band=(band[0] * unit_factor, band[1] * unit_factor),
    )


def draw_metric_by_seed(data: MetricBySeed, ax: Axes) -> Axes:
    """Draw the runs as points, the mean as a line and its interval as a band."""
    if math.isfinite(data.low):
        ax.axhspan(data.low, data.high, color="C0", alpha=0.14, linewidth=0, label="95 % interval")
    if math.isfinite(data.mean):
        ax.axhline(data.mean, color="C0", linewidth=1.4, label="mean")
    places = range(len(data.seeds))
    ax.plot(places, data.values, "o", color="C0", markersize=6, label="training runs")
    if math.isfinite(data.band[1]):
        ax.axhspan(*data.band, label="noise floor, 95 %", **shade_style())
    if math.isfinite(data.floor):
        ax.axhline(data.floor, label="noise floor", **reference_style())
    ax.set_title(data.label)
    ax.set_xlabel("seed")
    ax.set_xticks(list(places), [str(seed) for seed in data.seeds])
    ax.set_xlim(-0.7, max(len(data.seeds), 1) - 0.3)
    ax.grid(visible=False, axis="x")
    legend_above(ax)
    return ax


def describe_metric_by_seed(data: MetricBySeed) -> str:
    """The figure in words, for those who do not see it."""
    if not data.values:
        return f"{data.label}: no complete trials."
    runs = ", ".join(f"{seed}: {value:.4g}" for seed, value in zip(data.seeds, data.values, strict=True))
    interval = f" (95 % interval {data.low:.4g} to {data.high:.4g})" if math.isfinite(data.low) else ""
    floor = f" Noise floor {data.floor:.3g}." if math.isfinite(data.floor) else ""
    if math.isfinite(data.band[1]):
        low, high = data.band
        floor += f" 95 % of means of a perfectly calibrated network would fall in {low:.3g} to {high:.3g}."
    return f"{data.label} by seed. {runs}. Mean {data.mean:.4g}{interval}.{floor}"
