"""What `plan` says before a run: counts, time, chance to decide. The oracle of power is statsmodels."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_study import COST, CPU, CUDA, FAILED, MISSING, Recorded, planned, printed, trial
from rich.console import Console
from statsmodels.stats.power import TTestPower

from ablate.gate.plan import expected_duration, show_forecast
from ablate.stats.power import equivalence_power
from ablate.store.records import Failure, Record
from ablate.store.results import ResultsFolder
from ablate.study.study import load_study
from ablate.study.trials import Plan, Trial

STUDIES = Path(__file__).parent.parent / "studies"


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


def shown(study: Recorded, folder: ResultsFolder | None = None, **given: Any) -> str:
    folder = folder or study.folder
    return printed(show_forecast, study.plan, folder, workers=2, **given)


def chances(plan: Plan, folder: ResultsFolder, **given: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """By metric and by what is compared."""
    found = show_forecast(Console(quiet=True), plan, folder, workers=2, **given)
    return {(chance["metric"], chance["compared"]): chance for chance in found["chances"]}


def detected(difference: float, sd: float, seeds: int, intervals: int) -> Any:
    """By statsmodels; `sd` of the paired differences."""
    return pytest.approx(TTestPower().power(difference / sd, seeds, 0.05 / intervals), abs=1e-6)


def test_without_a_spread_no_chance_is_told(tmp_path: Path) -> None:
    study = tiny(tmp_path / "here", {})
    text = shown(study, ResultsFolder(tmp_path / "nowhere"))
    assert "3 arms x 4 seeds = 12 trials: 0 done, 0 failed, 12 missing" in text
    assert "time of seed_cnn: not known before one trial of seed_cnn has run" in text
    assert "Accuracy: chance to decide not known: records of compared arms tell" in text
    assert not (tmp_path / "nowhere").exists()


def test_chances_of_a_given_spread_are_those_of_the_tests(tmp_path: Path) -> None:
    """Two arms against a baseline; or their trend, which over 0, .5 and 1 is the last less the first."""
    for asked, every in ((("arms",), {}), (("trend",), {"every arm": 2})):
        study = tiny(tmp_path / asked[0], {}, comparisons=asked, margins={"accuracy": 0.02})
        found, sd, alone = chances(study.plan, study.folder, sd=0.8), 0.008 * math.sqrt(2), {"one alone": 1}
        sizes = {"all asked": 2} | alone if asked == ("arms",) else {"all asked": 1} | every
        assert {compared: chance["intervals"] for (_, compared), chance in found.items()} == sizes
        for (metric, compared), chance in found.items():
            assert (metric, chance["margin"]) == ("accuracy", 0.02)
            assert chance["at_margin"] == detected(0.02, sd, 4, sizes[compared])
            assert chance["at_twice"] == detected(0.04, sd, 4, sizes[compared])
            assert chance["equivalent"] == equivalence_power(0.02, 4, sd=sd, comparisons=sizes[compared])
            assert chance["seeds_from"] == chance["seeds_needed"]
            least = chance["margin_needed"]
            assert equivalence_power(least, 4, sd=sd, comparisons=sizes[compared]) == pytest.approx(0.8)


def test_a_low_chance_is_warned_of_with_what_would_raise_it(tmp_path: Path) -> None:
    low, high = (shown(tiny(tmp_path / str(sd), {}, margins={"accuracy": 0.01}), sd=sd) for sd in (1.0, 0.2))
    assert "Accuracy: runs of an arm vary by 1.00 points (sd, as given)" in low
    needed, margin = low.split("80 % takes ")[1].split(" seeds, or a margin of ")
    assert "warning: Accuracy is decided with a chance of" in low
    sd = 0.01 * math.sqrt(2)
    assert equivalence_power(0.01, int(needed), sd=sd, comparisons=2) >= 0.8
    assert equivalence_power(0.01, int(needed) - 6, sd=sd, comparisons=2) < 0.8
    of_margin = equivalence_power(float(margin.split()[0]) / 100, 4, sd=sd, comparisons=2)
    assert of_margin == pytest.approx(0.8, abs=0.01)
    assert "warning" not in high


def test_the_spread_is_that_of_the_records(tmp_path: Path) -> None:
    """Of this profile, or else of another one of the study; each pair counts, whichever arm it is of."""
    right = {(0.0, 0): 500, (0.0, 1): 600, (0.0, 2): 700, (0.1, 0): 550, (0.1, 1): 610, (0.1, 2): 790}
    study = tiny(tmp_path / "tiny" / "small", {**right, (0.2, 0): 100, (0.2, 1): 900})
    differences = np.array([0.05, 0.01, 0.09]), np.array([-0.4, 0.3])
    squares = sum(float(((own - own.mean()) ** 2).sum()) for own in differences)
    sd = math.sqrt(squares / 3 / 2)  # of an arm
    text = shown(study)
    assert f"Accuracy: runs of an arm vary by {100 * sd:.2f} points (sd, recorded here)" in text
    assert "8 done, 0 failed, 4 missing" in text
    assert "time: about 4 s for 4 of the missing trials, 2 at a time" in text
    other = tiny(tmp_path / "tiny" / "full", {}, margins={"accuracy": 0.1})
    assert f"vary by {100 * sd:.2f} points (sd, of profile small)" in shown(other)
    chance = chances(other.plan, other.folder)["accuracy", "all asked"]
    assert chance["at_twice"] == detected(0.2, sd * math.sqrt(2), 4, 2)
    assert "vary by 1.00 points (sd, as given)" in shown(other, sd=1.0)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"comparisons": ("interaction",)}, "none, as nothing that is asked can be compared"),
        ({"seeds": 1}, "none, as one seed decides nothing"),
        ({"primary": "ece_scaled"}, "no margin is declared, so nothing can be equivalent"),
    ],
)
def test_where_nothing_can_be_decided_it_says_so(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    assert line in shown(tiny(tmp_path, {}, **changes), sd=1.0)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.py")), ids=lambda path: path.stem)
def test_the_studies_have_seeds_and_margins_that_decide(path: Path, tmp_path: Path) -> None:
    """At the spread that the source's network was recorded with: 1.41 points over six seeds."""
    study = load_study(path).with_profile("full")
    if study.search is None and study.baseline:
        found = chances(planned(study, numerics=CUDA), ResultsFolder(tmp_path), sd=1.41)
        assert found["accuracy", "all asked"]["equivalent"] >= 0.5


def test_failed_and_damaged_trials_are_told_apart(tmp_path: Path) -> None:
    study = tiny(tmp_path, {(0.0, 0): 500, (0.1, 0): FAILED})
    path = study.folder.record_path(study.plan.trials[0].trial_id)
    path.write_text("{")
    text = shown(study)
    assert "0 done, 1 failed, 11 missing" in text
    assert "1 of the missing have a damaged record" in text
    assert "--retry-failed" in text
    assert path.read_text() == "{"
