"""An audit of a study's tables: their numbers once more, from the records and predictions alone.

Nothing of ablate is imported. Definitions are those of results/README.md, of a report's Method section and of
the papers that are named there, computed with numpy, scipy and scikit-learn, by another route where there is
one: the smooth calibration error from a cosine series, power by quadrature.

A number agrees to nine digits; a floor or its band, which come from draws of labels, within what the draws
here and there can be off. Left out is what another computation would not give, and what is no number of the
study:

- `LEFT_OUT_OF_A_SEARCH`: columns with the smoothed values of a search's points;
- `LEFT_OUT_COLUMNS`: columns of the CSV files that are words or readings of the machine, and the floor of the
  smooth calibration error with its band.

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

LEFT_OUT_COLUMNS = {
    *(f"trials.{name}" for name in ("study", "profile", "status", "engine", "torch_version", "commit")),
    *(f"trials.{name}" for name in ("failure", "device_name", "resolved_precision", "device")),
    *("trials.predictions_sha256", "trials.smece_floor", "floors.low of smece", "floors.high of smece"),
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
TOLERANCE = {"smece": 1e-5} | dict.fromkeys(FLOORS.values(), 0.11)
"""Relative; the integral over the smooth calibration curve is a sum over a grid, here and there. Floors are
means of 1,000 draws here and there: five standard errors, where a draw's deviation is half the mean."""


# What lies in the results folder.


@dataclass(eq=False)
class Trial:
    """A training run with what became of it; `row` holds its metrics and costs, nothing unless complete."""

    trial_id: str
    seed: int
    record: dict[str, Any] | None
    arrays: dict[str, NDArray[Any]]
    arm: str = ""
    levels: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    repeat: int = 0
    row: Row = field(default_factory=dict)

    @property
    def key(self) -> dict[str, Any]:
        return {"trial_id": self.trial_id, "arm": self.arm, "seed": self.seed}

    @property
    def history(self) -> list[dict[str, Any]]:
        return list(self.record["history"]) if self.record else []

    @property
    def seconds(self) -> float:
        cost = self.record["cost"] if self.record else None
        if cost:
            return float(cost["train_seconds"] + cost["eval_seconds"])
        return math.fsum(epoch["seconds"] for epoch in self.history)

    @functools.cached_property
    def logits(self) -> Array:
        return np.asarray(self.arrays["logits"], dtype=np.float64)

    @functools.cached_property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.logits.argmax(axis=1) == self.arrays["labels"])


@dataclass(eq=False)
class Search:
    """What was searched: tuning.json, the runs of each point, and the smoothed columns of points.csv."""

    stored: dict[str, Any]
    runs: list[list[Trial]]
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


@dataclass(eq=False)
class Recorded:
    """A results folder: the study as planned, its trials, its timing pass, its search."""

    study: dict[str, Any]
    trials: list[Trial]
    timing: dict[str, Any]
    search: Search | None

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

    @property
    def family(self) -> tuple[str, ...]:
        return tuple(self.study["family"]) or (self.study["primary"],)

    def complete(self, arm: str) -> list[Trial]:
        """The arm's complete runs."""
        return [trial for trial in self.trials if trial.arm == arm and trial.row and not trial.repeat]

    def by_seed(self, arm: str, metric: str) -> Array:
        """[S] the arm's values; NaN where there is none."""
        values = {trial.seed: trial.row.get(metric, NAN) for trial in self.complete(arm)}
        return np.array([values.get(seed, NAN) for seed in self.seeds])

    @functools.cached_property
    def alike(self) -> dict[str, Any]:
        """Arm to its logits on every planned seed, or to itself where one is missing."""
        logits = {arm: {t.seed: t.logits.tobytes() for t in self.complete(arm)} for arm in self.arms}
        return {
            arm: tuple(own.values()) if len(own) == len(self.seeds) else arm for arm, own in logits.items()
        }


