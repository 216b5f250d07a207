"""Tables from records and predictions, trial by trial."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import joblib
import numpy as np

from ablate import metrics
from ablate.errors import RecordError
from ablate.metrics import ece_from_sums, reliability_bins
from ablate.store.records import Features, Predictions, Record, read_predictions, read_record
from ablate.store.results import ResultsFolder
from ablate.study.trials import Plan, Trial
from ablate.tables.columns import MISSING, UNREADABLE
from ablate.tables.files import Tables, frame
from ablate.tables.images import Confusion, ImageLosses, projection_rows
from ablate.tables.step_times import step_time_rows
from ablate.tables.tuning import tuning_tables

Result = TypeVar("Result")

CALLS_PER_PROCESS = 24
"""So many at least, or measuring them apart saves less than starting the process costs."""


def build_tables(folder: ResultsFolder, plan: Plan) -> Tables:
    """Every table that records, predictions and the timing pass give; those of `DERIVED` are the report's.

    Every planned trial has a row in `trials`; a failed, missing or damaged one has no metrics.
    """
    rows: dict[str, list[dict[str, Any]]] = {"trials": [], "epochs": [], "reliability": []}
    images, confusion, projected = ImageLosses(plan), Confusion(plan), set[str]()
    projection: list[dict[str, Any]] = []
    first: dict[str, tuple[Trial, Predictions]] = {}
    found = _in_processes(_stored, [(folder, trial) for trial in plan.trials])
    for trial, stored in zip(plan.trials, found, strict=True):
        rows["trials"].append(_trial_row(plan, trial, stored))
        if stored.record is not None:
            rows["epochs"] += _epoch_rows(trial, stored.record)
        if stored.predictions is not None and stored.record is not None:
            measured = metrics.Predictions.of(stored.predictions.logits, stored.predictions.labels)
            rows["reliability"] += _reliability_rows(trial, measured)
            images.add(trial, measured)
            confusion.add(trial, measured, stored.record.class_names)
            if not trial.repeat:
                first.setdefault(trial.arm, (trial, stored.predictions))
            if trial.arm not in projected:
                projected.add(trial.arm)
                projection += projection_rows(_key(trial), stored.record, stored.predictions)
    rows |= {"new_images": images.rows(), "confusion": confusion.rows(), "projection": projection}
    floors = _in_processes(_floor_rows, [first[arm] for arm in plan.arms if arm in first])
    rows |= {"floors": [row for own in floors for row in own]}
    rows |= {"step_times": step_time_rows(folder)}
    return {name: frame(name, found) for name, found in rows.items()} | tuning_tables(folder)


@dataclass(frozen=True)
class _Stored:
    """What a results folder holds of one trial, and why it cannot be used, if so."""

    record: Record | None = None
    predictions: Predictions | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    fault: str | None = None

    @property
    def status(self) -> str:
        if self.fault is not None:
            return UNREADABLE
        return self.record.status if self.record else MISSING


def _in_processes(measure: Callable[..., Result], calls: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
    """What a function gives for each of its arguments, in order; many calls are spread over all cores.

    In processes: the metrics are many short calls of numpy, and threads would wait for each other.
    """
    processes = max(1, min(joblib.cpu_count(), len(calls) // CALLS_PER_PROCESS))
    parallel = joblib.Parallel(n_jobs=processes, return_as="generator")
    found: Iterator[Result] = parallel(joblib.delayed(measure)(*call) for call in calls)
    return found


def _stored(folder: ResultsFolder, trial: Trial) -> _Stored:
    path = folder.record_path(trial.trial_id)
    if not path.exists():
        return _Stored()
    try:
        record = read_record(path)
        if record.status != "complete":
            return _Stored(record)
        predictions = read_predictions(folder, record)
    except RecordError as error:
        return _Stored(fault=str(error).replace(f"{folder.root}{os.sep}", ""))
    return _Stored(record, predictions, metrics.compute_metrics(predictions.logits, predictions.labels))


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
    row |= stored.metrics
    if stored.record is not None:
        row |= _recorded(stored.record)
    return row


def _recorded(record: Record) -> dict[str, Any]:
    cost = record.cost.model_dump() if record.cost else {}
    environment = record.environment.model_dump() if record.environment else {}
    kept = {
        name: environment.get(name)
        for name in ("device_name", "threads", "engine", "torch_version", "commit")
    }
    failure = record.failure.message if record.failure else None
    return {
        **cost,
        **kept,
        "parameters": record.parameters,
        "macs": record.macs,
        "failure": failure,
        "predictions_sha256": record.predictions_sha256,
        **(_scatter(record.features) if record.features else {}),
    }


def _scatter(features: Features) -> dict[str, float]:
    return {
        f"scatter_{kind}{suffix}": value
        for suffix, scatter in (("", features.valid), ("_train", features.train))
        for kind, value in (("within", scatter.within), ("between", scatter.between))
    }


def _key(trial: Trial) -> dict[str, Any]:
    return {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed}


def _epoch_rows(trial: Trial, record: Record) -> Iterable[dict[str, Any]]:
    for epoch in record.history:
        sums = (np.array(epoch.bin_count), np.array(epoch.bin_confidence), np.array(epoch.bin_correct))
        yield {**_key(trial), **epoch.model_dump(), "valid_ece": ece_from_sums(*sums)}


def _reliability_rows(trial: Trial, measured: metrics.Predictions) -> Iterable[dict[str, Any]]:
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


def _floor_rows(trial: Trial, predictions: Predictions) -> list[dict[str, Any]]:
    measured = metrics.Predictions.of(predictions.logits, predictions.labels)
    bands = metrics.floor_bands(measured).items()
    return [{**_key(trial), "metric": name, "low": low, "high": high} for name, (low, high) in bands]
