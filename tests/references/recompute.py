"""An audit of a study's tables: their numbers once more, from the records and predictions alone.

Nothing of ablate is imported. Definitions are those of results/README.md, of a report's Method section and of
the papers that are named there, computed with numpy, scipy and scikit-learn, by another route where there is
one: the smooth calibration error from a cosine series, floors from convolved Bernoullis, power by quadrature.

A number agrees to nine digits. Left out is what another computation would not give to the last digit, and
what is no number of the study:

- `LEFT_OUT_METRICS`: the floor of the smooth calibration error is a mean over random draws;
- `LEFT_OUT_OF_A_SEARCH`: columns with the smoothed values of a search's points;
- `LEFT_OUT_COLUMNS`: columns of the CSV files that are words or readings of the machine, and that floor
  with its band. Another floor or band need only lie within what the draws behind it can be off.

Losses, times and scatter are read from the records: what they come from is not stored. A setting that is
younger than a record is not in it, and then its column is left out too.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import log_softmax, logsumexp
from sklearn.metrics import roc_auc_score

Array = NDArray[np.float64]
Row = dict[str, float]
NAN = math.nan

LEFT_OUT_METRICS = {"smece_floor"}
LEFT_OUT_COLUMNS = {
    *(
        f"trials.{name}"
        for name in ("study", "profile", "status", "engine", "torch_version", "commit", "failure")
    ),
    *(f"trials.{name}" for name in ("device_name", "resolved_precision", "device", "predictions_sha256")),
    *("trials.smece_floor", "floors.low of smece", "floors.high of smece"),
    *("step_times.others", "step_times.device_name"),
}
LEFT_OUT_OF_A_SEARCH = {f"points.smoothed{which}" for which in ("", "_2", "_sd", "_sd_2")}
"""The fit of a surrogate, not to be had again to nine digits; what is told of it is read from points.csv."""

# Label on the page: column of the tables.
SHOWN = {
    "Accuracy": "accuracy",
    "NLL": "nll",
    "Brier score": "brier",
    "ECE": "ece",
    "ECE noise floor": "ece_floor",
    "Confidence gap": "confidence_gap",
    "Temperature": "temperature",
    "ECE, scaled": "ece_scaled",
    "ECE, equal mass": "ece_equal_mass",
    "ECE, debiased": "ece_debiased",
    "Smooth ECE": "smece",
    "Classwise ECE": "classwise_ece",
    "MCE": "mce",
    "NLL, scaled": "nll_scaled",
    "Mean confidence": "mean_confidence",
    "AUROC of errors": "auroc_error",
    "AUROC of errors, normalised logit": "auroc_error_normalised",
    "AURC": "aurc",
    "E-AURC": "eaurc",
    "Coverage at 1 % risk": "coverage_at_1",
    "Coverage at 2 % risk": "coverage_at_2",
    "Scatter within classes": "scatter_within",
    "Scatter between classes": "scatter_between",
    "Training step": "step_ms",
    "Training time": "train_seconds",
    "Training loss": "train_loss",
    "Training accuracy": "train_accuracy",
    "Loss, reported split": "valid_loss",
    "Accuracy, reported split": "valid_accuracy",
}
FLOORS = {name: f"{name}_floor" for name in ("ece", "ece_equal_mass", "smece", "classwise_ece", "mce")}
HIGHER = {"accuracy", "auroc_error", "auroc_error_normalised", "coverage_at_1", "coverage_at_2"}
UNDIRECTED = {"confidence_gap", "mean_confidence", "temperature", "scatter_within", "scatter_between"}
COSTS = {
    *("step_ms", "step_ms_p20", "step_ms_p80", "images_per_second", "peak_memory_mb", "train_seconds"),
    *("eval_seconds", "scatter_within_train", "scatter_between_train"),
}
PER_IMAGE = ("accuracy", "nll", "brier")
MARGINS = {"accuracy": 0.005, "nll": 0.02, "brier": 0.01, "ece": 0.01}
DECIDED = ("better", "worse", "higher", "lower")
TOLERANCE = {"smece": 1e-5} | dict.fromkeys(FLOORS.values(), 0.08)
"""Relative; the integral over the smooth calibration curve is a sum over a grid, here and there. A floor is a
mean of 1,000 draws: five of its standard errors, where a draw's standard deviation is half the mean."""


# What lies in the results folder.


@dataclass(eq=False)
class Trial:
    """A planned trial with what became of it; `row` holds its metrics and costs, NaN where it has none."""

    trial_id: str
    arm: str
    levels: dict[str, Any]
    fields: dict[str, Any]
    numerics: dict[str, Any]
    seed: int
    repeat: int
    record: dict[str, Any] | None
    arrays: dict[str, NDArray[Any]]
    row: Row = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        return self.record is not None and self.record["status"] == "complete" and self.repeat == 0


@dataclass(eq=False)
class Run:
    """A training run of a point; `row` holds its metrics, nothing unless it is complete."""

    trial_id: str
    seed: int
    record: dict[str, Any] | None
    row: Row

    @property
    def status(self) -> str:
        return str(self.record["status"]) if self.record else "missing"

    @property
    def seconds(self) -> float:
        record = self.record or {"cost": None, "history": []}
        if record["cost"]:
            return float(record["cost"]["train_seconds"] + record["cost"]["eval_seconds"])
        return math.fsum(epoch["seconds"] for epoch in record["history"])


@dataclass(eq=False)
class Search:
    """What was searched: tuning.json, the runs of each point, and the smoothed columns of points.csv."""

    stored: dict[str, Any]
    runs: list[list[Run]]
    smoothed: list[dict[str, float]]

    @property
    def objectives(self) -> dict[str, str]:
        """Suffix of its columns to metric."""
        return dict(zip(("", "_2"), self.stored["search"]["objective"], strict=False))

    @property
    def points(self) -> list[dict[str, Any]]:
        return list(self.stored["points"])

    def values(self, number: int, metric: str) -> list[float]:
        """Of the complete runs."""
        return [run.row[metric] for run in self.runs[number] if run.row]

    def pooled(self, numbers: Sequence[int], metric: str) -> Mean:
        """Over every complete run of some points, each run once."""
        runs = {run.trial_id: run.row for number in numbers for run in self.runs[number]}
        return mean_of(row[metric] for row in runs.values() if row)

    def mean(self, number: int, metric: str) -> Mean:
        """Over the point's seeds; only a complete point has one."""
        complete = self.points[number]["state"] == "complete"
        return mean_of(self.values(number, metric) if complete else [])


@dataclass(eq=False)
class Recorded:
    """A results folder: the study as planned, its trials, its timing pass."""

    study: dict[str, Any]
    trials: list[Trial]
    timing: dict[str, Any] | None
    search: Search | None = None

    @functools.cached_property
    def arms(self) -> dict[str, dict[str, Any]]:
        """Name to levels, in order."""
        return {trial.arm: trial.levels for trial in self.trials}

    @functools.cached_property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(trial.seed for trial in self.trials if trial.repeat == 0))

    @functools.cached_property
    def levels(self) -> dict[str, list[Any]]:
        """Factor to its levels, in order."""
        names = next(iter(self.arms.values()))
        return {name: list(dict.fromkeys(own[name] for own in self.arms.values())) for name in names}

    @functools.cached_property
    def comparisons(self) -> list[tuple[str, str]]:
        """Each arm beside the arm that has the baseline's levels and else its own."""
        baseline = self.study["baseline"]
        found = []
        for arm, own in self.arms.items():
            others = [other for other, levels in self.arms.items() if levels == {**own, **baseline}]
            found += [(arm, other) for other in others if baseline and other != arm]
        return found

    @property
    def primary(self) -> str:
        return str(self.study["primary"])

    @property
    def family(self) -> tuple[str, ...]:
        return tuple(self.study["family"]) or (self.primary,)

    def found(self, arm: str) -> list[Trial]:
        """The arm's complete runs."""
        return [trial for trial in self.trials if trial.arm == arm and trial.counts]

    def by_seed(self, arm: str, metric: str) -> Array:
        """[S] the arm's values; NaN where there is none."""
        own = {trial.seed: trial.row.get(metric, NAN) for trial in self.found(arm)}
        return np.array([own.get(seed, NAN) for seed in self.seeds])


