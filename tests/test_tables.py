"""Tables: what records hold, complete and unrounded; what a CSV must survive; the exclusive timing pass."""

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from data_dictionary import data_dictionary
from recorded_study import BASE, FAILED, MISSING, Recorded, counts, planned, trial, unsealed

from ablate.analysis.arms import arm_interval, complete_trials
from ablate.analysis.timing import timing_pass
from ablate.data import prepare
from ablate.errors import RecordError
from ablate.execution.trial import FEWEST_ROUNDS, TimingTask, time_cases
from ablate.metrics import METRICS
from ablate.report.views import timing_view
from ablate.store.results import ResultsFolder, read_plan, write_sealed
from ablate.store.timing import case_of, cases_of, plain_case, read_timing
from ablate.study.study import Study
from ablate.tables.build import build_tables, step_time_rows
from ablate.tables.columns import COLUMNS, DERIVED, TUNING
from ablate.tables.files import frame, read_tables, write_tables

ROOT = Path(__file__).parent.parent
HOSTILE = '=HYPERLINK(1), "a"\n|<b>'


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    """Four planned trials: two complete, one failed, one missing."""
    correct = {(0.0, 0): 600, (0.1, 0): 640, (0.0, 1): FAILED, (0.1, 1): MISSING}
    return Recorded(tmp_path, correct, ran_on={"device_name": HOSTILE}).folder


