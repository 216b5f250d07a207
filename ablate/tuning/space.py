"""A search's fields as Optuna knows them, and draws moved to the search's grid.

Optuna has no steps in a logarithm, and stores no values but numbers, strings, booleans and None. So a level
and what Optuna stores of it are two things; here is the way from each to the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, QMCSampler
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
    assert dimension.step is not None  # validated
    # Optuna counts steps in decimals; a high that rounding put below the last level would lose that level.
    exact = _at(dimension, _place(dimension, dimension.high))
    high = float(exact)
    if Decimal(str(high)) < exact:
        high = math.nextafter(high, math.inf)
    return FloatDistribution(dimension.low, high, step=dimension.step)


def _place(dimension: Range, level: float) -> int:
    assert dimension.step is not None  # validated
    return round((level - dimension.low) / dimension.step)


def _at(dimension: Range, place: int) -> Decimal:
    return Decimal(str(dimension.low)) + place * Decimal(str(dimension.step))


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
    return min(float(_at(dimension, _place(dimension, level))), high)


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


def suggested(search: Search, trial: optuna.Trial) -> Levels:
    """Ask a trial for its point, field by field; those whose condition fails are not asked for."""
    found: Levels = {}
    for name, dimension in search.space.items():
        if all(found.get(other) == value for other, value in dimension.when.items()):
            found[name] = level_of(dimension, _suggest(trial, name, distribution_of(dimension)))
    return found


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def given(search: Search, levels: Levels) -> Levels:
    """The active levels of a point that was not drawn, on the grid.

    With log, a value between the grid's stays: a baseline is what it is.

    Raises:
        ValueError: a level is missing or out of its range.
    """
    found = search.active(levels)
    for name, dimension in search.space.items():
        if name in found:
            found[name] = _checked(name, dimension, found[name])
        elif all(found.get(other) == value for other, value in dimension.when.items()):
            raise ValueError(
                f"{name}: missing among the levels {levels}; a point needs a value of each field."
            )
    return found


def _checked(name: str, dimension: Dimension, level: Any) -> Any:
    if not dimension.holds(level):
        raise ValueError(
            f"{name}: {level!r} is not in its range ({dimension.in_words()}); "
            "widen the range, or change the value."
        )
    if isinstance(dimension, Range) and dimension.log:
        return level
    return level_of(dimension, stored_of(dimension, level))


class OnGrid(BaseSampler):
    """Another sampler, whose draws are moved to the search's grid before Optuna stores them."""

    def __init__(self, inner: BaseSampler, search: Search) -> None:
        self._inner, self._space = inner, search.space

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The fields that are drawn together, as the other sampler says."""
        if isinstance(self._inner, QMCSampler):
            # Left alone, it spreads only the fields that the first point happens to have.
            return {name: distribution_of(dimension) for name, dimension in self._space.items()}
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Fields drawn together."""
        return self._on_grid(self._inner.sample_relative(study, trial, search_space))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A field drawn by itself."""
        drawn = self._inner.sample_independent(study, trial, param_name, param_distribution)
        return self._on_grid({param_name: drawn})[param_name]

    def _on_grid(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: stored_of(self._space[name], level_of(self._space[name], value))
            for name, value in drawn.items()
        }
