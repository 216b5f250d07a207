"""Values of a search's points smoothed over their neighbours: where a point lies, how noisy its mean is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ablate.stats import smoothed
from ablate.study.search import Choice, Levels, Search

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
        if isinstance(dimension, Choice):
            place += [float(used and levels[name] == value) for value in dimension.of]
            continue
        low, high, value = dimension.low, dimension.high, levels.get(name, dimension.low)
        if dimension.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        place.append((value - low) / (high - low))
    return place


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
    # The standard deviation of a training run within a point, pooled; not known with one seed each.
    squares = math.fsum(float(((sample - sample.mean()) ** 2).sum()) for sample in samples)
    freedom = int(counts.sum()) - len(samples)
    spread = math.sqrt(squares / freedom) if freedom else math.nan
    smooth = smoothed(places, means, replicates=counts, spread=spread)
    return smooth.mean, smooth.sd
