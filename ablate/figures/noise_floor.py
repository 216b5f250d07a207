"""The noise floor in a figure by level: what a perfectly calibrated network scores, as a line in its band."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ablate.figures.theme import reference_style, shade_style

Floor = tuple[tuple[float, float], ...]
"""Position and height at each level."""
Band = tuple[tuple[float, float, float], ...]
"""Position, lower and upper end at each level."""
PIECE = 0.3
"""Half the width of the band at a level that stands alone."""


def prepare_floor(means: pd.DataFrame, place: Mapping[Any, float], unit_factor: float) -> tuple[Floor, Band]:
    """Floor and band at each level, the mean over its lines; empty where they are not known.

    Args:
        means: one row per arm: level, and where there are any floor, floor_low and floor_high.
        place: level to position.
        unit_factor: from the table's unit to the axis's.
    """
    floor = tuple((x, height) for x, height in _by_level(means, ["floor"], place, unit_factor))
    ends = _by_level(means, ["floor_low", "floor_high"], place, unit_factor)
    return floor, tuple((x, low, high) for x, low, high in ends)


def _by_level(
    means: pd.DataFrame, columns: list[str], place: Mapping[Any, float], unit_factor: float
) -> list[tuple[float, ...]]:
    if not set(columns) <= set(means):
        return []
    rows = means.dropna(subset=columns).groupby("level", sort=False)[columns].mean() * unit_factor
    return sorted((place[level], *own) for level, own in zip(rows.index, rows.to_numpy(), strict=True))


def draw_floor(floor: Floor, band: Band, ax: Axes, *, apart: bool) -> None:
    """Draw the floor as a line in its band; without a band in the area below it.

    Args:
        floor: at each level, one at least.
        band: the same.
        ax: to draw on.
        apart: whether nothing lies between the levels, so that each has its own piece of the band.
    """
    x, height = zip(*floor, strict=True)
    style = {"label": "noise floor", **reference_style()}
    if band and (apart or len(band) == 1):
        for at, low, high in band:
            ax.fill_between((at - PIECE, at + PIECE), low, high, **shade_style())
        ax.hlines(height, [at - PIECE for at in x], [at + PIECE for at in x], **style)
        return
    if band:
        places, lows, highs = zip(*band, strict=True)
        ax.fill_between(places, lows, highs, **shade_style())
    else:
        ax.fill_between(x, height, color=reference_style()["color"], alpha=0.13, linewidth=0)
    ax.plot(x, height, marker="_", **style)


def describe_floor(floor: Floor, band: Band, words: Mapping[float, str]) -> str:
    """Floor and band in words; empty without them.

    Args:
        floor: at each level.
        band: the same.
        words: position to the level in words.
    """
    heights = [height for _, height in floor]
    said = f" Mean noise floor {_span(heights)}." if heights else ""
    ends = ", ".join(f"{words[x]}: {low:.3g} to {high:.3g}" for x, low, high in band)
    return said + (f" 95 % of means of a perfectly calibrated network would fall in {ends}." if ends else "")


def _span(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}" if len(values) > 1 else f"{values[0]:.3g}"
