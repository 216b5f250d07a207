"""Records and metrics as pandas tables and CSV files. The only module that names columns.

The CSV files are derived: written from records, never the truth about a trial. A report reads them, so that
published results can be rendered again without their predictions.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ablate import metrics
from ablate.errors import RecordError
from ablate.fields import Fields
from ablate.metrics import METRICS, compute_metrics, ece_from_sums, reliability_bins
from ablate.records import (
    Predictions,
    Record,
    read_predictions,
    read_record,
)
from ablate.results import ResultsFolder, write_atomically
from ablate.trials import Plan, Trial

Kind = Literal["text", "integer", "number", "boolean"]
MISSING = "missing"
"""Status, in tables only, of a planned trial that has no record."""
UNREADABLE = "unreadable"
"""Status, in tables only, of a planned trial whose record or predictions are damaged."""


@dataclass(frozen=True)
class Column:
    """One column of a table: its name, kind, unit, better direction ('higher', 'lower' or '') and meaning."""

    name: str
    kind: Kind
    description: str
    unit: str = ""
    better: str = ""


def _metric_columns() -> tuple[Column, ...]:
    direction = {True: "higher", False: "lower", None: ""}
    return tuple(
        Column(m.name, "number", m.definition, m.unit, direction[m.higher_is_better])
        for m in METRICS.values()
    )


def _field_columns() -> tuple[Column, ...]:
    kinds: dict[Any, Kind] = {int: "integer", float: "number", bool: "boolean"}
    return tuple(
        Column(name, kinds.get(field.annotation, "text"), field.description or "")
        for name, field in Fields.model_fields.items()
    )


TRIAL_KEY = (
    Column("trial_id", "text", "identity of the trial: a hash of everything that decides its numbers"),
    Column("arm", "text", "the factor levels in words"),
    Column("seed", "integer", "seed of the training run; arms of one seed are paired"),
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "trials": (
        *TRIAL_KEY,
        Column("study", "text", "name of the study"),
        Column("profile", "text", "profile of the study"),
        Column("repeat", "integer", "0, or the number of a deliberate second run"),
        Column(
            "status", "text", "complete, diverged, oom, killed, timeout, error, missing (not run), unreadable"
        ),
        *_field_columns(),
        *_metric_columns(),
        Column(
            "step_ms",
            "number",
            "median training step; other trials may have shared the machine",
            "ms",
            "lower",
        ),
        Column("step_ms_p20", "number", "20th percentile of the training steps", "ms", "lower"),
        Column("step_ms_p80", "number", "80th percentile of the training steps", "ms", "lower"),
        Column("images_per_second", "number", "training images per second of training", "1/s", "higher"),
        Column(
            "peak_memory_mb",
            "number",
            "most memory held on CUDA; on a CPU, by its worker so far",
            "MB",
            "lower",
        ),
        Column("train_seconds", "number", "training time, evaluation excluded", "s", "lower"),
        Column("eval_seconds", "number", "evaluation time", "s", "lower"),
        Column("parameters", "integer", "trainable parameters of the network"),
        Column("macs", "integer", "multiply-adds of one image's forward pass"),
        Column("device", "text", "device kind that the trial ran on: cpu or cuda"),
        Column("device_name", "text", "processor or GPU model"),
        Column("resolved_precision", "text", "arithmetic that `precision` came to"),
        Column("threads", "integer", "CPU threads of the trial"),
        Column("torch_version", "text", "version of torch"),
        Column("commit", "text", "commit of ablate's source"),
        Column("failure", "text", "why there is no result"),
        Column(
            "predictions_sha256", "text", "digest of the predictions; equal ones are the same to the last bit"
        ),
    ),
    "epochs": (
        *TRIAL_KEY,
        Column("epoch", "integer", "0 is the first"),
        Column("train_loss", "number", "mean training loss as trained (smoothed)", "nats", "lower"),
        Column("train_accuracy", "number", "accuracy on training batches as they were seen", "", "higher"),
        Column("valid_loss", "number", "reported split, with the training loss (smoothed)", "nats", "lower"),
        Column("valid_accuracy", "number", "accuracy on the reported split", "", "higher"),
        Column("valid_nll", "number", "unsmoothed negative log-likelihood, reported split", "nats", "lower"),
        Column("valid_ece", "number", "expected calibration error, 15 bins, reported split", "", "lower"),
        Column("lr", "number", "learning rate at the end of the epoch"),
        Column("seconds", "number", "training part of the epoch", "s", "lower"),
    ),
    "reliability": (
        *TRIAL_KEY,
        Column("bin", "integer", "0 is the lowest confidence"),
        Column("lower", "number", "lower edge of the bin's confidence"),
        Column("upper", "number", "upper edge of the bin's confidence"),
        Column("count", "integer", "images in the bin"),
        Column("confidence", "number", "mean confidence of the bin's images; empty without images"),
        Column("accuracy", "number", "accuracy of the bin's images; empty without images"),
    ),
    "effects": (
        Column("arm", "text", "the arm that is compared"),
        Column("metric", "text", "a column of the trials table"),
        Column("baseline", "text", "the arm it is compared with"),
        Column("n_pairs", "integer", "seeds for which both arms are complete"),
        Column("effect", "number", "mean over seeds of arm minus baseline"),
        Column(
            "low", "number", "lower end of the 95 % interval: of all the family's together, or of this alone"
        ),
        Column("high", "number", "upper end of the same"),
        Column("p", "number", "paired t test, uncorrected"),
        Column("p_holm", "number", "the same, Holm-corrected over the family; empty outside it"),
        Column("rho", "number", "correlation between the two arms over seeds"),
        Column("margin", "number", "largest difference that the study says does not matter"),
    ),
    "contrasts": (
        Column("kind", "text", "main effect, or interaction of two factors"),
        Column("factor", "text", "the factor whose levels differ"),
        Column("level", "text", "the level that is compared"),
        Column("reference", "text", "the level that it is compared with: the baseline, or the first"),
        Column(
            "other_factor",
            "text",
            "for an interaction, the factor between whose levels the effect is compared",
        ),
        Column("other_level", "text", "its level"),
        Column("other_reference", "text", "its level that is compared with"),
        Column("metric", "text", "a column of the trials table"),
        Column("cells", "integer", "combinations of the other factors' levels that it is averaged over"),
        Column("cells_planned", "integer", "how many the study has"),
        Column("n_pairs", "integer", "seeds for which all of these arms are complete"),
        Column("effect", "number", "mean over seeds of the difference, or of the difference of differences"),
        Column(
            "low", "number", "lower end of the 95 % interval: of all the family's together, or of this alone"
        ),
        Column("high", "number", "upper end of the same"),
        Column("p", "number", "paired t test, uncorrected"),
        Column("p_holm", "number", "the same, Holm-corrected over the family; empty outside it"),
    ),
}
DERIVED = ("effects", "contrasts")
"""Tables that the report computes from the others."""

Tables = dict[str, pd.DataFrame]


def build_tables(folder: ResultsFolder, plan: Plan) -> Tables:
    """The trials, epochs and reliability tables of a plan, from its records and predictions.

    Every planned trial has a row in `trials`; a failed, missing or damaged one has no metrics.
    """
    rows: dict[str, list[dict[str, Any]]] = {"trials": [], "epochs": [], "reliability": []}
    for trial in plan.trials:
        stored = _stored(folder, trial)
        rows["trials"].append(_trial_row(plan, trial, stored))
        if stored.record is not None:
            rows["epochs"] += _epoch_rows(trial, stored.record)
        if stored.predictions is not None:
            rows["reliability"] += _reliability_rows(trial, stored.predictions)
    return {name: frame(name, found) for name, found in rows.items()}


@dataclass(frozen=True)
class _Stored:
    """What a results folder holds of one trial, and why it cannot be used, if so."""

    record: Record | None = None
    predictions: Predictions | None = None
    fault: str | None = None

    @property
    def status(self) -> str:
        if self.fault is not None:
            return UNREADABLE
        return self.record.status if self.record else MISSING


def _stored(folder: ResultsFolder, trial: Trial) -> _Stored:
    path = folder.record_path(trial.trial_id)
    if not path.exists():
        return _Stored()
    try:
        record = read_record(path)
        return _Stored(record, read_predictions(folder, record) if record.status == "complete" else None)
    except RecordError as error:
        return _Stored(fault=str(error).replace(f"{folder.root}{os.sep}", ""))


def _trial_row(plan: Plan, trial: Trial, stored: _Stored) -> dict[str, Any]:
    row: dict[str, Any] = {
        **_key(trial),
        "study": plan.study.name,
        "profile": plan.profile,
        "repeat": trial.repeat,
        "status": stored.status,
        "failure": stored.fault,
        **trial.fields.model_dump(),
        "device": trial.numerics.device,
        "resolved_precision": trial.numerics.precision,
    }
    if stored.predictions is not None:
        row |= compute_metrics(stored.predictions.logits, stored.predictions.labels)
    if stored.record is not None:
        row |= _recorded(stored.record)
    return row


def _recorded(record: Record) -> dict[str, Any]:
    cost = record.cost.model_dump() if record.cost else {}
    environment = record.environment.model_dump() if record.environment else {}
    kept = {name: environment.get(name) for name in ("device_name", "threads", "torch_version", "commit")}
    failure = record.failure.message if record.failure else None
    return {
        **cost,
        **kept,
        "parameters": record.parameters,
        "macs": record.macs,
        "failure": failure,
        "predictions_sha256": record.predictions_sha256,
    }


def _key(trial: Trial) -> dict[str, Any]:
    return {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed}


def _epoch_rows(trial: Trial, record: Record) -> Iterable[dict[str, Any]]:
    for epoch in record.history:
        sums = (np.array(epoch.bin_count), np.array(epoch.bin_confidence), np.array(epoch.bin_correct))
        yield {**_key(trial), **epoch.model_dump(), "valid_ece": ece_from_sums(*sums)}


def _reliability_rows(trial: Trial, predictions: Predictions) -> Iterable[dict[str, Any]]:
    measured = metrics.Predictions.of(predictions.logits, predictions.labels)
    bins = reliability_bins(measured.confidence, measured.correct)
    for place in range(len(bins.count)):
        yield {
            **_key(trial),
            "bin": place,
            "lower": bins.lower[place],
            "upper": bins.upper[place],
            "count": bins.count[place],
            "confidence": bins.confidence[place],
            "accuracy": bins.accuracy[place],
        }


def frame(table: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame with exactly the table's columns, in order and with their types."""
    columns = COLUMNS[table]
    data = pd.DataFrame(list(rows), columns=[column.name for column in columns])
    return data.astype({column.name: _dtype(column.kind) for column in columns})