def read(folder: Path) -> Recorded:
    """The recorded study with every metric computed again."""
    plan = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    trials = [_read_trial(folder, planned) for planned in plan["trials"]]
    for trial in trials:
        trial.row = _row(trial)
    timing = folder / "timing.json"
    read_timing = json.loads(timing.read_text(encoding="utf-8")) if timing.exists() else None
    return Recorded(plan["study"], trials, read_timing, _read_search(folder))


def _read_search(folder: Path) -> Search | None:
    path, table = folder / "tuning" / "tuning.json", folder / "points.csv"
    if not path.exists():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    runs = [
        [_read_run(path.parent, name, seed) for name, seed in zip(p["trial_ids"], p["seeds"], strict=True)]
        for p in stored["points"]
    ]
    with table.open(encoding="utf-8", newline="") as file:
        smoothed = [
            {name: float(text or "nan") for name, text in row.items() if name.startswith("smoothed")}
            for row in csv.DictReader(file)
        ]
    return Search(stored, runs, smoothed)


def _read_run(folder: Path, name: str, seed: int) -> Run:
    path, arrays = folder / "records" / f"{name}.json", folder / "predictions" / f"{name}.npz"
    record = json.loads(path.read_text(encoding="utf-8"))["record"] if path.exists() else None
    if not arrays.exists():
        return Run(name, seed, record, {})
    with np.load(arrays) as opened:
        return Run(name, seed, record, trial_metrics(opened["logits"], opened["labels"]))


def _read_trial(folder: Path, planned: dict[str, Any]) -> Trial:
    name = planned["trial_id"]
    path, arrays = folder / "records" / f"{name}.json", folder / "predictions" / f"{name}.npz"
    record = json.loads(path.read_text(encoding="utf-8"))["record"] if path.exists() else None
    stored: dict[str, NDArray[Any]] = {}
    if arrays.exists():
        with np.load(arrays) as opened:
            stored = {key: opened[key] for key in opened.files}
    keys = ("trial_id", "arm", "levels", "fields", "numerics", "seed", "repeat")
    return Trial(**{key: planned[key] for key in keys}, record=record, arrays=stored)


def _row(trial: Trial) -> Row:
    record = trial.record
    if record is None or record["status"] != "complete":
        return {}
    if "logits" not in trial.arrays:
        raise FileNotFoundError(f"no predictions of trial {trial.trial_id}: nothing to recompute it from")
    row = trial_metrics(trial.arrays["logits"], trial.arrays["labels"])
    row |= {name: float(value) for name, value in record["cost"].items() if value is not None}
    features = record.get("features") or {}
    for split, suffix in (("valid", ""), ("train", "_train")):
        for kind in ("within", "between"):
            value = (features.get(split) or {}).get(kind)
            row[f"scatter_{kind}{suffix}"] = NAN if value is None else value
    return row


# Metrics of one trial.


def trial_metrics(logits: NDArray[Any], labels: NDArray[Any]) -> Row:
    """All metrics of [N, K] logits with [N] labels but those left out."""
    logits = logits.astype(np.float64)
    count, every = len(labels), np.arange(len(labels))
    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    right = logits.argmax(axis=1) == labels
    confidence = p.max(axis=1)
    one_hot = labels[:, None] == np.arange(logits.shape[1])
    gaps = [_gaps(p[:, k], one_hot[:, k]) for k in range(logits.shape[1])]
    top = _gaps(confidence, right)
    row = {
        "accuracy": float(right.mean()),
        "nll": float(-log_p[every, labels].mean()),
        "brier": float(((p - one_hot) ** 2).sum(axis=1).mean()),
        "ece": sum(gap.miss for gap in top) / count,
        "ece_floor": sum(gap.expected for gap in top) / count,
        "mce": max(gap.miss / gap.size for gap in top),
        "mce_floor": _expected_largest(top),
        "classwise_ece": float(np.mean([sum(g.miss for g in own) / count for own in gaps])),
        "classwise_ece_floor": float(np.mean([sum(g.expected for g in own) / count for own in gaps])),
        "smece": _smooth_ece(confidence, right),
        "mean_confidence": float(confidence.mean()),
        "confidence_gap": float(confidence.mean() - right.mean()),
    }
    return row | _equal_mass(confidence, right) | _ranking(logits, right) | _scaled(logits, labels)


@dataclass(frozen=True)
class Gap:
    """A bin: its images' confidences, and how many are right."""

    confidence: Array
    right: int

    @property
    def size(self) -> int:
        return len(self.confidence)

    @functools.cached_property
    def total(self) -> float:
        return float(self.confidence.sum())

    @property
    def miss(self) -> float:
        return abs(self.total - self.right)

    @functools.cached_property
    def chances(self) -> Array:
        """[size + 1] probability of so many right images were the model calibrated: a sum of Bernoullis."""
        chances = np.ones(1)
        for p in self.confidence:
            chances = np.convolve(chances, (1 - p, p))
        return chances

    @property
    def misses(self) -> Array:
        """[size + 1] what each number of right images would miss by."""
        return np.asarray(np.abs(np.arange(self.size + 1) - self.total))

    @property
    def expected(self) -> float:
        return float(self.chances @ self.misses)


def _gap(confidence: Array, right: NDArray[np.bool_]) -> Gap:
    return Gap(confidence, int(right.sum()))


def _gaps(confidence: Array, right: NDArray[np.bool_], bins: int = 15) -> list[Gap]:
    """The bins of equal width in [0, 1] that hold images."""
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    return [_gap(confidence[places == at], right[places == at]) for at in np.unique(places)]


def _expected_largest(gaps: list[Gap]) -> float:
    """Mean of a calibrated model's largest |confidence - accuracy|: the integral of 1 - its distribution."""
    places, at_most = _largest(gaps)
    return float(places[0] + ((1 - at_most[:-1]) * np.diff(places)).sum())


def _largest(gaps: list[Gap]) -> tuple[Array, Array]:
    """Values of a calibrated model's largest |confidence - accuracy|, and the probability of at most each."""
    places = np.unique(np.concatenate([gap.misses / gap.size for gap in gaps]))
    at_most = np.ones(len(places))
    for gap in gaps:
        order = np.argsort(gap.misses)
        held = np.concatenate([[0.0], np.cumsum(gap.chances[order])])
        at_most *= held[np.searchsorted(gap.misses[order] / gap.size, places, side="right")]
    return places, at_most


def _mass_parts(confidence: Array, bins: int = 15) -> list[NDArray[np.intp]]:
    """The images of each bin of equal mass."""
    order = np.argsort(confidence, kind="stable")
    ends = np.cumsum([len(part) for part in np.array_split(order, bins)])
    ordered = confidence[order]
    # Images of equal confidence share a bin: an edge inside such a run moves behind it.
    ends = np.unique([np.searchsorted(ordered, ordered[end - 1], side="right") for end in ends if end])
    return np.split(order, ends[:-1])


