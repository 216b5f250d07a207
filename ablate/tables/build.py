"""Tables from records and predictions, trial by trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import joblib
import numpy as np

from ablate.errors import RecordError
from ablate.metrics import ece_from_sums
from ablate.store.records import Record
from ablate.store.results import ResultsFolder
from ablate.store.timing import read_timing
from ablate.study.trials import Plan, Trial
from ablate.tables.files import Tables, frame
from ablate.tables.images import (
    Rows,
    Run,
    Stored,
    confusion_rows,
    floor_rows,
    key_of,
    new_image_rows,
    read_trial,
)
from ablate.tables.tuning import tuning_tables

Result = TypeVar("Result")
CALLS_PER_PROCESS = 24
"""So many at least, or measuring them apart saves less than starting the process costs."""


def build_tables(folder: ResultsFolder, plan: Plan) -> Tables:
    """Every table that records, predictions and the timing pass give; those of `DERIVED` are the report's.

    Every planned trial has a row in `trials`; a failed, missing or damaged one has no metrics.
    """
    rows: dict[str, Rows] = {"trials": [], "epochs": [], "reliability": []}
    runs: dict[str, dict[int, Run]] = {}
    projections: dict[str, Rows] = {}
    results = _in_processes(read_trial, [(folder, trial) for trial in plan.trials])
    for trial, stored in zip(plan.trials, results, strict=True):
        rows["trials"].append(_trial_row(plan, trial, stored))
        rows["epochs"] += _epoch_rows(trial, stored.record)
        if stored.run is not None:
            rows["reliability"] += _reliability_rows(trial, stored.run)
            projections.setdefault(trial.arm, stored.run.projection)
            if not trial.repeat:
                runs.setdefault(trial.arm, {})[trial.seed] = stored.run
    rows |= {
        "new_images": new_image_rows(plan, runs),
        "confusion": confusion_rows(plan, runs),
        "projection": [row for projection in projections.values() for row in projection],
        "floors": floor_rows(plan, runs),
        "step_times": step_time_rows(folder),
    }
    return {name: frame(name, table) for name, table in rows.items()} | tuning_tables(folder)


def _in_processes(function: Callable[..., Result], calls: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
    """What a function gives for each of its arguments, in order; many calls are spread over all cores.

    In processes: the metrics are many short calls of numpy, and threads would wait for each other.
    """
    processes = max(1, min(joblib.cpu_count(), len(calls) // CALLS_PER_PROCESS))
    parallel = joblib.Parallel(n_jobs=processes, return_as="generator")
    results: Iterator[Result] = parallel(joblib.delayed(function)(*call) for call in calls)
    return results


def _trial_row(plan: Plan, trial: Trial, stored: Stored) -> dict[str, Any]:
    row: dict[str, Any] = {
        **key_of(trial),
        "study": plan.study.name,
        "profile": plan.profile,
        "repeat": trial.repeat,
        "status": stored.status,
        "failure": stored.fault,
        **trial.fields.model_dump(),
        "device": trial.numerics.device,
        "resolved_precision": trial.numerics.precision,
        **(stored.run.metrics if stored.run else {}),
    }
    record = stored.record
    if record is None:
        return row
    row |= record.cost.model_dump() if record.cost else {}
    environment = record.environment.model_dump() if record.environment else {}
    of_machine = ("device_name", "threads", "engine", "torch_version", "commit")
    row |= {name: environment.get(name) for name in of_machine}
    row |= {name: getattr(record, name) for name in ("parameters", "macs", "predictions_sha256")}
    row["failure"] = record.failure.message if record.failure else None
    if record.features:
        for suffix, scatter in (("", record.features.valid), ("_train", record.features.train)):
            row |= {f"scatter_within{suffix}": scatter.within, f"scatter_between{suffix}": scatter.between}
    return row


def _epoch_rows(trial: Trial, record: Record | None) -> Iterable[dict[str, Any]]:
    for epoch in record.history if record else ():
        sums = (np.array(epoch.bin_count), np.array(epoch.bin_confidence), np.array(epoch.bin_correct))
        yield {**key_of(trial), **epoch.model_dump(), "valid_ece": ece_from_sums(*sums)}


def _reliability_rows(trial: Trial, run: Run) -> Iterable[dict[str, Any]]:
    bins = vars(run.bins)
    for number, values in enumerate(zip(*bins.values(), strict=True)):
        yield {**key_of(trial), "bin": number, **dict(zip(bins, values, strict=True))}


def step_time_rows(folder: ResultsFolder) -> list[dict[str, Any]]:
    """One row per case and round; none without a pass, or with a damaged one, which a run measures again."""
    try:
        timing = read_timing(folder)
    except RecordError:
        timing = None
    if timing is None:
        return []
    machine = {"threads": timing.environment.threads, "device_name": timing.environment.device_name}
    return [
        {
            **case.model_dump(),
            "round": number,
            "step_ms": step_ms,
            "steps": steps,
            "others": timing.others,
            **machine,
        }
        for case, times, steps in zip(timing.cases, timing.step_ms, timing.steps, strict=True)
        for number, step_ms in enumerate(times)
    ]
