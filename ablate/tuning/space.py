"""A search's fields as Optuna knows them, and draws moved to the search's grid.

Optuna has no steps in a logarithm, and stores no values but numbers, strings, booleans and None. So a level
and what Optuna stores of it are two things; here is the way from each to the other.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from ablate.study.search import Choice, Levels, Range, Search

Dimension = Range | Choice
STORED = (bool, int, float, str, type(None))
"""Types of categories that Optuna stores."""


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


def _exact(dimension: Range, level: float) -> Decimal:
    """The level of a stepped range as Optuna counts it, in decimals."""
    assert dimension.step is not None  # validated
    steps = round((level - dimension.low) / dimension.step)
    return Decimal(str(dimension.low)) + steps * Decimal(str(dimension.step))


def stored_of(dimension: Dimension, level: Any) -> Any:
    """What Optuna stores of a level that the dimension holds."""
    if isinstance(dimension, Choice):
        as_listed = [_listed(value) for value in dimension.of]
        return _categories(dimension)[as_listed.index(_listed(level))]
    if dimension.is_integer:
        return level
    if dimension.log:  # its ends come out apart by rounding, and Optuna refuses what lies outside
        return min(max(level, dimension.low), dimension.high)
    # Not the level itself, whose twelve digits can be off Optuna's narrower idea of a grid.
    high = distribution_of(dimension).high  # type: ignore[attr-defined]
    return min(float(_exact(dimension, level)), high)


def level_of(dimension: Dimension, stored: Any) -> Any:
    """The level, on the grid, that is nearest to what Optuna drew or stored."""
    if isinstance(dimension, Choice):
        return dimension.of[_categories(dimension).index(stored)]
    return dimension.nearest(stored)


def _categories(dimension: Choice) -> tuple[Any, ...]:
    if all(isinstance(value, STORED) for value in dimension.of):
        return dimension.of
    return tuple(repr(value) for value in dimension.of)


def _listed(value: Any) -> Any:
    """Tuples as lists, which is what JSON makes of them."""
    return [_listed(part) for part in value] if isinstance(value, (tuple, list)) else value


def _is_active(dimension: Dimension, levels: Levels) -> bool:
    return all(levels.get(other) == value for other, value in dimension.when.items())


def drawn(search: Search, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial) -> Levels:
    """A point by Optuna's sampler, field by field; those whose condition fails are not drawn."""
    together = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
    levels: Levels = {}
    for name, dimension in search.space.items():
        if _is_active(dimension, levels):
            alone = name not in together
            value = (
                sampler.sample_independent(study, trial, name, distribution_of(dimension))
                if alone
                else together[name]
            )
            levels[name] = level_of(dimension, value)
    return levels


def given(search: Search, levels: Levels) -> Levels:
    """The active levels of a point that was not drawn, on the grid.

    With log, a value between the grid's stays: a baseline is what it is.

    Raises:
        ValueError: a level is missing or out of its range.
    """
    active = search.active(levels)
    for name, dimension in search.space.items():
        if name not in active:
            if _is_active(dimension, active):
                raise ValueError(
                    f"{name}: missing among the levels {levels}; a point needs a value of each field."
                )
            continue
        if not dimension.holds(active[name]):
            raise ValueError(
                f"{name}: {active[name]!r} is not in its range ({dimension.in_words()}); "
                "widen the range, or change the value."
            )
        if isinstance(dimension, Choice) or not dimension.log:
            active[name] = level_of(dimension, stored_of(dimension, active[name]))
    return active
