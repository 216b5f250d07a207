"""What `plan` says before a run: counts, time, smallest effect. The oracle of power is statsmodels."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from statsmodels.stats.power import TTestPower

from ablate.gate.plan import expected_duration, pooled_sd, show_forecast
from ablate.stats import paired_effect
from ablate.store.records import Cost, Failure, Predictions, Record, write_record
from ablate.store.results import ResultsFolder
from ablate.study.fields import resolve
from ablate.study.study import Study
from ablate.study.trials import Numerics, Plan, Trial, build_trial, expand

CPU = Numerics(device="cpu", precision="float32", deterministic=True)
CUDA = Numerics(device="cuda", precision="bfloat16", deterministic=False)
BASE = {"data": "synthetic", "image_size": 16, "epochs": 4}


def trial(seed: int = 0, fingerprint: str = "f", numerics: Numerics = CPU, **changes: Any) -> Trial:
    return build_trial({}, resolve(BASE, changes), seed, numerics, fingerprint=fingerprint)


def cost(seconds: float) -> Cost:
    rest = ("step_ms", "step_ms_p20", "step_ms_p80", "images_per_second", "peak_memory_mb")
    return Cost(train_seconds=0.75 * seconds, eval_seconds=0.25 * seconds, **dict.fromkeys(rest, 1.0))


def took(seconds: float, which: Trial) -> Record:
    return Record(trial=which, status="complete", cost=cost(seconds))


def test_no_record_gives_no_time() -> None:
    expected = 0.0, 0, ("seed_cnn", "xresnet18")
    assert expected_duration([trial(), trial(arch="xresnet18")], [], workers=2) == expected


def test_the_closest_records_count() -> None:
    here = [trial(seed) for seed in (5, 6)]
    alike = [took(seconds, trial(seed)) for seed, seconds in ((0, 10.0), (1, 30.0), (2, 12.0))]
    other_level = [took(100.0, trial(epsilon=0.3))]
    longer = [took(1000.0, trial(epochs=40))]
    assert expected_duration(here, [*alike, *other_level, *longer], workers=1)[0] == 24.0
    assert expected_duration(here, [*other_level, *longer], workers=1)[0] == 200.0
    assert expected_duration(here, longer, workers=1)[0] == pytest.approx(200.0)


@pytest.mark.parametrize(
    "other",
    [
        trial(arch="xresnet18"),
        trial(image_size=32),
        trial(fingerprint="other"),
        trial(numerics=CUDA),
    ],
)
def test_what_costs_something_else_does_not_count(other: Trial) -> None:
    assert expected_duration([trial()], [took(10.0, other)], workers=1)[1] == 0


def test_a_failed_trial_tells_no_time() -> None:
    failed = Record(trial=trial(), status="diverged", cost=cost(1.0), failure=Failure(message="nan"))
    assert expected_duration([trial(1)], [failed], workers=1)[1] == 0


@given(seconds=st.floats(0.1, 1e4), missing=st.integers(1, 40), workers=st.integers(1, 64))
def test_workers_share_the_time_but_no_trial_gets_shorter(seconds: float, missing: int, workers: int) -> None:
    waiting = [trial(seed) for seed in range(1, missing + 1)]
    expected, known, _ = expected_duration(waiting, [took(seconds, trial(0))], workers=workers)
    assert known == missing
    assert expected == pytest.approx(max(seconds, missing * seconds / min(workers, missing)))


def planned(**changes: Any) -> Plan:
    declared: dict[str, Any] = {
        "question": "?",
        "name": "tiny",
        "base": BASE,
        "factors": {"epsilon": (0.0, 0.1, 0.2)},
        "baseline": {"epsilon": 0.0},
        "seeds": 4,
    }
    study = Study(**{**declared, **changes})
    trials = expand(study, lambda fields: "f", lambda fields: CPU)
    return Plan(study=study, profile="quick", reason="because", trials=tuple(trials))


def store(folder: ResultsFolder, which: Trial, correct: int) -> None:
    """A complete trial that is right about `correct` of 100 images."""
    logits = np.zeros((100, 2), np.float32)
    logits[np.arange(100), (np.arange(100) >= correct).astype(int)] = 1.0
    write_record(folder, took(10.0, which), Predictions(logits, np.zeros(100, np.int64)))


def folder_with(tmp_path: Path, plan: Plan, correct: dict[tuple[float, int], int]) -> ResultsFolder:
    folder = ResultsFolder(tmp_path / "tiny" / "quick")
    folder.create()
    for which in plan.trials:
        if (which.levels["epsilon"], which.seed) in correct:
            store(folder, which, correct[which.levels["epsilon"], which.seed])
    return folder


def shown(plan: Plan, folder: ResultsFolder) -> str:
    console = Console(width=40)
    with console.capture() as capture:
        show_forecast(console, plan, folder, workers=2)
    return capture.get()


def statsmodels_effect(seeds: int, comparisons: int) -> float:
    """In standard deviations of the paired differences."""
    power = TTestPower().solve_power(None, nobs=seeds, alpha=0.05 / comparisons, power=0.8)
    return float(np.squeeze(power))


def test_without_records_the_effect_is_in_units_of_the_unknown_spread(tmp_path: Path) -> None:
    text = shown(planned(), ResultsFolder(tmp_path / "nowhere"))
    assert "3 arms x 4 seeds = 12 trials: 0 done, 0 failed, 12 missing" in text
    assert "time of seed_cnn: not known before one trial of seed_cnn has run" in text
    expected = f"{statsmodels_effect(4, 2):.2f} standard deviations of the paired differences in Accuracy"
    assert f"smallest effect: {expected} (80 % power, 5 % error over 2 comparisons); their size" in text
    assert not (tmp_path / "nowhere").exists()


def test_with_three_pairs_the_effect_has_the_metrics_unit(tmp_path: Path) -> None:
    plan = planned()
    accuracy = {(0.0, 0): 50, (0.0, 1): 60, (0.0, 2): 70, (0.1, 0): 55, (0.1, 1): 61, (0.1, 2): 79}
    text = shown(plan, folder_with(tmp_path, plan, {**accuracy, (0.2, 0): 10, (0.2, 1): 90}))
    sd = float(np.std([0.05, 0.01, 0.09], ddof=1))  # the pair of two seeds is too few
    assert f"smallest effect: {100 * sd * statsmodels_effect(4, 2):.2f} points of Accuracy" in text
    assert f"standard deviation is {100 * sd:.2f} points over 3 pairs" in text
    needed = TTestPower().solve_power(0.005 / sd, nobs=None, alpha=0.025, power=0.8)
    assert f"a difference of the margin, 0.50 points, would need {math.ceil(needed)} seeds; 4 are" in text
    assert "8 done, 0 failed, 4 missing" in text
    assert "time: about 20 s for 4 of the missing trials, 2 at a time" in text


def test_equal_differences_are_not_taken_for_certainty(tmp_path: Path) -> None:
    plan = planned()
    accuracy = {(epsilon, seed): 50 for epsilon in (0.0, 0.1) for seed in range(3)}
    text = shown(plan, folder_with(tmp_path, plan, accuracy))
    assert f"{statsmodels_effect(4, 2):.2f} standard deviations" in text
    assert "the 3 recorded ones do not vary" in text


@given(
    st.lists(
        st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=6), min_size=1, max_size=4
    )
)
def test_spread_is_pooled_by_degrees_of_freedom(groups: list[list[float]]) -> None:
    padded = np.array([group + [math.nan] * (6 - len(group)) for group in groups])
    sd, pairs = pooled_sd(paired_effect(padded, np.zeros(6)))
    counted = [group for group in groups if len(group) >= 3]
    assert pairs == sum(len(group) for group in counted)
    residuals = [value - sum(group) / len(group) for group in counted for value in group]
    freedom = sum(len(group) - 1 for group in counted)
    expected = math.sqrt(sum(r * r for r in residuals) / freedom) if freedom else 0.0
    assert sd == pytest.approx(expected, abs=1e-9) if expected > 1e-9 else math.isnan(sd)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"baseline": {}}, "smallest effect: no arm is compared, as the study declares no baseline"),
        ({"seeds": 1}, "smallest effect: one seed shows none"),
    ],
)
def test_where_nothing_can_be_detected_it_says_so(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    assert line in shown(planned(**changes), ResultsFolder(tmp_path))


def test_failed_and_damaged_trials_are_told_apart(tmp_path: Path) -> None:
    plan = planned()
    folder = folder_with(tmp_path, plan, {(0.0, 0): 50})
    write_record(folder, Record(trial=plan.trials[1], status="oom", failure=Failure(message="too large")))
    path = folder.record_path(plan.trials[0].trial_id)
    path.write_text("{")
    text = shown(plan, folder)
    assert "0 done, 1 failed, 11 missing" in text
    assert "1 of the missing have a damaged record" in text
    assert "--retry-failed" in text
    assert path.read_text() == "{"


def test_a_long_time_is_shown_in_hours(tmp_path: Path) -> None:
    plan = planned(seeds=400)
    folder = folder_with(tmp_path, plan, {(0.0, 0): 50})
    assert "time: about 1 h 39 min for 1199 of the missing trials" in shown(plan, folder)
