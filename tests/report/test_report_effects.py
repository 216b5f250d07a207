"""Main effects, interactions and trends: linear models, scipy, planted effects, gaps, and their sentences."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from report_cases import built
from report_results import CPU, declare, make_results, number_of
from scipy.stats import linregress

from ablate.analysis.arms import identical_arms
from ablate.analysis.effects import effects_table, terms
from ablate.store.records import Predictions
from ablate.store.results import read_plan
from ablate.study.trials import Plan, Trial, expand
from ablate.tables import frame, read_tables

EPSILON_ARCH: dict[str, Any] = {"epsilon": (0.0, 0.1), "arch": ("seed_cnn", "xresnet18")}
GRID: dict[str, Any] = {**EPSILON_ARCH, "reduction": ("mean", "sum", "none")}
ORDERED: dict[str, Any] = {
    "epsilon": (0.1, 0.0, 0.4, 0.2),
    "arch": ("seed_cnn", "xresnet18"),
    "batch_size": (64, 128, 512),
}
SIZES: dict[str, Any] = {"batch_size": (64, 128, 512)}
SEEDS = 6


def plan_of(factors: dict[str, Any], **declaration: Any) -> Plan:
    study = declare(
        **{"factors": factors, "baseline": {"epsilon": 0.0} if "epsilon" in factors else {}, "seeds": SEEDS}
        | declaration
    )
    trials = tuple(expand(study, lambda fields: "f", lambda fields: CPU))
    return Plan(study=study, profile="p", reason="r", trials=trials)


def table_of(plan: Plan, value: Callable[[Trial], float | None]) -> pd.DataFrame:
    """The effects where accuracy and other metrics are `value(trial)`; None is a lost trial."""
    rows = []
    for trial in plan.trials:
        measured = value(trial)
        row = {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed, "repeat": 0, "threads": 1}
        row |= {"status": "diverged" if measured is None else "complete"}
        rows.append(row | dict.fromkeys(("accuracy", "nll", "mean_confidence"), measured))
    return effects_table({"trials": frame("trials", rows)}, plan)


def of_kind(table: pd.DataFrame, kind: str, metric: str = "accuracy") -> list[Any]:
    return [row for _, row in table[(table["kind"] == kind) & (table["metric"] == metric)].iterrows()]


def rows_of(plan: Plan, value: Callable[[Trial], float | None], kind: str) -> list[Any]:
    return of_kind(table_of(plan, value), kind)


def noisy(trial: Trial, scale: float = 0.01) -> float:
    noise = np.random.default_rng([number_of(trial), 1]).normal(scale=scale)
    return float(0.5 + np.random.default_rng(trial.seed).normal(scale=0.1) + noise)


def data_of(plan: Plan) -> pd.DataFrame:
    values = [{**trial.levels, "seed": trial.seed, "accuracy": noisy(trial)} for trial in plan.trials]
    return pd.DataFrame(values)


def test_effects_are_differences_of_means_and_the_linear_models_coefficients() -> None:
    plan = plan_of(GRID)
    data = data_of(plan)

    def average(levels: dict[str, str]) -> float:
        kept = np.all([data[name].astype(str) == level for name, level in levels.items()], axis=0)
        return float(data.loc[kept, "accuracy"].mean())

    for kind in ("main", "interaction"):
        for row in rows_of(plan, noisy, kind):
            high, low = (
                dict(part.split("=") for part in row[side].split(", ")) for side in ("term", "against")
            )
            expected = average(high) - average(low)
            if kind == "interaction":
                one, other = high
                mixed = [{one: a[one], other: b[other]} for a, b in ((low, high), (high, low))]
                expected = average(high) + average(low) - average(mixed[0]) - average(mixed[1])
            assert row["effect"] == pytest.approx(expected, abs=1e-12)
    # Two levels each: the model's interaction coefficient is the difference of differences itself.
    small = plan_of(EPSILON_ARCH)
    model = smf.ols("accuracy ~ C(epsilon) * C(arch) + C(seed)", data_of(small)).fit()
    (row,) = rows_of(small, noisy, "interaction")
    assert row["effect"] == pytest.approx(model.params["C(epsilon)[T.0.1]:C(arch)[T.xresnet18]"], abs=1e-10)


@pytest.mark.parametrize("factor", ["epsilon", "batch_size"])
def test_a_trend_is_the_linear_models_coefficient_times_the_range(factor: str) -> None:
    plan = plan_of(ORDERED)
    model = smf.ols("accuracy ~ epsilon + batch_size + C(arch) + C(seed)", data_of(plan)).fit()
    row, levels = trend_of(rows_of(plan, noisy, "trend"), factor), ORDERED[factor]
    assert row["effect"] == pytest.approx(model.params[factor] * (max(levels) - min(levels)), rel=1e-9)
    assert (row["term"], row["against"]) == (f"{factor}={max(levels)}", f"{factor}={min(levels)}")
    others = math.prod(len(own) for name, own in ORDERED.items() if name != factor)
    assert (row["cells"], row["cells_planned"], row["n"]) == (others, others, SEEDS)


def trend_of(rows: list[Any], factor: str) -> pd.Series[Any]:
    (row,) = (row for row in rows if row["term"].startswith(f"{factor}="))
    return row  # type: ignore[no-any-return]


def asked(**declaration: Any) -> dict[str, list[tuple[str, str]]]:
    plan = plan_of(**declaration)
    found: dict[str, list[tuple[str, str]]] = {"main": [], "interaction": [], "trend": []}
    for term in terms(plan):
        found.setdefault(term.kind, []).append((term.term, term.against))
    return found


def test_every_effect_is_asked_once() -> None:
    found = asked(factors=GRID, baseline={"reduction": "none"})
    assert (len(found["main"]), len(found["interaction"])) == (1 + 1 + 2, 1 * 1 + 1 * 2 + 1 * 2)
    assert found["main"][2:] == [("reduction=mean", "reduction=none"), ("reduction=sum", "reduction=none")]
    assert asked(factors={"epsilon": (0.0, 0.1)})["main"] == []
    assert asked(factors={"epsilon": (0.0, 0.1), "lr": (0.1,)})["main"] == []
    words = {"arch": ("a", "b", "c"), "drop_last": (False, True)}
    numbers = {"batch_size": (32, 64, 128), "lr": (0.3, 0.1, 0.2)}
    found = asked(factors={"epsilon": (0.0, 0.1), **words, **numbers})
    assert found["trend"] == [("batch_size=128", "batch_size=32"), ("lr=0.3", "lr=0.1")]


def planted(trial: Trial, scale: float = 0.0005) -> float:
    """ε costs four points, but only one network; the network itself nothing beside its noise."""
    loss = 0.04 * (trial.levels["epsilon"] == 0.1) * (trial.levels["arch"] == "xresnet18")
    return noisy(trial, scale) - float(loss)


def test_a_planted_interaction_is_found_and_no_other() -> None:
    """Seeds differ by ten points, the interaction by four: pairing sees it."""
    found = rows_of(plan_of(GRID), lambda trial: planted(trial, 0.001), "interaction")
    assert found[0]["effect"] == pytest.approx(-0.04, abs=0.003)
    assert found[0]["p_holm"] < 0.001
    assert all(row["p_holm"] > 0.05 for row in found[1:])


def test_averages_are_judged_and_interactions_never_better_or_worse() -> None:
    plan = plan_of(EPSILON_ARCH, margins={"accuracy": 0.01, "nll": 0.05})

    def words(value: Callable[[Trial], float | None], metric: str = "accuracy") -> list[str]:
        table = table_of(plan, value)
        found = [*of_kind(table, "main", metric), *of_kind(table, "interaction", metric)]
        assert all(row["below_margin"] == (metric == "nll") for row in found)
        return [row["verdict"] for row in found]

    assert words(planted) == ["worse", "worse", "lower"]
    assert words(lambda trial: -planted(trial)) == ["better", "better", "higher"]
    assert words(planted, "nll") == ["equivalent"] * 3


def falling(trial: Trial) -> float:
    """Falls by a point over batch sizes; over ε two points up at the middle and down again."""
    hump = 0.02 * (trial.fields.epsilon in (0.1, 0.2))
    return noisy(trial, scale=0.0005) + hump - 0.01 * (trial.fields.batch_size - 64) / 448


def test_a_planted_fall_is_found_and_a_hump_has_no_slope() -> None:
    plan = plan_of({**ORDERED, "epsilon": (0.0, 0.1, 0.2, 0.3)}, family=("accuracy", "nll"))
    words, table = {}, table_of(plan, falling)
    for metric in ("accuracy", "nll", "mean_confidence"):
        fall = trend_of(of_kind(table, "trend", metric), "batch_size")
        assert fall["effect"] == pytest.approx(-0.01, abs=0.001)
        words[metric] = fall["verdict"]
    # A margin of 0.02 nats, and of half a point.
    assert words == {"accuracy": "worse", "nll": "equivalent", "mean_confidence": "lower"}
    hump = trend_of(of_kind(table, "trend"), "epsilon")
    assert hump["p"] > 0.05 / 4
    assert hump["verdict"] in ("equivalent", "undecided")


@pytest.mark.parametrize("lost", ["seed", "combination"])
def test_an_average_that_lacks_a_planned_trial_is_undecided(lost: str) -> None:
    """However plain the difference is: what failed may not have failed by chance."""
    plan = plan_of(GRID)

    def value(trial: Trial) -> float | None:
        missing = trial.seed == 0 if lost == "seed" else trial.levels["reduction"] == "sum"
        return None if missing and trial.levels["arch"] == "seed_cnn" else planted(trial)

    assert rows_of(plan, planted, "main")[0]["verdict"] == "worse"
    row = rows_of(plan, value, "main")[0]
    assert (row["term"], row["verdict"], row["reason"]) == ("epsilon=0.1", "undecided", "incomplete")
    assert row["p_adjusted"] < 0.05


def test_a_level_that_never_trains_costs_its_own_averages_only() -> None:
    def value(trial: Trial) -> float | None:
        lost = trial.levels["reduction"] == "sum" or (trial.levels["arch"] == "seed_cnn" and trial.seed == 0)
        return None if lost else noisy(trial)

    found = {row["term"]: row for row in rows_of(plan_of(GRID), value, "main")}
    epsilon, summed = found["epsilon=0.1"], found["reduction=sum"]
    assert (epsilon["cells"], epsilon["cells_planned"], epsilon["n"]) == (4, 6, SEEDS - 1)
    assert (summed["cells"], summed["n"], found["reduction=none"]["cells"]) == (0, 0, 4)
    assert summed[["effect", "low", "p", "p_equivalence"]].isna().all()


@pytest.mark.parametrize(("done", "cells", "pairs"), [(6, 2, 6), (5, 2, 5), (3, 2, 3), (2, 1, 6), (0, 1, 6)])
def test_what_is_averaged_keeps_the_most_values(done: int, cells: int, pairs: int) -> None:
    """A few trials of an arm that mostly fails do not cost the other combination its seeds."""

    def value(trial: Trial) -> float | None:
        failing = trial.levels == {"epsilon": 0.1, "arch": "xresnet18"}
        return None if failing and trial.seed >= done else noisy(trial)

    row = rows_of(plan_of(EPSILON_ARCH), value, "main")[0]
    assert (row["cells"], row["n"]) == (cells, pairs)


def test_equal_effects_in_decimals_are_equal_and_no_certainty() -> None:
    """Hundredths are not exact in binary; what their rounding leaves is no evidence."""
    rng, seeds = np.random.default_rng(0), 4
    plan = plan_of({"epsilon": (0.0, 0.1, 0.3, 0.7), "arch": ("seed_cnn", "xresnet18")}, seeds=seeds)
    for _ in range(8):
        luck, gains, loss = rng.integers(30, 90, seeds), rng.integers(-9, 9, 4), int(rng.integers(0, 9))

        def value(trial: Trial, luck: Any = luck, gains: Any = gains, loss: int = loss) -> float:
            up = dict(zip((0.0, 0.1, 0.3, 0.7), gains, strict=True))[trial.levels["epsilon"]]
            return float((luck[trial.seed] + up - loss * (trial.levels["arch"] == "xresnet18")) / 100)

        table = table_of(plan, value)
        mains, interactions, trends = (of_kind(table, kind) for kind in ("main", "interaction", "trend"))
        assert all(math.isnan(row["p"]) for row in (*mains, *interactions, *trends))
        expected = [*(gain / 100 for gain in gains[1:] - gains[0]), -loss / 100]
        np.testing.assert_allclose([row["effect"] for row in mains], expected, atol=1e-15)
        slope = linregress([0.0, 0.1, 0.3, 0.7], gains / 100).slope * 0.7
        np.testing.assert_allclose(trends[0]["effect"], slope, atol=1e-14)
        assert {row["effect"] for row in interactions} == {0}
        assert {row["reason"] for row in (*mains, *trends)} == {"no_spread"}
    (flat,) = rows_of(plan, lambda trial: 0.81 + trial.seed / 7, "trend")
    assert (flat["effect"], flat["reason"]) == (0, "no_spread")


def test_levels_that_do_nothing_are_exactly_nothing_and_named_identical(tmp_path: Path) -> None:
    def made(trial: Trial) -> Predictions:
        """The reduction does nothing: everything else draws its own numbers."""
        key = [trial.seed, round(100 * trial.fields.epsilon), len(trial.fields.arch)]
        rng = np.random.default_rng(key)
        return Predictions(rng.normal(size=(40, 10)).astype(np.float32), rng.integers(0, 10, 40))

    study = declare(factors=GRID, baseline={"epsilon": 0.0}, seeds=3)
    folder = make_results(tmp_path, study, made=made)
    tables, plan = read_tables(folder, names=["trials", "epochs", "reliability"]), read_plan(folder)
    effects = effects_table(tables, plan).query("metric == 'accuracy' and kind in ('main', 'interaction')")
    nothing = effects["term"].str.contains("reduction")
    assert (effects.loc[nothing, ["effect", "reason"]] == [0, "identical"]).all(axis=None)
    assert (effects.loc[nothing, "verdict"] == "equivalent").all()
    assert (effects.loc[~nothing, "effect"] != 0).all()
    groups = identical_arms(tables["trials"], plan)
    assert [len(group) for group in groups] == [3] * 4
    names = ("mean", "sum", "none")
    assert groups[0] == [f"epsilon=0.0, arch=seed_cnn, reduction={name}" for name in names]
    assert built(tables, plan)["identical"][0] == [
        f"ε=0, arch=seed_cnn, reduction={name}" for name in names
    ]


def test_a_trend_over_levels_that_do_nothing_is_equivalent(tmp_path: Path) -> None:
    def made(trial: Trial) -> Predictions:
        rng = np.random.default_rng([trial.seed, len(trial.fields.arch)])
        return Predictions(rng.normal(size=(40, 10)).astype(np.float32), rng.integers(0, 10, 40))

    factors = {"epsilon": (0.0, 0.1, 0.3), "arch": ("seed_cnn", "xresnet18")}
    study = declare(factors=factors, baseline={"epsilon": 0.0}, seeds=3)
    folder = make_results(tmp_path, study, made=made)
    tables = read_tables(folder, names=["trials", "epochs", "reliability"])
    report = built(tables, read_plan(folder))
    assert report["trends"]["rows"][0][6]["notes"] == ["equal on every seed", "equivalent"]
    assert report["headline"]["averaged"][-1].endswith("Equivalent: the same predictions on every seed.")


@pytest.mark.parametrize("outcome", ["complete", "missing"])
def test_arms_are_not_identical_unless_every_seed_is(tmp_path: Path, outcome: str) -> None:
    def made(trial: Trial) -> Predictions:
        odd = outcome == "complete" and trial.seed == 2 and trial.fields.epsilon > 0
        rng = np.random.default_rng([trial.seed, odd])
        return Predictions(rng.normal(size=(40, 10)).astype(np.float32), rng.integers(0, 10, 40))

    study = declare(factors={"epsilon": (0.0, 0.1)}, baseline={"epsilon": 0.0}, seeds=3)
    folder = make_results(
        tmp_path, study, made=made, outcome=lambda trial: outcome if trial.seed == 2 else "complete"
    )
    assert identical_arms(read_tables(folder, names=["trials"])["trials"], read_plan(folder)) == []
