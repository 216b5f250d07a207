"""A search's fields as Optuna knows them, and back.

Optuna has no steps in a logarithm, and stores no values but numbers, strings, booleans and None. So a level
and what Optuna stores of it are two things.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ablate.study.search import Choice, Range

Dimension = Range | Choice


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """What Optuna draws the field from."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(_categories(dimension))
    if dimension.is_integer:
        return IntDistribution(int(dimension.low), int(dimension.high), step=int(dimension.step or 1))
    if dimension.log:
        return FloatDistribution(dimension.low, dimension.high, log=True)
    # Optuna counts steps in decimals; a high that rounding put below the last level would lose that level.
    exact = _exact(dimension, dimension.high)
    high = float(exact)
    if Decimal(str(high)) < exact:
        high = math.nextafter(high, math.inf)
    return FloatDistribution(dimension.low, high, step=dimension.step)


def stored_of(dimension: Dimension, level: Any) -> Any:
    """What Optuna stores of a level that the dimension holds, which JSON may have made a list of a tuple."""
    if isinstance(dimension, Choice):
        return _categories(dimension)[[json.dumps(value) for value in dimension.of].index(json.dumps(level))]
    if dimension.is_integer:
        return level
    if dimension.log:  # its ends come out apart by rounding, and Optuna refuses what lies outside
        return min(max(level, dimension.low), dimension.high)
    # Not the level itself, whose twelve digits can be off Optuna's narrower idea of a grid.
    high = distribution_of(dimension).high  # type: ignore[attr-defined]
    return min(float(_exact(dimension, level)), high)


def level_of(dimension: Dimension, stored: Any) -> Any:
    """The level, on the grid, that is nearest to what Optuna drew."""
    if isinstance(dimension, Choice):
        return dimension.of[_categories(dimension).index(stored)]
    return dimension.nearest(stored)


def _exact(dimension: Range, level: float) -> Decimal:
    """The level of a stepped range as Optuna counts it, in decimals."""
    assert dimension.step is not None  # validated
    steps = round((level - dimension.low) / dimension.step)
    return Decimal(str(dimension.low)) + steps * Decimal(str(dimension.step))


def _categories(dimension: Choice) -> tuple[Any, ...]:
    stored = all(isinstance(value, (bool, int, float, str)) for value in dimension.of)
    return dimension.of if stored else tuple(map(repr, dimension.of))