def test_processes_measure_what_one_does(folder: ResultsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = read_plan(folder)
    alone = build_tables(folder, plan)
    monkeypatch.setattr("ablate.tables.build.TRIALS_PER_PROCESS", 1)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    for name, rows in build_tables(folder, plan).items():
        pd.testing.assert_frame_equal(rows, alone[name], check_exact=True)


def test_a_damaged_record_costs_only_its_own_row(folder: ResultsFolder) -> None:
    plan = read_plan(folder)
    folder.record_path(plan.trials[0].trial_id).write_text("{")
    folder.predictions_path(plan.trials[1].trial_id).write_bytes(b"")
    tables = build_tables(folder, plan)
    assert list(tables["trials"]["status"]) == ["unreadable", "unreadable", "oom", "missing"]
    assert str(folder.root) not in tables["trials"]["failure"][0]
    assert tables["reliability"].empty


def test_an_arms_interval_is_for_new_images_too_unless_an_earlier_version_wrote(tmp_path: Path) -> None:
    study = Recorded(tmp_path, counts(e0=[600, 640], e1=[610, 700]))
    folder, plan = study.folder, study.plan
    tables = build_tables(folder, plan)
    complete, new_images, pair = complete_trials(tables["trials"]), tables["new_images"], plan.arms[1]
    for metric in ("accuracy", "ece"):
        over_seeds, both = (arm_interval(complete, pair, metric, own) for own in (None, new_images))
        assert (both.low < over_seeds.low) == METRICS[metric].by_image
        assert arm_interval(complete, pair, metric, new_images[new_images["baseline"].notna()]) == over_seeds
    again = tuple(trial.model_copy(update={"repeat": 1}) for trial in plan.trials)
    assert build_tables(folder, plan.model_copy(update={"trials": again}))["floors"].empty


def test_tables_come_back_from_csv_to_the_last_bit(folder: ResultsFolder) -> None:
    tables = build_tables(folder, read_plan(folder)) | {name: frame(name, []) for name in DERIVED}
    write_tables(folder, tables)
    read = read_tables(folder)
    assert set(read) == set(COLUMNS)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(read[name], table, check_exact=True)
    assert read["trials"]["device_name"][0] == HOSTILE
    before = {path.name: path.read_bytes() for path in folder.root.glob("*.csv")}
    assert set(before) == {f"{name}.csv" for name in COLUMNS if name not in TUNING}
    write_tables(folder, read)
    assert all((folder.root / name).read_bytes() == content for name, content in before.items())


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "'"])
def test_a_spreadsheet_runs_nothing(start: str, tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    write_tables(folder, {"floors": frame("floors", [{"arm": f"{start}1+1", "metric": "ece"}])})
    assert f"\n'{start}1+1," in (tmp_path / "floors.csv").read_text()
    assert read_tables(folder, names=["floors"])["floors"]["arm"][0] == f"{start}1+1"


def test_a_cut_table_is_refused(folder: ResultsFolder) -> None:
    plan = read_plan(folder)
    tables = build_tables(folder, plan) | {name: frame(name, []) for name in DERIVED}
    write_tables(folder, tables)
    path = folder.root / "trials.csv"
    whole = path.read_text()
    cut, misnamed = whole[: whole.index("0.1") + 2], whole.replace("accuracy", "accurracy", 1)
    for text, message in ((cut, "cut off"), (misnamed, "other columns")):
        path.write_text(text)
        with pytest.raises(RecordError, match="does not match its digest"):
            read_tables(folder)
        unsealed(folder)
        with pytest.raises(RecordError, match=message):
            read_tables(folder)
        write_sealed(folder.plan, plan)
        path.write_text(whole)
        with pytest.raises(RecordError, match="vouches for the tables"):
            read_tables(folder)
        write_tables(folder, tables)
    path.unlink()
    with pytest.raises(RecordError, match="missing"):
        read_tables(folder)


def test_a_table_of_an_earlier_version_is_read_with_what_it_lacks_empty(tmp_path: Path) -> None:
    floor = {"arm": "a", "metric": "ece", "low": 0.25, "high": 0.5}
    effect = {"kind": "arm", "term": "a", "metric": "nll", "against": "b", "n": 3, "effect": 0.25}
    (tmp_path / "floors.csv").write_text("trial_id,arm,seed,metric,low,high\nt,a,0,ece,0.25,0.5\n")
    # While main effects, interactions and trends were tables of their own.
    (tmp_path / "effects.csv").write_text("arm,metric,baseline,n_pairs,effect\na,nll,b,3,0.25\n")
    for name, held in (("floors", [floor]), ("effects", [effect]), ("timing", [])):
        read = read_tables(ResultsFolder(tmp_path), names=[name])[name]
        assert [row.dropna().to_dict() for _, row in read.iterrows()] == held
        pd.testing.assert_series_equal(read.dtypes, frame(name, []).dtypes)


def test_the_tracked_data_dictionary_is_the_codes() -> None:
    tracked = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert tracked == data_dictionary(), "write it again: python tests/data_dictionary.py > results/README.md"


def test_a_case_is_what_changes_the_work() -> None:
    same: list[dict[str, Any]] = [{"epsilon": 0.3}, {"lr": 0.2}, {"label_noise": 0.1}, {"lr_rule": "matched"}]
    same += [{"schedule": "torch.sqrt", "schedule.out": 1}, {"loss.gamma": 1}, {"anneal_from": 0.2}]
    other: list[dict[str, Any]] = [
        {"reduction": "sum"}, {"arch": "xresnet18"}, {"batch_size": 8}, {"optimizer": "adamw"},
        {"flip": True}, {"crop_area": 0.5}, {"mixup": 0.2}, {"clip_norm": 1.0}, {"decode_size": 20},
        {"loss": "cross_entropy", "epsilon": 0.0}, {"ema": 0.9}, {"augmentation": "torch.sqrt"},
        {"optimizer": "torch.Lion"}, {"optimizer.nesterov": True}, {"augmentation.strength": 2},
    ]  # fmt: skip
    assert {case_of(trial(**changes)) for changes in same} == {case_of(trial())}
    assert len({case_of(trial(**changes)) for changes in other}) == len(other)
    # The plain step is always among the cases.
    summed = trial(reduction="sum")
    found = cases_of([summed, trial(), trial(epsilon=0.4)])
    assert [(case.loss, case.reduction) for case in found] == [
        ("label_smoothing", "sum"), ("label_smoothing", "mean"), ("cross_entropy", "mean"),
    ]  # fmt: skip
    plain = trial(loss="cross_entropy", epsilon=0.0)
    assert list(cases_of([plain])) == [case_of(plain)]
    assert plain_case(case_of(summed)) == case_of(plain)


@pytest.mark.slow
def test_every_case_is_timed_in_every_round_and_the_pass_is_kept_and_read_back(tmp_path: Path) -> None:
    data = prepare("synthetic", image_size=16, cache_dir=tmp_path / "cache")
    cases = cases_of([trial(), trial(reduction="sum", mixup=0.2, crop_area=0.5, optimizer="adamw")])
    told: list[float] = []
    began = time.monotonic()
    timed = time_cases(TimingTask({case: (of, data.folder) for case, of in cases.items()}), 0, told.append)
    assert told == sorted(told)
    assert told[-1] <= 1
    assert (timed.cases, len(cases)) == (tuple(cases), 4)
    rounds = {len(times) for times in timed.step_ms}
    assert rounds == {round((len(told) - len(cases)) / len(cases))}  # heard before each, after each turn
    assert min(rounds) >= FEWEST_ROUNDS
    seconds = sum(n * sum(times) for n, times in zip(timed.steps, timed.step_ms, strict=True)) / 1000
    assert 0.1 < seconds / (time.monotonic() - began) < 1
    assert timed.others is None or 0 <= timed.others <= 1

    folder = ResultsFolder(tmp_path)
    assert (read_timing(folder), step_time_rows(folder)) == (None, [])
    write_sealed(folder.timing, timed)
    assert read_timing(folder) == timed
    found = timing_pass(frame("step_times", step_time_rows(folder)))
    assert found is not None
    of_each = zip(timed.cases, timed.step_ms, strict=True)
    assert {case: tuple(times) for case, times in found.times.items()} == dict(of_each)
    folder.timing.write_text("{")
    with pytest.raises(RecordError, match=r"timing.json: damaged .*; delete it"):
        read_timing(folder)
    assert step_time_rows(folder) == []


CASES = {
    "plain": case_of(trial(loss="cross_entropy", epsilon=0.0)), "mean": case_of(trial()),
    "sum": case_of(trial(reduction="sum")),
}  # fmt: skip


def step_times(others: float | None = 0.0, **times: Any) -> pd.DataFrame:
    rows = [
        {**CASES[name].model_dump(), "round": place, "step_ms": value, "others": others}
        for name, values in times.items()
        for place, value in enumerate(values)
    ]
    return frame("step_times", rows)


FACTORS = {"reduction": ("mean", "sum"), "epsilon": (0.0, 0.1)}
PLAN = planned(Study(question="?", base=BASE, seeds=1, factors=FACTORS, baseline={"epsilon": 0.0}))


def test_company_on_the_machine_is_said() -> None:
    for others, said in (
        (0.02, "nothing else used the machine much"),
        (0.71, "other processes used 71% of its cores, so the times are not exclusive"),
        (None, "whether other processes ran is not known"),
    ):
        assert said in timing_view(timing_pass(step_times(others, plain=[1.0] * 8)), PLAN)["note"]
    without = timing_view(None, PLAN)
    assert "not measured apart" in without["note"]
    assert without["table"] is None


def test_arms_that_do_the_same_work_are_called_the_same() -> None:
    times = step_times(plain=[10.0] * 20, mean=[10.0] * 20, sum=[12.0] * 20)
    rows = timing_view(timing_pass(times), PLAN)["table"]["rows"]
    assert [row[3]["text"] for row in rows] == ["–", "same step", "–", "same step"]
    assert [row[2]["text"] for row in rows] == ["1.000", "1.000", "1.200", "1.200"]
    came_later = ["arguments", "augmentation", "averages"]
    earlier = times.drop(columns=came_later).reindex(columns=times.columns)
    assert list(timing_pass(earlier).times) == list(timing_pass(times).times)  # type: ignore[union-attr]