def read(folder: Path) -> Recorded:
    """The recorded study with every metric computed again."""
    plan = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    keys = ("trial_id", "seed", "arm", "levels", "fields", "repeat")
    trials = [_read_trial(folder, **{key: planned[key] for key in keys}) for planned in plan["trials"]]
    path = folder / "timing.json"
    timing: dict[str, Any] = {"cases": [], "step_ms": [], "steps": []}
    if path.exists():
        timing = json.loads(path.read_text(encoding="utf-8"))
    return Recorded(plan["study"], trials, timing, _read_search(folder))


def _read_search(folder: Path) -> Search | None:
    path = folder / "tuning" / "tuning.json"
    if not path.exists():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    runs = [
        [
            _read_trial(path.parent, trial_id=name, seed=seed)
            for name, seed in zip(p["trial_ids"], p["seeds"], strict=True)
        ]
        for p in stored["points"]
    ]
    with (folder / "points.csv").open(encoding="utf-8", newline="") as file:
        smoothed = [
            {name: float(text or "nan") for name, text in row.items() if name.startswith("smoothed")}
            for row in csv.DictReader(file)
        ]
    return Search(stored, runs, smoothed)


def _read_trial(folder: Path, **planned: Any) -> Trial:
    name = planned["trial_id"]
    path, arrays = folder / "records" / f"{name}.json", folder / "predictions" / f"{name}.npz"
    record = json.loads(path.read_text(encoding="utf-8"))["record"] if path.exists() else None
    trial = Trial(**planned, record=record, arrays={})
    if record is None or record["status"] != "complete":
        return trial
    with np.load(arrays) as opened:  # complete, so without them there is nothing to recompute it from
        trial.arrays = {key: opened[key] for key in opened.files}
    row = trial_metrics(trial.logits, trial.arrays["labels"])
    row |= {name: float(value) for name, value in (record["cost"] or {}).items() if value is not None}
    features = record.get("features") or {}
    for split, suffix in (("valid", ""), ("train", "_train")):
        for kind in ("within", "between"):
            value = (features.get(split) or {}).get(kind)
            row[f"scatter_{kind}{suffix}"] = NAN if value is None else value
    trial.row = row
    return trial


# Metrics of one trial.


def trial_metrics(logits: Array, labels: NDArray[Any]) -> Row:
    """All metrics of [N, K] logits with [N] labels but floors."""
    count, classes = logits.shape
    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    right, confidence = logits.argmax(axis=1) == labels, p.max(axis=1)
    one_hot = labels[:, None] == np.arange(classes)
    bins = _bins(confidence)
    of_classes = [_misses(p[:, k] - one_hot[:, k], _bins(p[:, k])).sum() for k in range(classes)]
    row = {
        "accuracy": float(right.mean()),
        "nll": float(-log_p[np.arange(count), labels].mean()),
        "brier": float(((p - one_hot) ** 2).sum(axis=1).mean()),
        "ece": float(_misses(confidence - right, bins).sum() / count),
        "mce": float((_misses(confidence - right, bins) / np.maximum(np.bincount(bins), 1)).max()),
        "classwise_ece": float(np.mean(of_classes) / count),
        "smece": _smooth_ece(confidence, right),
        "mean_confidence": float(confidence.mean()),
        "confidence_gap": float(confidence.mean() - right.mean()),
    }
    return row | _equal_mass(confidence, right) | _ranking(logits, right) | _scaled(logits, labels)


def _bins(confidence: Array, bins: int = 15) -> NDArray[np.intp]:
    """[N] the bin of equal width in [0, 1]."""
    return np.minimum((confidence * bins).astype(np.intp), bins - 1)


def _misses(gaps: Array, bins: NDArray[np.intp]) -> Array:
    """Per bin by how many images confidence misses accuracy."""
    return np.asarray(np.abs(np.bincount(bins, gaps)))


