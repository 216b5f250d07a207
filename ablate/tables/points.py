"""The points of a search as a table: what each scored on the tuning split, smoothed, and which are best.

A point's value is the mean over its seeds, computed from the predictions. The best of many noisy means is too
good, so the choice rests on values smoothed over neighbouring points: what a lucky seed gave one point alone
counts little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.errors import RecordError
from ablate.metrics import METRICS, Predictions
from ablate.stats import chosen_of_two, is_on_front, mean_interval
from ablate.stats.surrogate import SAME
from ablate.store.points import Point, Tuning, read_tuning, tuning_folder
from ablate.store.records import read_predictions, read_record
from ablate.store.results import ResultsFolder
from ablate.study.trials import arm_name
from ablate.tables.columns import MISSING, UNREADABLE
from ablate.tables.files import frame
from ablate.tables.smoothing import place_of, smoothed_values

FloatArray = NDArray[np.float64]
SUFFIXES = ("", "_2")
"""Of the first and the second objective's columns."""


@dataclass(frozen=True)
class PointRun:
    """What is stored of one training run of a point.

    Attributes:
        seed: its seed.
        trial_id: its trial.
        status: of its record, or `MISSING` or `UNREADABLE`.
        values: per objective; () unless the run is complete and all of them are defined.
        seconds: training and evaluation.
        fields: of the trial, resolved; {} without a readable record.
    """

    seed: int
    trial_id: str
    status: str
    values: tuple[float, ...] = ()
    seconds: float = 0.0
    fields: dict[str, Any] = field(default_factory=dict)


def objective_values(
    folder: ResultsFolder, point: Point, objective: Sequence[str]
) -> dict[int, tuple[float, ...]]:
    """What a point's complete trials scored on the tuning split, in the tables' units.

    Args:
        folder: a study's results; the trials of its search lie in a folder of their own below it.
        point: the point.
        objective: names of metrics.

    Returns:
        Seed to one finite value per objective. A seed whose trial is not there, not complete or damaged is
        left out, and so is one for which a metric is not defined.
    """
    return {run.seed: run.values for run in point_runs(folder, point, objective) if run.values}


def point_runs(folder: ResultsFolder, point: Point, objective: Sequence[str]) -> list[PointRun]:
    """What is stored of each of a point's training runs, in the order of its seeds."""
    below = tuning_folder(folder)
    return [
        _run(below, trial_id, seed, objective)
        for seed, trial_id in zip(point.seeds, point.trial_ids, strict=False)  # no trials yet: none begun
    ]


def _run(folder: ResultsFolder, trial_id: str, seed: int, objective: Sequence[str]) -> PointRun:
    path = folder.record_path(trial_id)
    if not path.exists():
        return PointRun(seed, trial_id, MISSING)
    try:
        record = read_record(path)
        stored = read_predictions(folder, record) if record.status == "complete" else None
    except RecordError:
        return PointRun(seed, trial_id, UNREADABLE)
    values: tuple[float, ...] = ()
    if stored is not None:
        measured = Predictions.of(stored.logits, stored.labels)
        values = tuple(float(METRICS[name].score(measured)) for name in objective)
    seconds = math.fsum(epoch.seconds for epoch in record.history)
    if record.cost is not None:
        seconds = record.cost.train_seconds + record.cost.eval_seconds
    known = values if all(map(math.isfinite, values)) else ()
    return PointRun(seed, trial_id, record.status, known, seconds, record.trial.fields.model_dump())


def points_table(folder: ResultsFolder) -> pd.DataFrame:
    """The `points` table of a study's search; empty where nothing was tuned.

    Raises:
        RecordError: the stored search is damaged.
    """
    tuning = read_tuning(folder)
    if tuning is None:
        return frame("points", [])
    return points_frame(
        tuning, [point_runs(folder, point, tuning.search.objective) for point in tuning.points]
    )


