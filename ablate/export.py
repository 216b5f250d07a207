"""A study's records in the forms that other tools open: TensorBoard's event files, CSV, Parquet."""

from __future__ import annotations

import importlib
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.arms import as_recorded, of_plan
from ablate.errors import ResultsError
from ablate.report.content import derived_tables
from ablate.store.records import Record, read_available
from ablate.store.results import ResultsFolder
from ablate.study.fields import is_field
from ablate.study.trials import Plan
from ablate.tables.build import build_tables
from ablate.tables.columns import COLUMNS, DERIVED, is_argument
from ablate.tables.files import Tables, open_plan, read_tables, write_tables

NEEDS = {"tensorboard": "tensorboard", "parquet": "pyarrow"}
MARK = "export.json"
"""What was exported, and every file of it: only a folder that holds nothing else is replaced."""
KINDS = {
    "string": "string_value", "Int64": "number_value", "float64": "number_value", "boolean": "bool_value",
}  # fmt: skip
EVENTS = "events.out.tfevents.0.ablate"
SAID = ["kind", "term", "against", "metric", "effect", "low", "high", "margin", "n", "verdict", "reason"]


def export_study(folder: ResultsFolder, to: str, out: Path | None = None) -> tuple[Path, int]:
    """Write what is recorded of a study, finished or not, to a folder; that folder, and how many trials.

    Again, it is replaced as a whole, so the same records give the same files. A ResultsError names a package
    that is missing, or what the folder holds beside an export.
    """
    try:
        importlib.import_module(NEEDS.get(to, "pandas"))
    except ImportError:
        raise ResultsError(f"--to {to}: needs {NEEDS[to]}; run `pip install 'ablate[export]'`") from None
    plan, tables = _read(folder)
    planned = {trial.trial_id for trial in plan.trials}
    records = {name: one for name, one in read_available(folder)[0].items() if name in planned}
    target = (out or Path("export", *folder.names, to)).resolve()
    _require_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}") as scratch:
        made = Path(scratch, target.name)
        made.mkdir()
        if to == "parquet":
            for name, table in tables.items():
                table.to_parquet(made / f"{name}.parquet", index=False)
        else:
            csvs = ResultsFolder(made)
            write_tables(csvs, {name: tables[name] for name in tables if to == "csv" or name == "effects"})
            if csvs.unwritten:
                raise ResultsError(f"{target}: {', '.join(csvs.unwritten)} cannot be written")
        for name, content in _event_files(plan, tables, records) if to == "tensorboard" else ():
            (made / name).mkdir(exist_ok=True)
            (made / name / EVENTS).write_bytes(content)
        about = {"study": plan.study.name, "profile": plan.profile, "to": to, "trials": len(records)}
        about |= {"planned": len(plan.trials), "files": _files(made)}
        (made / MARK).write_text(f"{json.dumps(about, indent=1, ensure_ascii=False)}\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=not target.exists())
        made.rename(target)
    return target, len(records)


def _read(folder: ResultsFolder) -> tuple[Plan, Tables]:
    """Every table that has rows, from the records; of published results without predictions as they lie."""
    plan = open_plan(folder)
    stored = [name for name in COLUMNS if name not in DERIVED]
    whole = folder.predictions.exists()
    tables = of_plan(build_tables(folder, plan) if whole else read_tables(folder, names=stored), plan)
    tables |= derived_tables(tables, as_recorded(plan, tables["trials"]))
    return plan, {name: table for name, table in tables.items() if len(table)}


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _require_replaceable(target: Path) -> None:
    """Refuse a folder that holds what no export wrote."""
    if not target.exists():
        return
    try:
        known = {MARK, *json.loads((target / MARK).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        known = set()
    if not target.is_dir() or (others := [name for name in _files(target) if name not in known]):
        what = f"{others[0]}, which no export wrote" if target.is_dir() else "no folder"
        raise ResultsError(f"{target}: expected a new folder or an earlier export, but it is or holds {what}")


def _event_files(plan: Plan, tables: Tables, records: dict[str, Record]) -> Iterator[tuple[str, bytes]]:
    """TensorBoard's run names and event files: "." with the verdicts as text, and a run per recorded trial.

    A step is an epoch. Records hold how long training took, and no moment, so that times count from 0. The
    keys of the HParams page follow from the plan, not from what is done, so that every run has the same.
    """
    from tensorboard.plugins.hparams import api_pb2 as api
    from tensorboard.plugins.hparams.plugin_data_pb2 import (
        HParamsPluginData,
        SessionEndInfo,
        SessionStartInfo,
    )
    from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

    effects, trials = tables.get("effects"), tables["trials"].set_index("trial_id")
    if effects is not None:
        claims = effects.loc[effects["verdict"] != "exploratory", SAID]
        yield ".", _encoded([_tagged("verdicts", "text", TextPluginData(), _markdown(claims))])
    settings, study = _settings(trials), as_recorded(plan, trials).study
    kinds = {"string_value": api.DATA_TYPE_STRING, "number_value": api.DATA_TYPE_FLOAT64}
    kinds["bool_value"] = api.DATA_TYPE_BOOL
    shown = dict.fromkeys((study.primary, *study.comparison_family, *study.usual("accuracy", "nll", "ece")))
    experiment = api.Experiment(
        name=study.name,
        description=study.question,
        hparam_infos=[api.HParamInfo(name=name, type=kinds[kind]) for name, (kind, _) in settings.items()],
        metric_infos=[
            api.MetricInfo(name=api.MetricName(tag=f"result/{name}"), display_name=name) for name in shown
        ],
    )
    measured = [name for name in _measured(trials) if name not in settings]
    epochs = tables.get("epochs", pd.DataFrame(columns=["trial_id", "epoch", "seconds"]))
    for trial_id, record in records.items():
        start = SessionStartInfo()
        for name, (kind, values) in settings.items():
            setattr(start.hparams[name], kind, values[trial_id])
        own, row = epochs[epochs["trial_id"] == trial_id], trials.loc[trial_id]
        seconds = [0.0, *own["seconds"].cumsum()]
        status = api.STATUS_SUCCESS if record.status == "complete" else api.STATUS_FAILURE
        end = SessionEndInfo(status=status, end_time_secs=seconds[-1])
        parts = {"experiment": experiment, "session_start_info": start, "session_end_info": end}
        events = [
            _tagged(f"_hparams_/{part}", "hparams", HParamsPluginData(**{part: value}))
            for part, value in parts.items()
        ]
        ran = zip(own["epoch"], seconds[1:], own[_measured(own)].to_dict("records"), strict=True)
        for epoch, moment, numbers in ran:
            events += _scalars("epoch", numbers, epoch, moment)
        for numbers in record.log:
            events += _scalars("log", numbers, int(numbers["epoch"]), 0.0)
        last = max([0, *own["epoch"], *(int(numbers["epoch"]) for numbers in record.log)])
        events += _scalars("result", row[measured].to_dict(), last, seconds[-1])
        arm = re.sub(r"[^\w.=+-]+", "_", record.trial.arm)[:100]
        yield f"{arm}_seed={record.trial.seed}_{trial_id[:8]}", _encoded(events)


def _settings(trials: pd.DataFrame) -> dict[str, tuple[str, dict[str, Any]]]:
    """What the plan sets of trials, what varies first: the kind of protobuf's value, and each trial's."""
    names = [name for name in trials if (is_field(name) or is_argument(name)) and trials[name].notna().any()]
    names.sort(key=lambda name: trials[name].nunique(dropna=False) == 1)
    settings = {}
    for name in ["arm", "seed", *names]:
        kind, column = KINDS[str(trials[name].dtype)], trials[name]
        if column.hasnans:
            kind, column = "string_value", column.astype("string").fillna("")
        settings[name] = (kind, dict(column.items()))
    return settings


def _measured(table: pd.DataFrame) -> list[str]:
    return list(table.select_dtypes("float64"))


def _markdown(table: pd.DataFrame) -> str:
    cells = table.astype("string").fillna("").replace(r"[|\n]", " ", regex=True)
    rows = [list(table), ["---"] * len(cells.columns), *cells.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _scalars(group: str, numbers: Mapping[str, float], step: int, seconds: float) -> Iterator[Any]:
    """An event for each number that is known; single precision, as all who read such files expect."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    for name, number in numbers.items():
        if math.isfinite(number):
            value = Summary.Value(tag=f"{group}/{name}", simple_value=number)
            yield Event(wall_time=seconds, step=step, summary=Summary(value=[value]))


def _tagged(tag: str, plugin: str, content: Any, text: str | None = None) -> Any:
    """An event with what a plugin of TensorBoard reads under a tag, and the same bytes each time."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.util.tensor_util import make_tensor_proto

    data = content.SerializeToString(deterministic=True)
    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=data))
    tensor = make_tensor_proto(np.zeros(0, np.float32) if text is None else [text.encode()])
    return Event(summary=Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)]))


def _encoded(events: Iterable[Any]) -> bytes:
    """The content of an event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in (Event(file_version="brain.Event:2"), *events):
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()
