"""What a trial's predictions say, and what those of an arm's training runs say together."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ablate.errors import RecordError
from ablate.metrics import METRICS, Predictions, band_of_mean, compute_metrics, reliability_bins, resampled
from ablate.stats.intervals import ends_within, new_images_interval
from ablate.store import records
from ablate.store.results import ResultsFolder
from ablate.study.comparisons import family_size, terms
from ablate.study.fields import DataFields
from ablate.study.own import OwnFields
from ablate.study.trials import Plan, Trial
from ablate.tables.columns import DECLARED

Array = NDArray[np.float64]
Rows = list[dict[str, Any]]
BY_IMAGE = tuple(name for name, metric in METRICS.items() if metric.by_image)
"""Metrics that are a mean over images; a calibration error is none."""
MOST_CLASSES = 20  # with more, a confusion table is too large to look at


class Run(NamedTuple):
    """What the tables take from the predictions of one complete trial: metrics, rows, and what is combined.

    `by_image` has [N] values; `confusion` [K, K] counts images of a class that were taken for another.
    """

    metrics: Mapping[str, float]
    resampled: Mapping[str, Array]
    by_image: Mapping[str, Array]
    labels: NDArray[np.intp]
    confusion: NDArray[np.intp]
    class_names: Sequence[str]
    reliability: Rows
    projection: Rows


Runs = Mapping[str, Mapping[int, Run]]  # the runs of each arm by seed, deliberate second ones left out


class Stored(NamedTuple):
    """What a results folder holds of a trial: its record's status, or missing, or unreadable and why."""

    status: str
    record: records.Record | None = None
    predictions: records.Predictions | None = None
    fault: str | None = None


def read_stored(folder: ResultsFolder, trial_id: str) -> Stored:
    """A trial's record, and its predictions if it is complete."""
    path = folder.record_path(trial_id)
    if not path.exists():
        return Stored(records.MISSING)
    try:
        record = records.read_record(path)
        arrays = records.read_predictions(folder, record) if record.has_predictions else None
        return Stored(record.status, record, arrays)
    except RecordError as error:
        return Stored(records.UNREADABLE, fault=str(error).replace(f"{folder.root}{os.sep}", ""))


def scores_of(stored: Stored, names: Iterable[str]) -> dict[str, float]:
    """Metrics of a complete trial by name, ablate's and the study's own; NaN where it does not tell one."""
    arrays, reported = stored.predictions, stored.record.metrics if stored.record else {}
    predictions = Predictions.of(arrays.logits, arrays.labels) if arrays else None
    scores = {}
    for name in names:
        own = DECLARED.get().get(name)
        if predictions is None or (own and not own.code):
            scores[name] = reported.get(name, math.nan)
        elif own:
            scores[name] = own.score(name, predictions.logits, predictions.labels)
        else:
            scores[name] = METRICS[name].score(predictions)
    return scores


def fields_of(trial: Trial) -> dict[str, Any]:
    """A trial's fields as columns; a knob of one's own code is called train.KNOB."""
    if not isinstance(trial.fields, OwnFields):
        return trial.fields.model_dump()
    data = trial.fields.model_dump(include={*DataFields.model_fields}) if trial.fields.data else {}
    return data | {f"train.{name}": value for name, value in trial.fields.knobs.items()}


def key_of(trial: Trial) -> dict[str, Any]:
    """The columns that name a trial."""
    return {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed}


def read_trial(folder: ResultsFolder, trial: Trial) -> tuple[Stored, Run | None]:
    """A trial's record, and all that the tables take from its predictions."""
    stored = read_stored(folder, trial.trial_id)
    record, arrays = stored.record, stored.predictions
    if record is None or arrays is None:
        return stored, None
    predictions = Predictions.of(arrays.logits, arrays.labels)
    classes = predictions.logits.shape[1]
    pairs = predictions.labels * classes + predictions.predicted
    bins = reliability_bins(predictions)
    reliability = [
        {**key_of(trial), "bin": number, **dict(zip(bins, values, strict=True))}
        for number, values in enumerate(zip(*bins.values(), strict=True))
    ]
    projection = []
    for split in ("train", "valid"):
        points, labels = (getattr(arrays, f"projection_{split}{end}") for end in ("", "_labels"))
        for (x, y), label in zip(points, labels, strict=True) if points is not None else ():
            place = {"class": record.class_names[label], "x": float(x), "y": float(y)}
            projection.append({**key_of(trial), "split": split, **place})
    return stored._replace(predictions=None), Run(
        metrics=compute_metrics(predictions),
        resampled=resampled(predictions),
        by_image={name: METRICS[name].function(predictions) for name in BY_IMAGE},
        labels=predictions.labels,
        confusion=np.bincount(pairs, minlength=classes**2).reshape(classes, classes),
        class_names=record.class_names,
        reliability=reliability,
        projection=projection,
    )


def new_image_rows(plan: Plan, runs: Runs) -> Iterator[dict[str, Any]]:
    """The interval for new images and new seeds, by metric of `BY_IMAGE`: of each comparison and each arm."""
    size, family = family_size(plan), plan.study.comparison_family
    asked = {(term.term, term.against) for term in terms(plan) if term.asked}
    alone = [(arm, None) for arm in plan.arms]
    for (arm, baseline), metric in itertools.product([*plan.comparisons, *alone], BY_IMAGE):
        of_arm = runs.get(arm, {})
        reference = of_arm if baseline is None else runs.get(baseline, {})
        shared = [seed for seed in plan.study.seed_list() if seed in of_arm and seed in reference]
        alike = [seed for seed in shared if np.array_equal(of_arm[seed].labels, reference[seed].labels)]
        values = np.array([of_arm[seed].by_image[metric] for seed in alike])
        if baseline is not None:
            values -= np.array([reference[seed].by_image[metric] for seed in alike])
        comparisons = size if metric in family and (arm, baseline) in asked else 1
        row: dict[str, Any] = {"arm": arm, "baseline": baseline, "metric": metric}
        row |= {"comparisons": comparisons, "n_pairs": len(values)}
        if len(values):
            effect, low, high = new_images_interval(values, comparisons=comparisons)
            if baseline is None:
                low, high = ends_within(METRICS[metric].bounds, effect, high - effect)
            row |= {"images": values.shape[1], "effect": effect, "low": low, "high": high}
        yield row


def confusion_rows(plan: Plan, runs: Runs) -> Iterator[dict[str, Any]]:
    """One row per arm, class and predicted class, with zeros, over an arm's training runs."""
    for arm in plan.arms:
        own = list(runs.get(arm, {}).values())
        names = own[-1].class_names if own else ()
        if 2 <= len(names) <= MOST_CLASSES:
            counts = np.sum([run.confusion for run in own], axis=0)
            for (true, predicted), count in np.ndenumerate(counts):
                yield {"arm": arm, "class": names[true], "predicted": names[predicted], "count": count}


def floor_rows(plan: Plan, runs: Runs) -> Iterator[dict[str, Any]]:
    """One row per arm and metric with a noise floor: the band for the mean over the arm's training runs."""
    for arm in filter(runs.get, plan.arms):
        own = list(runs[arm].values())
        for metric in own[0].resampled:
            low, high = band_of_mean([run.resampled[metric] for run in own])
            yield {"arm": arm, "metric": metric, "runs": len(own), "low": low, "high": high}
