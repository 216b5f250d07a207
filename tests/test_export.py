"""What `export` writes, read by what it is for: TensorBoard's own reader, pandas; and written twice."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from recorded_study import FAILED, MISSING, Recorded

import ablate
from ablate.errors import ResultsError
from ablate.export import EVENTS, export_study
from ablate.store.records import Failure, Record, read_records, write_record
from ablate.store.results import ResultsFolder, find_study
from ablate.study.fields import Fields
from ablate.tables.columns import open_plan
from ablate.tables.files import read_tables

RESULTS = Path(ablate.__file__).parents[1] / "results/reference"


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

    events = EventMultiplexer().AddRunsFromDirectory(str(folder))
    events.Reload()
    context = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(events, str(folder))))
    asked = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=api_pb2.Status.values())
    groups = list_session_groups.Handler(RequestContext(), context, "", asked).run()
    experiment = get_experiment.Handler(RequestContext(), context, "", api_pb2.GetExperimentRequest())
    return events, experiment.run(), groups.session_groups


@pytest.mark.slow
@pytest.mark.parametrize("study", ["recipes", "eps_tune"])  # with predictions, and tables alone
def test_tensorboard_finds_every_number_and_compares_the_runs(study: str, tmp_path: Path) -> None:
    folder = find_study(RESULTS, study)
    out, count = export_study(folder, "tensorboard", tmp_path / "out")
    plan, tables, records = open_plan(folder), read_tables(folder), read_records(folder)
    trials = tables["trials"].set_index("trial_id")
    events, experiment, groups = read_by_tensorboard(out)
    assert count == len(plan.trials) == len(groups) == len(events.Runs()) - 1
    fields = {"arm", "seed", *Fields.model_fields}
    for trial in plan.trials:
        run = f"{trial.arm}_seed={trial.seed}_{trial.trial_id[:8]}"
        epochs = tables["epochs"].query("trial_id == @trial.trial_id")
        moments = [*zip(epochs["epoch"], epochs["seconds"].cumsum(), strict=True)]
        row = trials.drop(columns=[*fields]).loc[[trial.trial_id]]
        for group, table, when in (("epoch", epochs, moments), ("result", row, moments[-1:])):
            known = table.select_dtypes("float64").dropna(axis="columns").astype("float32")
            tags = [tag for tag in events.Runs()[run]["tensors"] if tag.startswith(f"{group}/")]
            assert tags == [f"{group}/{name}" for name in known]
            for tag, name in zip(tags, known, strict=True):
                read = events.Tensors(run, tag)
                assert [(one.step, one.wall_time) for one in read] == when
                assert [one.tensor_proto.float_val[0] for one in read] == [*known[name]]
        session = next(group for group in groups if group.name == run)
        settings = {name: getattr(one, one.WhichOneof("kind")) for name, one in session.hparams.items()}
        own = records[trial.trial_id].trial
        assert settings == {"arm": own.arm, "seed": own.seed, **own.fields.model_dump()}
        shown = {value.name.tag.partition("/")[2]: value.value for value in session.metric_values}
        assert shown == row[[*shown]].astype("float32").iloc[0].to_dict() != {}
    first = [info.name for info in experiment.hparam_infos if info.differs]
    assert first == sorted(name for name in fields if trials[name].nunique() > 1)
    lines = events.Tensors(".", "verdicts")[0].tensor_proto.string_val[0].decode().splitlines()
    said = [(row[1], float(row[4]), row[9]) for row in (line.split(" | ") for line in lines[2:])]
    claims = tables["effects"].query("verdict != 'exploratory'")
    assert said == [*claims[["term", "effect", "verdict"]].itertuples(index=False, name=None)]


@pytest.mark.slow
def test_half_a_study_and_then_more_of_it_leaves_nothing_twice(tmp_path: Path) -> None:
    counts = {(0.0, 0): 600, (0.0, 1): 610, (0.1, 0): FAILED, (0.1, 1): MISSING}
    folder, out = Recorded(tmp_path / "half", counts).folder, tmp_path / "out"
    assert export_study(folder, "tensorboard", out)[1] == 3
    before, trial = content(out), open_plan(folder).trials[-1]
    failed: Any = {"status": "error", "failure": Failure(message="no"), "log": ({"epoch": 3.0, "loss": 0.5},)}
    write_record(folder, Record(trial=trial, **failed))
    export_study(folder, "tensorboard", out)
    after, run = content(out), f"epsilon=0.1_seed=1_{trial.trial_id[:8]}"
    assert after.keys() - before == {f"{run}/{EVENTS}"}
    assert {name for name in before if after.get(name) != before[name]} <= {
        "effects.csv",
        "tables.json",
        EVENTS,
    }
    events, _, groups = read_by_tensorboard(out)
    assert [(one.step, *one.tensor_proto.float_val) for one in events.Tensors(run, "log/loss")] == [(3, 0.5)]
    assert [group.sessions[0].status for group in groups] == [1, 1, 2, 2]  # of success, of failure
    command = ["export", str(folder.root), "--to", "tensorboard", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "ablate", *command], check=True)
    assert content(out) == after  # by another process, which hashes in another order


def test_tables_come_back_as_they_are(tmp_path: Path) -> None:
    folder = find_study(RESULTS, "eps_tune")
    export_study(folder, "csv", tmp_path / "csv")
    tables = {name: table for name, table in read_tables(folder).items() if len(table)}
    for name, found in read_tables(ResultsFolder(tmp_path / "csv"), names=tables).items():
        pd.testing.assert_frame_equal(found, tables[name], check_exact=True)
    pytest.importorskip("pyarrow")
    export_study(folder, "parquet", tmp_path / "parquet")
    for name, table in tables.items():
        found = pd.read_parquet(tmp_path / f"parquet/{name}.parquet")
        pd.testing.assert_frame_equal(found, table, check_exact=True)


def test_what_cannot_be_written_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, notes = Recorded(tmp_path / "tiny/quick", {(0.0, 0): 600}).folder, tmp_path / "out/notes.txt"
    export_study(folder, "csv", notes.parent)
    notes.write_text("mine")
    for out in (folder.root, notes.parent, notes):
        with pytest.raises(ResultsError, match="is there, which no export wrote; give another folder"):
            export_study(folder, "csv", out)
    assert notes.read_text() == "mine"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ResultsError, match=r"--to parquet: needs pyarrow; run `pip install 'ablate\[export\]'`"
    ):
        export_study(folder, "parquet", tmp_path / "other")
