"""Simulated searches find what is there: the bars of the full table, at fewer repeats."""

import dataclasses
import io
import math

import numpy as np
import optuna
import pytest
from rich.console import Console

from benchmarks import simulated_searches
from benchmarks.simulated_searches import (
    Outcome,
    Situation,
    simulate,
    situations,
    true_values,
)

SEARCHES = 30


def binomial_error(share: float, searches: int = SEARCHES) -> float:
    """Three standard errors."""
    return 3 * math.sqrt(share * (1 - share) / searches)


@pytest.fixture(scope="module")
def tpe() -> Outcome:
    return simulate(Situation("curve", "tpe", repeats=SEARCHES))


@pytest.mark.slow
def test_the_default_finds_the_best_and_is_no_worse_than_random_search(tpe: Outcome) -> None:
    random = simulate(Situation("curve", "random", repeats=SEARCHES))
    raw = simulate(Situation("curve", "random", "raw", repeats=SEARCHES))
    assert tpe.near >= 0.85 - binomial_error(0.85)
    assert tpe.distance <= random.distance + 0.005 + 1e-9  # a step: the median of few
    assert tpe.distance < raw.distance
    assert tpe.regret < raw.regret
    # The best of 40 raw means is too good by half a point's spread, and more; the smoothed choice is not.
    assert abs(tpe.optimism) < 0.15 < raw.optimism
    assert tpe.tuning - tpe.optimism == pytest.approx(tpe.fresh, abs=3 * 0.4 / math.sqrt(10 * SEARCHES))


@pytest.mark.slow
def test_where_nothing_differs_the_re_test_says_so() -> None:
    flat = simulate(Situation("flat", "tpe", repeats=SEARCHES))
    assert flat.better <= 0.055 + binomial_error(0.055)
    assert flat.optimism == flat.tuning
    assert math.isnan(flat.near)
    assert math.isnan(flat.regret)


def test_two_objectives_are_chosen_from_the_front() -> None:
    two = simulate(Situation("two curves", "nsga2", repeats=10))
    assert two.near >= 0.9
    assert 0 <= two.regret < 0.5
    assert math.isnan(two.better)


def test_what_two_points_miss_is_optunas_hypervolume() -> None:
    """The reference point lies a tenth of the front's extent beyond its worst values."""
    case = Situation("two curves", "random")
    front = np.array([true_values(case, epsilon) for epsilon in np.arange(0.12, 0.2001, 0.005)])
    losses = front * (-1, 1)  # less is better
    reference = losses.max(axis=0) + 0.1 * np.ptp(losses, axis=0)

    def volume(epsilons: tuple[float, ...]) -> float:
        points = np.array([true_values(case, epsilon) for epsilon in epsilons]) * (-1, 1)
        inside = points[(points < reference).all(axis=1)]
        return float(optuna._hypervolume.compute_hypervolume(inside, reference)) if len(inside) else 0.0

    grid = np.arange(0.12, 0.2001, 0.005)
    most = max(volume((a, b)) for a in grid for b in grid)
    for chosen in ((0.145, 0.175), (0.12, 0.2), (0.15,), (0.1, 0.16), (0.4, 0.45)):
        missed = simulated_searches._missed(np.array([true_values(case, epsilon) for epsilon in chosen]))
        assert missed == pytest.approx(1 - volume(chosen) / most, abs=1e-9)


@pytest.mark.slow
def test_one_search_repeats(tpe: Outcome) -> None:
    again, fewer = (simulate(dataclasses.replace(tpe.situation, repeats=n)) for n in (5, 5))
    assert again == fewer
    assert again.tuning != tpe.tuning


@pytest.mark.slow
def test_every_situation_is_simulated_shown_and_stored() -> None:
    text = io.StringIO()
    stored = simulated_searches.run(Console(file=text, width=200), repeats=2)
    lines = text.getvalue().splitlines()
    assert text.getvalue().count("done: ") == len(situations())
    assert lines[len(situations())].split() == [
        *("name", "sampler", "rule", "repeats"),
        *("near", "distance", "regret", "tuning", "optimism", "fresh", "better"),
    ]
    assert "at least 85 %" in text.getvalue()
    assert [(row["name"], row["sampler"], row["rule"]) for row in stored] == [
        (case.name, case.sampler, case.rule) for case in situations()
    ]
    assert stored[2]["tuning"] == simulate(Situation("curve", "random", repeats=2)).tuning
    assert stored[-1]["near"] is None
    assert "–" in lines[2 * len(situations())]
