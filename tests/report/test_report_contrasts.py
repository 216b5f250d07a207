"""Main effects and interactions against a linear model, planted effects, and what a gap in the grid does."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from report_results import declare, make_results, number_of
from scipy.stats import ttest_1samp

from ablate.analysis.contrasts import contrasts, contrasts_table
from ablate.analysis.identical import identical_arms
from ablate.report import build_report
from ablate.report.sentences_of_averages import averaged_sentences
from ablate.stats import holm
from ablate.store.records import Predictions
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.trials import Plan, Trial
from ablate.tables import frame, read_tables

FACTORS: dict[str, Any] = {
    "epsilon": (0.0, 0.1),
    "reduction": ("mean", "sum", "none"),
    "arch": ("seed_cnn", "xresnet18"),
}
SEEDS = 6


def plan_of(tmp_path: Path, **declaration: Any) -> tuple[ResultsFolder, Plan]:
    study = declare(**{"factors": FACTORS, "baseline": {"epsilon": 0.0}, "seeds": SEEDS, **declaration})
    folder = make_results(tmp_path, study, outcome=lambda trial: "missing")
    return folder, read_plan(folder)


def trials_with(plan: Plan, value: Any) -> pd.DataFrame:
    """A trials table whose accuracy and other metrics are `value(trial)`; None is a diverged trial."""
    rows = []
    for trial in plan.trials:
        measured = value(trial)
        row = {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed, "repeat": 0}
        row |= {"status": "diverged" if measured is None else "complete", "threads": 1}
        rows.append({**row, "accuracy": measured, "nll": measured})
    return frame("trials", rows)


def noisy(trial: Trial) -> float:
    noise = np.random.default_rng([number_of(trial), 1]).normal(scale=0.01)
    luck = np.random.default_rng(trial.seed).normal(scale=0.1)
    return float(0.5 + luck + noise)


def measured(table: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    return table[table["metric"] == metric].reset_index(drop=True)


def test_contrasts_are_differences_of_means_and_the_linear_models_coefficients(tmp_path: Path) -> None:
    _, plan = plan_of(tmp_path)
    trials = trials_with(plan, noisy)
    levels = {name: [trial.levels[name] for trial in plan.trials] for name in FACTORS}
    data = pd.DataFrame({**levels, "seed": trials["seed"].astype(int), "accuracy": trials["accuracy"]})

    def average(fixed: dict[str, str]) -> float:
        kept = data[[all(str(row[n]) == v for n, v in fixed.items()) for _, row in data.iterrows()]]
        return float(kept["accuracy"].mean())

    for _, row in measured(contrasts_table(trials, plan)).iterrows():
        high, low = {row["factor"]: row["level"]}, {row["factor"]: row["reference"]}
        expected = average(high) - average(low)
        if row["kind"] == "interaction":
            far = {row["other_factor"]: row["other_level"]}
            near = {row["other_factor"]: row["other_reference"]}
            expected = average(high | far) - average(low | far) - average(high | near) + average(low | near)
        assert row["effect"] == pytest.approx(expected, abs=1e-12)
    # Two levels each: the model's interaction coefficient is the difference of differences itself.
    two = data[data["reduction"] == "mean"]
    model = smf.ols("accuracy ~ C(epsilon) * C(arch) + C(seed)", two).fit()
    only = declare(
        factors={name: FACTORS[name] for name in ("epsilon", "arch")}, baseline={"epsilon": 0.0}, seeds=SEEDS
    )
    small = read_plan(make_results(tmp_path / "two", only, outcome=lambda trial: "missing"))
    by_arm = {
        (trial.levels["epsilon"], trial.levels["arch"], trial.seed): value
        for trial, value in zip(plan.trials, trials["accuracy"], strict=True)
        if trial.levels["reduction"] == "mean"
    }
    table = measured(
        contrasts_table(
            trials_with(small, lambda t: by_arm[t.levels["epsilon"], t.levels["arch"], t.seed]), small
        )
    )
    name = "C(epsilon)[T.0.1]:C(arch)[T.xresnet18]"
    assert table.iloc[-1]["effect"] == pytest.approx(model.params[name], abs=1e-10)


def test_tests_and_intervals_are_scipys_over_seeds(tmp_path: Path) -> None:
    _, plan = plan_of(tmp_path)
    trials = trials_with(plan, noisy)
    values = {(trial.arm, trial.seed): noisy(trial) for trial in plan.trials}
    found = measured(contrasts_table(trials, plan))
    row = found[(found["kind"] == "main effect") & (found["factor"] == "epsilon")].iloc[0]
    arms = [trial.arm for trial in plan.trials if trial.seed == 0]
    by_seed = [
        np.mean([values[arm, seed] for arm in arms if "epsilon=0.1" in arm])
        - np.mean([values[arm, seed] for arm in arms if "epsilon=0.0" in arm])
        for seed in range(SEEDS)
    ]
    expected = ttest_1samp(by_seed, 0.0)
    comparisons = len(contrasts(plan.study))
    interval = expected.confidence_interval(1 - 0.05 / comparisons)
    assert (row["effect"], row["p"]) == pytest.approx((np.mean(by_seed), expected.pvalue), rel=1e-9)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), rel=1e-9)
    outside = measured(contrasts_table(trials, plan), "nll").iloc[0]
    alone = expected.confidence_interval(0.95)
    assert (outside["low"], outside["high"]) == pytest.approx((alone.low, alone.high), rel=1e-9)
    np.testing.assert_allclose(found["p_holm"], holm(found["p"].to_numpy()))


def test_every_contrast_is_there_once() -> None:
    asked = contrasts(declare(factors=FACTORS, baseline={"reduction": "none"}))
    mains, interactions = [c for c in asked if len(c) == 1], [c for c in asked if len(c) == 2]
    assert (len(mains), len(interactions)) == (1 + 2 + 1, 1 * 2 + 1 * 1 + 2 * 1)
    assert {step.reference for (step,) in mains if step.factor == "reduction"} == {2}
    assert contrasts(declare(factors={"epsilon": (0.0, 0.1)})) == []
    assert contrasts(declare(factors={"epsilon": (0.0, 0.1), "lr": (0.1,)})) == []


def test_a_planted_interaction_is_found_and_no_other(tmp_path: Path) -> None:
    """Seeds differ by ten points, the interaction by two: pairing sees it."""
    _, plan = plan_of(tmp_path)

    def value(trial: Trial) -> float:
        planted = 0.02 * (trial.levels["epsilon"] == 0.1) * (trial.levels["arch"] == "xresnet18")
        jitter = np.random.default_rng([number_of(trial), 2]).normal(scale=0.001)
        return float(np.random.default_rng(trial.seed).normal(scale=0.1) + planted + jitter)

    found = measured(contrasts_table(trials_with(plan, value), plan))
    interaction = found[found["kind"] == "interaction"]
    planted = (interaction["factor"] == "epsilon") & (interaction["other_factor"] == "arch")
    assert interaction.loc[planted, "effect"].iloc[0] == pytest.approx(0.02, abs=0.003)
    assert interaction.loc[planted, "p_holm"].iloc[0] < 0.001
    assert (interaction.loc[~planted, "p_holm"] > 0.05).all()


def judged(plan: Plan, value: Any, metric: str = "accuracy") -> list[Any]:
    """The rows of one metric: in a study of two factors ε's effect, the network's, their interaction."""
    return measured(contrasts_table(trials_with(plan, value), plan), metric).to_dict("records")


def planted(trial: Trial, scale: float = 0.0005) -> float:
    """ε costs four points, but only one network; the network itself nothing beside its noise."""
    jitter = np.random.default_rng([number_of(trial), 3]).normal(scale=scale)
    loss = 0.04 * (trial.levels["epsilon"] == 0.1) * (trial.levels["arch"] == "xresnet18")
    return float(np.random.default_rng(trial.seed).normal(scale=0.1) - loss + jitter)


def test_main_effects_are_judged_and_interactions_never_better_or_worse(tmp_path: Path) -> None:
    study = {"factors": {name: FACTORS[name] for name in ("epsilon", "arch")}}
    _, plan = plan_of(tmp_path, **study, margins={"accuracy": 0.01, "nll": 0.05})
    found = judged(plan, planted)
    assert [row["verdict"] for row in found] == ["worse", "worse", "lower"]
    for row in found:
        assert row["p_adjusted"] <= 0.05 <= row["p_equivalence"]
        assert (row["margin"], row["below_margin"]) == (0.01, False)
    for row in judged(plan, planted, "nll"):
        assert (row["verdict"], row["below_margin"], row["margin"]) == ("equivalent", True, 0.05)
    better = judged(plan, lambda trial: -planted(trial))
    assert [row["verdict"] for row in better] == ["better", "better", "higher"]


def test_equivalence_of_a_contrast_is_two_one_sided_tests_of_scipy(tmp_path: Path) -> None:
    study = {"factors": {name: FACTORS[name] for name in ("epsilon", "arch")}}
    _, plan = plan_of(tmp_path, **study)
    by_arm = {(t.levels["epsilon"], t.levels["arch"], t.seed): planted(t, 0.01) for t in plan.trials}
    per_seed = [
        np.mean([by_arm[0.1, arch, seed] - by_arm[0.0, arch, seed] for arch in FACTORS["arch"]])
        for seed in range(SEEDS)
    ]
    row = judged(plan, lambda trial: planted(trial, 0.01))[0]
    sides = (
        ttest_1samp(per_seed, -0.005, alternative="greater").pvalue,
        ttest_1samp(per_seed, 0.005, alternative="less").pvalue,
    )
    assert row["p_equivalence"] == pytest.approx(min(1.0, 3 * max(sides)), rel=1e-9)


@pytest.mark.parametrize("lost", ["seed", "combination"])
def test_a_contrast_that_lacks_a_planned_trial_is_undecided(tmp_path: Path, lost: str) -> None:
    """However plain the difference is: what failed may not have failed by chance."""
    _, plan = plan_of(tmp_path)

    def value(trial: Trial) -> float | None:
        missing = trial.seed == 0 if lost == "seed" else trial.levels["reduction"] == "sum"
        return None if missing and trial.levels["arch"] == "seed_cnn" else planted(trial)

    assert judged(plan, planted)[0]["verdict"] == "worse"
    row = judged(plan, value)[0]
    assert row["level"] == "0.1"
    assert (row["verdict"], row["reason"], row["below_margin"]) == ("undecided", "incomplete", False)
    assert row["p_adjusted"] < 0.05


def test_the_headline_ends_its_averages_with_the_verdict(tmp_path: Path) -> None:
    study = {"factors": {name: FACTORS[name] for name in ("epsilon", "arch")}}
    _, plan = plan_of(tmp_path, **study)

    def said(value: Any) -> str:
        table = contrasts_table(trials_with(plan, value), plan)
        (sentence,) = averaged_sentences(table, frame("trends", []), plan.study)
        assert sentence.startswith("ε: 0.1 − 0, averaged over ")
        return sentence.rpartition("). ")[2]

    assert said(planted) == "Worse."
    assert said(lambda trial: planted(trial, 0.3)) == "Undecided."
    assert said(lambda trial: None if trial.seed == 0 else planted(trial)) == (
        "Undecided: only 2 of 2 combinations and 5 of 6 seeds are complete."
    )
    assert said(lambda t: 0.5 + t.seed / 64 + (t.levels["epsilon"] == 0.1) / 8) == (
        "Undecided: all seeds differ alike, which leaves no spread to judge by."
    )


def test_a_level_that_never_trains_costs_its_own_contrasts_only(tmp_path: Path) -> None:
    _, plan = plan_of(tmp_path)

    def value(trial: Trial) -> float | None:
        if trial.levels["reduction"] == "sum" or (trial.levels["arch"] == "seed_cnn" and trial.seed == 0):
            return None
        return noisy(trial)

    found = measured(contrasts_table(trials_with(plan, value), plan))
    epsilon, summed, none = (
        found[(found["kind"] == "main effect") & (found["level"] == level)].iloc[0]
        for level in ("0.1", "sum", "none")
    )
    assert (epsilon["cells"], epsilon["cells_planned"], epsilon["n_pairs"]) == (4, 6, SEEDS - 1)
    assert (summed["cells"], summed["n_pairs"]) == (0, 0)
    assert math.isnan(summed["effect"])
    assert none["cells"] == 4


def test_equal_effects_in_decimals_are_equal_and_no_certainty(tmp_path: Path) -> None:
    """Hundredths are not exact in binary; what their rounding leaves is no evidence."""
    study = {"factors": {name: FACTORS[name] for name in ("epsilon", "arch")}, "seeds": 4}
    _, plan = plan_of(tmp_path, **study)
    rng = np.random.default_rng(0)
    for _ in range(30):
        luck, gain, loss = rng.integers(30, 90, 4), int(rng.integers(0, 9)), int(rng.integers(0, 9))

        def value(trial: Trial, luck: Any = luck, gain: int = gain, loss: int = loss) -> float:
            up = gain * (trial.levels["epsilon"] == 0.1) - loss * (trial.levels["arch"] == "xresnet18")
            return float((luck[trial.seed] + up) / 100)

        found = measured(contrasts_table(trials_with(plan, value), plan))
        assert found["p"].isna().all()
        assert found["low"].isna().all()
        np.testing.assert_allclose(found["effect"], [gain / 100, -loss / 100, 0.0], atol=1e-15)
        assert found["effect"].iloc[2] == 0
        assert (gain > 0) or found["effect"].iloc[0] == 0


@pytest.mark.parametrize(("done", "cells", "pairs"), [(6, 2, 6), (5, 2, 5), (3, 2, 3), (2, 1, 6), (0, 1, 6)])
def test_what_is_averaged_keeps_the_most_values(tmp_path: Path, done: int, cells: int, pairs: int) -> None:
    """A few trials of an arm that mostly fails do not cost the other combination its seeds."""
    study = {"factors": {name: FACTORS[name] for name in ("epsilon", "arch")}}
    _, plan = plan_of(tmp_path, **study)

    def value(trial: Trial) -> float | None:
        failing = trial.levels == {"epsilon": 0.1, "arch": "xresnet18"}
        return None if failing and trial.seed >= done else noisy(trial)

    epsilon = measured(contrasts_table(trials_with(plan, value), plan)).iloc[0]
    assert (epsilon["cells"], epsilon["n_pairs"]) == (cells, pairs)


def test_levels_that_do_nothing_are_exactly_nothing_and_named_identical(tmp_path: Path) -> None:
    def made(trial: Trial) -> Predictions:
        """The reduction does nothing: everything else draws its own numbers."""
        key = [trial.seed, round(100 * trial.fields.epsilon), len(trial.fields.arch)]
        rng = np.random.default_rng(key)
        return Predictions(rng.normal(size=(40, 10)).astype(np.float32), rng.integers(0, 10, 40))

    study = declare(factors=FACTORS, baseline={"epsilon": 0.0}, seeds=3)
    folder = make_results(tmp_path, study, made=made)
    tables, plan = read_tables(folder, names=["trials", "epochs", "reliability"]), read_plan(folder)
    found = measured(contrasts_table(tables["trials"], plan))
    of_reduction = (found["factor"] == "reduction") | (found["other_factor"] == "reduction")
    assert (found.loc[of_reduction, "effect"] == 0).all()
    assert (found.loc[~of_reduction, "effect"] != 0).all()
    assert (found.loc[of_reduction, "verdict"] == "equivalent").all()
    assert (found.loc[of_reduction, "reason"] == "identical").all()
    assert (found.loc[~of_reduction, "reason"] == "").all()
    groups = identical_arms(tables["trials"], plan)
    assert [len(group) for group in groups] == [3] * 4
    names = ("mean", "sum", "none")
    assert groups[0] == [f"epsilon=0.0, reduction={name}, arch=seed_cnn" for name in names]
    labels = build_report(tables, plan)["identical"]
    assert labels[0] == [f"ε=0, reduction={name}, arch=seed_cnn" for name in names]


def test_arms_are_not_identical_unless_every_seed_is(tmp_path: Path) -> None:
    def made(trial: Trial) -> Predictions:
        rng = np.random.default_rng([trial.seed, trial.seed == 2 and trial.fields.epsilon > 0])
        return Predictions(rng.normal(size=(40, 10)).astype(np.float32), rng.integers(0, 10, 40))

    study = declare(factors={"epsilon": (0.0, 0.1)}, baseline={"epsilon": 0.0}, seeds=3)
    folder = make_results(tmp_path / "all", study, made=made)
    assert identical_arms(read_tables(folder, names=["trials"])["trials"], read_plan(folder)) == []
    lost = make_results(
        tmp_path / "lost", study, made=made,
        outcome=lambda trial: "missing" if trial.seed == 2 else "complete",
    )  # fmt: skip
    assert identical_arms(read_tables(lost, names=["trials"])["trials"], read_plan(lost)) == []
