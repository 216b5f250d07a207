"""A search as tables: its facts in a row, its points, their single runs, and what its fields matter."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ablate.metrics import METRICS
from ablate.store.points import Tuning, read_tuning, tuning_folder
from ablate.store.results import ResultsFolder
from ablate.tables.columns import MISSING
from ablate.tables.files import Tables, frame
from ablate.tables.points import SUFFIXES, PointRun, point_runs, points_frame


def tuning_tables(folder: ResultsFolder) -> Tables:
    """The tables of `TUNING`; none where nothing was tuned, or where the search's predictions are left out.

    Args:
        folder: a study's results.

    Raises:
        RecordError: the stored search is damaged.
    """
    tuning = read_tuning(folder)
    if tuning is None or not tuning_folder(folder).predictions.exists():
        return {}
    runs = [point_runs(folder, point, tuning.search.objective) for point in tuning.points]
    values = [
        {
            "number": point.number,
            "seed": run.seed,
            "trial_id": run.trial_id,
            "status": run.status,
            **{f"value{suffix}": value for suffix, value in zip(SUFFIXES, run.values, strict=False)},
        }
        for point, own in zip(tuning.points, runs, strict=True)
        for run in own
    ]
    importances = [
        {"objective": of.objective, "evaluator": of.evaluator, "field": name, "share": share}
        for of in tuning.importances
        for name, share in of.shares.items()
    ]
    return {
        "tuning": frame("tuning", [_facts(tuning, runs)]),
        "points": points_frame(tuning, runs),
        "point_values": frame("point_values", values),
        "importances": frame("importances", importances),
    }


def _facts(tuning: Tuning, runs: Sequence[Sequence[PointRun]]) -> dict[str, Any]:
    search, states = tuning.search, Counter(point.state for point in tuning.points)
    # Points of equal levels and seeds would share their trials.
    trained = {run.trial_id: run for own in runs for run in own if run.status != MISSING}
    facts: dict[str, Any] = {
        "points_planned": search.points,
        "points_done": states["complete"],
        "points_pruned": states["pruned"],
        "points_failed": states["failed"],
        "seeds": search.seeds,
        "sampler": search.sampler,
        "pruning": search.pruning,
        "trainings": len(trained),
        "seconds": math.fsum(run.seconds for run in trained.values()),
    }
    for name, suffix in zip(search.objective, SUFFIXES, strict=False):
        better = "higher" if METRICS[name].higher_is_better else "lower"
        facts |= {f"objective{suffix}": name, f"direction{suffix}": better}
    split = ("tuning_images", "train_images", "tuning_digest", "reported_digest", "overlap")
    return facts | {name: getattr(tuning, name) for name in split}
