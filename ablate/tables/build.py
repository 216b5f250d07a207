"""Tables from records and predictions, trial by trial."""

import contextlib
from collections.abc import Iterable
from typing import Any

import joblib
import numpy as np

from ablate.errors import RecordError
from ablate.store.records import UNREADABLE
from ablate.store.results import ResultsFolder
from ablate.store.timing import read_timing
from ablate.study.trials import Plan, Trial
from ablate.tables import images
from ablate.tables.columns import DECLARED, RECORDED, with_own_metrics
from ablate.tables.files import Tables, frame, read_tables
from ablate.tables.images import Rows, Run, Stored, fields_of, key_of
from ablate.tables.tuning import tuning_tables

TRIALS_PER_PROCESS = 24  # of fewer, starting a process costs more than it saves


def recorded_tables(folder: ResultsFolder, plan: Plan, names: Iterable[str] = RECORDED) -> Tables:
    """Tables from records with predictions; of a run published without those, the `names` that it keeps."""
    return build_tables(folder, plan) if folder.predictions.exists() else read_tables(folder, names=names)


def build_tables(folder: ResultsFolder, plan: Plan) -> Tables:
    """Every table that records, predictions and the timing pass give; those of `DERIVED` are the report's."""
    rows: dict[str, Rows] = {"trials": [], "epochs": [], "reliability": []}
    runs: dict[str, dict[int, Run]] = {}
    projections: dict[str, Rows] = {}
    own, names = DECLARED.get(), [trial.trial_id for trial in plan.trials]
    scores = with_own_metrics(
        own, lambda: {name: images.scores_of(images.read_stored(folder, name), own) for name in names if own}
    )
    # In processes: the metrics are many short calls of numpy, and threads would wait for each other.
    processes = max(1, min(joblib.cpu_count(), len(plan.trials) // TRIALS_PER_PROCESS))
    parallel = joblib.Parallel(n_jobs=processes, return_as="generator")
    read = parallel(joblib.delayed(images.read_trial)(folder, trial) for trial in plan.trials)
    for trial, (stored, run) in zip(plan.trials, read, strict=True):
        if stored.record and (fault := plan.disagreement(trial, stored.record.trial)):
            stored, run = Stored(UNREADABLE, fault=fault), None
            scores.pop(trial.trial_id, None)
        rows["trials"].append(_trial_row(plan, trial, stored, run) | scores.get(trial.trial_id, {}))
        for epoch in stored.record.history if stored.record else ():
            gaps = np.abs(np.subtract(epoch.bin_confidence, epoch.bin_correct))
            valid_ece = gaps.sum() / np.sum(epoch.bin_count)
            rows["epochs"].append({**key_of(trial), **epoch.model_dump(), "valid_ece": valid_ece})
        if run is not None:
            rows["reliability"] += run.reliability
            projections.setdefault(trial.arm, run.projection)
            if not trial.repeat:
                runs.setdefault(trial.arm, {})[trial.seed] = run
    made: dict[str, Iterable[dict[str, Any]]] = {
        **rows,
        "new_images": images.new_image_rows(plan, runs),
        "confusion": images.confusion_rows(plan, runs),
        "projection": [row for projection in projections.values() for row in projection],
        "floors": images.floor_rows(plan, runs),
        "step_times": step_time_rows(folder),
    }
    return {name: frame(name, table) for name, table in made.items()} | tuning_tables(folder)


def _trial_row(plan: Plan, trial: Trial, stored: Stored, run: Run | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        **key_of(trial),
        "study": plan.study.name,
        "profile": plan.profile,
        "repeat": trial.repeat,
        "status": stored.status,
        "failure": stored.fault,
        **fields_of(trial),
        "device": trial.numerics.device,
        "resolved_precision": trial.numerics.precision,
        **(run.metrics if run else {}),
    }
    if (record := stored.record) is None:
        return row
    row |= record.cost.model_dump() if record.cost else {}
    row |= record.environment.model_dump() if record.environment else {}
    row |= {name: getattr(record, name) for name in ("parameters", "macs", "predictions_sha256")}
    row["failure"] = record.failure.message if record.failure else None
    if record.features:
        for suffix, scatter in (("", record.features.valid), ("_train", record.features.train)):
            row |= {f"scatter_within{suffix}": scatter.within, f"scatter_between{suffix}": scatter.between}
    return row


def step_time_rows(folder: ResultsFolder) -> list[dict[str, Any]]:
    """One row per case and round; none without a pass, or with a damaged one, which a run measures again."""
    timing = None
    with contextlib.suppress(RecordError):
        timing = read_timing(folder)
    if timing is None:
        return []
    machine = {**timing.environment.model_dump(), "others": timing.others}
    return [
        {**case.model_dump(), "round": number, "step_ms": step_ms, "steps": steps, **machine}
        for case, times, steps in zip(timing.cases, timing.step_ms, timing.steps, strict=True)
        for number, step_ms in enumerate(times)
    ]
