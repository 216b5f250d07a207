"""What `export` writes, read by what it is for: TensorBoard's own reader, pandas; and written twice."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recorded_study import FAILED, MISSING, Recorded
from test_main import ablate as run_command

import ablate
from ablate.errors import ResultsError
from ablate.export import EVENTS, export_study
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder, find_study
from ablate.study.fields import Fields
from ablate.tables.files import Tables, open_plan, read_tables

RESULTS = Path(ablate.__file__).parents[1] / "results"


def tables_of(folder: ResultsFolder) -> Tables:
    open_plan(folder)
    return read_tables(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def read_by_tensorboard(folder: Path) -> tuple[Any, Any, Any]:
    """All that TensorBoard finds; what its HParams page asks for: the experiment and the runs to compare."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    events = EventMultiplexer()
    events.AddRunsFromDirectory(str(folder))
    events.Reload()
    provider = MultiplexerDataProvider(events, str(folder))
    context = backend_context.Context(TBContext(data_provider=provider))
    asked = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=api_pb2.Status.values())
    groups = list_session_groups.Handler(RequestContext(), context, "", asked).run()
    experiment = get_experiment.Handler(RequestContext(), context, "", api_pb2.GetExperimentRequest())
    return events, experiment.run(), groups.session_groups


@pytest.mark.slow
@pytest.mark.parametrize("study", ["recipes", "eps_tune"])
def test_tensorboard_finds_every_number_of_the_tables_and_compares_the_runs(
    study: str, tmp_path: Path
) -> None:
    folder = find_study(RESULTS / "reference", study)
    out, count = export_study(folder, "tensorboard", tmp_path / "out")
    tables = tables_of(folder)
    trials, epochs = tables["trials"].set_index("trial_id"), tables["epochs"]
    records = read_records(folder)
    fields = {"arm", "seed", *Fields.model_fields}
    events, experiment, groups = read_by_tensorboard(out)
    assert count == len(trials) == len(groups) == len(events.Runs()) - 1
    for name in events.Runs().keys() - {"."}:
        arm, _, trial = name.rpartition("_")
        trial_id = next(known for known in trials.index if known.startswith(trial))
        assert arm == f"{trials.loc[trial_id, 'arm']}_seed={trials.loc[trial_id, 'seed']}"
        own = epochs[epochs["trial_id"] == trial_id]
        seconds, found = own["seconds"].cumsum().tolist(), 0
        for tag in (tag for tag in events.Runs()[name]["tensors"] if not tag.startswith("_hparams_/")):
            group, _, column = tag.partition("/")
            read = events.Tensors(name, tag)
            found += len(read)
            expected = own[column].tolist() if group == "epoch" else [trials.loc[trial_id, column]]
            assert [one.tensor_proto.float_val[0] for one in read] == [*map(np.float32, expected)]
            assert [one.step for one in read] == own["epoch"].tolist()[-len(read) :]
            assert [one.wall_time for one in read] == seconds[-len(read) :]
        numbers = own.select_dtypes("float64").notna().sum().sum()
        results = trials.drop(columns=[*fields]).select_dtypes("float64").loc[trial_id]
        assert found == numbers + results.notna().sum()
    first = [info.name for info in experiment.hparam_infos if info.differs]
    varied = [name for name in fields if trials[name].nunique() > 1]
    assert first == sorted(varied) == [info.name for info in experiment.hparam_infos][: len(first)]
    for group in groups:
        trial_id = next(known for known in trials.index if group.name.endswith(known[:8]))
        own = records[trial_id].trial
        settings = {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()}
        assert settings == {"arm": own.arm, "seed": own.seed, **own.fields.model_dump()}
        shown = {value.name.tag.partition("/")[2]: value.value for value in group.metric_values}
        assert shown == {name: np.float32(trials.loc[trial_id, name]) for name in shown} != {}
    text = events.Tensors(".", "verdicts")[0].tensor_proto.string_val[0].decode()
    claims = tables["effects"].query("verdict != 'exploratory'")
    said = [row.split(" | ") for row in text.splitlines()[2:]]
    assert [(row[1], float(row[4]), row[9]) for row in said] == [
        (row.term, row.effect, row.verdict) for row in claims.itertuples()
    ]


@pytest.mark.slow
def test_half_a_study_then_all_of_it_again_and_again_leaves_nothing_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    counts = {(0.0, 0): 600, (0.0, 1): FAILED, (0.1, 0): 620, (0.1, 1): MISSING}
    folder, out = Recorded(tmp_path / "half", counts).folder, tmp_path / "out"
    whole = Recorded(tmp_path / "whole", {**counts, (0.1, 1): 640}).folder
    assert export_study(folder, "tensorboard", out)[1] == 3
    before = content(out)
    for part in ("records", "predictions"):
        shutil.copytree(whole.root / part, folder.root / part, dirs_exist_ok=True)
    export_study(folder, "tensorboard", out)
    after = content(out)
    assert len(after) == len(before) + 1
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {"effects.csv", "tables.json", EVENTS}
    command = ["export", str(folder.root), "--to", "tensorboard", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "ablate", *command], check=True, cwd=tmp_path)
    assert content(out) == after  # by another process, which hashes in another order


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_tables_come_back_as_they_are(to: str, tmp_path: Path) -> None:
    folder = find_study(RESULTS / "reference", "eps_tune")
    if to == "parquet":
        pytest.importorskip("pyarrow")
    written, _ = export_study(folder, to, tmp_path / "out")
    tables = tables_of(folder)
    read = read_tables(ResultsFolder(written)) if to == "csv" else {}
    for name, table in tables.items():
        if len(table):
            found = read[name] if to == "csv" else pd.read_parquet(written / f"{name}.parquet")
            pd.testing.assert_frame_equal(found, table, check_exact=True)


def test_what_cannot_be_written_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(tmp_path / "tiny/quick", {(0.0, 0): 600}).folder
    with pytest.raises(
        ResultsError, match=r"study\.json: is there, which no export wrote; give another folder"
    ):
        export_study(recorded, "csv", recorded.root)
    out, _ = export_study(recorded, "csv", tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ResultsError, match=r"notes\.txt: is there"):
        export_study(recorded, "csv", out)
    with pytest.raises(ResultsError, match=r"notes\.txt: is there"):
        export_study(recorded, "csv", out / "notes.txt")
    assert (out / "notes.txt").read_text() == "mine"
    for package, to in {"tensorboard": "tensorboard", "pyarrow": "parquet"}.items():
        monkeypatch.setitem(sys.modules, package, None)
        ended = run_command(tmp_path, "export", str(recorded.root), "--to", to)
        assert f"error: --to {to}: needs {package}; run `pip install 'ablate[export]'`" in ended.err
    assert not (tmp_path / "export").exists()
