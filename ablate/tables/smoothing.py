"""Values of a search's points smoothed over their neighbours: where a point lies, how noisy its mean is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ablate.stats import smoothed
from ablate.study.search import Levels, Range, Search

FloatArray = NDArray[np.float64]


def place_of(search: Search, levels: Levels) -> list[float]:
    """Coordinates of a point in which distances mean something.

    A range goes to [0, 1], even in the logarithm where it is declared so; each value of a choice has an axis
    of its own. A field with a condition has one more axis, 1 where it is used; unused it lies at 0.
    """
    place: list[float] = []
    for name, dimension in search.space.items():
        used = name in levels
        if dimension.when:
            place.append(float(used))
        if isinstance(dimension, Range):
            place.append(_along(dimension, levels[name]) if used else 0.0)
        else:
            place += [float(used and levels[name] == value) for value in dimension.of]
    return place


def _along(dimension: Range, value: float) -> float:
    if dimension.log:
        return math.log(value / dimension.low) / math.log(dimension.high / dimension.low)
    return (value - dimension.low) / (dimension.high - dimension.low)


def smoothed_values(places: FloatArray, samples: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Smoothed values and their standard deviations, [n] each.

    Args:
        places: [n, d] coordinates.
        samples: per point its values by seed.
    """
    if not samples:
        return np.empty(0), np.empty(0)
    means = np.array([sample.mean() for sample in samples])
    counts = np.array([len(sample) for sample in samples])
    found = smoothed(places, means, replicates=counts, spread=_spread(samples))
    return found.mean, found.sd


def _spread(samples: Sequence[FloatArray]) -> float:
    """Standard deviation of a training run within a point, pooled over points; NaN with one seed each."""
    freedom = sum(len(sample) - 1 for sample in samples)
    squares = math.fsum(float(((sample - sample.mean()) ** 2).sum()) for sample in samples)
    return math.sqrt(squares / freedom) if freedom else math.nan
