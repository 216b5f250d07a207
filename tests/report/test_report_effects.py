"""The effects table against statsmodels, planted effects and counts by hand; `recompute` audits all of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from recorded_study import planned
from report_results import declare, number_of, trial_rows
from scipy.stats import linregress

from ablate.analysis.arms import identical_arms
from ablate.analysis.effects import effects_table
from ablate.study.comparisons import family_size
from ablate.study.trials import Plan, Trial

EPSILON_ARCH: dict[str, Any] = {"epsilon": (0.0, 0.1), "arch": ("seed_cnn", "xresnet18")}
ORDERED: dict[str, Any] = {**EPSILON_ARCH, "epsilon": (0.1, 0.0, 0.4, 0.2), "batch_size": (64, 128, 512)}
SEEDS = 6
Value = Callable[[Trial], float | None]


def plan_of(factors: dict[str, Any], **declaration: Any) -> Plan:
    baseline = {"epsilon": 0.0} if "epsilon" in factors else {}
    return planned(declare(**{"factors": factors, "baseline": baseline, "seeds": SEEDS, **declaration}))


def effects_of(plan: Plan, value: Value, kind: str, metric: str = "accuracy") -> pd.DataFrame:
    """The effects of a kind where accuracy and other metrics are `value(trial)`; None is a lost trial."""

    def measured(trial: Trial) -> dict[str, Any]:
        found = value(trial)
        lost = {"status": "diverged"} if found is None else {}
        return lost | dict.fromkeys(("accuracy", "nll", "mean_confidence"), found)

    table = effects_table({"trials": trial_rows(plan, measured)}, plan)
    return table[(table["kind"] == kind) & (table["metric"] == metric)].set_index("term")


def noisy(trial: Trial, scale: float = 0.01) -> float:
    noise = np.random.default_rng([number_of(trial), 1]).normal(scale=scale)
    return float(0.5 + np.random.default_rng(trial.seed).normal(scale=0.1) + noise)


def data_of(plan: Plan) -> pd.DataFrame:
    values = [{**trial.levels, "seed": trial.seed, "accuracy": noisy(trial)} for trial in plan.trials]
    return pd.DataFrame(values)


def test_interactions_and_trends_are_the_linear_models_coefficients() -> None:
    """Of two levels each, the interaction's coefficient is the difference of differences itself."""
    plan = plan_of(EPSILON_ARCH)
    model = smf.ols("accuracy ~ C(epsilon) * C(arch) + C(seed)", data_of(plan)).fit()
    (found,) = effects_of(plan, noisy, "interaction")["effect"]
    assert found == pytest.approx(model.params["C(epsilon)[T.0.1]:C(arch)[T.xresnet18]"], abs=1e-10)
    plan = plan_of(ORDERED)
    model = smf.ols("accuracy ~ epsilon + batch_size + C(arch) + C(seed)", data_of(plan)).fit()
    found = effects_of(plan, noisy, "trend")[["against", "effect", "cells", "cells_planned", "n"]]
    for factor, term, against, width, cells in (
        ("epsilon", "epsilon=0.4", "epsilon=0.0", 0.4, 2 * 3),
        ("batch_size", "batch_size=512", "batch_size=64", 448, 4 * 2),
    ):
        slope = pytest.approx(model.params[factor] * width, rel=1e-9)
        assert list(found.loc[term]) == [against, slope, cells, cells, SEEDS]


def planted(trial: Trial) -> float:
    """ε costs four points, but only one network; the network itself nothing beside its noise."""
    loss = 0.04 * (trial.levels["epsilon"] == 0.1) * (trial.levels["arch"] == "xresnet18")
    return noisy(trial, 0.0005) - float(loss)


def test_planted_averages_are_found_and_interactions_never_better_or_worse() -> None:
    """Seeds differ by ten points, the interaction by four: pairing sees it."""
    (found,) = effects_of(plan_of(EPSILON_ARCH), planted, "interaction")["effect"]
    assert found == pytest.approx(-0.04, abs=0.003)
    asked: Any = {"comparisons": ("main", "interaction"), "family": ("accuracy", "nll")}
    plan = plan_of(EPSILON_ARCH, margins={"accuracy": 0.01, "nll": 0.05}, **asked)

    def words(value: Value, metric: str) -> list[str]:
        rows = pd.concat([effects_of(plan, value, kind, metric) for kind in ("main", "interaction")])
        assert (rows["below_margin"] == (metric == "nll")).all()
        return list(rows["verdict"])

    assert words(planted, "accuracy") == ["worse", "worse", "lower"]
    assert words(lambda trial: -planted(trial), "accuracy") == ["better", "better", "higher"]
    assert words(planted, "nll") == ["equivalent"] * 3


