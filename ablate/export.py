"""A study's records in the forms that other tools open: TensorBoard's event files, CSV, Parquet."""

import importlib
import io
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ablate.analysis.arms import as_recorded, of_plan
from ablate.errors import ResultsError
from ablate.report.content import derived_tables
from ablate.store.records import Record, read_available
from ablate.store.results import ResultsFolder
from ablate.study.trials import Plan
from ablate.tables.build import recorded_tables
from ablate.tables.columns import COLUMNS, FIRST, open_plan
from ablate.tables.files import Tables, write_tables
from ablate.tables.images import fields_of

NEEDS = {"tensorboard": "tensorboard", "parquet": "pyarrow"}
Tagged = tuple[str, int, float, dict[str, Any]]  # tag, step, seconds, and protobuf's fields of a value
TEXT = ("DATA_TYPE_STRING", "string_value")
FORMS: dict[tuple[str, str], set[type]] = {
    ("DATA_TYPE_BOOL", "bool_value"): {bool}, ("DATA_TYPE_FLOAT64", "number_value"): {int, float},
}  # fmt: skip
EVENTS = "events.out.tfevents.0.ablate"
FILES = {EVENTS, "tables.json", *(f"{table}.{end}" for table in COLUMNS for end in ("csv", "parquet"))}
"""What files of an export are called."""
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
    target = (out or Path("export", *folder.names, to)).resolve()
    held = target.rglob("*") if target.is_dir() else [target]
    if other := next((path for path in held if path.is_file() and path.name not in FILES), None):
        raise ResultsError(f"{other}: is there, which no export wrote; give another folder as --out")
    plan = open_plan(folder)
    tables = of_plan(recorded_tables(folder, plan), plan)
    plan = as_recorded(plan, tables["trials"])
    tables |= derived_tables(tables, plan)
    tables = {name: of.replace("", pd.NA) for name, of in tables.items() if name in FIRST or len(of)}
    planned = {trial.trial_id for trial in plan.trials}
    records = {name: one for name, one in read_available(folder)[0].items() if name in planned}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}") as scratch:
        made = Path(scratch, target.name)
        made.mkdir()
        for name, table in tables.items() if to == "parquet" else ():
            table.to_parquet(made / f"{name}.parquet", index=False)
        if to != "parquet":
            csvs = ResultsFolder(made)
            write_tables(csvs, tables if to == "csv" else {"effects": tables["effects"]})
            if csvs.unwritten:
                raise ResultsError(f"{target}: {', '.join(csvs.unwritten)} cannot be written")
        for name, content in _event_files(plan, tables, records) if to == "tensorboard" else ():
            (made / name).mkdir(exist_ok=True)
            (made / name / EVENTS).write_bytes(content)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    return target, len(records)


def _event_files(plan: Plan, tables: Tables, records: dict[str, Record]) -> Iterator[tuple[str, bytes]]:
    """TensorBoard's run names and event files: "." with the verdicts as text, and a run per recorded trial.

    A step is an epoch. Records hold how long training took, and no moment, so that times count from 0. The
    keys of the HParams page follow from the plan, not from what is done, so that every run has the same.
    """
    from google.protobuf.struct_pb2 import Value
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    effects, epochs, trials = tables["effects"], tables["epochs"], tables["trials"].set_index("trial_id")
    claims = effects.loc[effects["verdict"] != "exploratory", SAID].astype("string").fillna("")
    cells = [SAID, ["---"] * len(SAID), *claims.replace(r"[|\n]", " ", regex=True).to_numpy().tolist()]
    said = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    tensor: Any = {"dtype": "DT_STRING", "string_val": [said.encode()]}
    text = {"metadata": {"plugin_data": {"plugin_name": "text"}}, "tensor": tensor}
    yield ".", _encoded([("verdicts", 0, 0.0, text)])
    settings, study = _settings(plan), plan.study
    shown = dict.fromkeys((study.primary, *study.comparison_family, *study.usual("accuracy", "nll", "ece")))
    experiment = {
        "name": study.name,
        "description": study.question,
        "hparam_infos": [
            {"name": name, "type": kind, "differs": len({*values.values()}) > 1}
            for name, (kind, _, values) in settings.items()
        ],
        "metric_infos": [{"name": {"tag": f"result/{name}"}, "display_name": name} for name in shown],
    }
    per_epoch = list(epochs.select_dtypes("float64"))
    per_trial = trials[[name for name in trials.select_dtypes("float64") if name not in settings]]
    for trial_id, record in records.items():
        own = epochs[epochs["trial_id"] == trial_id]
        times = own["seconds"].cumsum().tolist()
        in_all = max(times, default=0.0)
        hparams = {name: Value(**{form: values[trial_id]}) for name, (_, form, values) in settings.items()}
        status = "STATUS_SUCCESS" if record.status == "complete" else "STATUS_FAILURE"
        parts: dict[str, Any] = {
            "experiment": experiment,
            "session_start_info": {"hparams": hparams},
            "session_end_info": {"status": status, "end_time_secs": in_all},
        }
        events: list[Tagged] = []
        for part, about in parts.items():
            content = HParamsPluginData(**{part: about}).SerializeToString(deterministic=True)
            plugin = {"plugin_data": {"plugin_name": "hparams", "content": content}}
            events.append((f"_hparams_/{part}", 0, 0.0, {"metadata": plugin, "tensor": NULL_TENSOR}))
        numbers: Any = own[per_epoch].to_dict("records")
        rows = [("epoch", *row) for row in zip(own["epoch"], times, numbers, strict=True)]
        rows += [("log", int(logged["epoch"]), 0.0, logged) for logged in record.log]
        last = max([0, *(step for _, step, _, _ in rows)])
        rows.append(("result", last, in_all, per_trial.loc[trial_id].to_dict()))
        for group, step, seconds, known in rows:
            known = {f"{group}/{name}": number for name, number in known.items() if math.isfinite(number)}
            # In single precision, as all who read such files expect.
            events += [(tag, step, seconds, {"simple_value": number}) for tag, number in known.items()]
        arm = re.sub(r"[^\w.=+-]+", "_", record.trial.arm)[:100]
        yield f"{arm}_seed={record.trial.seed}_{trial_id[:8]}", _encoded(events)


def _settings(plan: Plan) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """What the plan sets of trials: how TensorBoard and protobuf call its kind, and each trial's value."""
    rows = {one.trial_id: {"arm": one.arm, "seed": one.seed, **fields_of(one)} for one in plan.trials}
    settings = {}
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        values = {trial_id: row.get(name) for trial_id, row in rows.items()}
        kinds = {type(value) for value in values.values()}
        form = next((form for form, own in FORMS.items() if kinds <= own), TEXT)
        if form is TEXT:
            values = {trial_id: "" if one is None else str(one) for trial_id, one in values.items()}
        settings[name] = (*form, values)
    return settings


def _encoded(events: Iterable[Tagged]) -> bytes:
    """The content of an event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(Event(file_version="brain.Event:2").SerializeToString())
    for tag, step, seconds, value in events:
        event = Event(step=step, wall_time=seconds, summary={"value": [{"tag": tag, **value}]})
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()
