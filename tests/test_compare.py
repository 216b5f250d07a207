"""Two recorded studies side by side; intervals against scipy, records made here."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from ablate.compare import compare_runs, read_run, show_comparison, welch_interval, write_csv
from ablate.errors import ResultsError, StudyError
from ablate.records import Cost, Environment, Failure, Predictions, Record, write_record
from ablate.results import ResultsFolder, write_plan
from ablate.study import Study
from ablate.tables import build_tables, write_tables
from ablate.trials import Numerics, Plan, expand

CPU = Numerics(device="cpu", precision="float32", deterministic=True)
CUDA = Numerics(device="cuda", precision="bfloat16", deterministic=False)
BASE = {"data": "synthetic", "image_size": 16, "epochs": 4}
COST = Cost(
    step_ms=1, step_ms_p20=1, step_ms_p80=1, images_per_second=1, peak_memory_mb=1,
    train_seconds=1, eval_seconds=1,
)  # fmt: skip


def environment(**changes: Any) -> Environment:
    known: dict[str, Any] = {
        "device_name": "a processor",
        "threads": 1,
        "workers": 1,
        "python_version": "3",
        "torch_version": "2.15",
        "numpy_version": "2",
        "ablate_version": "0",
        "commit": "abc",
    }
    return Environment(**{**known, **changes})


class Recorded:
    """A study on disk whose trials are right about as many of 1,000 images as `correct` says."""

    def __init__(
        self,
        root: Path,
        correct: dict[tuple[float, int], int],
        *,
        profile: str = "quick",
        numerics: Numerics = CPU,
        fingerprint: str = "f" * 64,
        torch: str = "2.15",
        **base: Any,
    ) -> None:
        self.folder, self.correct = ResultsFolder(root), correct
        self.folder.create()
        levels = tuple(dict.fromkeys(level for level, _ in correct))
        study = Study(
            question="?",
            name="tiny",
            base={**BASE, **base},
            factors={"epsilon": levels},
            baseline={"epsilon": levels[0]},
            seeds=tuple(dict.fromkeys(seed for _, seed in correct)),
        )
        trials = expand(study, lambda fields: fingerprint, lambda fields: numerics)
        self.plan = Plan(study=study, profile=profile, reason="r", trials=tuple(trials))
        write_plan(self.folder, self.plan)
        for trial in trials:
            count = correct.get((trial.levels["epsilon"], trial.seed), 0)
            if count < 0:
                failed = Record(trial=trial, status="oom", failure=Failure(message="too large"))
                write_record(self.folder, failed)
                continue
            logits = np.zeros((1000, 2), np.float32)
            logits[np.arange(1000), (np.arange(1000) >= count).astype(int)] = 1.0
            record = Record(
                trial=trial, status="complete", cost=COST, environment=environment(torch_version=torch)
            )
            write_record(self.folder, record, Predictions(logits, np.zeros(1000, np.int64)))

    def accuracy(self, level: float) -> list[float]:
        return [count / 1000 for (own, _), count in self.correct.items() if own == level and count >= 0]


A = {(0.0, 0): 600, (0.0, 1): 620, (0.0, 2): 590, (0.1, 0): 640, (0.1, 1): 655, (0.1, 2): 610}
B = {(0.0, 0): 610, (0.0, 1): 640, (0.0, 2): 595, (0.2, 0): 640, (0.2, 1): 655, (0.2, 2): 610}


def compared(a: Recorded, b: Recorded, *metrics: str) -> Any:
    return compare_runs(read_run(a.folder), read_run(b.folder), metrics or ("accuracy", "nll", "ece"))


def shown(comparison: Any) -> str:
    console = Console(width=40)
    with console.capture() as capture:
        show_comparison(console, comparison)
    return capture.get()


def test_trials_that_differ_by_the_machine_are_paired_by_seed(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, numerics=CUDA, precision="bfloat16")
    (found,) = compared(a, b, "accuracy").differences
    expected = stats.ttest_rel(b.accuracy(0.0), a.accuracy(0.0))
    interval = expected.confidence_interval(0.95)
    assert (found.arm, found.method, found.n) == ("epsilon=0.0", "paired", 3)
    assert found.difference == pytest.approx(np.mean(b.accuracy(0.0)) - np.mean(a.accuracy(0.0)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    mean = stats.t.interval(0.95, 2, np.mean(a.accuracy(0.0)), stats.sem(a.accuracy(0.0)))
    assert (found.a.low, found.a.high) == pytest.approx(mean)


@pytest.mark.parametrize(
    "changes",
    [{"lr": 0.3}, {"fingerprint": "e" * 64}, {"arch": "xresnet18"}],
    ids=["another field", "other data", "another network"],
)
def test_trials_that_differ_otherwise_are_independent_samples(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, **changes)
    (found,) = compared(a, b, "accuracy").differences
    test = stats.ttest_ind(b.accuracy(0.0), a.accuracy(0.0), equal_var=False)
    interval = test.confidence_interval(0.95)
    assert found.method == "welch"
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_other_seeds_are_independent_samples(tmp_path: Path) -> None:
    later = {(level, seed + 3): count for (level, seed), count in A.items()}
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", later)
    assert {item.method for item in compared(a, b).differences} == {"welch"}
    assert ("seeds", "0, 1, 2", "3, 4, 5") in compared(a, b).unlike


def test_a_failed_trial_leaves_its_pair_out(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", {**A, (0.0, 1): -1, (0.0, 2): 600})
    found = compared(a, b, "accuracy").differences[0]
    assert (found.a.n, found.b.n, found.n) == (3, 2, 2)
    assert found.difference == pytest.approx(np.mean([0.0, 0.010]))
    assert "5 of 6 trials complete" in shown(compared(a, b))


def test_arms_of_one_run_only_are_listed(tmp_path: Path) -> None:
    comparison = compared(Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B))
    assert comparison.only_a == ("epsilon=0.1",)
    assert comparison.only_b == ("epsilon=0.2",)
    text = shown(comparison)
    assert "only in A: epsilon=0.1\n" in text
    assert "only in B: epsilon=0.2\n" in text


def test_without_a_common_arm_nothing_is_compared(tmp_path: Path) -> None:
    other = {(0.3, 0): 500, (0.3, 1): 510}
    comparison = compared(Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", other))
    assert comparison.differences == ()
    assert "no arm in common" in shown(comparison)


def test_what_differs_between_the_runs_is_said_first(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    b = Recorded(tmp_path / "b", A, profile="full", numerics=CUDA, torch="2.16", lr=0.3)
    comparison = compared(a, b)
    unlike = {name: (first, second) for name, first, second in comparison.unlike}
    assert unlike == {
        "profile": ("quick", "full"),
        "device": ("cpu", "cuda"),
        "resolved_precision": ("float32", "bfloat16"),
        "torch_version": ("2.15", "2.16"),
        "field lr": ("0.4", "0.3"),
    }
    text = shown(comparison)
    assert text.index("torch_version") < text.index("Accuracy")


def test_a_run_beside_itself_differs_in_nothing(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    comparison = compared(a, a)
    assert comparison.unlike == ()
    assert {(item.difference, math.isnan(item.low)) for item in comparison.differences} == {(0.0, True)}
    text = shown(comparison)
    assert "differ in nothing" in text
    assert "paired by seed, n = 3, equal on every seed" in text


def test_ece_is_not_shown_without_its_floor(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    lines = shown(compared(a, a, "ece")).splitlines()
    assert all("floor" in line for line in lines if line.startswith("epsilon="))


def test_published_results_without_predictions_are_read_from_their_table(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B)
    before = compared(a, b).differences
    write_tables(a.folder, build_tables(a.folder, a.plan))
    for path in a.folder.predictions.iterdir():
        path.unlink()
    a.folder.predictions.rmdir()
    assert compared(a, b).differences == before


def test_the_file_holds_unrounded_numbers(tmp_path: Path) -> None:
    a, b = Recorded(tmp_path / "a", A), Recorded(tmp_path / "b", B, lr=0.3)
    comparison = compared(a, b)
    write_csv(tmp_path / "out.csv", comparison)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(rows) == len(comparison.differences) == 3
    for row, item in zip(rows, comparison.differences, strict=True):
        assert (row["arm"], row["metric"], row["method"]) == (item.arm, item.metric, item.method)
        assert float(row["a_mean"]) == item.a.mean
        assert float(row["b_high"]) == item.b.high
        assert float(row["low"]) == item.low
        assert int(row["a_n"]) == 3
    write_csv(tmp_path / "same.csv", compared(a, a))
    assert {row["low"] for row in csv.DictReader((tmp_path / "same.csv").read_text().splitlines())} == {""}


def test_a_file_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    a = Recorded(tmp_path / "a", A)
    with pytest.raises(ResultsError, match="another file with --csv"):
        write_csv(tmp_path / "no" / "such" / "folder.csv", compared(a, a))


@pytest.mark.parametrize("name", ["acuracy", "lr"])
def test_only_what_was_measured_is_a_metric(tmp_path: Path, name: str) -> None:
    a = Recorded(tmp_path / "a", A)
    with pytest.raises(StudyError, match=f"--metric {name}: unknown metric; known are accuracy, brier"):
        compared(a, a, name)


samples = st.lists(st.integers(0, 1000).map(lambda count: count / 1000), min_size=2, max_size=8)


@given(a=samples, b=samples)
def test_welch_interval_is_scipys(a: list[float], b: list[float]) -> None:
    low, high = welch_interval(np.array([*a, math.nan]), np.array(b))
    if len(set(a)) == 1 or len(set(b)) == 1:
        # scipy warns of precision where a sample does not vary
        assert math.isnan(low) == (len(set(a)) == 1 and len(set(b)) == 1)
        return
    interval = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (low, high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("few", [[], [0.5]])
def test_one_value_has_no_interval(few: list[float]) -> None:
    assert all(math.isnan(end) for end in welch_interval(np.array(few), np.array([0.1, 0.2])))
