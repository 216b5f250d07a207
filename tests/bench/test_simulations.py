"""What simulated studies and searches show: the verdicts keep their promises, and what is there is found."""

import io
import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from rich.console import Console

from ablate.analysis.effects import effects_table
from ablate.study.comparisons import terms
from ablate.tables.files import frame
from benchmarks import simulated_searches as searches
from benchmarks import simulated_studies as studies

SEARCHES, DESIGN = 30, "7 levels x 2 networks x 10 seeds"


@pytest.mark.slow
@pytest.mark.parametrize("asked", studies.ASKED)
def test_simulated_studies_are_judged_as_the_effects_table_judges(asked: str) -> None:
    plan = studies.declared(DESIGN, asked, 1)
    situation = studies.Situation(DESIGN, "t, 3 df", studies.SPREADS[1], -0.3, asked, 1, repeats=6)
    values = 0.9 + 0.003 * studies.luck(situation, 10, np.random.default_rng(0))
    values[3:] += np.repeat(np.linspace(0, 0.03, 7), 2)[:, None]
    effects, words = studies.judged(plan, values, np.zeros(sum(term.asked for term in terms(plan))), 0.005)
    found = set()
    for number, of_study in enumerate(values[:, 0]):
        rows = [
            {"arm": trial.arm, "seed": trial.seed, "repeat": 0, "status": "complete"}
            | {"accuracy": of_study[plan.arms.index(trial.arm), trial.seed]}
            for trial in plan.trials
        ]
        table = effects_table({"trials": frame("trials", rows)}, plan)
        claims = table[table["verdict"] != "exploratory"]
        assert claims["metric"].eq("accuracy").all()
        straight = (claims["reason"] != "bent").to_numpy()
        assert claims["verdict"][straight].tolist() == words[number, 0][straight].tolist()
        for name in ("effect", "low", "high"):
            np.testing.assert_allclose(claims[name], getattr(effects, name)[number, 0], rtol=1e-6)
        found |= set(claims["verdict"])
    assert {"better", "equivalent"} <= found


@pytest.mark.parametrize("design", studies.DESIGNS)
@pytest.mark.parametrize(("spread", "rho"), [*zip(studies.SPREADS, (0.0, -0.3, 0.0), strict=True)])
def test_every_promise_holds_for_normal_noise(design: str, spread: str, rho: float) -> None:
    for asked, metrics in zip(studies.ASKED, (2, 1), strict=True):
        situation = studies.Situation(design, "normal", spread, rho, asked, metrics, repeats=3000)
        of = studies.simulate(situation, np.random.default_rng(3))
        error = 3 * math.sqrt(0.05 * 0.95 / 3000)
        assert of.false_claim <= 0.05 + error
        assert of.coverage == pytest.approx(1 - of.false_claim)
        # Of a false equivalent one side alone can be wrong, and Bonferroni's bound is nearly reached.
        assert 0.01 <= of.false_equivalent <= 0.03 + error / 2
        assert of.false_word <= 0.03 + error / 2


def test_heavy_tails_cost_no_false_claims_and_skewed_arms_do() -> None:
    # Known, and said in the docs: t intervals of few seeds need a roughly symmetric spread.
    cases = (("t, 3 df", studies.SPREADS[0], 0, 0.055), ("skewed arms", "all arms twice", 0.06, 0.15))
    for noise, spread, low, high in cases:
        situation = studies.Situation(DESIGN, noise, spread, 0.0, "arms", 1, repeats=2000)
        of = studies.simulate(situation, np.random.default_rng(0))
        assert low < of.false_claim < high


@pytest.mark.parametrize("spread", studies.SPREADS)
def test_a_new_study_of_the_upper_number_of_seeds_decides(spread: str) -> None:
    pilots = studies.PilotSituation(6, "normal", spread, 5, repeats=200)
    of = studies.simulate_pilots(pilots, np.random.default_rng(0))
    assert min(of.at_0, of.at_twice) >= 0.8
    assert of.few <= 1.3 * of.known
    assert of.many <= 2.5 * of.known


