"""A search as tables: its facts in a row, its points, their single runs, and what its fields matter."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ablate.stats.intervals import FloatArray, mean_interval
from ablate.stats.surrogate import SAME, chosen_of_two, is_on_front, smoothed
from ablate.store.points import Point, Tuning, read_tuning, tuning_folder
from ablate.store.records import MISSING, UNREADABLE
from ablate.store.results import ResultsFolder
from ablate.study.fields import Levels, layered
from ablate.study.search import Choice, Search
from ablate.study.trials import arm_name
from ablate.tables.columns import with_own_metrics
from ablate.tables.files import Tables, frame
from ablate.tables.images import Stored, fields_of, read_stored, scores_of
from ablate.tables.quantities import quantity

Values = tuple[float, ...]  # of a complete point, or of one of its runs, per objective
SUFFIXES = ("", "_2")  # of the first and the second objective's columns


class PointRun(NamedTuple):
    """A training run of a point: `values` are () unless complete and all defined, `fields` {} unless read."""

    seed: int
    trial_id: str
    status: str
    values: Values
    seconds: float
    fields: dict[str, Any]


def tuning_tables(folder: ResultsFolder) -> Tables:
    """The tables of `TUNING`; none where nothing was tuned or the search's predictions are left out."""
    tuning = read_tuning(folder)
    if tuning is None or not tuning_folder(folder).predictions.exists():
        return {}
    runs = _runs(folder, tuning)
    values = [
        {"number": point.number, **run._asdict(), **dict(zip(("value", "value_2"), run.values, strict=False))}
        for point, of_point in zip(tuning.points, runs, strict=True)
        for run in of_point
    ]
    importances = [
        {**of.model_dump(), "field": name, "share": share}
        for of in tuning.importances
        for name, share in of.shares.items()
    ]
    return {
        "tuning": frame("tuning", [_facts(tuning, runs)]),
        "points": _points(tuning, runs),
        "point_values": frame("point_values", values),
        "importances": frame("importances", importances),
    }


def points_table(folder: ResultsFolder) -> pd.DataFrame:
    """The `points` table of a study's search; empty where nothing was tuned."""
    tuning = read_tuning(folder)
    return frame("points", []) if tuning is None else _points(tuning, _runs(folder, tuning))


def objective_values(folder: ResultsFolder, point: Point, objective: Sequence[str]) -> dict[int, Values]:
    """Seed to what a point's complete trial scored, per objective; a seed with one undefined is left out."""
    runs = with_own_metrics(objective, lambda: _point_runs(folder, point, objective))
    return {run.seed: run.values for run in runs if run.values}


def _runs(folder: ResultsFolder, tuning: Tuning) -> list[list[PointRun]]:
    asked = tuning.search.objective
    return with_own_metrics(asked, lambda: [_point_runs(folder, point, asked) for point in tuning.points])


def _point_runs(folder: ResultsFolder, point: Point, objective: Sequence[str]) -> list[PointRun]:
    """What is stored of each of a point's training runs, in the order of its seeds."""
    runs = []
    for seed, trial_id in zip(point.seeds, point.trial_ids, strict=False):  # no trials yet: none begun
        stored = read_stored(tuning_folder(folder), trial_id)
        trial = stored.record and stored.record.trial
        if trial and (trial.seed != seed or layered(trial.levels) != point.levels):
            stored = Stored(UNREADABLE, fault=f"is of another point, {trial.arm} with seed {trial.seed}")
        values, seconds, fields = Values(), 0.0, {}
        if stored.status == "complete":
            scores = tuple(scores_of(stored, objective).values())
            values = scores if all(map(math.isfinite, scores)) else ()
        if stored.record is not None:
            fields, cost = fields_of(stored.record.trial), stored.record.cost
            seconds = math.fsum(epoch.seconds for epoch in stored.record.history)
            seconds = cost.train_seconds + cost.eval_seconds if cost else stored.record.seconds or seconds
        runs.append(PointRun(seed, trial_id, stored.status, values, seconds, fields))
    return runs