def points_frame(tuning: Tuning, runs: Sequence[Sequence[PointRun]]) -> pd.DataFrame:
    """The `points` table from each point's runs."""
    search = tuning.search
    rows = [_row(tuning, point, own) for point, own in zip(tuning.points, runs, strict=True)]
    for name, suffix in zip(search.objective, SUFFIXES, strict=False):
        for row in rows:
            row[f"objective{suffix}"] = name
    # A point counts that is complete, with a value for every seed.
    counted = [
        number
        for number, own in enumerate(runs)
        if tuning.points[number].state == "complete" and own and all(run.values for run in own)
    ]
    places = np.array([place_of(search, tuning.points[number].levels) for number in counted])
    for place, suffix in enumerate(SUFFIXES[: len(search.objective)]):
        samples = [np.array([run.values[place] for run in runs[number]]) for number in counted]
        means, sds = smoothed_values(places, samples)
        for number, sample, mean, sd in zip(counted, samples, means, sds, strict=True):
            raw = mean_interval(sample)
            columns = {"value": raw.mean, "sd": raw.sd, "low": raw.low, "high": raw.high}
            columns |= {"smoothed": mean, "smoothed_sd": sd}
            rows[number] |= {f"{column}{suffix}": value for column, value in columns.items()}
    points = frame("points", rows)
    if len(search.objective) < 2:
        return points
    known, gains, _ = _gains(points)
    on_front = pd.Series(pd.NA, index=points.index, dtype="boolean")
    on_front[known] = is_on_front(gains) if len(gains) else []
    return points.assign(on_front=on_front)


def _row(tuning: Tuning, point: Point, runs: Sequence[PointRun]) -> dict[str, Any]:
    last_seen = math.nan
    if point.state == "pruned":  # what it had reached
        seen = [run.values[0] for run in runs if run.values]
        if seen:
            last_seen = float(np.mean(seen))
        elif point.intermediate:
            last_seen = point.intermediate[max(point.intermediate)]
    return {
        "number": point.number,
        "source": point.source,
        "state": point.state,
        "reason": point.reason or None,
        "pruned_at": point.pruned_at,
        "levels": arm_name(point.levels),
        **point.levels,
        **next((run.fields for run in runs if run.fields), {}),
        "seeds_planned": len(point.seeds),
        "seeds_done": sum(bool(run.values) for run in runs),
        "last_seen": last_seen,
        "winner": point.number in tuning.winners,
        "seconds": math.fsum(run.seconds for run in runs),
    }


def _gains(points: pd.DataFrame) -> tuple[pd.Index[Any], FloatArray, FloatArray]:
    """The rows that count, their smoothed values [n, objectives], turned so that more is better, and sds."""
    names = [suffix for suffix in SUFFIXES if points[f"objective{suffix}"].notna().any()]
    values = points[[f"smoothed{suffix}" for suffix in names]].to_numpy(dtype=np.float64)
    sds = points[[f"smoothed_sd{suffix}" for suffix in names]].to_numpy(dtype=np.float64)
    known = np.isfinite(values).all(axis=1) if names else np.zeros(len(points), dtype=bool)
    signs = [1.0 if METRICS[points[f"objective{s}"].iloc[0]].higher_is_better else -1.0 for s in names]
    return points.index[known], values[known] * np.array(signs), np.nan_to_num(sds[known])


def winners_of(points: pd.DataFrame) -> tuple[int, ...]:
    """The points to be run again with fresh seeds.

    With one objective the complete point with the best smoothed value, of equal ones the lowest number. With
    two, up to two of those that no other point beats in both smoothed values, by the rule of
    `ablate.stats.chosen_of_two`: an objective in which the noise tells no two points apart has no say, so
    that one point wins; nor is a point taken for a gain in one objective within the noise if it costs more
    than the noise in the other.

    Args:
        points: the `points` table.

    Returns:
        Their numbers, ascending; () without a complete point.
    """
    known, gains, sds = _gains(points.sort_values("number"))
    numbers = points.loc[known, "number"].to_numpy(dtype=np.int64)
    if not len(numbers):
        return ()
    if gains.shape[1] == 1:
        best = gains[:, 0].max()
        return (int(numbers[gains[:, 0] >= best - SAME * abs(best)].min()),)
    return tuple(int(numbers[place]) for place in chosen_of_two(gains, sds))