def _equal_mass(confidence: Array, right: NDArray[np.bool_]) -> Row:
    """ECE over bins of equal mass, its floor, and the debiased error of Kumar et al. 2019."""
    count, parts = len(right), _mass_parts(confidence)
    gaps = [_gap(confidence[part], right[part]) for part in parts]
    squared = 0.0
    for part in parts:
        accuracy, size = float(right[part].mean()), len(part)
        noise = accuracy * (1 - accuracy) / (size - 1) if size > 1 else 0.0
        squared += size / count * ((float(confidence[part].mean()) - accuracy) ** 2 - noise)
    return {
        "ece_equal_mass": sum(gap.miss for gap in gaps) / count,
        "ece_equal_mass_floor": sum(gap.expected for gap in gaps) / count,
        "ece_debiased": math.copysign(math.sqrt(abs(squared)), squared),
    }


def _smooth_ece(confidence: Array, right: NDArray[np.bool_], grid: int = 4096) -> float:
    """Błasiok and Nakkiran 2023: the sigma that is the error smoothed by a reflected Gaussian of that width.

    A Gaussian reflected at both ends of [0, 1] is a cosine series with coefficients exp(-(k pi sigma)^2 / 2).
    """
    residual, places = right - confidence, (np.arange(grid) + 0.5) / grid

    def above(sigma: float) -> float:
        k = np.arange(1 + math.ceil(9 / (math.pi * sigma)))
        series = np.cos(math.pi * np.outer(k, confidence)) @ residual / len(residual)
        series *= np.where(k == 0, 1, 2) * np.exp(-((k * math.pi * sigma) ** 2) / 2)
        return float(np.abs(series @ np.cos(math.pi * np.outer(k, places))).mean()) - sigma

    low = 1.0
    while above(low) < 0:
        low /= 2
    return float(brentq(above, low, 2 * low, xtol=1e-10))


def _ranking(logits: Array, right: NDArray[np.bool_]) -> Row:
    """How well confidence tells right from wrong; the most confident images first, equal ones as one group.

    Ranked by log p / (1 - p), which goes on growing where p in float64 has become 1.
    """
    count, ordered = len(right), np.sort(logits, axis=1)
    odds = ordered[:, -1] - logsumexp(ordered[:, :-1], axis=1)
    _, groups = np.unique(-odds, return_inverse=True)
    ends = np.cumsum(np.bincount(groups))  # images answered, group by group
    wrong = np.cumsum(np.bincount(groups, weights=~right))
    ranks = np.arange(1, count + 1)
    # Within a group the wrong ones are spread evenly: the mean over its orders.
    risk = np.interp(ranks, [0, *ends], [0, *wrong]) / ranks
    best = np.maximum(ranks - right.sum(), 0) / ranks
    centred = logits - logits.mean(axis=1, keepdims=True)
    normalised = centred.max(axis=1) / np.linalg.norm(centred, axis=1)
    both = 0 < right.sum() < count
    row = {
        "auroc_error": float(roc_auc_score(right, odds)) if both else NAN,
        "auroc_error_normalised": float(roc_auc_score(right, normalised)) if both else NAN,
        "aurc": float(risk.mean()),
        "eaurc": float(risk.mean() - best.mean()),
    }
    for percent in (1, 2):
        row[f"coverage_at_{percent}"] = max(ends[wrong / ends <= percent / 100], default=0) / count
    return row


def _scaled(logits: Array, labels: NDArray[Any]) -> Row:
    """Temperature scaling, every image with the temperature of the other four fifths of a fixed shuffle."""
    count = len(labels)
    folds = np.random.RandomState(0).permutation(count) % 5
    fitted = np.array([_temperature(logits[folds != k], labels[folds != k]) for k in range(5)])
    log_p = log_softmax(logits / fitted[folds][:, None], axis=1)
    right = logits.argmax(axis=1) == labels
    return {
        "temperature": float(fitted.mean()),
        "nll_scaled": float(-log_p[np.arange(count), labels].mean()),
        "ece_scaled": sum(gap.miss for gap in _gaps(np.exp(log_p.max(axis=1)), right)) / count,
    }


def _temperature(logits: Array, labels: NDArray[Any]) -> float:
    """Where the NLL's slope in 1 / T is 0: the mean logit under the softmax is the label's, on average."""
    own = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        return float(((np.exp(log_softmax(logits * inverse, axis=1)) * logits).sum(axis=1) - own).mean())

    low, high = 1e-4, 1e2
    if slope(low) >= 0:
        return 1 / low
    if slope(high) <= 0:
        return 1 / high
    return 1 / float(brentq(slope, low, high, xtol=1e-15, rtol=1e-14))


# Bands of the floors.


@dataclass(frozen=True)
class Between:
    """Where a number must lie that comes from draws."""

    least: float
    most: float


def floor_band(trials: Sequence[Trial], metric: str) -> tuple[Any, Any]:
    """Ends of the central 95 % of the mean over runs of a calibrated model's error."""
    if metric == "smece":
        return Unchecked(), Unchecked()
    means = np.mean([_drawn_errors(trial)[metric] for trial in trials], axis=0)
    # The standard error of a 2.5 % quantile of n normal draws is 2.7 standard deviations over the root of n.
    off = 5 * 2.7 * float(np.std(means)) * (2 / 1000) ** 0.5
    low, high = (Between(end - off, end + off) for end in np.quantile(means, (0.025, 0.975)).tolist())
    return low, high


@functools.cache
def _drawn_errors(trial: Trial, draws: int = 1000) -> dict[str, Array]:
    """[draws] of each error, with labels drawn from the probabilities."""
    p = np.exp(log_softmax(trial.arrays["logits"].astype(np.float64), axis=1))
    (count, classes), confidence, upper = p.shape, p.max(axis=1), np.cumsum(p, axis=1)[:, :-1]
    rng = np.random.default_rng([trial.seed, 1])
    labels = np.stack([(rng.random((count, 1)) > upper).sum(axis=1) for _ in range(draws)])
    right = (labels == p.argmax(axis=1)).astype(float)

    def misses(parts: Sequence[NDArray[np.intp]]) -> Array:
        return np.stack(
            [np.abs(right[:, part].sum(axis=1) - confidence[part].sum()) for part in parts], axis=1
        )

    places = np.minimum((confidence * 15).astype(int), 14)
    parts = [np.flatnonzero(places == at) for at in np.unique(places)]
    bins = np.minimum((p * 15).astype(int), 14) + 15 * np.arange(classes)
    expected = np.bincount(bins.ravel(), p.ravel(), minlength=15 * classes)
    found = [np.bincount(bins[np.arange(count), own], minlength=15 * classes) for own in labels]
    return {
        "ece": misses(parts).sum(axis=1) / count,
        "ece_equal_mass": misses(_mass_parts(confidence)).sum(axis=1) / count,
        "mce": (misses(parts) / [len(part) for part in parts]).max(axis=1),
        "classwise_ece": np.abs(expected - np.array(found)).sum(axis=1) / p.size,
    }


# Statistics over seeds.


@dataclass(frozen=True)
class Mean:
    """A mean over training runs with its 95 % t interval."""

    n: int
    mean: float
    low: float
    high: float


