"""What single images tell: intervals for new images, which classes are taken for which, projections."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.metrics import Predictions
from ablate.stats import new_images_interval
from ablate.store import records
from ablate.study.trials import Plan, Trial


def _correct(measured: Predictions) -> NDArray[np.float64]:
    return measured.correct.astype(np.float64)


def _negative_log_likelihood(measured: Predictions) -> NDArray[np.float64]:
    return np.asarray(-measured.log_probabilities[np.arange(len(measured.labels)), measured.labels])


def _squared_error(measured: Predictions) -> NDArray[np.float64]:
    off = np.exp(measured.log_probabilities)
    off[np.arange(len(measured.labels)), measured.labels] -= 1
    return np.asarray((off**2).sum(axis=1))


PER_IMAGE = {"accuracy": _correct, "nll": _negative_log_likelihood, "brier": _squared_error}
"""Metrics that are a mean over images; a calibration error is none."""

MOST_CLASSES = 20
"""With more, a confusion table is too large to look at."""


class ImageLosses:
    """Per-image values of every complete trial, compared between arms over seeds and images."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._values: dict[tuple[str, int, str], NDArray[np.float64]] = {}
        self._labels: dict[tuple[str, int], NDArray[np.intp]] = {}

    def add(self, trial: Trial, measured: Predictions) -> None:
        """Keep what a trial says of each image; a deliberate second run does not count."""
        if trial.repeat:
            return
        self._labels[trial.arm, trial.seed] = measured.labels
        for metric, per_image in PER_IMAGE.items():
            self._values[trial.arm, trial.seed, metric] = per_image(measured)

    def rows(self) -> list[dict[str, Any]]:
        """One row per compared arm and metric."""
        study = self._plan.study
        pairs = self._plan.comparisons
        return [
            self._row(arm, baseline, metric, study.family_size(metric, len(pairs)))
            for arm, baseline in pairs
            for metric in PER_IMAGE
        ]

    def _row(self, arm: str, baseline: str, metric: str, comparisons: int) -> dict[str, Any]:
        differences = self._differences(arm, baseline, metric)
        row: dict[str, Any] = {"arm": arm, "baseline": baseline, "metric": metric}
        row |= {"comparisons": comparisons, "n_pairs": len(differences)}
        if not len(differences):
            return row
        found = new_images_interval(differences, comparisons=comparisons)
        return row | {"images": found.images, "effect": found.effect, "low": found.low, "high": found.high}

    def _differences(self, arm: str, baseline: str, metric: str) -> NDArray[np.float64]:
        """[n, N] arm - baseline, over the seeds for which both were scored on the same images."""
        rows = []
        for seed in self._plan.study.seed_list():
            own, other = self._labels.get((arm, seed)), self._labels.get((baseline, seed))
            if own is not None and other is not None and np.array_equal(own, other):
                rows.append(self._values[arm, seed, metric] - self._values[baseline, seed, metric])
        return np.array(rows) if rows else np.empty((0, 0))


class Confusion:
    """How often images of one class were taken for another, over an arm's training runs."""

    def __init__(self, plan: Plan) -> None:
        self._arms = plan.arms
        self._counts: dict[str, Counter[tuple[int, int]]] = {arm: Counter() for arm in plan.arms}
        self._classes: dict[str, tuple[str, ...]] = {}

    def add(self, trial: Trial, measured: Predictions, classes: tuple[str, ...]) -> None:
        """Count a complete trial's predictions; a deliberate second run does not count."""
        if trial.repeat or not 2 <= len(classes) <= MOST_CLASSES:
            return
        self._classes[trial.arm] = classes
        predicted = measured.logits.argmax(axis=1)
        self._counts[trial.arm].update(zip(measured.labels.tolist(), predicted.tolist(), strict=True))

    def rows(self) -> list[dict[str, Any]]:
        """One row per arm, class and predicted class, with zeros."""
        return [
            {"arm": arm, "class": true, "predicted": taken, "count": self._counts[arm][row, column]}
            for arm in self._arms
            if arm in self._classes
            for row, true in enumerate(self._classes[arm])
            for column, taken in enumerate(self._classes[arm])
        ]


def projection_rows(
    key: dict[str, Any], record: records.Record, stored: records.Predictions
) -> list[dict[str, Any]]:
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