def _dtype(kind: Kind) -> str:
    return {"text": "string", "integer": "Int64", "number": "float64", "boolean": "boolean"}[kind]


def write_tables(folder: ResultsFolder, tables: Tables) -> None:
    """Write each table to <name>.csv. Numbers are unrounded; text that a spreadsheet would run is quoted."""
    for name, data in tables.items():
        safe = data.copy()
        for column in COLUMNS[name]:
            if column.kind == "text":
                safe[column.name] = safe[column.name].map(_inert, na_action="ignore")
        write_atomically(folder.root / f"{name}.csv", safe.to_csv(index=False).encode())


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")


def _inert(text: str) -> str:
    """A leading apostrophe keeps a spreadsheet from reading a cell as a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def read_tables(folder: ResultsFolder, *, names: Iterable[str] = tuple(COLUMNS)) -> Tables:
    """Read the CSV files of a results folder as `write_tables` left them.

    Args:
        folder: where they are.
        names: the tables to read, all of `COLUMNS` unless given.

    Raises:
        RecordError: a table is missing, cut, or has other columns than this version writes.
    """
    return {name: _read_table(folder.root / f"{name}.csv", name) for name in names}


def _read_table(path: Path, table: str) -> pd.DataFrame:
    if not path.is_file():
        raise RecordError(f"{path}: the table is missing; write it again with `python -m ablate report`")
    content = path.read_text(encoding="utf-8")
    columns = COLUMNS[table]
    if not content.endswith("\n"):
        raise RecordError(f"{path}: the table is cut off; write it again with `python -m ablate report`")
    data = pd.read_csv(io.StringIO(content), dtype="string", keep_default_na=False, na_values=[""])
    if not set(data.columns) <= {column.name for column in columns}:
        raise RecordError(f"{path}: the table has other columns than this version of ablate reads")
    # An earlier version wrote fewer columns, but the same ones of these.
    data = data.reindex(columns=[column.name for column in columns]).astype("string")
    for column in columns:
        data[column.name] = _parse(data[column.name], column.kind)
    return data


def _parse(cells: pd.Series[str], kind: Kind) -> pd.Series[Any]:
    if kind == "text":
        return cells.map(lambda text: text.removeprefix("'"), na_action="ignore").astype("string")
    if kind == "boolean":
        return cells.map({"True": True, "False": False}).astype("boolean")
    if kind == "integer":
        return pd.to_numeric(cells).astype("Int64")
    # Python's float, because pandas' own parser can be off by the last bit.
    return cells.fillna("nan").map(float).astype("float64")


def data_dictionary() -> str:
    """results/README.md: every table and column with unit, direction and meaning, from the code."""
    lines = [
        "# Tables",
        "",
        "What the CSV files beside the records hold, and what `ablate.load_tables` returns.",
        "Numbers are unrounded; accuracies, confidences and calibration errors are fractions of 1.",
        "This page is generated from the code.",
    ]
    for table, columns in COLUMNS.items():
        lines += [
            "",
            f"## {table}",
            "",
            "| column | kind | unit | better | meaning |",
            "|---|---|---|---|---|",
        ]
        lines += [f"| `{c.name}` | {c.kind} | {c.unit} | {c.better} | {c.description} |" for c in columns]
    return "\n".join(lines) + "\n"