def mean_of(values: Iterable[float]) -> Mean:
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) < 2:
        return Mean(len(known), float(known[0]) if len(known) else NAN, NAN, NAN)
    half = float(stats.t.isf(0.025, len(known) - 1)) * float(stats.sem(known))
    if np.ptp(known) == 0:
        half = NAN
    return Mean(len(known), float(known.mean()), float(known.mean()) - half, float(known.mean()) + half)


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, its interval and test; `size` of them hold together."""

    n: int
    effect: float
    low: float
    high: float
    p: float
    p_adjusted: float
    rho: float
    sd: float
    size: int


def difference(plus: Array, minus: Array, size: int) -> Difference:
    """Over the seeds that both sides have."""
    both = np.isfinite(plus) & np.isfinite(minus)
    own, scale = (plus - minus)[both], float(np.abs([plus[both], minus[both]]).max(initial=0.0))
    n, effect = len(own), float(own.mean()) if len(own) else NAN
    spread = float(own.std(ddof=1)) if n > 1 else NAN
    if n > 1 and spread <= 1e-12 * scale:  # rounding alone
        effect, spread = 0.0 if abs(effect) <= 1e-12 * scale else effect, 0.0
    rho = NAN
    if n > 2 and min(np.ptp(plus[both]), np.ptp(minus[both])) > 0:
        rho = float(stats.pearsonr(plus[both], minus[both]).statistic)
    if not spread > 0:
        return Difference(n, effect, NAN, NAN, NAN, NAN, rho, spread, size)
    p = float(stats.ttest_rel(plus[both], minus[both]).pvalue)
    half = float(stats.t.isf(0.025 / size, n - 1)) * spread / math.sqrt(n)
    return Difference(n, effect, effect - half, effect + half, p, min(1.0, size * p), rho, spread, size)


@dataclass(frozen=True)
class Verdict:
    """What a difference shows."""

    word: str
    reason: str
    p_equivalence: float
    margin: float
    below_margin: bool
    seeds_needed: int | None


def verdict(
    recorded: Recorded, metric: str, found: Difference, same: bool, *, whole: bool = True, plain: bool = False
) -> Verdict:
    """Incomplete pairs decide nothing; then the two one-sided tests of equivalence; then the interval.

    `same` says that the predictions are, `whole` that no combination is missing, `plain` that neither
    direction is called better.
    """
    margin = {**MARGINS, **recorded.study["margins"]}.get(metric, NAN)
    planned, undirected = len(recorded.seeds), plain or metric in UNDIRECTED
    tests = NAN
    if found.sd > 0 and margin > 0:
        se = found.sd / math.sqrt(found.n)
        sides = (
            stats.t.sf((margin + found.effect) / se, found.n - 1),
            stats.t.sf((margin - found.effect) / se, found.n - 1),
        )
        tests = min(1.0, found.size * float(max(sides)))
    below = tests <= 0.05 and not found.low <= 0 <= found.high
    words = ("higher", "lower") if undirected else ("better", "worse")
    above = found.low > 0 if undirected or metric in HIGHER else found.high < 0
    decided = found.low > 0 or found.high < 0
    if found.n < planned or not whole:
        reason = "incomplete"
    elif same:
        return Verdict("equivalent", "identical", tests, margin, False, None)
    else:
        reason = "too_few_seeds" if found.n < 2 else "" if found.sd > 0 else "no_spread"
    if not reason and tests <= 0.05:
        return Verdict("equivalent", "", tests, margin, below, None)
    if not reason and decided:
        return Verdict(words[0] if above else words[1], "", tests, margin, False, None)
    least = found.n + 1 if found.n == planned else planned
    return Verdict("undecided", reason, tests, margin, False, _seeds_needed(found, margin, least))


def _same_predictions(recorded: Recorded, arm: str, baseline: str) -> bool:
    """Whether both arms are complete and gave the same logits on every planned seed."""
    own, other = ({t.seed: t.arrays["logits"] for t in recorded.found(side)} for side in (arm, baseline))
    if set(own) != set(recorded.seeds) or set(other) != set(recorded.seeds):
        return False
    return all(np.array_equal(own[seed], other[seed]) for seed in own)


def _seeds_needed(found: Difference, margin: float, least: int) -> int | None:
    """The fewest seeds, up to 1,000, that decide with 80 %: for a difference as seen, or for none at all."""
    if not found.sd > 0:
        return None
    level, effect = 0.05 / found.size, abs(found.effect) / found.sd

    def decides(n: int) -> bool:
        powers = difference_power(effect, n, level), equivalence_power(margin / found.sd, n, level)
        return max(powers) >= 0.8

    numbers = range(max(least, 2), 1001)
    if not numbers or not decides(numbers[-1]):
        return None
    low, high = -1, len(numbers) - 1  # both powers grow with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(numbers[middle]) else (middle, high)
    return numbers[high]


def difference_power(effect: float, n: int, level: float) -> float:
    """Of the paired t test; the true difference in standard deviations of the paired differences."""
    critical, shift = stats.t.isf(level / 2, n - 1), math.sqrt(n) * effect

    def rejects(spread: Array) -> Array:
        return np.asarray(
            stats.norm.cdf(shift - critical * spread) + stats.norm.cdf(-shift - critical * spread)
        )

    # Where the two normal probabilities go from 1 to 0.
    bends = ((shift - 10) / critical, (shift + 10) / critical)
    return _over_spreads(rejects, n, math.inf, bends)


def detectable(found: Difference) -> float:
    """The true difference that so many pairs with this spread find with 80 %, in the family."""
    if not found.sd > 0:
        return NAN
    return found.sd * _detectable_in_spreads(found.n, 0.05 / found.size)


@functools.cache
def _detectable_in_spreads(n: int, level: float) -> float:
    # More than enough: with a chance of 98 % the standard deviation is below 2.4 times the true one.
    most = float(3 * stats.t.isf(level / 2, n - 1) + 3) / math.sqrt(n)
    return float(brentq(lambda size: difference_power(size, n, level) - 0.8, 0.0, most, xtol=1e-14))


def sign_flip(differences: Array) -> float:
    """Share of all sign patterns whose sum is as far from 0 as the one seen; NaN unless 1 to 20 pairs."""
    own = differences[np.isfinite(differences)]
    if not 0 < len(own) <= 20:
        return NAN
    halves = [
        np.array(list(itertools.product((1, -1), repeat=len(half)))) @ half for half in np.array_split(own, 2)
    ]
    sums = halves[0][:, None] + halves[1][None, :]
    return float(np.mean(np.abs(sums) >= abs(own.sum()) - 1e-12 * np.abs(own).sum()))


def equivalence_power(margin: float, n: int, level: float) -> float:
    """Of both one-sided tests where there is no difference; the margin in standard deviations, or NaN."""
    if not margin > 0:
        return 0.0
    critical, reach = stats.t.isf(level, n - 1), math.sqrt(n) * margin

    def passes(spread: Array) -> Array:
        return np.asarray(2 * stats.norm.cdf(reach - critical * spread) - 1)

    return _over_spreads(passes, n, reach / critical)


def _over_spreads(
    power: Callable[[Array], Array], n: int, largest: float, bends: Sequence[float] = ()
) -> float:
    """Mean over the standard deviations, as parts of the true one, that n differences may show.

    The integral is taken in pieces between the places where the power bends.
    """
    low, high = max(0.0, 1 - 12 / math.sqrt(n)), min(largest, 1 + 12 / math.sqrt(n))
    if high <= low:
        return 0.0
    nodes, weights = _legendre()
    total, ends = 0.0, [low, *(bend for bend in bends if low < bend < high), high]
    for start, end in itertools.pairwise(ends):
        spreads = start + (end - start) * (nodes + 1) / 2
        density = 2 * spreads * (n - 1) * stats.chi2.pdf(spreads**2 * (n - 1), n - 1)
        total += float((weights * power(spreads) * density).sum() * (end - start) / 2)
    return total


@functools.cache
def _legendre() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return nodes, weights


def for_new_images(differences: Array, size: int) -> tuple[float, float, float]:
    """Mean of [n, N] differences, and its interval for new seeds and new images (Cornfield and Tukey 1956).

    The half-widths of the seeds' part and of what the images add are squared and added (Zou and Donner 2008).
    """
    n, images = differences.shape
    effect = float(differences.mean())
    if n < 2:
        return effect, NAN, NAN
    seeds = float(differences.mean(axis=1).var(ddof=1)) / n
    rest = differences - differences.mean(axis=0) - differences.mean(axis=1)[:, None] + effect
    within = float((rest**2).sum()) / ((n - 1) * (images - 1))
    added = max(float(differences.mean(axis=0).var(ddof=1)) - within / n, 0.0) / images
    half = math.hypot(
        *(stats.t.isf(0.025 / size, df) * math.sqrt(v) for df, v in ((n - 1, seeds), (images - 1, added)))
    )
    if half <= 1e-12 * float(np.abs(differences).max()):
        half = NAN
    return effect, effect - half, effect + half


@functools.cache
def per_image(trial: Trial, metric: str) -> Array:
    """[N] the metric of each image."""
    logits, labels = trial.arrays["logits"].astype(np.float64), trial.arrays["labels"]
    log_p = log_softmax(logits, axis=1)
    if metric == "accuracy":
        return np.asarray(logits.argmax(axis=1) == labels, dtype=np.float64)
    if metric == "nll":
        return np.asarray(-log_p[np.arange(len(labels)), labels])
    one_hot = labels[:, None] == np.arange(logits.shape[1])
    return np.asarray(((np.exp(log_p) - one_hot) ** 2).sum(axis=1))


def holm(p: Sequence[float]) -> list[float]:
    """Holm 1979; NaN stays and counts as one of the family."""
    order = sorted((value, at) for at, value in enumerate(p) if math.isfinite(value))
    corrected, largest = [NAN] * len(p), 0.0
    for rank, (value, at) in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * value))
        corrected[at] = largest
    return corrected


# Main effects and interactions.


@dataclass(frozen=True)
class Contrast:
    """One or two factors, each with a level and the reference level."""

    steps: tuple[tuple[str, Any, Any], ...]

    def signs(self, recorded: Recorded) -> list[list[tuple[int, str]]]:
        """Per combination of the other factors' levels, the arms with their signs."""
        names = [name for name, _, _ in self.steps]
        others = {name: own for name, own in recorded.levels.items() if name not in names}
        sides = [[(1, level), (-1, reference)] for _, level, reference in self.steps]
        found = []
        for combination in itertools.product(*others.values()):
            arms = []
            for side in itertools.product(*sides):
                levels = dict(zip(others, combination, strict=True))
                levels |= {name: level for name, (_, level) in zip(names, side, strict=True)}
                arms.append((math.prod(sign for sign, _ in side), _arm_of(recorded, levels)))
            found.append(arms)
        return found