@pytest.mark.parametrize(
    ("comparisons", "claims"),
    [
        ((), {"arm": 6}),
        (("arms", "trend"), {"arm": 6, "trend": 1}),
        (("trend", {"epsilon": 0.1}), {"main": 1, "trend": 1}),
        (
            ({"epsilon": 0.1, "arch": "xresnet18", "reduction": "mean"}, "interaction"),
            {"arm": 1, "interaction": 3},
        ),
        (({"arch": "xresnet18"}, {"epsilon": 0.3}), {"main": 2}),
    ],
)
def test_only_what_is_asked_has_a_verdict(comparisons: tuple[Any, ...], claims: dict[str, int]) -> None:
    """The one factor of a single level asks nothing of a comparison that does not name it."""
    factors = {"epsilon": (0.0, 0.1, 0.3, 0.4), "arch": ("seed_cnn", "xresnet18"), "reduction": ("mean",)}
    plan = plan_of(factors, family=("accuracy", "ece"), comparisons=comparisons)
    trials = trial_rows(plan, lambda trial: dict.fromkeys(("accuracy", "ece"), noisy(trial)))
    found = effects_table({"trials": trials}, plan)
    claimed = found[found["verdict"] != "exploratory"]
    assert set(claimed["metric"]) == {"accuracy", "ece"}
    assert dict(claimed["kind"].value_counts()) == {kind: 2 * count for kind, count in claims.items()}
    assert family_size(plan) == 2 * sum(claims.values())
    np.testing.assert_allclose(claimed["p_adjusted"], np.minimum(1, family_size(plan) * claimed["p"]))


def test_equal_effects_in_decimals_are_equal_and_no_certainty() -> None:
    """Hundredths are not exact in binary; what their rounding leaves is no evidence."""
    rng, seeds, levels = np.random.default_rng(0), 4, (0.0, 0.1, 0.3, 0.7)
    asked = ("main", "interaction", "trend")
    plan = plan_of({**EPSILON_ARCH, "epsilon": levels}, seeds=seeds, comparisons=asked)
    for _ in range(8):
        luck, gains, loss = rng.integers(30, 90, seeds), rng.integers(-9, 9, 4), int(rng.integers(0, 9))

        def value(trial: Trial, luck: Any = luck, gains: Any = gains, loss: int = loss) -> float:
            up = gains[levels.index(trial.levels["epsilon"])]
            return float((luck[trial.seed] + up - loss * (trial.levels["arch"] == "xresnet18")) / 100)

        rows = trial_rows(plan).assign(accuracy=[value(trial) for trial in plan.trials])
        table = effects_table({"trials": rows}, plan).query("metric == 'accuracy' and kind != 'arm'")
        mains, both, trends = (table[table["kind"] == kind] for kind in ("main", "interaction", "trend"))
        expected = [*(gain / 100 for gain in gains[1:] - gains[0]), -loss / 100]
        np.testing.assert_allclose(mains["effect"], expected, atol=1e-15)
        np.testing.assert_allclose(trends["effect"], linregress(levels, gains / 100).slope * 0.7, atol=1e-14)
        assert set(both["effect"]) == {0}
        assert table["p"].isna().all()
        assert set(table["reason"]) == {"no_spread"}
    flat = effects_of(plan, lambda trial: 0.81 + trial.seed / 7, "trend")
    assert flat[["effect", "reason"]].to_numpy().tolist() == [[0, "no_spread"]]


@pytest.mark.parametrize("digest", ["another", None])
def test_arms_are_identical_where_every_seed_is(digest: str | None) -> None:
    plan = plan_of({"epsilon": (0.0, 0.1), "reduction": ("mean", "none")}, seeds=3)

    def made(trial: Trial) -> dict[str, Any]:
        odd = trial.seed == 2 and trial.arm == "epsilon=0.1, reduction=none"
        return {"predictions_sha256": digest if odd else f"{trial.fields.epsilon} {trial.seed}"}

    groups = identical_arms(trial_rows(plan, made), plan)
    assert groups == [["epsilon=0.0, reduction=mean", "epsilon=0.0, reduction=none"]]


def test_a_second_run_of_a_trial_is_not_another_seed() -> None:
    plan = plan_of(EPSILON_ARCH)
    once = trial_rows(plan, lambda trial: {"accuracy": noisy(trial)})
    twice = pd.concat([once.assign(repeat=1, accuracy=0.0), once])
    of_twice, of_once = (effects_table({"trials": rows}, plan) for rows in (twice, once))
    pd.testing.assert_frame_equal(of_twice, of_once)