def _facts(tuning: Tuning, runs: Sequence[Sequence[PointRun]]) -> dict[str, Any]:
    search, states = tuning.search, Counter(point.state for point in tuning.points)
    # Points of equal levels and seeds would share their trials.
    trained = {run.trial_id: run for of_point in runs for run in of_point if run.status != MISSING}
    facts: dict[str, Any] = {
        **dict(search),
        **dict(tuning),
        "points_planned": search.points,
        "points_done": states["complete"],
        "points_pruned": states["pruned"],
        "points_failed": states["failed"],
        "trainings": len(trained),
        "seconds": math.fsum(run.seconds for run in trained.values()),
    }
    for name, suffix in zip(search.objective, SUFFIXES, strict=False):
        facts |= {f"objective{suffix}": name, f"direction{suffix}": quantity(name).better}
    return facts


def _points(tuning: Tuning, runs: Sequence[Sequence[PointRun]]) -> pd.DataFrame:
    """The `points` table from each point's runs."""
    search = tuning.search
    rows = [_row(tuning, point, of_point) for point, of_point in zip(tuning.points, runs, strict=True)]
    # A point counts that is complete, with a value for every seed.
    counted = [
        number
        for number, of_point in enumerate(runs)
        if tuning.points[number].state == "complete" and of_point and all(run.values for run in of_point)
    ]
    places = np.array([_coordinates(search, tuning.points[number].levels) for number in counted])
    for index, suffix in enumerate(SUFFIXES[: len(search.objective)]):
        samples = [np.array([run.values[index] for run in runs[number]]) for number in counted]
        what = quantity(search.objective[index])
        smooth = smoothed(places, samples, higher_is_better=what.better == "higher")
        for number, sample, mean, sd in zip(counted, samples, *smooth, strict=True):
            raw = mean_interval(sample, bounds=what.bounds)
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
    """A point's columns but its scores."""
    seen = [run.values[0] for run in runs if run.values]
    seen = seen or [point.intermediate[epoch] for epoch in sorted(point.intermediate)[-1:]]
    return {
        **dict(point),
        "reason": point.reason or None,
        "levels": arm_name(point.levels),
        **{f"objective{s}": name for s, name in zip(SUFFIXES, tuning.search.objective, strict=False)},
        **point.levels,
        **next((run.fields for run in runs if run.fields), {}),
        "seeds_planned": len(point.seeds),
        "seeds_done": sum(bool(run.values) for run in runs),
        "last_seen": float(np.mean(seen)) if seen and point.state == "pruned" else math.nan,
        "winner": point.number in tuning.winners,
        "seconds": math.fsum(run.seconds for run in runs),
    }


def _coordinates(search: Search, levels: Levels) -> list[float]:
    """A range goes to [0, 1]; each value of a choice has an axis, and so has whether a field is used."""
    place: list[float] = []
    for name, dimension in search.space.items():
        used = name in levels
        if dimension.when:
            place.append(float(used))
        if isinstance(dimension, Choice):
            place += [float(used and levels[name] == value) for value in dimension.of]
            continue
        low, high, value = dimension.low, dimension.high, levels.get(name, dimension.low)
        if dimension.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        place.append((value - low) / (high - low))
    return place


def _gains(points: pd.DataFrame) -> tuple["pd.Index[Any]", FloatArray, FloatArray]:
    """The rows that count, their smoothed values [n, objectives], turned so that more is better, and sds."""
    suffixes = [suffix for suffix in SUFFIXES if points[f"objective{suffix}"].notna().any()]
    values = points[[f"smoothed{suffix}" for suffix in suffixes]].to_numpy(dtype=np.float64)
    sds = points[[f"smoothed_sd{suffix}" for suffix in suffixes]].to_numpy(dtype=np.float64)
    known = np.isfinite(values).all(axis=1) if suffixes else np.zeros(len(points), dtype=bool)
    signs = [1.0 if quantity(points[f"objective{s}"].iloc[0]).better == "higher" else -1.0 for s in suffixes]
    return points.index[known], values[known] * np.array(signs), np.nan_to_num(sds[known])


def winners_of(points: pd.DataFrame) -> tuple[int, ...]:
    """The points to be run again with fresh seeds: their numbers, ascending; () without a complete point.

    With one objective the best smoothed value's, of equals the lowest; with two, those of `chosen_of_two`.
    """
    known, gains, sds = _gains(points.sort_values("number"))
    numbers = points.loc[known, "number"].to_numpy(dtype=np.int64)
    if not len(numbers):
        return ()
    if gains.shape[1] == 1:
        best = gains[:, 0].max()
        return (int(numbers[gains[:, 0] >= best - SAME * abs(best)].min()),)
    return tuple(int(numbers[index]) for index in chosen_of_two(gains, sds))
