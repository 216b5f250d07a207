"""What a trial's predictions say, and what those of an arm's training runs say together."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.errors import RecordError
from ablate.metrics import (
    FLOORS,
    METRICS,
    Predictions,
    ReliabilityBins,
    band_of_mean,
    reliability_bins,
    resampled,
)
from ablate.stats import new_images_interval
from ablate.store import records
from ablate.store.results import ResultsFolder
from ablate.study.trials import Plan, Trial
from ablate.tables.columns import MISSING, UNREADABLE

Array = NDArray[np.float64]
Rows = list[dict[str, Any]]
BY_IMAGE = tuple(name for name, metric in METRICS.items() if metric.by_image)
"""Metrics that are a mean over images; a calibration error is none."""
MOST_CLASSES = 20
"""With more, a confusion table is too large to look at."""


def _no_images() -> NDArray[np.intp]:
    return np.empty(0, dtype=np.intp)


@dataclass(frozen=True)
class Measured:
    """What a results folder holds of one trial; without complete predictions, only its record and fault.

    Attributes:
        record: None where there is none, or a damaged one.
        fault: why it cannot be used, if so.
        metrics: each metric's value.
        resampled: per metric with a noise floor its values under drawn labels.
        bins: of the reliability diagram.
        by_image: per metric of `BY_IMAGE` [N] values.
        labels: [N] class ids.
        confusion: [K, K] images of a class that were taken for another.
        projection: rows of that table.
    """

    record: records.Record | None = None
    fault: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    resampled: Mapping[str, Array] = field(default_factory=dict)
    bins: ReliabilityBins | None = None
    by_image: Mapping[str, Array] = field(default_factory=dict)
    labels: NDArray[np.intp] = field(default_factory=_no_images)
    confusion: NDArray[np.intp] = field(default_factory=_no_images)
    projection: Rows = field(default_factory=list)

    @property
    def status(self) -> str:
        """Of the record, or `MISSING` or `UNREADABLE`."""
        if self.fault is not None:
            return UNREADABLE
        return self.record.status if self.record else MISSING


Runs = Mapping[tuple[str, int], Measured]
"""The complete training runs by arm and seed, deliberate second ones left out."""


def key_of(trial: Trial) -> dict[str, Any]:
    """The columns that name a trial."""
    return {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed}


def measure(folder: ResultsFolder, trial: Trial) -> Measured:
    """A trial's record, and all that the tables take from its predictions."""
    path = folder.record_path(trial.trial_id)
    if not path.exists():
        return Measured()
    try:
        record = records.read_record(path)
        if record.status != "complete":
            return Measured(record)
        stored = records.read_predictions(folder, record)
    except RecordError as error:
        return Measured(fault=str(error).replace(f"{folder.root}{os.sep}", ""))
    predictions = Predictions.of(stored.logits, stored.labels)
    classes = predictions.logits.shape[1]
    pairs = predictions.labels * classes + predictions.predicted
    return Measured(
        record,
        metrics={name: metric.score(predictions) for name, metric in METRICS.items()},
        resampled=resampled(predictions),
        bins=reliability_bins(predictions),
        by_image={name: METRICS[name].function(predictions) for name in BY_IMAGE},
        labels=predictions.labels,
        confusion=np.bincount(pairs, minlength=classes**2).reshape(classes, classes),
        projection=_projection_rows(key_of(trial), record, stored),
    )


def _projection_rows(key: dict[str, Any], record: records.Record, stored: records.Predictions) -> Rows:
    """One row per projected image of a trial, both splits; none where the trial kept no projection."""
    splits = (
        ("train", stored.projection_train, stored.projection_train_labels),
        ("valid", stored.projection_valid, stored.projection_valid_labels),
    )
    return [
        {**key, "split": split, "class": record.class_names[label], "x": float(x), "y": float(y)}
        for split, points, labels in splits
        if points is not None and labels is not None
        for (x, y), label in zip(points, labels.tolist(), strict=True)
    ]


def new_image_rows(plan: Plan, runs: Runs) -> Rows:
    """One row per compared arm and metric of `BY_IMAGE`: the interval for new images and new seeds."""
    rows = []
    for (arm, baseline), metric in itertools.product(plan.comparisons, BY_IMAGE):
        differences = np.array(
            [
                own.by_image[metric] - other.by_image[metric]
                for seed in plan.study.seed_list()
                if (own := runs.get((arm, seed))) and (other := runs.get((baseline, seed)))
                if np.array_equal(own.labels, other.labels)
            ]
        )
        comparisons = plan.study.family_size(metric, len(plan.comparisons))
        row: dict[str, Any] = {"arm": arm, "baseline": baseline, "metric": metric}
        row |= {"comparisons": comparisons, "n_pairs": len(differences)}
        if len(differences):
            found = new_images_interval(differences, comparisons=comparisons)
            row |= {"images": found.images, "effect": found.effect, "low": found.low, "high": found.high}
        rows.append(row)
    return rows


def confusion_rows(plan: Plan, runs: Runs) -> Rows:
    """One row per arm, class and predicted class, with zeros, over an arm's training runs."""
    rows = []
    for arm in plan.arms:
        own = [run for (of, _), run in runs.items() if of == arm]
        names = own[-1].record.class_names if own and own[-1].record else ()
        if 2 <= len(names) <= MOST_CLASSES:
            counts = np.sum([run.confusion for run in own], axis=0)
            rows += [
                {
                    "arm": arm,
                    "class": names[true],
                    "predicted": names[predicted],
                    "count": counts[true, predicted],
                }
                for true, predicted in itertools.product(range(len(names)), repeat=2)
            ]
    return rows


def floor_rows(plan: Plan, runs: Runs) -> Rows:
    """One row per arm and metric with a noise floor: the band for the mean over the arm's training runs."""
    rows = []
    for arm, metric in itertools.product(plan.arms, FLOORS):
        values = [run.resampled[metric] for (of, _), run in runs.items() if of == arm]
        if values:
            low, high = band_of_mean(values)
            rows.append({"arm": arm, "metric": metric, "runs": len(values), "low": low, "high": high})
    return rows
