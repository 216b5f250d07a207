"""Which figures a study gets, in which order, and which factor and arms stand where in them."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ablate.analysis.arms import complete_trials, planned_arms
from ablate.analysis.timing import timing_pass
from ablate.figures.drawings import drawings
from ablate.figures.figures import draw_figures
from ablate.figures.placement import (
    axis_factor,
    best_arm,
    case_labels,
    confidence_optimum,
    confusion_arms,
    important_arms,
    line_factors,
    panel_factor,
    placed,
    step_times_of,
)
from ablate.store.timing import case_of
from ablate.study.study import build_study
from ablate.study.trials import Numerics, Plan, expand
from ablate.tables import Tables, frame

EPSILONS = (0.0, 0.1, 0.3)
ARCHS = ("seed_cnn", "xresnet18")
REDUCTIONS = ("mean", "sum", "none")
NOISE = (0.0, 0.2, 0.5)
THREE = {"epsilon": EPSILONS, "reduction": REDUCTIONS, "arch": ARCHS}


def plan_of(factors: dict[str, tuple[Any, ...]], baseline: dict[str, Any] | None = None, **more: Any) -> Plan:
    base = {"data": "digits", "image_size": 8, **more.pop("base", {})}
    study = build_study({"question": "?", "name": "s", "base": base, "factors": factors,
                         "baseline": baseline or {}, "seeds": 2, **more})  # fmt: skip
    cpu = Numerics(device="cpu", precision="float32", deterministic=True)
    trials = expand(study, lambda fields: "fingerprint", lambda fields: cpu)
    return Plan(study=study, profile="quick", reason="because", trials=tuple(trials))


def tables_of(plan: Plan, **accuracy: float) -> Tables:
    """Complete trials whose accuracy falls from arm to arm unless it is given; bins and epochs for each."""
    place = {arm: number for number, arm in enumerate(plan.arms)}
    trials, bins, epochs = [], [], []
    for trial in plan.trials:
        key = {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed}
        value = accuracy.get(trial.arm, 0.9 - 0.01 * place[trial.arm]) + 0.001 * trial.seed
        measured = {
            "accuracy": value,
            "nll": 1 - value,
            "ece": 0.02,
            "ece_floor": 0.01,
            "mean_confidence": value,
        }
        times = {"step_ms": 3.0, "step_ms_p20": 2.0, "step_ms_p80": 4.0, "threads": 1}
        state = {"status": "complete", "repeat": 0}
        trials.append({**key, **trial.fields.model_dump(), **state, **measured, **times})
        bins.append(
            {**key, "bin": 0, "lower": 0.0, "upper": 1.0, "count": 10, "confidence": 0.5, "accuracy": 0.4}
        )
        epochs += [{**key, "epoch": e, "train_loss": 1.0, "valid_loss": 1.0, "train_accuracy": 0.5,
                    "valid_accuracy": 0.5} for e in (0, 1)]  # fmt: skip
    found = {"trials": trials, "reliability": bins, "epochs": epochs}
    return {name: frame(name, rows) for name, rows in found.items()}


def with_images(tables: Tables, plan: Plan, classes: tuple[str, ...] = ("cat", "dog")) -> Tables:
    confusion = [{"arm": arm, "class": a, "predicted": b, "count": 9 if a == b else 1}
                 for arm in plan.arms for a in classes for b in classes]  # fmt: skip
    projection = [
        {"arm": arm, "split": split, "class": name, "x": float(c), "y": float(k)}
        for arm in plan.arms for split in ("train", "valid")
        for c, name in enumerate(classes) for k in range(3)
    ]  # fmt: skip
    return {**tables, "confusion": frame("confusion", confusion), "projection": pd.DataFrame(projection)}


def with_times(tables: Tables, plan: Plan) -> Tables:
    """A pass in which `sum` takes twice and xresnet18 ten times as long."""
    rows = {}
    for trial in plan.trials:
        for loss, reduction in ((trial.fields.loss, trial.fields.reduction), ("cross_entropy", "mean")):
            case = case_of(trial).model_copy(update={"loss": loss, "reduction": reduction})
            time = (2.0 if reduction == "sum" else 1.0) * (10.0 if case.arch == "xresnet18" else 1.0)
            rows[case] = [
                {**case.model_dump(), "round": r, "step_ms": time, "steps": 5, "others": 0.0}
                for r in range(8)
            ]
    return {**tables, "step_times": frame("step_times", [row for own in rows.values() for row in own])}


def names(tables: Tables, plan: Plan) -> list[str]:
    return [name for name, _, _ in drawings(tables, plan)]


def test_a_study_gets_the_figures_that_its_tables_allow() -> None:
    plan = plan_of({"epsilon": EPSILONS}, {"epsilon": 0.0})
    tables = tables_of(plan)
    plain = ["effects", "accuracy", "ece", "mean_confidence", "front", "calibration_by_level", "reliability",
             "step_time", "curves"]  # fmt: skip
    assert names(tables, plan) == plain
    whole = [*plain[:7], "confusion", "projection", *plain[7:]]
    assert names(with_images(tables, plan), plan) == whole
    assert names({**tables, "confusion": frame("confusion", [])}, plan) == plain
    assert names({**tables, "trials": tables["trials"].assign(status="oom")}, plan) == []
    ranked = {**tables, "trials": tables["trials"].assign(auroc_error=0.9)}
    assert "ranking_by_level" in names(ranked, plan)


def test_one_arm_has_no_comparisons_and_no_levels() -> None:
    plan = plan_of({})
    assert names(with_images(tables_of(plan), plan), plan) == [
        "accuracy", "ece", "mean_confidence", "reliability", "confusion", "projection", "step_time", "curves",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "factors",
    [
        {},
        {"epsilon": EPSILONS},
        {"arch": ("_x:y", "$x$ <b>\n", "損失")},
        {"epsilon": EPSILONS, "reduction": REDUCTIONS, "arch": ARCHS},
    ],
    ids=["none", "one", "names", "three"],
)
def test_every_figure_draws(factors: dict[str, tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.study.trials.source_digest", lambda name: "")
    plan = plan_of(factors, {name: levels[0] for name, levels in factors.items()})
    tables = with_times(with_images(tables_of(plan), plan, ("_a", "$b$", "c\nd <&>")), plan)
    figures = draw_figures(tables, plan)
    assert [(figure.name, figure.error) for figure in figures if figure.error] == []
    assert {figure.name for figure in figures} >= {"confusion", "projection", "step_time"}
    assert all(len(figure.alt.split()) > 8 and figure.caption for figure in figures)


@pytest.mark.parametrize(
    ("factors", "baseline", "axis", "panel", "lines"),
    [
        ({"epsilon": EPSILONS}, {}, "epsilon", None, ()),
        ({"arch": ARCHS, "reduction": REDUCTIONS}, {}, "arch", None, ("reduction",)),
        ({"label_noise": NOISE, "epsilon": EPSILONS}, {"epsilon": 0.0}, "epsilon", None, ("label_noise",)),
        ({"label_noise": NOISE, "epsilon": (0.0, 0.1)}, {}, "label_noise", None, ("epsilon",)),
        (THREE, {}, "epsilon", "arch", ("reduction",)),
        ({**THREE, "reduction": ("mean", "sum")}, {}, "epsilon", "arch", ("reduction",)),
        ({"arch": ARCHS, "epsilon": EPSILONS, "clip_norm": (1.0,)}, {}, "epsilon", "clip_norm", ("arch",)),
    ],
)
def test_factors_stand_on_the_axis_in_panels_and_as_lines(
    factors: dict[str, tuple[Any, ...]],
    baseline: dict[str, Any],
    axis: str,
    panel: str | None,
    lines: tuple[str, ...],
) -> None:
    plan = plan_of(factors, baseline)
    assert (axis_factor(plan), panel_factor(plan), line_factors(plan)) == (axis, panel, lines)


def test_arms_are_placed_in_words() -> None:
    plan = plan_of({"epsilon": (0.0, 0.1), "reduction": REDUCTIONS, "arch": ARCHS})
    rows = placed(pd.DataFrame({"arm": plan.arms[-1:]}), plan)
    assert rows[["level", "panel", "line"]].iloc[0].tolist() == [0.1, "arch=xresnet18", "reduction=none"]
    rows = placed(pd.DataFrame({"arm": plan.arms[-1:]}), plan, panels=False)
    assert rows[["panel", "line"]].iloc[0].tolist() == ["", "reduction=none, arch=xresnet18"]


@pytest.mark.parametrize(
    ("primary", "best"), [("accuracy", "epsilon=0.1"), ("nll", "epsilon=0.1"), ("ece_floor", None)]
)
def test_the_best_arm_and_its_baseline_are_never_left_out(primary: str, best: str | None) -> None:
    plan = plan_of({"epsilon": EPSILONS}, {"epsilon": 0.0}, primary=primary)
    complete = complete_trials(tables_of(plan, **{"epsilon=0.1": 0.95})["trials"])
    assert best_arm(complete, plan, planned_arms(plan)) == best
    assert important_arms(complete, plan) == (("epsilon=0.0", best) if best else ("epsilon=0.0",))


def test_confusion_is_of_a_baseline_and_the_best_arm_compared_with_it() -> None:
    plan = plan_of({"arch": ARCHS, "epsilon": EPSILONS}, {"epsilon": 0.0})
    tables = tables_of(plan, **{"arch=xresnet18, epsilon=0.3": 0.95, "arch=seed_cnn, epsilon=0.0": 0.99})
    complete = complete_trials(tables["trials"])
    assert confusion_arms(complete, plan) == ("arch=xresnet18, epsilon=0.0", "arch=xresnet18, epsilon=0.3")
    without = complete[complete["arm"] != "arch=xresnet18, epsilon=0.0"]
    assert confusion_arms(without, plan) == ("arch=seed_cnn, epsilon=0.0", "arch=seed_cnn, epsilon=0.1")
    alone = plan_of({"arch": ARCHS})
    assert confusion_arms(complete_trials(tables_of(alone)["trials"]), alone) == ("arch=seed_cnn",)


def test_arms_that_do_the_same_work_are_one_row_of_step_costs() -> None:
    plan = plan_of({"epsilon": EPSILONS, "reduction": ("mean", "sum"), "arch": ARCHS})
    found = timing_pass(with_times({}, plan)["step_times"])
    assert found is not None
    assert list(case_labels(found, plan).values()) == [
        "reduction=mean, arch=seed_cnn", "reduction=mean, arch=xresnet18",
        "reduction=sum, arch=seed_cnn", "reduction=sum, arch=xresnet18",
    ]  # fmt: skip
    times = step_times_of(found, plan)
    assert [times[arm] for arm in plan.arms[:4]] == [1.0, 10.0, 2.0, 20.0]
    assert step_times_of(None, plan) == {}
    one = plan_of({"epsilon": EPSILONS})
    same = timing_pass(with_times({}, one)["step_times"])
    assert same is not None
    assert list(case_labels(same, one).values()) == ["all 3 arms"]


def test_the_pass_takes_the_place_of_step_times_from_shared_machines() -> None:
    plan = plan_of({"epsilon": EPSILONS, "reduction": ("mean", "sum")})
    tables = with_times(tables_of(plan), plan)
    (prepare,) = [prepare for name, _, prepare in drawings(tables, plan) if name == "step_time"]
    assert "reduction=sum: 2 ms, 2.000 times" in prepare().alt
    (prepare,) = [prepare for name, _, prepare in drawings(tables_of(plan), plan) if name == "step_time"]
    assert "20th to 80th percentile" in prepare().alt
    busy = {**tables, "step_times": tables["step_times"].assign(others=0.4)}
    (prepare,) = [prepare for name, _, prepare in drawings(busy, plan) if name == "step_time"]
    assert "Other processes used 40% of the machine's cores" in prepare().caption


def test_the_smoothed_loss_is_least_at_the_targets_highest_probability() -> None:
    """By hand: the smoothed cross-entropy of a softmax with one logit raised, over a grid of confidences."""
    plan = plan_of({"epsilon": EPSILONS}, base={"loss": "label_smoothing"})
    found = confidence_optimum(plan, classes=10)
    grid = np.linspace(0.2, 0.9999, 20_000)
    for epsilon, optimum in found.items():
        right, wrong = 1 - epsilon + epsilon / 10, epsilon / 10
        loss = -right * np.log(grid) - 9 * wrong * np.log((1 - grid) / 9)
        assert grid[loss.argmin()] == pytest.approx(optimum, abs=2e-4)
    assert confidence_optimum(plan, classes=0) == {}
    plain = plan_of({"epsilon": EPSILONS[:1], "loss": ("cross_entropy", "label_smoothing")})
    assert confidence_optimum(plain, classes=10) == {}
    assert confidence_optimum(plan_of({"arch": ARCHS}), classes=10) == {}


def test_the_optimum_is_drawn_where_the_number_of_classes_is_known() -> None:
    plan = plan_of({"epsilon": EPSILONS}, base={"loss": "label_smoothing"})
    tables = tables_of(plan)
    for given, known in ((tables, False), (with_images(tables, plan), True)):
        (prepare,) = [prepare for name, _, prepare in drawings(given, plan) if name == "mean_confidence"]
        assert ("1 − ε + ε/K: 0: 100, 0.1: 95, 0.3: 85." in prepare().alt) is known


def test_a_damaged_number_costs_one_figure_only() -> None:
    plan = plan_of({"epsilon": EPSILONS}, {"epsilon": 0.0})
    tables = with_images(tables_of(plan), plan)
    tables["confusion"] = tables["confusion"].drop(columns="count")
    errors = {figure.name: figure.error for figure in draw_figures(tables, plan)}
    assert errors.pop("confusion").startswith("KeyError")
    assert set(errors.values()) == {""}


def test_missing_values_make_no_figure_fail() -> None:
    plan = plan_of({"epsilon": EPSILONS}, {"epsilon": 0.0})
    tables = tables_of(plan)
    tables["trials"] = tables["trials"].assign(ece=math.nan, ece_floor=math.nan, nll=math.nan)
    assert [figure.error for figure in draw_figures(tables, plan) if figure.error] == []
