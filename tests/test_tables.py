"""Tables: what records hold, complete and unrounded, and what a CSV must survive."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from numpy.typing import NDArray
from recorded_study import CPU, environment

from ablate import metrics
from ablate.analysis.arms import arm_interval, complete_trials
from ablate.errors import RecordError
from ablate.metrics import FLOORS, METRICS, band_of_mean, resampled
from ablate.stats import mean_interval
from ablate.store.records import Epoch, Failure, Predictions, Record, write_record
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


def softmax(value: Predictions) -> NDArray[np.float64]:
    exponentials = np.exp(value.logits.astype(np.float64))
    return np.asarray(exponentials / exponentials.sum(1, keepdims=True))


def epoch(value: Predictions) -> Epoch:
    confidence, correct = softmax(value).max(1), value.logits.argmax(1) == value.labels
    kept: dict[str, Any] = {}
    for name, weight in (("count", np.ones(200)), ("confidence", confidence), ("correct", correct * 1.0)):
        kept[name], _ = np.histogram(confidence, bins=15, range=(0, 1), weights=weight)
    return Epoch(
        epoch=0, train_loss=0.1 + 0.2, train_accuracy=0.5, valid_loss=1.0, valid_accuracy=0.5, valid_nll=1.0,
        bin_count=tuple(map(int, kept["count"])), bin_confidence=tuple(kept["confidence"]),
        bin_correct=tuple(map(int, kept["correct"])), lr=0.4, seconds=1.0,
    )  # fmt: skip


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
        made = predictions(seed)
        record = Record(trial=trial, status="complete", history=(epoch(made),), environment=MACHINE)
        write_record(folder, record, made)
    write_record(folder, Record(trial=trials[2], status="diverged", failure=Failure(message=HOSTILE)))
    return folder


def test_every_planned_trial_has_a_row_with_the_metrics_of_its_predictions(folder: ResultsFolder) -> None:
    tables = build_tables(folder, read_plan(folder))
    trials = tables["trials"]
    rows = trials[["status", "seed", "epsilon"]].assign(scored=trials["accuracy"].notna())
    assert rows.to_numpy().tolist() == [
        ["complete", 0, 0.0, True], ["complete", 0, 0.1, True], ["diverged", 1, 0.0, False],
        ["missing", 1, 0.1, False],
    ]  # fmt: skip
    assert tables["epochs"]["valid_ece"].to_numpy() == pytest.approx(trials["ece"].to_numpy()[:2])
    for seed, bins in enumerate((tables["reliability"][:15], tables["reliability"][15:])):
        made, row = predictions(seed), trials.iloc[seed]
        assert row["accuracy"] == sklearn.metrics.accuracy_score(made.labels, made.logits.argmax(1))
        assert row["nll"] == pytest.approx(sklearn.metrics.log_loss(made.labels, softmax(made)), rel=1e-9)
        weight = bins["count"].astype(float) / 200
        assert weight.sum() == pytest.approx(1)
        assert (weight * bins["accuracy"]).sum() == pytest.approx(row["accuracy"])
        assert (weight * (bins["accuracy"] - bins["confidence"]).abs()).sum() == pytest.approx(row["ece"])


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
    values = [
        resampled(metrics.Predictions.of(made.logits, made.labels)) for made in map(predictions, (1, 7))
    ]
    for row in floors[floors["runs"] == 2].itertuples():
        assert (row.low, row.high) == band_of_mean([own[str(row.metric)] for own in values])
    again = tuple(trial.model_copy(update={"repeat": 1}) for trial in plan.trials)
    assert build_tables(folder, plan.model_copy(update={"trials": again}))["floors"].empty


def test_an_arms_interval_is_for_new_images_too_and_within_what_the_metric_can_be(
    folder: ResultsFolder,
) -> None:
    plan = read_plan(folder)
    write_record(folder, Record(trial=plan.trials[3], status="complete", environment=MACHINE), predictions(7))
    tables = build_tables(folder, plan)
    complete, new_images, (single, pair) = complete_trials(tables["trials"]), tables["new_images"], plan.arms
    for metric in ("accuracy", "nll", "brier", "ece", "confidence_gap"):
        over_seeds, both = (arm_interval(complete, pair, metric, own) for own in (None, new_images))
        lowest, highest = METRICS[metric].bounds
        assert (
            lowest <= both.low <= over_seeds.low < over_seeds.mean < over_seeds.high <= both.high <= highest
        )
        assert (both.low < over_seeds.low) == METRICS[metric].by_image
        # What an earlier version wrote has no such rows.
        assert arm_interval(complete, pair, metric, new_images[new_images["baseline"].notna()]) == over_seeds
        assert np.isnan(arm_interval(complete, single, metric, new_images).low)
    far = np.linspace(0.01, 0.05, len(complete))
    assert mean_interval(far[:2]).low < 0 < arm_interval(complete.assign(ece=far), pair, "ece").low


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