def _mass_bins(confidence: Array, bins: int = 15) -> NDArray[np.intp]:
    """[N] the bin of equal mass."""
    ordered = np.sort(confidence)
    ends = np.cumsum([len(part) for part in np.array_split(ordered, bins)])
    # Images of equal confidence share a bin: an edge inside such a run moves behind it.
    edges = np.unique(ordered[ends[ends > 0] - 1])
    return np.searchsorted(edges, confidence)


def _equal_mass(confidence: Array, right: NDArray[np.bool_]) -> Row:
    """ECE over bins of equal mass, and the debiased error of Kumar et al. 2019."""
    bins = _mass_bins(confidence)
    squared = 0.0
    for at in np.unique(bins):
        inside = bins == at
        accuracy, size = float(right[inside].mean()), int(inside.sum())
        noise = accuracy * (1 - accuracy) / (size - 1) if size > 1 else 0.0
        squared += size / len(right) * ((float(confidence[inside].mean()) - accuracy) ** 2 - noise)
    return {
        "ece_equal_mass": float(_misses(confidence - right, bins).sum() / len(right)),
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
    right, scaled = logits.argmax(axis=1) == labels, np.exp(log_p.max(axis=1))
    return {
        "temperature": float(fitted.mean()),
        "nll_scaled": float(-log_p[np.arange(count), labels].mean()),
        "ece_scaled": float(_misses(scaled - right, _bins(scaled)).sum() / count),
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


# Floors, and their bands.


@dataclass(frozen=True)
class Between:
    """Where a number must lie that comes from draws."""

    least: float
    most: float


@functools.cache
def drawn_errors(trial: Trial, draws: int = 1000) -> dict[str, Array]:
    """[draws] of each calibration error, with labels drawn from the probabilities."""
    p = np.exp(log_softmax(trial.logits, axis=1))
    (count, classes), confidence, upper = p.shape, p.max(axis=1), np.cumsum(p, axis=1)[:, :-1]
    rng = np.random.default_rng([trial.seed, 1])
    labels = np.stack([(rng.random((count, 1)) > upper).sum(axis=1) for _ in range(draws)])
    gaps = confidence - (labels == p.argmax(axis=1))
    bins, mass = _bins(confidence), _mass_bins(confidence)
    misses = np.array([_misses(own, bins) for own in gaps])
    of_class = _bins(p) + 15 * np.arange(classes)
    expected = np.bincount(of_class.ravel(), p.ravel(), minlength=15 * classes)
    found = [np.bincount(of_class[np.arange(count), own], minlength=15 * classes) for own in labels]
    return {
        "ece": misses.sum(axis=1) / count,
        "ece_equal_mass": np.array([_misses(own, mass).sum() for own in gaps]) / count,
        "mce": (misses / np.maximum(np.bincount(bins), 1)).max(axis=1),
        "classwise_ece": np.abs(expected - np.array(found)).sum(axis=1) / p.size,
    }


def floor_band(trials: Sequence[Trial], metric: str) -> tuple[Any, Any]:
    """Ends of the central 95 % of the mean over runs of a calibrated model's error."""
    means = np.mean([drawn_errors(trial)[metric] for trial in trials], axis=0)
    # The standard error of a 2.5 % quantile of n normal draws is 2.7 standard deviations over the root of n.
    off = 5 * 2.7 * float(np.std(means)) * (2 / 1000) ** 0.5
    low, high = (Between(end - off, end + off) for end in np.quantile(means, (0.025, 0.975)).tolist())
    return low, high


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
    if len(known) < 2 or np.ptp(known) == 0:
        return Mean(len(known), float(known.mean()) if len(known) else NAN, NAN, NAN)
    half, mean = float(stats.t.isf(0.025, len(known) - 1) * stats.sem(known)), float(known.mean())
    return Mean(len(known), mean, mean - half, mean + half)


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


def verdict(
    recorded: Recorded, metric: str, found: Difference, *, same: bool, whole: bool, directed: bool
) -> Row | dict[str, Any]:
    """Incomplete pairs decide nothing; then the two one-sided tests of equivalence; then the interval.

    `same` says that the predictions are, `whole` that no combination is missing, `directed` that one
    direction may be called better.
    """
    margin, planned = {**MARGINS, **recorded.study["margins"]}.get(metric, NAN), len(recorded.seeds)
    equivalence = NAN
    if found.sd > 0 and margin > 0:
        se = found.sd / math.sqrt(found.n)
        sides = (stats.t.sf((margin + sign * found.effect) / se, found.n - 1) for sign in (1, -1))
        equivalence = min(1.0, found.size * float(max(sides)))
    decided = found.low > 0 or found.high < 0
    words = ("higher", "lower") if not directed or metric in UNDIRECTED else ("better", "worse")
    above = found.low > 0 if metric in HIGHER or words[0] == "higher" else found.high < 0
    word, reason, seeds = "undecided", "", None
    if found.n < planned or not whole:
        reason = "incomplete"
    elif same:
        word, reason = "equivalent", "identical"
    elif not found.sd > 0:
        reason = "too_few_seeds" if found.n < 2 else "no_spread"
    elif equivalence <= 0.05:
        word = "equivalent"
    elif decided:
        word = words[0] if above else words[1]
    if word == "undecided":
        seeds = _seeds_needed(found, margin, found.n + 1 if found.n == planned else planned)
    return {
        **{"margin": margin, "p_equivalence": equivalence, "verdict": word, "reason": reason},
        **{"below_margin": word == "equivalent" and decided, "seeds_needed": seeds or NAN},
    }


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


def sign_flip(plus: Array, minus: Array) -> float:
    """Share of all sign patterns whose sum is as far from 0 as the one seen; NaN unless 1 to 20 pairs."""
    both = np.isfinite(plus) & np.isfinite(minus)
    own, rounding = (plus - minus)[both], 1e-12 * np.abs([plus[both], minus[both]]).sum()
    if not 0 < len(own) <= 20:
        return NAN
    halves = [
        np.array(list(itertools.product((1, -1), repeat=len(half)))) @ half for half in np.array_split(own, 2)
    ]
    sums = halves[0][:, None] + halves[1][None, :]
    return float(np.mean(np.abs(sums) >= abs(own.sum()) - rounding))


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


# Effects: arms, main effects, interactions and trends.


@dataclass(frozen=True, eq=False)
class Effect:
    """One effect: for each combination of the other factors' levels, arms with their weights."""

    kind: str
    term: str
    against: str
    cells: list[dict[str, float]]


@functools.cache
def effects(recorded: Recorded) -> list[Effect]:
    """All that is asked for; of arms that are listed and no grid, only themselves."""
    baseline = recorded.study["baseline"]
    asked = [
        Effect("arm", arm, other, [{arm: 1, other: -1}])
        for arm, own in recorded.arms.items()
        for other, levels in recorded.arms.items()
        if baseline and other != arm and levels == {**own, **baseline}
    ]
    if recorded.study.get("only"):
        return asked
    steps = {}
    for name, levels in recorded.levels.items():
        reference = baseline.get(name, levels[0])
        if len(levels) > 1:
            steps[name] = [{level: 1, reference: -1} for level in levels if level != reference]
    if len(steps) > 1:
        one = [{name: step} for name, own in steps.items() for step in own]
        two = [
            {first: step, second: other}
            for first, second in itertools.combinations(steps, 2)
            for step, other in itertools.product(steps[first], steps[second])
        ]
        for weights in one + two:
            kind = "main" if len(weights) == 1 else "interaction"
            term, against = (
                ", ".join(f"{name}={list(own)[side]}" for name, own in weights.items()) for side in (0, 1)
            )
            asked.append(Effect(kind, term, against, _cells(recorded, weights)))
    for name, levels in recorded.levels.items():
        if len(levels) > 2 and all(type(level) in (int, float) for level in levels):
            x = np.array(levels, dtype=np.float64)
            slope = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # of the least-squares line
            rise = dict(zip(levels, (slope * np.ptp(x)).tolist(), strict=True))
            ends = f"{name}={max(levels)}", f"{name}={min(levels)}"
            asked.append(Effect("trend", *ends, _cells(recorded, {name: rise})))
    return asked


def _cells(recorded: Recorded, weights: Mapping[str, Mapping[Any, float]]) -> list[dict[str, float]]:
    """Per combination of the other factors' levels, each arm with the product of its levels' weights."""
    cells: dict[Any, dict[str, float]] = {}
    for arm, levels in recorded.arms.items():
        if all(levels[name] in own for name, own in weights.items()):
            others = tuple(level for name, level in levels.items() if name not in weights)
            weight = math.prod(own[levels[name]] for name, own in weights.items())
            cells.setdefault(others, {})[arm] = weight
    return list(cells.values())


def _family(kind: str) -> str:
    return "main" if kind == "interaction" else kind


def family_size(recorded: Recorded, asked: Effect, metric: str) -> int:
    """How many intervals hold together with this one."""
    together = sum(_family(other.kind) == _family(asked.kind) for other in effects(recorded))
    return together * len(recorded.family) if metric in recorded.family else 1


@functools.cache
def effect_row(recorded: Recorded, asked: Effect, metric: str) -> dict[str, Any]:
    """What the table says of one effect on a metric, but for Holm's p."""
    plus, minus = (
        np.array([
            sum((max(sign * w, 0) * recorded.by_seed(arm, metric) for arm, w in cell.items()),
                np.zeros(len(recorded.seeds)))
            for cell in asked.cells
        ])
        for sign in (1, -1)
    )  # fmt: skip
    rows, seeds = _most_values(np.isfinite(plus + minus))
    sides = np.full((2, len(recorded.seeds)), NAN)
    if rows:
        sides[:, seeds] = plus[np.ix_(rows, seeds)].mean(axis=0), minus[np.ix_(rows, seeds)].mean(axis=0)
    found = difference(sides[0], sides[1], family_size(recorded, asked, metric))
    is_arm, whole = asked.kind == "arm", len(rows) == len(asked.cells)
    same = all(_cancels(recorded, cell, asked.kind) for cell in asked.cells)
    images = new_images(recorded, asked, metric)[2:] if is_arm else (NAN, NAN)
    return {
        **{"kind": asked.kind, "term": asked.term, "against": asked.against, "metric": metric},
        **{"cells": len(rows), "cells_planned": len(asked.cells), "n": found.n},
        **{name: getattr(found, name) for name in ("effect", "low", "high", "p", "p_adjusted")},
        **verdict(recorded, metric, found, same=same, whole=whole, directed=asked.kind != "interaction"),
        **{"rho": found.rho if is_arm else NAN, "low_images": images[0], "high_images": images[1]},
        **{"detectable": detectable(found), "p_sign_flip": sign_flip(sides[0], sides[1])},
    }


def _cancels(recorded: Recorded, cell: Mapping[str, float], kind: str) -> bool:
    """Whether arms of the same predictions have weights that sum to 0; of a trend all are to be the same."""
    sums: dict[Any, float] = {}
    for arm, weight in cell.items():
        sums[recorded.alike[arm]] = sums.get(recorded.alike[arm], 0.0) + weight
    return len(sums) == 1 if kind == "trend" else not any(sums.values())


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


def new_images(recorded: Recorded, asked: Effect, metric: str) -> tuple[int, float, float, float]:
    """Pairs, mean difference, its interval for new images; NaN for metrics that are no mean over images."""
    if metric not in PER_IMAGE:
        return 0, NAN, NAN, NAN
    own, other = (
        {t.seed: per_image(t, metric) for t in recorded.complete(arm)} for arm in (asked.term, asked.against)
    )
    rows = [own[seed] - other[seed] for seed in recorded.seeds if seed in own and seed in other]
    if not rows:
        return 0, NAN, NAN, NAN
    return len(rows), *for_new_images(np.array(rows), family_size(recorded, asked, metric))


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
    logits, labels = trial.logits, trial.arrays["labels"]
    log_p = log_softmax(logits, axis=1)
    if metric == "accuracy":
        return trial.right.astype(np.float64)
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


def median_of(values: Array) -> tuple[float, float, float]:
    """Median with the tightest symmetric pair of order statistics that holds it with 95 % (binomial)."""
    ordered, n = np.sort(values), len(values)
    ranks = [k for k in range(n // 2) if 1 - 2 * stats.binom.cdf(k, n, 0.5) >= 0.95]
    if not ranks:
        return float(np.median(values)), NAN, NAN
    return float(np.median(values)), float(ordered[ranks[-1]]), float(ordered[n - 1 - ranks[-1]])


# Comparing.


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
        runs = len(recorded.complete(arm))
        audit.check("arms", row[1]["value"], runs, row[1]["value"] == runs)
        for head, cell in zip(table["columns"][2:], row[2:], strict=True):
            metric = SHOWN[head["label"]]
            mean = mean_of(_floored(trial, metric) for trial in recorded.complete(arm))
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
        own = [{epoch["epoch"]: epoch for epoch in trial.history} for trial in recorded.complete(arm)]
        inside = 0
        for row in table["rows"]:
            epoch = int(row[0]["value"])
            for head, ours, their in zip(table["columns"][1::2], row[1::2], row[2::2], strict=True):
                name = SHOWN[head["label"].removesuffix(": ours")]
                low, high = one_more([history[epoch][name] for history in own if epoch in history])
                value = theirs.get(epoch, {}).get(name, NAN)
                lies = NAN if math.isnan(low + value) else float(low <= value <= high)
                inside += lies == 1
                place = f"published: {arm}, {epoch}, {name}"
                for shown, number in ((ours["low"], low), (ours["high"], high), (their["inside"], lies)):
                    audit.check(place, shown, number, same(shown, number))
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
        expected = list(FILES[name](recorded, shown))
        if len(shown) != len(expected):
            audit.wrong.append(f"{name}: {len(shown)} rows, recomputed {len(expected)}")
            continue
        for at, (row, own) in enumerate(zip(shown, expected, strict=True)):
            _audit_row(audit, name, at, row, own)
    return audit


def _audit_row(audit: Audit, name: str, at: int, row: Mapping[str, str], own: Mapping[str, Any]) -> None:
    # Of differences and their tests, in which a metric's own tolerance grows.
    tolerance = 100 * TOLERANCE.get(str(own["metric"]), 1e-11) if name == "effects" else 1e-9
    for column, value in row.items():
        if column not in own:
            of = f" of {own['metric']}" if name == "floors" else ""
            audit.left_out.add(f"{name}.{column}{of}")
            continue
        expected = own[column]
        if isinstance(expected, Between):
            agrees = expected.least <= float(value) <= expected.most
        elif isinstance(expected, (str, bool)) or expected is None:
            agrees = value == ("" if expected is None else str(expected))
        else:
            agrees = same(value, float(expected), max(tolerance, TOLERANCE.get(column, 0)))
        audit.check(f"{name}.csv: row {at}, {column}", value, expected, agrees)


Shown = Sequence[Mapping[str, str]]
Rows = Iterable[dict[str, Any]]


def _floored(trial: Trial, metric: str) -> float:
    """A metric or a floor."""
    if trial.row and metric.endswith("_floor"):
        return float(drawn_errors(trial)[metric.removesuffix("_floor")].mean())
    return trial.row.get(metric, NAN)


def _trials_csv(recorded: Recorded, shown: Shown) -> Rows:
    # A record from before a setting existed does not hold it.
    measured = {*SHOWN.values(), *FLOORS.values(), *COSTS} - {"smece_floor"}
    for trial in recorded.trials:
        record = trial.record or {}
        yield {
            **{name: _floored(trial, name) for name in measured},
            **{name: record.get(name) or NAN for name in ("parameters", "macs")},
            **{"repeat": trial.repeat, "threads": record.get("environment", {}).get("threads", NAN)},
            **trial.fields,
            **trial.key,
        }


def _epochs_csv(recorded: Recorded, shown: Shown) -> Rows:
    for trial in recorded.trials:
        for epoch in trial.history:
            miss = np.abs(np.array(epoch["bin_confidence"]) - np.array(epoch["bin_correct"])).sum()
            kept = {name: value for name, value in epoch.items() if not isinstance(value, list)}
            yield {**trial.key, **kept, "valid_ece": float(miss) / sum(epoch["bin_count"])}


def _reliability_csv(recorded: Recorded, shown: Shown) -> Rows:
    for trial in (trial for trial in recorded.trials if trial.row):
        confidence = np.exp(log_softmax(trial.logits, axis=1).max(axis=1))
        for at in range(15):
            inside = _bins(confidence) == at
            means = [
                float(part[inside].mean()) if inside.any() else NAN for part in (confidence, trial.right)
            ]
            edges = {"bin": at, "lower": at / 15, "upper": (at + 1) / 15, "count": int(inside.sum())}
            yield {**trial.key, **edges, "confidence": means[0], "accuracy": means[1]}


def _floors_csv(recorded: Recorded, shown: Shown) -> Rows:
    """Of the mean over each arm's complete runs; an earlier version's are of the first alone."""
    earlier = bool(shown) and "trial_id" in shown[0]
    for arm in recorded.arms:
        runs = recorded.complete(arm)[: 1 if earlier else None]
        for metric in ("ece", "ece_equal_mass", "classwise_ece", "mce", "smece") if runs else ():
            key = runs[0].key if earlier else {"arm": arm, "runs": len(runs)}
            band = () if metric == "smece" else zip(("low", "high"), floor_band(runs, metric), strict=True)
            yield {**key, "metric": metric, **dict(band)}


def _confusion_csv(recorded: Recorded, shown: Shown) -> Rows:
    for arm in recorded.arms:
        runs = recorded.complete(arm)
        names = ((runs[0].record or {}).get("class_names") if runs else None) or ()
        for true, predicted in itertools.product(range(len(names)), repeat=2):
            count = sum(
                int(((run.arrays["labels"] == true) & (run.logits.argmax(axis=1) == predicted)).sum())
                for run in runs
            )
            yield {"arm": arm, "class": names[true], "predicted": names[predicted], "count": count}


def _projection_csv(recorded: Recorded, shown: Shown) -> Rows:
    for trial in [recorded.complete(arm)[0] for arm in recorded.arms if recorded.complete(arm)]:
        names = (trial.record or {}).get("class_names")
        for split in ("train", "valid"):
            points = trial.arrays.get(f"projection_{split}", np.empty((0, 2)))
            labels = trial.arrays.get(f"projection_{split}_labels", np.empty(0))
            for (x, y), label in zip(points, labels, strict=True):
                place = {"class": names[label] if names else str(label), "x": float(x), "y": float(y)}
                yield {**trial.key, "split": split, **place}


def _effects_csv(recorded: Recorded, shown: Shown) -> Rows:
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    asked = itertools.product(effects(recorded), metrics)
    rows = [dict(effect_row(recorded, effect, metric)) for effect, metric in asked]
    for family in {_family(row["kind"]) for row in rows}:
        inside = [r for r in rows if _family(r["kind"]) == family and r["metric"] in recorded.family]
        for row, corrected in zip(inside, holm([row["p"] for row in inside]), strict=True):
            row["p_holm"] = corrected
    return [{"p_holm": NAN, **row} for row in rows]


def _new_images_csv(recorded: Recorded, shown: Shown) -> Rows:
    arms = [asked for asked in effects(recorded) if asked.kind == "arm"]
    for asked, metric in itertools.product(arms, PER_IMAGE):
        n, effect, low, high = new_images(recorded, asked, metric)
        images = len(recorded.complete(asked.term)[0].arrays["labels"]) if n else NAN
        own = {"arm": asked.term, "baseline": asked.against, "metric": metric, "images": images}
        own |= {"comparisons": family_size(recorded, asked, metric), "n_pairs": n}
        yield {**own, "effect": effect, "low": low, "high": high}


def _step_times_csv(recorded: Recorded, shown: Shown) -> Rows:
    timing = recorded.timing
    for case, times, steps in zip(timing["cases"], timing["step_ms"], timing["steps"], strict=True):
        own = {**case, "steps": steps, "threads": timing["environment"]["threads"]}
        yield from ({**own, "round": at, "step_ms": ms} for at, ms in enumerate(times))


def _timing_csv(recorded: Recorded, shown: Shown) -> Rows:
    timing = recorded.timing
    for case, times in zip(timing["cases"], timing["step_ms"], strict=True):
        plain = {**case, "loss": "cross_entropy", "reduction": "mean"}
        beside = timing["step_ms"][timing["cases"].index(plain)]
        own = dict(zip(("step_ms", "low", "high"), median_of(np.array(times)), strict=True))
        ratio = median_of(np.array(times) / np.array(beside))
        own |= dict(zip(("ratio_to_plain", "ratio_low", "ratio_high"), ratio, strict=True))
        exclusive = None if timing["others"] is None else timing["others"] < 0.1
        yield {**case, **own, "plain": case == plain, "n": len(times), "exclusive": exclusive}


def _search_csv(recorded: Recorded, shown: Shown) -> Rows:
    search = recorded.search
    if search is None:
        return
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
    yield own


def _points_csv(recorded: Recorded, shown: Shown) -> Rows:
    search = recorded.search
    for number, point in enumerate(search.points if search else ()):
        assert search
        runs = search.runs[number]
        first = next((run.record for run in runs if run.record), None)
        own: dict[str, Any] = {name: point[name] for name in ("number", "source", "state")}
        own |= {"reason": point["reason"] or None, "pruned_at": point["pruned_at"] or NAN}
        own["levels"] = ", ".join(f"{name}={level}" for name, level in point["levels"].items())
        own |= first["trial"]["fields"] if first else point["levels"]
        own |= {"seeds_planned": len(point["seeds"]), "seeds_done": sum(bool(run.row) for run in runs)}
        for suffix in ("", "_2"):
            metric = search.objectives.get(suffix)
            complete = metric is not None and point["state"] == "complete"
            values = search.values(number, str(metric)) if complete else []
            mean, sd = mean_of(values), float(np.std(values, ddof=1)) if len(values) > 1 else NAN
            own |= {f"objective{suffix}": metric, f"value{suffix}": mean.mean, f"sd{suffix}": sd}
            own |= {f"low{suffix}": mean.low, f"high{suffix}": mean.high}
        seen = search.values(number, search.objectives[""]) or list(point["intermediate"].values())[-1:]
        own["last_seen"] = float(np.mean(seen)) if seen and point["state"] == "pruned" else NAN
        own |= {"on_front": _on_front(search, number), "winner": number in search.stored["winners"]}
        yield {**own, "seconds": math.fsum(run.seconds for run in runs)}


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


def _point_values_csv(recorded: Recorded, shown: Shown) -> Rows:
    search = recorded.search
    for number, runs in enumerate(search.runs if search else ()):
        for run in runs:
            status = str(run.record["status"]) if run.record else "missing"
            own = {"number": number, "seed": run.seed, "trial_id": run.trial_id, "status": status}
            metrics = search.objectives if search else {}
            yield own | {f"value{at}": run.row.get(metrics.get(at, ""), NAN) for at in ("", "_2")}


def _importances_csv(recorded: Recorded, shown: Shown) -> Rows:
    for own in recorded.search.stored["importances"] if recorded.search else ():
        for name, share in own["shares"].items():
            yield {
                "objective": own["objective"],
                "evaluator": own["evaluator"],
                "field": name,
                "share": share,
            }


FILES: dict[str, Callable[[Recorded, Shown], Rows]] = {
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
