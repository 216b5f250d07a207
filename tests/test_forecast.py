"""What `plan` says before a run: counts, time, smallest effect. The oracle of power is statsmodels."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_study import COST, CPU, CUDA, FAILED, MISSING, Recorded, printed, trial
from statsmodels.stats.power import TTestPower

from ablate.gate.plan import expected_duration, pooled_sd, show_forecast
from ablate.stats import paired_effect
from ablate.store.records import Failure, Record
from ablate.store.results import ResultsFolder
from ablate.study.trials import Trial


def took(seconds: float, which: Trial) -> Record:
    cost = COST.model_copy(update={"train_seconds": 0.75 * seconds, "eval_seconds": 0.25 * seconds})
    return Record(trial=which, status="complete", cost=cost)


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
        took(10.0, trial(arch="xresnet18")),
        took(10.0, trial(image_size=32)),
        took(10.0, trial(fingerprint="other")),
        took(10.0, trial(numerics=CUDA)),
        took(10.0, trial(numerics=CPU.model_copy(update={"threads": 2}))),
        Record(trial=trial(), status="diverged", cost=COST, failure=Failure(message="nan")),
    ],
)
def test_what_costs_something_else_does_not_count(other: Record) -> None:
    waiting = [trial(1), trial(arch="vit_tiny")]
    assert expected_duration(waiting, [other], workers=1) == (0.0, 0, ("seed_cnn", "vit_tiny"))


@given(seconds=st.floats(0.1, 1e4), missing=st.integers(1, 40), workers=st.integers(1, 64))
def test_workers_share_the_time_but_no_trial_gets_shorter(seconds: float, missing: int, workers: int) -> None:
    waiting = [trial(seed) for seed in range(1, missing + 1)]
    expected, known, _ = expected_duration(waiting, [took(seconds, trial(0))], workers=workers)
    assert known == missing
    assert expected == pytest.approx(max(seconds, missing * seconds / min(workers, missing)))


def tiny(root: Path, correct: dict[tuple[float, int], int], **study: Any) -> Recorded:
    """Three levels on four seeds, of which so many are recorded."""
    return Recorded(root, {(e, n): MISSING for e in (0.0, 0.1, 0.2) for n in range(4)} | correct, study=study)


def shown(study: Recorded, folder: ResultsFolder | None = None) -> str:
    return printed(show_forecast, study.plan, folder or study.folder, workers=2)


def statsmodels_effect(seeds: int, comparisons: int) -> float:
    """In standard deviations of the paired differences."""
    power = TTestPower().solve_power(None, nobs=seeds, alpha=0.05 / comparisons, power=0.8)
    return float(np.squeeze(power))


def test_without_records_the_effect_is_in_units_of_the_unknown_spread(tmp_path: Path) -> None:
    text = shown(tiny(tmp_path / "here", {}), ResultsFolder(tmp_path / "nowhere"))
    assert "3 arms x 4 seeds = 12 trials: 0 done, 0 failed, 12 missing" in text
    assert "time of seed_cnn: not known before one trial of seed_cnn has run" in text
    expected = f"{statsmodels_effect(4, 2):.2f} standard deviations of the paired differences in Accuracy"
    assert f"smallest effect: {expected} (80 % power, 5 % error over 2 comparisons); their size" in text
    assert not (tmp_path / "nowhere").exists()


def test_with_three_pairs_the_effect_has_the_metrics_unit(tmp_path: Path) -> None:
    accuracy = {(0.0, 0): 500, (0.0, 1): 600, (0.0, 2): 700, (0.1, 0): 550, (0.1, 1): 610, (0.1, 2): 790}
    text = shown(tiny(tmp_path, {**accuracy, (0.2, 0): 100, (0.2, 1): 900}))
    sd = float(np.std([0.05, 0.01, 0.09], ddof=1))  # the pair of two seeds is too few
    assert f"smallest effect: {100 * sd * statsmodels_effect(4, 2):.2f} points of Accuracy" in text
    assert f"standard deviation is {100 * sd:.2f} points over 3 pairs" in text
    needed = TTestPower().solve_power(0.005 / sd, nobs=None, alpha=0.025, power=0.8)
    assert f"a difference of the margin, 0.50 points, would need {math.ceil(needed)} seeds; 4 are" in text
    assert "8 done, 0 failed, 4 missing" in text
    assert "time: about 4 s for 4 of the missing trials, 2 at a time" in text


def test_equal_differences_are_not_taken_for_certainty(tmp_path: Path) -> None:
    text = shown(tiny(tmp_path, {(epsilon, seed): 500 for epsilon in (0.0, 0.1) for seed in range(3)}))
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


def test_where_nothing_can_be_detected_it_says_so(tmp_path: Path) -> None:
    for changes, said in (
        ({"baseline": {}}, "no arm is compared, as"),
        ({"seeds": 1}, "one seed shows none"),
    ):
        assert f"smallest effect: {said}" in shown(tiny(tmp_path / said, {}, **changes))


def test_failed_and_damaged_trials_are_told_apart(tmp_path: Path) -> None:
    study = tiny(tmp_path, {(0.0, 0): 500, (0.1, 0): FAILED})
    path = study.folder.record_path(study.plan.trials[0].trial_id)
    path.write_text("{")
    text = shown(study)
    assert "0 done, 1 failed, 11 missing" in text
    assert "1 of the missing have a damaged record" in text
    assert "--retry-failed" in text
    assert path.read_text() == "{"
