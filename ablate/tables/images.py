"""What a trial's predictions say, and what those of an arm's training runs say together."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Run:
    """What the tables take from the predictions of one complete trial.

    Attributes:
        metrics: each metric's value.
        resampled: per metric with a noise floor its values under drawn labels.
        bins: of the reliability diagram.
        by_image: per metric of `BY_IMAGE` [N] values.
        labels: [N] class ids.
        confusion: [K, K] images of a class that were taken for another.
        class_names: [K], or none.
        projection: rows of that table.
    """

    metrics: Mapping[str, float]
    resampled: Mapping[str, Array]
    bins: ReliabilityBins
    by_image: Mapping[str, Array]
    labels: NDArray[np.intp]
    confusion: NDArray[np.intp]
    class_names: Sequence[str]
    projection: Rows


Runs = Mapping[str, Mapping[int, Run]]
"""The runs of each arm by seed, deliberate second ones left out."""


@dataclass(frozen=True)
class Stored:
    """What a results folder holds of one trial; `fault` is why it cannot be used, if so."""

    record: records.Record | None = None
    run: Run | None = None
    fault: str | None = None

    @property
    def status(self) -> str:
        """Of the record, or `MISSING` or `UNREADABLE`."""
        if self.fault is not None:
            return UNREADABLE
        return self.record.status if self.record else MISSING


def key_of(trial: Trial) -> dict[str, Any]:
    """The columns that name a trial."""
    return {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed}


def read_trial(folder: ResultsFolder, trial: Trial) -> Stored:
    """A trial's record, and all that the tables take from its predictions."""
    path = folder.record_path(trial.trial_id)
    if not path.exists():
        return Stored()
    try:
        record = records.read_record(path)
        if record.status != "complete":
            return Stored(record)
        arrays = records.read_predictions(folder, record)
    except RecordError as error:
        return Stored(fault=str(error).replace(f"{folder.root}{os.sep}", ""))
    predictions = Predictions.of(arrays.logits, arrays.labels)
    classes = predictions.logits.shape[1]
    pairs = predictions.labels * classes + predictions.predicted
    run = Run(
        metrics={name: metric.score(predictions) for name, metric in METRICS.items()},
        resampled=resampled(predictions),
        bins=reliability_bins(predictions),
        by_image={name: METRICS[name].function(predictions) for name in BY_IMAGE},
        labels=predictions.labels,
        confusion=np.bincount(pairs, minlength=classes**2).reshape(classes, classes),
        class_names=record.class_names,
        projection=_projection_rows(key_of(trial), record, arrays),
    )
    return Stored(record, run)


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
        own, other = runs.get(arm, {}), runs.get(baseline, {})
        differences = np.array(
            [
                own[seed].by_image[metric] - other[seed].by_image[metric]
                for seed in plan.study.seed_list()
                if seed in own and seed in other and np.array_equal(own[seed].labels, other[seed].labels)
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
        own = list(runs.get(arm, {}).values())
        names = own[-1].class_names if own else ()
        if 2 <= len(names) <= MOST_CLASSES:
            counts = np.sum([run.confusion for run in own], axis=0)
            rows += [
                {"arm": arm, "class": true, "predicted": predicted, "count": counts[row, column]}
                for row, true in enumerate(names)
                for column, predicted in enumerate(names)
            ]
    return rows


def floor_rows(plan: Plan, runs: Runs) -> Rows:
    """One row per arm and metric with a noise floor: the band for the mean over the arm's training runs."""
    rows = []
    for arm, metric in itertools.product([arm for arm in plan.arms if arm in runs], FLOORS):
        low, high = band_of_mean([run.resampled[metric] for run in runs[arm].values()])
        rows.append({"arm": arm, "metric": metric, "runs": len(runs[arm]), "low": low, "high": high})
    return rows