def contrasts(recorded: Recorded) -> list[Contrast]:
    """The main effects, then the interactions of two factors; none where the arms are no grid."""
    if recorded.study.get("only"):
        return []
    steps = []
    for name, levels in recorded.levels.items():
        reference = recorded.study["baseline"].get(name, levels[0])
        steps.append([(name, level, reference) for level in levels if level != reference])
    steps = [own for own in steps if own]
    if len(steps) < 2:
        return []
    pairs = (pair for one, two in itertools.combinations(steps, 2) for pair in itertools.product(one, two))
    return [Contrast((step,)) for own in steps for step in own] + [Contrast(pair) for pair in pairs]


@dataclass(frozen=True)
class Average:
    """An average over combinations of levels: over how many of how many, what it is, what it shows."""

    cells: int
    planned: int
    found: Difference
    judged: Verdict
    by_seed: Array


@functools.cache
def contrast_of(recorded: Recorded, contrast: Contrast, metric: str) -> Average:
    """A main effect or an interaction."""
    asked = contrasts(recorded)
    size = len(asked) * len(recorded.family) if metric in recorded.family else 1
    cells = contrast.signs(recorded)
    plus, minus = (
        np.array(
            [
                sum(
                    (recorded.by_seed(arm, metric) for s, arm in cell if s == sign),
                    np.zeros(len(recorded.seeds)),
                )
                for cell in cells
            ]
        )
        for sign in (1, -1)
    )
    there = np.isfinite(plus + minus)
    rows, seeds = _most_values(there)
    ends = [np.full(there.shape[1], NAN) for _ in range(2)]
    for end, side in zip(ends, (plus, minus), strict=True):
        if rows:
            end[seeds] = side[np.ix_(rows, seeds)].mean(axis=0)
    found, whole = difference(ends[0], ends[1], size), len(rows) == len(there)
    same = all(_cancels(recorded, cell) for cell in cells)
    judged = verdict(recorded, metric, found, same, whole=whole, plain=len(contrast.steps) > 1)
    return Average(len(rows), len(there), found, judged, ends[0] - ends[1])


def _cancels(recorded: Recorded, cell: Sequence[tuple[int, str]]) -> bool:
    """Whether each arm that is added has a twin, with the same predictions, that is subtracted."""
    own, other = ([arm for sign, arm in cell if sign == side] for side in (1, -1))
    return any(
        all(_same_predictions(recorded, *pair) for pair in zip(own, twins, strict=True))
        for twins in itertools.permutations(other)
    )


# Trends.


def ordered(recorded: Recorded) -> list[str]:
    """The factors of three levels or more that are all numbers; none where the arms are no grid."""
    if recorded.study.get("only"):
        return []
    return [
        name
        for name, levels in recorded.levels.items()
        if len(levels) > 2 and not any(isinstance(level, (bool, str)) or level is None for level in levels)
    ]


@functools.cache
def trend_of(recorded: Recorded, factor: str, metric: str) -> Average:
    """A fitted line's rise over the factor's range, per seed and combination; then as for differences."""
    levels = recorded.levels[factor]
    others = {name: own for name, own in recorded.levels.items() if name != factor}
    lines = []
    for combination in itertools.product(*others.values()):
        wanted = dict(zip(others, combination, strict=True))
        lines.append([_arm_of(recorded, {**wanted, factor: level}) for level in levels])
    values = np.array([[recorded.by_seed(arm, metric) for arm in line] for line in lines])
    there = np.isfinite(values).all(axis=1)
    rows, seeds = _most_values(there)
    rises = np.full(there.shape[1], NAN)
    for seed in seeds:
        slopes = [stats.linregress(levels, values[row, :, seed]).slope for row in rows]
        rises[seed] = np.mean(slopes) * (max(levels) - min(levels))
    size = len(ordered(recorded)) * len(recorded.family) if metric in recorded.family else 1
    found = _rise(rises, size, float(np.nanmax(np.abs(values), initial=0.0)))
    same = all(_same_predictions(recorded, line[0], arm) for line in lines for arm in line)
    judged = verdict(recorded, metric, found, same, whole=len(rows) == len(lines))
    return Average(len(rows), len(lines), found, judged, rises)


