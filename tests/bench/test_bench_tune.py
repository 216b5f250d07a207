"""Simulated searches find what is there: the bars of the full table, at fewer repeats."""

import dataclasses
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from rich.console import Console

from ablate.__main__ import main
from ablate.bench import run_tuning, write_json
from ablate.bench import tune as bench
from ablate.bench.tune import (
    FLAT_REPEATS,
    REPEATS,
    Situation,
    show_outcomes,
    simulate,
    situations,
    true_values,
)

SEARCHES = 30


def binomial_error(share: float, searches: int = SEARCHES) -> float:
    """Three standard errors."""
    return 3 * math.sqrt(share * (1 - share) / searches)


@pytest.fixture(scope="module")
def tpe() -> bench.Outcome:
    return simulate(Situation("curve", "tpe", repeats=SEARCHES))


def test_the_default_finds_the_best_and_is_no_worse_than_random_search(tpe: bench.Outcome) -> None:
    random = simulate(Situation("curve", "random", repeats=SEARCHES))
    raw = simulate(Situation("curve", "random", "raw", repeats=SEARCHES))
    assert tpe.near >= 0.85 - binomial_error(0.85)
    assert tpe.distance <= random.distance + 0.005 + 1e-9  # a step: the median of few
    assert tpe.distance < raw.distance
    assert tpe.regret < raw.regret
    # The best of 40 raw means is too good by half a point's spread, and more; the smoothed choice is not.
    assert abs(tpe.optimism) < 0.15 < raw.optimism
    assert tpe.tuning - tpe.optimism == pytest.approx(tpe.fresh, abs=3 * 0.4 / math.sqrt(10 * SEARCHES))


def test_where_nothing_differs_the_re_test_says_so() -> None:
    flat = simulate(Situation("flat", "tpe", repeats=SEARCHES))
    assert flat.better <= 0.055 + binomial_error(0.055)
    assert flat.optimism == flat.tuning
    assert math.isnan(flat.near)
    assert math.isnan(flat.regret)


def test_two_objectives_are_chosen_from_the_front() -> None:
    found = simulate(Situation("two curves", "nsga2", repeats=10))
    assert found.near >= 0.9
    assert 0 <= found.regret < 0.5
    assert math.isnan(found.better)


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
        missed = bench._missed(np.array([true_values(case, epsilon) for epsilon in chosen]))
        assert missed == pytest.approx(1 - volume(chosen) / most, abs=1e-9)


def test_one_search_repeats(tpe: bench.Outcome) -> None:
    again, fewer = (simulate(dataclasses.replace(tpe.situation, repeats=n)) for n in (5, 5))
    assert again == fewer
    assert again.tuning != tpe.tuning


def test_every_sampler_is_compared_at_one_budget() -> None:
    assert {case.sampler for case in situations()} == {"tpe", "gp", "random", "quasi_random", "nsga2"}
    assert len(set(situations())) == len(situations())
    assert (REPEATS, FLAT_REPEATS) == (200, 1000)
    assert next(case for case in situations() if case.name == "flat").repeats == FLAT_REPEATS


def test_the_table_shows_every_column(tpe: bench.Outcome) -> None:
    text = io.StringIO()
    flat = dataclasses.replace(tpe, situation=Situation("flat", "tpe"), near=math.nan)
    show_outcomes(Console(file=text, width=200), [tpe, flat])
    lines = text.getvalue().splitlines()
    assert lines[0].split() == [
        *("truth", "sampler", "choice", "searches"),
        *("near", "distance", "regret", "tuning", "optimism", "fresh", "better"),
    ]
    assert f"{tpe.near:.1%}" in lines[1]
    assert "–" in lines[2]
    assert "at least 85 %" in text.getvalue()


def test_the_command_asks_for_the_searches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "searches.json"
    # They would take minutes.
    monkeypatch.setattr("ablate.bench.run_tuning", lambda console: {"situations": [1]})
    monkeypatch.setattr(sys, "argv", ["ablate", "bench", "tune", "--json", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert json.loads(path.read_text()) == {"situations": [1]}


@pytest.mark.slow
def test_the_suite_simulates_every_situation_and_stores_the_numbers(tmp_path: Path) -> None:
    text = io.StringIO()
    found = run_tuning(Console(file=text, width=200), repeats=2)
    assert text.getvalue().count("done: ") == len(situations())
    write_json(tmp_path / "searches.json", found)
    stored = json.loads((tmp_path / "searches.json").read_text())["situations"]
    assert [(row["name"], row["sampler"], row["rule"]) for row in stored] == [
        (case.name, case.sampler, case.rule) for case in situations()
    ]
    random = simulate(Situation("curve", "random", repeats=2))
    assert stored[2]["tuning"] == random.tuning
    assert stored[-1]["near"] is None