def searched(name: str, sampler: Any, rule: str = "smoothed", repeats: int = SEARCHES, **part: Any) -> Any:
    return searches.simulate(searches.Situation(name, sampler, rule, repeats, **part))


@pytest.mark.slow
def test_the_default_finds_the_best_and_is_no_worse_than_random_search() -> None:
    tpe, random, raw = (searched("curve", *how) for how in (("tpe",), ("random",), ("random", "raw")))
    assert tpe.near >= 0.85 - 3 * math.sqrt(0.85 * 0.15 / SEARCHES)  # three standard errors
    assert tpe.distance <= random.distance + 0.005 + 1e-9  # a step: the median of few
    assert tpe.distance < raw.distance
    assert tpe.regret < raw.regret
    # The best of 40 raw means is too good by half a point's spread, and more; the smoothed choice is not.
    assert abs(tpe.optimism) < 0.15 < raw.optimism
    assert tpe.tuning - tpe.optimism == pytest.approx(tpe.fresh, abs=3 * 0.4 / math.sqrt(10 * SEARCHES))


@pytest.mark.slow
def test_what_fails_does_not_flatter_what_is_chosen() -> None:
    parts: list[dict[str, Any]] = [{}, {"name": "curve"}, {"fails": 0.8}, {"spread": 10.0}, {"seeds": 1}]
    for part in parts:
        choice = searched(**{"name": "flat", "sampler": "random", "repeats": 12, "fails": 0.4, **part})
        assert choice.bias < 0.15, part
        assert not choice.regret > 0.05, part  # of the curve, in points
    assert searched("flat", "random", "raw", 12, fails=0.4).bias > 0.3


@pytest.mark.slow
def test_where_nothing_differs_the_re_test_says_so() -> None:
    flat = searched("flat", "tpe")
    assert flat.better <= 0.055 + 3 * math.sqrt(0.055 * 0.945 / SEARCHES)
    assert flat.optimism == flat.tuning
    assert np.isnan([flat.near, flat.regret]).all()


def test_two_objectives_are_chosen_from_the_front() -> None:
    two = searched("two curves", "nsga2", repeats=10)
    assert two.near >= 0.9
    assert 0 <= two.regret < 0.5
    assert math.isnan(two.better)


def test_what_two_points_miss_is_optunas_hypervolume() -> None:
    case, grid = searches.Situation("two curves", "random"), np.arange(0.12, 0.2001, 0.005)

    def true(epsilons: Iterable[float]) -> NDArray[np.float64]:
        return np.array([searches.true_values(case, epsilon) for epsilon in epsilons])

    less_is_better = (-1, 1)
    losses = true(grid) * less_is_better
    reference = losses.max(axis=0) + 0.1 * np.ptp(losses, axis=0)

    def volume(epsilons: Iterable[float]) -> float:
        points = np.minimum(true(epsilons) * less_is_better, reference)  # one beyond it adds nothing
        return float(optuna._hypervolume.compute_hypervolume(points, reference))

    most = max(volume(pair) for pair in itertools.product(grid, grid))
    for chosen in ((0.145, 0.175), (0.12, 0.2), (0.15,), (0.1, 0.16), (0.4, 0.45)):
        missed = searches._missed(true(chosen))
        assert missed == pytest.approx(1 - volume(chosen) / most, abs=1e-9)


@pytest.mark.soak
def test_every_search_is_simulated_shown_and_stored() -> None:
    text = io.StringIO()
    stored = searches.run(Console(file=text, width=200), repeats=2)
    lines = [line for line in text.getvalue().splitlines() if not line.startswith("done: ")]
    assert [row["name"] for row in stored] == [case.name for case in searches.situations()]
    heads = "name sampler rule repeats fails spread seeds near distance regret tuning optimism bias ± se"
    assert lines[0].split() == [*heads.split(), "fresh", "better"]
    assert "at least 85 %" in "\n".join(lines)
    assert stored[2]["tuning"] == searched("curve", "random", repeats=2).tuning
    assert (stored[-1]["near"], "–" in lines[len(stored)]) == (None, True)
