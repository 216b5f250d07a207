"""Tables: what records hold, complete and unrounded, and what a CSV must survive."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recorded_study import CPU, environment
from test_records import EPOCH

from ablate.errors import RecordError
from ablate.metrics import FLOORS, METRICS
from ablate.store.records import Failure, Predictions, Record, write_record
from ablate.store.results import ResultsFolder, read_plan, write_plan
from ablate.study.study import Study
from ablate.study.trials import Plan, expand
from ablate.tables import (
    COLUMNS,
    DERIVED,
    TUNING,
    build_tables,
    data_dictionary,
    frame,
    read_tables,
    write_tables,
)

ROOT = Path(__file__).parent.parent
HOSTILE = '=HYPERLINK(1), "a"\n|<b>'
MACHINE = environment(device_name=HOSTILE)


def predictions(seed: int) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, 200)
    logits = rng.normal(size=(200, 10)) + 2 * np.eye(10)[labels]
    return Predictions(logits.astype(np.float32), labels)


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    """Four planned trials: two complete, one diverged, one missing."""
    base, factors = {"data": "digits", "image_size": 8}, {"epsilon": (0.0, 0.1)}
    study = Study(question="?", name="s", base=base, factors=factors, seeds=2)
    trials = expand(study, lambda fields: "f", lambda fields: CPU)
    folder = ResultsFolder(tmp_path)
    folder.create()
    write_plan(folder, Plan(study=study, profile="p", reason="r", trials=tuple(trials)))
    for seed, trial in enumerate(trials[:2]):
        record = Record(trial=trial, status="complete", history=(EPOCH,), environment=MACHINE)
        write_record(folder, record, predictions(seed))
    write_record(folder, Record(trial=trials[2], status="diverged", failure=Failure(message=HOSTILE)))
    return folder


def test_every_planned_trial_has_a_row(folder: ResultsFolder) -> None:
    """The audit of tests/report computes every value again."""
    trials = build_tables(folder, read_plan(folder))["trials"]
    rows = trials[["status", "seed", "epsilon"]].assign(scored=trials["accuracy"].notna())
    assert rows.to_numpy().tolist() == [
        ["complete", 0, 0.0, True], ["complete", 0, 0.1, True], ["diverged", 1, 0.0, False],
        ["missing", 1, 0.1, False],
    ]  # fmt: skip


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
    assert list(tables["trials"]["status"]) == ["unreadable", "unreadable", "diverged", "missing"]
    assert str(folder.root) not in tables["trials"]["failure"][0]
    assert tables["reliability"].empty


def test_floors_are_of_the_mean_over_an_arms_complete_first_runs(folder: ResultsFolder) -> None:
    plan = read_plan(folder)
    record = Record(trial=plan.trials[3], status="complete", environment=MACHINE)
    write_record(folder, record, predictions(7))
    floors = build_tables(folder, plan)["floors"]
    assert floors["arm"].tolist() == [arm for arm in plan.arms for _ in FLOORS]
    assert floors["metric"].tolist() == [*FLOORS, *FLOORS]
    assert floors["runs"].tolist() == [1] * len(FLOORS) + [2] * len(FLOORS)
    again = tuple(trial.model_copy(update={"repeat": 1}) for trial in plan.trials)
    assert build_tables(folder, plan.model_copy(update={"trials": again}))["floors"].empty


def test_tables_come_back_from_csv_to_the_last_bit(folder: ResultsFolder) -> None:
    tables = build_tables(folder, read_plan(folder)) | {name: frame(name, []) for name in DERIVED}
    write_tables(folder, tables)
    read = read_tables(folder)
    assert set(read) == set(COLUMNS)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(read[name], table, check_exact=True)
    assert read["trials"]["failure"][2] == HOSTILE
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
    tables = build_tables(folder, read_plan(folder)) | {name: frame(name, []) for name in DERIVED}
    write_tables(folder, tables)
    path = folder.root / "trials.csv"
    whole = path.read_text()
    cut, misnamed = whole[: whole.index("0.1") + 2], whole.replace("accuracy", "accurracy", 1)
    for text, message in ((cut, "cut off"), (misnamed, "other columns")):
        path.write_text(text)
        with pytest.raises(RecordError, match=message):
            read_tables(folder)
    path.unlink()
    with pytest.raises(RecordError, match="missing"):
        read_tables(folder)


@pytest.mark.parametrize(
    ("name", "text", "held"),
    [
        ("trials", "trial_id,seed,accuracy\nt,1,0.5\n", [{"trial_id": "t", "seed": 1, "accuracy": 0.5}]),
        (
            "floors",
            "trial_id,arm,seed,metric,low,high\nt,a,0,ece,0.25,0.5\n",
            [{"arm": "a", "metric": "ece", "low": 0.25, "high": 0.5}],
        ),
        (
            "effects",  # while main effects, interactions and trends were tables of their own
            "arm,metric,baseline,n_pairs,effect\na,nll,b,3,0.25\n",
            [{"kind": "arm", "term": "a", "metric": "nll", "against": "b", "n": 3, "effect": 0.25}],
        ),
        ("timing", None, []),
    ],
)
def test_a_table_of_an_earlier_version_is_read_with_what_it_lacks_empty(
    name: str, text: str | None, held: list[dict[str, Any]], tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / f"{name}.csv").write_text(text)
    read = read_tables(ResultsFolder(tmp_path), names=[name])[name]
    assert [row.dropna().to_dict() for _, row in read.iterrows()] == held
    pd.testing.assert_series_equal(read.dtypes, frame(name, []).dtypes)


def test_every_metric_is_a_column_and_no_column_is_named_twice() -> None:
    for name, columns in COLUMNS.items():
        names = [column.name for column in columns]
        assert len(set(names)) == len(names), name
    assert set(METRICS) <= {column.name for column in COLUMNS["trials"]}


def test_the_tracked_data_dictionary_is_the_codes() -> None:
    tracked = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert tracked == data_dictionary(), "write it again: ablate.tables.data_dictionary()"
