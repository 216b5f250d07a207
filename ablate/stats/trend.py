"""Trend over the levels of an ordered factor: one question instead of one for each level."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ablate.stats.intervals import FloatArray
from ablate.stats.paired import PairedEffect, paired_effect

Scale = Literal["value", "log2", "rank"]


def trend(
    values: NDArray[np.floating],
    levels: Sequence[float],
    *,
    scale: Scale = "value",
    confidence: float = 0.95,
    comparisons: int = 1,
) -> PairedEffect:
    """Slope of a metric over a factor's levels, with the seeds as replicates.

    Each seed gives one slope, by least squares over its levels; they are judged like paired differences, by a
    t test against 0 with n - 1 degrees of freedom. What a seed adds to all levels alike drops out. A slope
    says whether the metric rises or falls on the whole; a hump in the middle has none.

    Args:
        values: [L, n], a row per level and a column per seed. A seed with a NaN is left out: its slope over
            the other levels would answer another question.
        levels: the L values of the factor, at least two, all different.
        scale: what the slope is per: "value", one unit of the factor; "log2", a doubling, for levels above 0;
            "rank", a step from one level to the next larger.
        confidence: coverage in (0, 1) of all the family's intervals together.
        comparisons: trends in the family.

    Returns:
        The slope as `effect`, in the metric's unit per that of the scale, so that `verdict` can judge it
        against a margin in that unit; rho is NaN.

    Raises:
        ValueError: If the shapes do not match, a value is infinite, there are fewer than two levels, or two
            the same, or some that the scale cannot take, confidence lies outside (0, 1), or comparisons < 1.
    """
    places = _places(levels, scale)
    if values.ndim != 2 or len(values) != len(places):
        raise ValueError(
            f"Expected values of shape [{len(places)} levels, n seeds], got {values.shape}; "
            "pass a row per level."
        )
    weights = _slope_weights(places)
    # Two sides and not one sum: what rounding can make of equal slopes is told by their size.
    above, below = (np.maximum(side, 0.0) @ values.astype(np.float64) for side in (weights, -weights))
    found = paired_effect(above, below, confidence=confidence, comparisons=comparisons)
    return replace(found, rho=math.nan)


def _slope_weights(places: FloatArray) -> FloatArray:
    """[L] what each level's value counts in the least-squares slope.

    Exact up to one rounding each, so that a value all levels share gives no slope.
    """
    exact = [Fraction(place) for place in places.tolist()]
    mean = sum(exact) / len(exact)
    squares = sum((place - mean) ** 2 for place in exact)
    return np.array([float((place - mean) / squares) for place in exact])


def _places(levels: Sequence[float], scale: Scale) -> FloatArray:
    """Where the levels stand on the scale, [L]."""
    places = np.asarray(levels, dtype=np.float64)
    if places.ndim != 1 or len(places) < 2 or not np.isfinite(places).all():
        raise ValueError(f"Expected at least two levels, all finite, got {levels}; a trend is over numbers.")
    if len(np.unique(places)) < len(places):
        raise ValueError(f"Expected levels that all differ, got {levels}; pass each one once.")
    if scale == "rank":
        return np.argsort(np.argsort(places)).astype(np.float64)
    if scale == "log2" and (places <= 0).any():
        raise ValueError(f"Expected levels above 0 on the scale log2, got {levels}; take value or rank.")
    return np.log2(places) if scale == "log2" else places