def _rise(rises: Array, size: int, scale: float) -> Difference:
    """What the seeds' rises come to; what rounding can make of values as large as `scale` is none."""
    own = rises[np.isfinite(rises)]
    n, effect = len(own), float(own.mean()) if len(own) else NAN
    spread = float(own.std(ddof=1)) if n > 1 else NAN
    if n > 1 and spread <= 1e-12 * scale:
        effect, spread = 0.0 if abs(effect) <= 1e-12 * scale else effect, 0.0
    if not spread > 0:
        return Difference(n, effect, NAN, NAN, NAN, NAN, NAN, spread, size)
    test = stats.ttest_1samp(own, 0.0)
    ends = test.confidence_interval(1 - 0.05 / size)
    p = float(test.pvalue)
    return Difference(n, effect, float(ends.low), float(ends.high), p, min(1.0, size * p), NAN, spread, size)


def _arm_of(recorded: Recorded, levels: Mapping[str, Any]) -> str:
    (arm,) = (arm for arm, own in recorded.arms.items() if own == levels)
    return arm


def _most_values(there: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """Combinations, the fullest first, and the seeds they all have: as many values as possible."""
    order = np.argsort(-there.sum(axis=1), kind="stable")
    best: tuple[list[int], list[int]] = ([], [])
    for count in range(1, len(order) + 1):
        rows = sorted(int(row) for row in order[:count])
        seeds = [int(seed) for seed in np.flatnonzero(there[rows].all(axis=0))]
        if seeds and len(seeds) * count >= len(best[0]) * len(best[1]):
            best = rows, seeds
    return best


# Step times.


def median_of(values: Array) -> tuple[float, float, float]:
    """Median with the tightest symmetric pair of order statistics that holds it with 95 % (binomial)."""
    ordered, n = np.sort(values), len(values)
    ranks = [k for k in range(n // 2) if 1 - 2 * stats.binom.cdf(k, n, 0.5) >= 0.95]
    if not ranks:
        return float(np.median(values)), NAN, NAN
    return float(np.median(values)), float(ordered[ranks[-1]]), float(ordered[n - 1 - ranks[-1]])


def step_times(recorded: Recorded, case: Mapping[str, Any]) -> Array | None:
    """[rounds] milliseconds of a case, if it was timed."""
    timing = recorded.timing or {"cases": [], "step_ms": []}
    for own, times in zip(timing["cases"], timing["step_ms"], strict=True):
        if own == dict(case):
            return np.array(times)
    return None


def plain(case: Mapping[str, Any]) -> dict[str, Any]:
    """The same step with the mean of plain cross-entropy."""
    return {**case, "loss": "cross_entropy", "reduction": "mean"}


# Comparing.


@dataclass(frozen=True)
class Unchecked:
    """Where any number may stand, as it is not recomputed."""


def same(value: Any, expected: float, tolerance: float = 1e-9) -> bool:
    """Whether an unrounded number is the expected one; nothing is NaN."""
    if value is None or value == "" or not math.isfinite(expected):
        return value in (None, "") and not math.isfinite(expected)
    number = float({"True": 1, "False": 0}.get(value, value) if isinstance(value, str) else value)
    return math.isclose(number, expected, rel_tol=tolerance, abs_tol=1e-12 * (tolerance / 1e-9))


@dataclass
class Audit:
    """What was compared, file by file, what did not agree, and what was left out."""

    compared: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)

    def check(self, place: str, shown: Any, expected: Any, agrees: bool) -> None:
        self.compared[place.split(":")[0]] += 1
        if not agrees:
            self.wrong.append(f"{place}: holds {shown!r}, recomputed {expected!r}")


@functools.cache
def effect_of(recorded: Recorded, arm: str, baseline: str, metric: str) -> tuple[Difference, Verdict]:
    """The difference of two arms, in the family's intervals where the metric is of it, and its verdict."""
    size = len(recorded.comparisons) * len(recorded.family) if metric in recorded.family else 1
    found = difference(recorded.by_seed(arm, metric), recorded.by_seed(baseline, metric), size)
    return found, verdict(recorded, metric, found, _same_predictions(recorded, arm, baseline))


def _loose(metric: str) -> float:
    """Of differences and their tests, in which a metric's own tolerance grows."""
    return 100 * TOLERANCE.get(metric, 1e-11)


def _history(trial: Trial) -> list[dict[str, Any]]:
    return list(trial.record["history"]) if trial.record else []


def new_images(recorded: Recorded, arm: str, baseline: str, metric: str) -> tuple[float, float, float]:
    """Mean difference and its interval for new images; NaN for metrics that are no mean over images."""
    if metric not in PER_IMAGE:
        return NAN, NAN, NAN
    own, other = ({t.seed: per_image(t, metric) for t in recorded.found(side)} for side in (arm, baseline))
    rows = [own[seed] - other[seed] for seed in recorded.seeds if seed in own and seed in other]
    if not rows:
        return NAN, NAN, NAN
    return for_new_images(np.array(rows), effect_of(recorded, arm, baseline, metric)[0].size)


def one_more(values: Sequence[float]) -> tuple[float, float]:
    """Where one more value of the same normal population lies in 95 % of cases."""
    if len(values) < 2 or np.ptp(values) == 0:
        return NAN, NAN
    spread = math.sqrt(1 + 1 / len(values)) * float(np.std(values, ddof=1))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=float(np.mean(values)), scale=spread)
    return float(low), float(high)


# The page's numbers that stand in no table.


def audit_arms(recorded: Recorded, table: Mapping[str, Any]) -> Audit:
    """Means of arms with their intervals, in report.json's `arms` or `more_metrics`."""
    audit = Audit()
    for arm, row in zip(recorded.arms, table["rows"], strict=True):
        audit.check(
            "arms", row[1]["value"], len(recorded.found(arm)), row[1]["value"] == len(recorded.found(arm))
        )
        for head, cell in zip(table["columns"][2:], row[2:], strict=True):
            metric = SHOWN[head["label"]]
            mean = mean_of(recorded.by_seed(arm, metric))
            for name, expected in (("value", mean.mean), ("low", mean.low), ("high", mean.high)):
                place = f"arms: {arm}, {metric}, {name}"
                agrees = same(cell[name], expected, TOLERANCE.get(metric, 1e-9))
                audit.check(place, cell[name], expected, agrees)
    return audit


def audit_published(recorded: Recorded, section: Mapping[str, Any]) -> Audit:
    """Where one more run would lie in each epoch, and whether the published value lies there."""
    audit = Audit()
    theirs = {int(row["epoch"]): row for row in recorded.study["published"]["epochs"]}
    for table, arm in zip(section["tables"], recorded.arms, strict=True):
        own = [{epoch["epoch"]: epoch for epoch in _history(trial)} for trial in recorded.found(arm)]
        inside = 0
        for row in table["rows"]:
            epoch = int(row[0]["value"])
            for head, ours, their in zip(table["columns"][1::2], row[1::2], row[2::2], strict=True):
                name = SHOWN[head["label"].removesuffix(": ours")]
                low, high = one_more([history[epoch][name] for history in own if epoch in history])
                value = theirs.get(epoch, {}).get(name, NAN)
                expected = {"low": low, "high": high}
                for end, number in expected.items():
                    audit.check(
                        f"published: {arm}, {epoch}, {name}", ours[end], number, same(ours[end], number)
                    )
                lies = NAN if math.isnan(low + value) else float(low <= value <= high)
                audit.check(
                    f"published: {arm}, {epoch}, {name}", their["inside"], lies, same(their["inside"], lies)
                )
                inside += lies == 1
        audit.check(f"published: {arm}", table["inside"], inside, table["inside"] == inside)
    return audit


# The CSV files.


def audit_csv(recorded: Recorded, folder: Path) -> Audit:
    """Every CSV file of a results folder; `left_out` names columns as file.column."""
    audit = Audit()
    for path in sorted(folder.glob("*.csv")):
        name = path.stem
        if name not in FILES:
            audit.left_out.add(name)
            continue
        with path.open(encoding="utf-8", newline="") as file:
            shown = list(csv.DictReader(file))
        expected = FILES[name](recorded, shown)
        if len(shown) != len(expected):
            audit.wrong.append(f"{name}: {len(shown)} rows, recomputed {len(expected)}")
            continue
        for at, (row, own) in enumerate(zip(shown, expected, strict=True)):
            _audit_row(audit, name, at, row, own)
    return audit


def _audit_row(audit: Audit, name: str, at: int, row: Mapping[str, str], own: Mapping[str, Any]) -> None:
    tolerance = _loose(str(own["metric"])) if name == "effects" else 1e-9
    for column, value in row.items():
        place = f"{name}.csv: row {at}, {column}"
        if column not in own:
            audit.left_out.add(f"{name}.{column}")
            continue
        if isinstance(own[column], Unchecked):
            audit.left_out.add(f"{name}.{column} of {own['metric']}")
            continue
        expected = own[column]
        if isinstance(expected, Between):
            agrees = expected.least <= float(value) <= expected.most
        elif isinstance(expected, (str, bool)) or expected is None:
            agrees = value == ("" if expected is None else str(expected))
        else:
            agrees = same(value, float(expected), max(tolerance, TOLERANCE.get(column, 0)))
        audit.check(place, value, expected, agrees)


def _key(trial: Trial) -> dict[str, Any]:
    return {"trial_id": trial.trial_id, "arm": trial.arm, "seed": trial.seed}


def _trials_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    # A record from before a setting existed does not hold it.
    measured = {*SHOWN.values(), *FLOORS.values(), *COSTS} - LEFT_OUT_METRICS
    rows = []
    for trial in recorded.trials:
        record = trial.record or {}
        own: dict[str, Any] = (
            {name: trial.row.get(name, NAN) for name in measured} | trial.fields | _key(trial)
        )
        own |= {"repeat": trial.repeat, "threads": record.get("environment", {}).get("threads", NAN)}
        own |= {name: record.get(name) or NAN for name in ("parameters", "macs")}
        rows.append(own)
    return rows


def _complete(recorded: Recorded) -> list[Trial]:
    return [trial for trial in recorded.trials if trial.row]


def _epochs_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for trial in recorded.trials:
        for epoch in _history(trial):
            miss = np.abs(np.array(epoch["bin_confidence"]) - np.array(epoch["bin_correct"])).sum()
            kept = {name: value for name, value in epoch.items() if not isinstance(value, list)}
            rows.append({**_key(trial), **kept, "valid_ece": float(miss) / sum(epoch["bin_count"])})
    return rows


def _reliability_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for trial in _complete(recorded):
        logits = trial.arrays["logits"].astype(np.float64)
        confidence = np.exp(log_softmax(logits, axis=1).max(axis=1))
        right = logits.argmax(axis=1) == trial.arrays["labels"]
        places = np.minimum((confidence * 15).astype(int), 14)
        for at in range(15):
            own = places == at
            means = (float(part[own].mean()) if own.any() else NAN for part in (confidence, right))
            numbers = dict(zip(("confidence", "accuracy"), means, strict=True))
            edges = {"bin": at, "lower": at / 15, "upper": (at + 1) / 15, "count": int(own.sum())}
            rows.append({**_key(trial), **edges, **numbers})
    return rows


def _floors_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Of the mean over each arm's complete runs; an earlier version's are of the first alone."""
    rows, earlier = [], bool(shown) and "trial_id" in shown[0]
    for arm in recorded.arms:
        runs = recorded.found(arm)[: 1 if earlier else None]
        for metric in ("ece", "ece_equal_mass", "classwise_ece", "mce", "smece") if runs else ():
            low, high = floor_band(runs, metric)
            key = _key(runs[0]) if earlier else {"arm": arm, "runs": len(runs)}
            rows.append({**key, "metric": metric, "low": low, "high": high})
    return rows


def _confusion_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for arm in recorded.arms:
        found = recorded.found(arm)
        names = (found[0].record or {}).get("class_names") if found else None
        if not names:
            continue
        labels = np.concatenate([trial.arrays["labels"] for trial in found])
        taken = np.concatenate([trial.arrays["logits"].argmax(axis=1) for trial in found])
        for true, predicted in itertools.product(range(len(names)), repeat=2):
            count = int(((labels == true) & (taken == predicted)).sum())
            rows.append({"arm": arm, "class": names[true], "predicted": names[predicted], "count": count})
    return rows


def _projection_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for trial in [recorded.found(arm)[0] for arm in recorded.arms if recorded.found(arm)]:  # one run per arm
        names = (trial.record or {}).get("class_names")
        for split in ("train", "valid"):
            points = trial.arrays.get(f"projection_{split}", np.empty((0, 2)))
            labels = trial.arrays.get(f"projection_{split}_labels", np.empty(0))
            for (x, y), label in zip(points, labels, strict=True):
                place = {"class": names[label] if names else str(label), "x": float(x), "y": float(y)}
                rows.append({**_key(trial), "split": split, **place})
    return rows


def _effects_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    rows = []
    for (arm, baseline), metric in itertools.product(recorded.comparisons, metrics):
        found, judged = effect_of(recorded, arm, baseline, metric)
        images = new_images(recorded, arm, baseline, metric)
        own = {"kind": "arm", "term": arm, "against": baseline, "metric": metric, "n": found.n}
        own |= {"cells": 1 if found.n else 0, "cells_planned": 1}
        own |= {name: getattr(found, name) for name in ("effect", "low", "high", "p", "p_adjusted", "rho")}
        own |= {"margin": judged.margin, "p_equivalence": judged.p_equivalence, "verdict": judged.word}
        own |= {"reason": judged.reason, "below_margin": judged.below_margin}
        own |= {"seeds_needed": judged.seeds_needed or NAN, "low_images": images[1], "high_images": images[2]}
        flipped = recorded.by_seed(arm, metric) - recorded.by_seed(baseline, metric)
        own |= {"p_sign_flip": sign_flip(flipped), "detectable": detectable(found)}
        rows.append(own)
    families = [rows, *_averages_csv(recorded, metrics)]
    return [row for family in families for row in _with_holm(recorded, family)]


def _with_holm(recorded: Recorded, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    inside = [row for row in rows if row["metric"] in recorded.family]
    corrected = iter(holm([row["p"] for row in inside]))
    return [{**row, "p_holm": next(corrected) if row["metric"] in recorded.family else NAN} for row in rows]


def _new_images_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for (arm, baseline), metric in itertools.product(recorded.comparisons, PER_IMAGE):
        effect, low, high = new_images(recorded, arm, baseline, metric)
        found = effect_of(recorded, arm, baseline, metric)[0]
        images = len(recorded.found(arm)[0].arrays["labels"]) if found.n else NAN
        own = {"arm": arm, "baseline": baseline, "metric": metric, "comparisons": found.size}
        rows.append({**own, "n_pairs": found.n, "images": images, "effect": effect, "low": low, "high": high})
    return rows


def _averages_csv(recorded: Recorded, metrics: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Main effects with interactions, and trends: a family each."""
    mixed: list[dict[str, Any]] = []
    for contrast, metric in itertools.product(contrasts(recorded), metrics):
        names = (", ".join(f"{step[0]}={step[side]}" for step in contrast.steps) for side in (1, 2))
        own = dict(zip(("term", "against"), names, strict=True))
        own |= {"kind": "main" if len(contrast.steps) == 1 else "interaction", "metric": metric}
        mixed.append(own | _average_columns(contrast_of(recorded, contrast, metric)))
    trends: list[dict[str, Any]] = []
    for factor, metric in itertools.product(ordered(recorded), metrics):
        levels = recorded.levels[factor]
        own = {"term": f"{factor}={max(levels)}", "against": f"{factor}={min(levels)}"}
        own |= {"kind": "trend", "metric": metric}
        trends.append(own | _average_columns(trend_of(recorded, factor, metric)))
    return [mixed, trends]


def _average_columns(own: Average) -> dict[str, Any]:
    found, judged = own.found, own.judged
    columns = {name: getattr(found, name) for name in ("effect", "low", "high", "p", "p_adjusted")}
    columns |= {"cells": own.cells, "cells_planned": own.planned, "n": found.n}
    columns |= {"margin": judged.margin, "p_equivalence": judged.p_equivalence, "verdict": judged.word}
    columns |= {"rho": NAN, "low_images": NAN, "high_images": NAN, "detectable": detectable(found)}
    equal = np.where(np.isfinite(own.by_seed), found.effect, NAN)  # but for rounding
    flipped = equal if found.sd == 0 else own.by_seed
    columns |= {"seeds_needed": judged.seeds_needed or NAN, "p_sign_flip": sign_flip(flipped)}
    return {**columns, "reason": judged.reason, "below_margin": judged.below_margin}


def _cases(recorded: Recorded) -> list[tuple[dict[str, Any], Array]]:
    timing = recorded.timing or {"cases": [], "step_ms": []}
    return [(case, np.array(ms)) for case, ms in zip(timing["cases"], timing["step_ms"], strict=True)]


def _step_times_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for place, (case, times) in enumerate(_cases(recorded)):
        timing = recorded.timing or {}
        own = {**case, "steps": timing["steps"][place], "threads": timing["environment"]["threads"]}
        rows += [{**own, "round": at, "step_ms": ms} for at, ms in enumerate(times)]
    return rows


def _timing_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for case, times in _cases(recorded):
        beside = step_times(recorded, plain(case))
        own = dict(zip(("step_ms", "low", "high"), median_of(times), strict=True))
        if beside is not None:
            ratio = median_of(times / beside)
            own |= dict(zip(("ratio_to_plain", "ratio_low", "ratio_high"), ratio, strict=True))
        others = (recorded.timing or {})["others"]
        exclusive = None if others is None else others < 0.1
        rows.append({**case, **own, "plain": case == plain(case), "n": len(times), "exclusive": exclusive})
    return rows


def _search_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    search = recorded.search
    if search is None:
        return []
    declared, states = search.stored["search"], Counter(point["state"] for point in search.points)
    runs = {run.trial_id: run for own in search.runs for run in own if run.record}
    kept = ("tuning_images", "train_images", "tuning_digest", "reported_digest", "overlap")
    own: dict[str, Any] = {name: search.stored[name] for name in kept}
    own |= {name: declared[name] for name in ("seeds", "sampler", "pruning")}
    own |= {"points_planned": declared["points"], "points_done": states["complete"]}
    own |= {f"points_{state}": states[state] for state in ("pruned", "failed")}
    own |= {"trainings": len(runs), "seconds": math.fsum(run.seconds for run in runs.values())}
    for suffix in ("", "_2"):
        metric = search.objectives.get(suffix)
        better = None if metric is None else "higher" if metric in HIGHER else "lower"
        own |= {f"objective{suffix}": metric, f"direction{suffix}": better}
    return [own]


def _points_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    search = recorded.search
    if search is None:
        return []
    return [_point_columns(search, number) for number in range(len(search.points))]


def _point_columns(search: Search, number: int) -> dict[str, Any]:
    point, runs = search.points[number], search.runs[number]
    first = next((run.record for run in runs if run.record), None)
    own: dict[str, Any] = {name: point[name] for name in ("number", "source", "state")}
    own |= {"reason": point["reason"] or None, "pruned_at": point["pruned_at"] or NAN}
    own["levels"] = ", ".join(f"{name}={level}" for name, level in point["levels"].items())
    own |= first["trial"]["fields"] if first else point["levels"]
    own |= {"seeds_planned": len(point["seeds"]), "seeds_done": sum(bool(run.row) for run in runs)}
    for suffix in ("", "_2"):
        metric = search.objectives.get(suffix)
        found = mean_of([]) if metric is None else search.mean(number, metric)
        values = search.values(number, metric) if metric is not None and found.n > 1 else []
        own |= {f"objective{suffix}": metric, f"value{suffix}": found.mean}
        own |= {f"low{suffix}": found.low, f"high{suffix}": found.high}
        own[f"sd{suffix}"] = float(np.std(values, ddof=1)) if values else NAN
    seen = search.values(number, search.objectives[""]) or list(point["intermediate"].values())[-1:]
    own["last_seen"] = float(np.mean(seen)) if seen and point["state"] == "pruned" else NAN
    own["on_front"] = _on_front(search, number)
    seconds = math.fsum(run.seconds for run in runs)
    return {**own, "winner": number in search.stored["winners"], "seconds": seconds}


def _on_front(search: Search, number: int) -> bool | None:
    """Of the smoothed values as they are written."""
    rows = [
        [
            fit[f"smoothed{suffix}"] * (1 if metric in HIGHER else -1)
            for suffix, metric in search.objectives.items()
        ]
        for fit in search.smoothed
    ]
    own = rows[number]
    if len(own) < 2 or not all(map(math.isfinite, own)):
        return None
    return not any(other != own and all(a >= b for a, b in zip(other, own, strict=True)) for other in rows)


def _point_values_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    search = recorded.search
    if search is None:
        return []
    return [
        {
            **{"number": number, "seed": run.seed, "trial_id": run.trial_id, "status": run.status},
            **{
                f"value{suffix}": run.row.get(search.objectives.get(suffix, ""), NAN) for suffix in ("", "_2")
            },
        }
        for number, runs in enumerate(search.runs)
        for run in runs
    ]


def _importances_csv(recorded: Recorded, shown: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    found = [] if recorded.search is None else recorded.search.stored["importances"]
    return [
        {"objective": own["objective"], "evaluator": own["evaluator"], "field": name, "share": share}
        for own in found
        for name, share in own["shares"].items()
    ]


FILES: dict[str, Any] = {
    "trials": _trials_csv,
    "epochs": _epochs_csv,
    "reliability": _reliability_csv,
    "floors": _floors_csv,
    "confusion": _confusion_csv,
    "projection": _projection_csv,
    "effects": _effects_csv,
    "new_images": _new_images_csv,
    "step_times": _step_times_csv,
    "timing": _timing_csv,
    "tuning": _search_csv,
    "points": _points_csv,
    "point_values": _point_values_csv,
    "importances": _importances_csv,
}
