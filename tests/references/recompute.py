"""An audit of a study's tables: their numbers once more, from the records and predictions alone.

Nothing of ablate is imported. Definitions are those of results/README.md, of a report's Method section and of
the papers that are named there, by another route where there is one. A number agrees to nine digits, a floor
or its band within what draws of labels can be off. Losses, times and scatter are read from the records: what
they come from is not stored. A setting younger than a record is not in it: its column is left out.
"""

import functools
import itertools
import json
import math
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import fixed_quad
from scipy.optimize import brentq
from scipy.special import log_softmax, logsumexp, ndtr, softmax
from sklearn.metrics import roc_auc_score

Array = NDArray[np.float64]
Row = dict[str, Any]
Rows = Iterable[Row]
NAN = math.nan

LEFT_OUT_COLUMNS = {
    *(f"trials.{name}" for name in ("study", "profile", "status", "engine", "torch_version", "commit")),
    *(f"trials.{name}" for name in ("failure", "device_name", "resolved_precision", "device")),
    *("trials.predictions_sha256", "trials.smece_floor", "floors.low of smece", "floors.high of smece"),
    *("step_times.others", "step_times.device_name"),
}
"""Words, readings of the machine, and the floor of the smooth calibration error with its band."""
LEFT_OUT_OF_A_SEARCH = {f"points.smoothed{which}" for which in ("", "_2", "_sd", "_sd_2")}
"""The fit of a surrogate, not to be had again to nine digits; what is told of it is read from points.csv."""

SHOWN = {
    "Accuracy": "accuracy", "NLL": "nll", "Brier score": "brier",
    "ECE": "ece", "ECE noise floor": "ece_floor",
    "Confidence gap": "confidence_gap", "Temperature": "temperature", "ECE, scaled": "ece_scaled",
    "ECE, equal mass": "ece_equal_mass", "ECE, debiased": "ece_debiased", "Smooth ECE": "smece",
    "Classwise ECE": "classwise_ece", "MCE": "mce", "NLL, scaled": "nll_scaled",
    "Mean confidence": "mean_confidence", "AUROC of errors": "auroc_error",
    "AUROC of errors, normalised logit": "auroc_error_normalised", "AURC": "aurc", "E-AURC": "eaurc",
    "Coverage at 1 % risk": "coverage_at_1", "Coverage at 2 % risk": "coverage_at_2",
    "Scatter within classes": "scatter_within", "Scatter between classes": "scatter_between",
    "Training step": "step_ms", "Training time": "train_seconds", "Training loss": "train_loss",
    "Training accuracy": "train_accuracy", "Loss, reported split": "valid_loss",
    "Accuracy, reported split": "valid_accuracy",
}  # fmt: skip
"""Label on the page: column of the tables."""
CALIBRATION = ("ece", "ece_equal_mass", "classwise_ece", "mce", "smece")
HIGHER = {"accuracy", "auroc_error", "auroc_error_normalised", "coverage_at_1", "coverage_at_2"}
UNDIRECTED = {"confidence_gap", "mean_confidence", "temperature", "scatter_within", "scatter_between"}
COSTS = {
    *("step_ms", "step_ms_p20", "step_ms_p80", "images_per_second", "peak_memory_mb", "train_seconds"),
    *("eval_seconds", "scatter_within_train", "scatter_between_train"),
}
PER_IMAGE = ("accuracy", "nll", "brier")
NO_RANGE = (-math.inf, math.inf)
RANGES = {
    "nll": (0.0, math.inf), "nll_scaled": (0.0, math.inf), "brier": (0.0, 2.0), "ece_debiased": (-0.5, 1.0),
    "confidence_gap": (-1.0, 1.0), "temperature": (0.01, 1e4),
    **dict.fromkeys((*COSTS, "scatter_within", "scatter_between"), NO_RANGE),
}  # fmt: skip
"""What a metric can be, where that is not 0 to 1."""
MARGINS = {"accuracy": 0.005, "nll": 0.02, "brier": 0.01, "ece": 0.01}
TOLERANCE = {"smece": 1e-5} | dict.fromkeys((f"{name}_floor" for name in CALIBRATION), 0.11)
"""Relative; the integral over the smooth calibration curve is a sum over a grid, here and there. Floors are
means of 1,000 draws here and there: five standard errors, where a draw's deviation is half the mean."""


# What lies in the results folder.


@dataclass(eq=False)
class Trial:
    """A training run with what became of it.

    Only of a complete one are there `row`, its metrics and costs, and `images` [N], metrics of each image.
    """

    folder: Path
    trial_id: str
    seed: int
    arm: str = ""
    levels: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    repeat: int = 0

    def __post_init__(self) -> None:
        self.record = _json(self.folder / "records" / f"{self.trial_id}.json").get("record", {})
        self.row: dict[str, float] = {}
        if self.record.get("status") != "complete":
            return
        # Without predictions nothing is recomputed.
        with np.load(self.folder / "predictions" / f"{self.trial_id}.npz") as opened:
            self.arrays = dict(opened)
        self.logits = self.arrays["logits"].astype(np.float64)
        self.p = softmax(self.logits, axis=1)
        self.images, self.row = metrics_of(self.logits, self.arrays["labels"])
        cost = (self.record["cost"] or {}).items()
        self.row |= {name: float(value) for name, value in cost if value is not None}
        for split, suffix in (("valid", ""), ("train", "_train")):
            scatter = (self.record.get("features") or {}).get(split) or {}
            for kind in ("within", "between"):
                value = scatter.get(kind)
                self.row[f"scatter_{kind}{suffix}"] = NAN if value is None else value

    @property
    def key(self) -> Row:
        return {"trial_id": self.trial_id, "arm": self.arm, "seed": self.seed}

    @property
    def seconds(self) -> float:
        cost = self.record.get("cost")
        if cost:
            return float(cost["train_seconds"] + cost["eval_seconds"])
        return math.fsum(epoch["seconds"] for epoch in self.record.get("history", ()))


@dataclass(eq=False)
class Recorded:
    """A results folder: the study as planned, its trials, timing pass, search, and the runs of its points."""

    study: dict[str, Any]
    trials: list[Trial]
    timing: dict[str, Any]
    tuning: dict[str, Any]
    runs: list[list[Trial]]

    @functools.cached_property
    def arms(self) -> dict[str, dict[str, Any]]:
        return {trial.arm: trial.levels for trial in self.trials}

    @functools.cached_property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(trial.seed for trial in self.trials if trial.repeat == 0))

    @functools.cached_property
    def levels(self) -> dict[str, list[Any]]:
        names = next(iter(self.arms.values()))
        return {name: list(dict.fromkeys(own[name] for own in self.arms.values())) for name in names}

    @property
    def family(self) -> tuple[str, ...]:
        return tuple(self.study["family"]) or (self.study["primary"],)

    @property
    def objectives(self) -> dict[str, str]:
        """Suffix of a searched metric's columns to the metric."""
        return dict(zip(("", "_2"), self.tuning["search"]["objective"], strict=False))

    def complete(self, arm: str) -> list[Trial]:
        return [trial for trial in self.trials if trial.arm == arm and trial.row and not trial.repeat]

    @functools.cached_property
    def by_seed(self) -> pd.DataFrame:
        """Every complete run's metrics, by arm and seed; NaN where there is none."""
        rows = {(trial.arm, trial.seed): trial.row for arm in self.arms for trial in self.complete(arm)}
        cells = itertools.product(self.arms, self.seeds)
        return pd.DataFrame([rows.get(cell, {}) for cell in cells], dtype=np.float64)

    @functools.cached_property
    def alike(self) -> Array:
        """[arms, groups] 1 for those whose predictions are the same on every planned seed, else 0."""
        of_arms = [[trial.logits.tobytes() for trial in self.complete(arm)] for arm in self.arms]
        groups = [of_arms.index(own) if len(own) == len(self.seeds) else at for at, own in enumerate(of_arms)]
        return np.eye(len(groups))[groups]


def read(folder: Path) -> Recorded:
    plan, timing = _json(folder / "study.json"), _json(folder / "timing.json")
    keys = ("trial_id", "seed", "arm", "levels", "fields", "repeat")
    trials = [Trial(folder, **{key: planned[key] for key in keys}) for planned in plan["trials"]]
    tuning, runs = _json(folder / "tuning" / "tuning.json"), []
    for point in tuning.get("points", ()):
        asked = zip(point["trial_ids"], point["seeds"], strict=True)
        runs.append([Trial(folder / "tuning", name, seed) for name, seed in asked])
    none: dict[str, Any] = {"cases": [], "step_ms": [], "steps": []}
    return Recorded(plan["study"], trials, timing or none, tuning, runs)


def _json(path: Path) -> dict[str, Any]:
    stored = dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    return dict(stored.get("content", stored))  # sealed, but for records


# Metrics of one trial.


def metrics_of(logits: Array, labels: NDArray[Any]) -> tuple[dict[str, Array], dict[str, float]]:
    log_p, one_hot = log_softmax(logits, axis=1), np.eye(logits.shape[1])[labels]
    p, right = np.exp(log_p), logits.argmax(axis=1) == labels
    brier = ((p - one_hot) ** 2).sum(axis=1)
    images = {"accuracy": 1.0 * right, "nll": -(log_p * one_hot).sum(axis=1), "brier": brier}
    (count, classes), confidence = p.shape, p.max(axis=1)
    bins = _bins(confidence)
    misses = _misses(confidence - right, bins)
    of_classes = [_misses(p[:, k] - (labels == k), _bins(p[:, k])).sum() for k in range(classes)]
    return images, {
        **{name: float(values.mean()) for name, values in images.items()},
        "ece": float(misses.sum() / count),
        "mce": float((misses / np.maximum(np.bincount(bins), 1)).max()),
        "classwise_ece": float(np.mean(of_classes) / count),
        "smece": _smooth_ece(confidence, right),
        "mean_confidence": float(confidence.mean()),
        "confidence_gap": float(confidence.mean() - right.mean()),
        **_equal_mass(confidence, _odds(logits), right),
        **_ranking(logits, right),
        **_scaled(logits, labels),
    }


def _bins(confidence: Array, bins: int = 15) -> NDArray[np.intp]:
    """[N] the bin of equal width in [0, 1]; just under an edge is on it, as the logits are of float32."""
    return np.minimum(((confidence + 2.0**-22) * bins).astype(np.intp), bins - 1)


def _misses(gaps: Array, bins: NDArray[np.intp]) -> Array:
    return np.asarray(np.abs(np.bincount(bins, gaps)))


def _odds(logits: Array) -> Array:
    """[N] log p / (1 - p) of the confidence p, which goes on growing where p in float64 has become 1."""
    ordered = np.sort(logits, axis=1)
    return np.asarray(ordered[:, -1] - logsumexp(ordered[:, :-1], axis=1))


def _mass_bins(odds: Array, bins: int = 15) -> NDArray[np.intp]:
    ordered = np.sort(odds)
    ends = np.cumsum([len(part) for part in np.array_split(ordered, bins)])
    # Images of equal confidence share a bin: an edge inside such a run moves behind it.
    edges = np.unique(ordered[ends[ends > 0] - 1])
    return np.searchsorted(edges, odds)


def _equal_mass(confidence: Array, odds: Array, right: NDArray[np.bool_]) -> dict[str, float]:
    """ECE over bins of equal mass, and the debiased error of Kumar et al. 2019."""
    bins = pd.DataFrame({"c": confidence, "a": right * 1.0}).groupby(_mass_bins(odds))
    gaps, size = bins["c"].mean() - bins["a"].mean(), bins.size()
    # Of zeros and ones the unbiased variance is a (1 - a) n / (n - 1).
    squared = float((size * gaps**2 - bins["a"].var().fillna(0)).sum()) / len(right)
    return {
        "ece_equal_mass": float((size * gaps.abs()).sum() / len(right)),
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


def _ranking(logits: Array, right: NDArray[np.bool_]) -> dict[str, float]:
    """How well confidence tells right from wrong; the most confident images first, equal ones as a group."""
    count, odds = len(right), _odds(logits)
    _, groups = np.unique(-odds, return_inverse=True)
    ends = np.cumsum(np.bincount(groups))  # images answered, group by group
    wrong = np.cumsum(np.bincount(groups, weights=~right))
    ranks = np.arange(1, count + 1)
    # Within a group the wrong ones are spread evenly: the mean over its orders.
    risk = np.interp(ranks, [0, *ends], [0, *wrong]) / ranks
    best = np.maximum(ranks - right.sum(), 0) / ranks
    centred = logits - logits.mean(axis=1, keepdims=True)
    # Of two classes all are equal, but for rounding.
    normalised = (centred.max(axis=1) / np.linalg.norm(centred, axis=1)).round(10)
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


def _scaled(logits: Array, labels: NDArray[Any]) -> dict[str, float]:
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


@functools.cache
def drawn_errors(trial: Trial, draws: int = 1000) -> dict[str, Array]:
    """[draws] of each calibration error, with labels drawn from the probabilities."""
    p = trial.p
    (count, classes), confidence, upper = p.shape, p.max(axis=1), np.cumsum(p, axis=1)[:, :-1]
    rng = np.random.default_rng([trial.seed, 1])
    labels = np.stack([(rng.random((count, 1)) > upper).sum(axis=1) for _ in range(draws)])
    gaps = confidence - (labels == p.argmax(axis=1))
    bins, mass = _bins(confidence), _mass_bins(_odds(trial.logits))
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


def floor_band(trials: Sequence[Trial], metric: str) -> Row:
    """Ends of the central 95 % of the mean over runs of a calibrated model's error."""
    means = np.mean([drawn_errors(trial)[metric] for trial in trials], axis=0)
    # The standard error of a 2.5 % quantile of n normal draws is 2.7 standard deviations over the root of n.
    off = 5 * 2.7 * float(np.std(means)) * (2 / 1000) ** 0.5
    ends = zip(("low", "high"), np.quantile(means, (0.025, 0.975)).tolist(), strict=True)
    return {name: (end - off, end + off) for name, end in ends}


# Statistics over seeds.


def mean_of(values: Iterable[float], more: int = 0, metric: str = "") -> tuple[float, float, float]:
    """Mean with its 95 % t interval, within a metric's range; with `more`, where one more value lies."""
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) < 2 or np.ptp(known) == 0:
        return float(known.mean()) if len(known) else NAN, NAN, NAN
    spread, mean = math.sqrt(more + 1 / len(known)) * float(known.std(ddof=1)), float(known.mean())
    return mean, *_in_range(metric, mean, spread * float(stats.t.isf(0.025, len(known) - 1)))


def _in_range(metric: str, mean: float, half: float) -> tuple[float, float]:
    """Where the distance from the mean is the half-width, scaled as a share's spread between the ends."""
    lowest, highest = RANGES.get(metric, (0.0, 1.0) if metric else NO_RANGE)
    if lowest == -math.inf or math.isnan(half):
        return mean - half, mean + half
    distance = np.poly1d([1, 0])
    of_mean, of_end = (
        (at - lowest) * (1 if highest == math.inf else highest - at) for at in (mean, distance + mean)
    )
    low, high = sorted((distance**2 * of_mean - half**2 * of_end).roots)
    return mean + float(low), mean + float(high)


def difference(plus: Array, minus: Array, size: int) -> Row:
    """A mean paired difference over the seeds that both sides have, with its test; `size` hold together."""
    both = np.isfinite(plus) & np.isfinite(minus)
    plus, minus = plus[both], minus[both]
    own, scale = plus - minus, float(np.abs([plus, minus]).max(initial=0.0))
    n, effect = len(own), float(own.mean()) if len(own) else NAN
    sd = float(own.std(ddof=1)) if n > 1 else NAN
    if n > 1 and sd <= 1e-12 * scale:  # rounding alone
        effect, sd = 0.0 if abs(effect) <= 1e-12 * scale else effect, 0.0
    varied = n > 2 and min(np.ptp(plus), np.ptp(minus)) > 0
    found = {"n": n, "effect": effect, "sd": sd, "low": NAN, "high": NAN, "p": NAN, "p_adjusted": NAN}
    found["rho"] = float(stats.pearsonr(plus, minus).statistic) if varied else NAN
    if sd > 0:
        p, half = float(stats.ttest_rel(plus, minus).pvalue), float(stats.t.isf(0.025 / size, n - 1))
        half *= sd / math.sqrt(n)
        found |= {"low": effect - half, "high": effect + half, "p": p, "p_adjusted": min(1.0, size * p)}
    return found


def _seeds(ratio: float, freedom: float, level: float, least: int) -> list[float]:
    """The fewest that find 2 margins and confirm 0 with 80 %, at the spread and at its bound, rounded up."""
    found = []
    for bound in (ratio, ratio * math.sqrt(freedom / stats.chi2.isf(0.9, freedom))):

        def power(n: int, bound: float = bound) -> float:  # which grows with the seeds
            return min(difference_power(2 / bound, n, level), equivalence_power(1 / bound, n, level / 2))

        seeds = bisect_left(range(2, 1001), 0.8, key=power) + 2
        step = 1 if seeds < 10 else 5 if seeds < 100 else 50
        found.append(max(least, math.ceil(seeds / step) * step) if seeds <= 1000 else NAN)
    return found


def difference_power(effect: float, n: int, level: float) -> float:
    """Of the paired t test; the true difference in standard deviations of the paired differences."""
    critical, shift = stats.t.isf(level / 2, n - 1), math.sqrt(n) * effect
    # Where the two normal probabilities go from 1 to 0.
    ends = (0, (shift - 10) / critical, (shift + 10) / critical, math.inf)
    return _over_spreads(lambda u: ndtr(shift - critical * u) + ndtr(-shift - critical * u), n, ends)


def equivalence_power(margin: float, n: int, level: float) -> float:
    """Of both one-sided tests where there is no difference; the margin in standard deviations."""
    critical, reach = stats.t.isf(level, n - 1), math.sqrt(n) * margin
    return _over_spreads(lambda u: 2 * ndtr(reach - critical * u) - 1, n, (0, reach / critical))


def _over_spreads(power: Callable[[Array], Array], n: int, ends: Sequence[float]) -> float:
    """Mean over the standard deviations, as parts of the true one, of n differences; it bends at `ends`."""
    spread, width = stats.chi(n - 1, scale=1 / math.sqrt(n - 1)), 12 / math.sqrt(n)
    places = np.clip(ends, max(0.0, 1 - width), 1 + width)
    pieces = itertools.pairwise(np.unique(places))
    return math.fsum(fixed_quad(lambda u: power(u) * spread.pdf(u), *piece, n=400)[0] for piece in pieces)


@functools.cache
def detectable(n: int, level: float) -> float:
    """The true difference, in standard deviations, that so many pairs find with 80 %."""
    # More than enough: with a chance of 98 % the standard deviation is below 2.4 times the true one.
    most = float(3 * stats.t.isf(level / 2, n - 1) + 3) / math.sqrt(n)
    return float(brentq(lambda size: difference_power(size, n, level) - 0.8, 0.0, most, xtol=1e-14))


def sign_flip(plus: Array, minus: Array) -> float:
    """Share of all sign patterns whose sum is as far from 0 as the one seen; NaN unless 1 to 20 pairs."""
    both = np.isfinite(plus) & np.isfinite(minus)
    own, rounding = (plus - minus)[both], 1e-12 * np.abs([plus[both], minus[both]]).sum()
    if not 0 < len(own) <= 20:
        return NAN
    sums = functools.reduce(lambda sums, one: np.append(sums + one, sums - one), own, np.zeros(1))
    return float(np.mean(np.abs(sums) >= abs(own.sum()) - rounding))


def median_of(values: Array) -> tuple[float, float, float]:
    """Median with the tightest symmetric pair of order statistics that holds it with 95 % (binomial)."""
    ordered, n = np.sort(values), len(values)
    ranks = [k for k in range(n // 2) if 1 - 2 * stats.binom.cdf(k, n, 0.5) >= 0.95]
    if not ranks:
        return float(np.median(values)), NAN, NAN
    return float(np.median(values)), float(ordered[ranks[-1]]), float(ordered[n - 1 - ranks[-1]])


# Effects: arms, main effects, interactions and trends.


@dataclass(frozen=True, eq=False)
class Effect:
    """One effect: [cells, arms] weights, a row for each combination of the other factors' levels."""

    kind: str
    term: str
    against: str
    weights: Array

    def is_claim(self, recorded: Recorded, metric: str) -> bool:
        """Whether the study asks about it: by its kind, or by levels as they stand in its term."""
        for asked in recorded.study.get("comparisons") or ["arms"]:
            if isinstance(asked, str):
                found = self.kind in {"arms": ("arm", "pair")}.get(asked, (asked,))
            else:
                found = self.kind != "trend" and self.term == ", ".join(f"{k}={v}" for k, v in asked.items())
            if found:
                return metric in recorded.family
        return False


@functools.cache
def effects(recorded: Recorded) -> list[Effect]:
    """All that is asked for; of arms that are listed and no grid, only themselves."""
    baseline, arms = recorded.study["baseline"], list(recorded.arms)
    asked = [
        Effect("arm", arm, other, 1.0 * np.array([[(one == arm) - (one == other) for one in arms]]))
        for arm, own in recorded.arms.items()
        for other, levels in recorded.arms.items()
        if baseline and other != arm and levels == {**own, **baseline}
    ]
    if not baseline:
        for other, arm in itertools.combinations(arms, 2):
            pair = np.array([[1.0 * (one == arm) - (one == other) for one in arms]])
            asked.append(Effect("pair", arm, other, pair))
    if recorded.study.get("only"):
        return asked
    steps = {}
    for name, levels in recorded.levels.items():
        reference = baseline.get(name, levels[0])
        if len(levels) > 1:
            steps[name] = [{level: 1.0, reference: -1.0} for level in levels if level != reference]
    for chosen in [*((name,) for name in steps), *itertools.combinations(steps, 2)] if len(steps) > 1 else ():
        for own in itertools.product(*(steps[name] for name in chosen)):
            term, against = (
                ", ".join(f"{name}={list(step)[side]}" for name, step in zip(chosen, own, strict=True))
                for side in (0, 1)
            )
            kind = "main" if len(chosen) == 1 else "interaction"
            asked.append(Effect(kind, term, against, _weights(recorded, dict(zip(chosen, own, strict=True)))))
    for name, levels in recorded.levels.items():
        if len(levels) > 2 and all(type(level) in (int, float) for level in levels):
            x = np.array(levels, dtype=np.float64)
            slope = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # of the least-squares line
            rise = dict(zip(levels, (slope * np.ptp(x)).tolist(), strict=True))
            term, against = f"{name}={max(levels)}", f"{name}={min(levels)}"
            asked.append(Effect("trend", term, against, _weights(recorded, {name: rise})))
    return asked


def _weights(recorded: Recorded, of_levels: Mapping[str, Mapping[Any, float]]) -> Array:
    """[cells, arms] products of the levels' weights, per combination of the other factors' levels."""
    cells: dict[Any, Array] = {}
    for at, levels in enumerate(recorded.arms.values()):
        others = tuple(level for name, level in levels.items() if name not in of_levels)
        weight = math.prod(own.get(levels[name], 0.0) for name, own in of_levels.items())
        cells.setdefault(others, np.zeros(len(recorded.arms)))[at] = weight
    return np.array(list(cells.values()))


def family_size(recorded: Recorded, asked: Effect, metric: str) -> int:
    claims = [other.is_claim(recorded, name) for other in effects(recorded) for name in recorded.family]
    return sum(claims) if asked.is_claim(recorded, metric) else 1


def _sides(recorded: Recorded, asked: Effect, metric: str) -> tuple[NDArray[np.int64], list[int], Array]:
    """What an effect weighs, the combinations that are there, and the two sides of it over seeds."""
    planned = len(recorded.seeds)
    column = recorded.by_seed.get(metric, pd.Series(NAN, recorded.by_seed.index))
    values, used = column.to_numpy().reshape(-1, planned), (asked.weights != 0) * 1
    rows, seeds = _most_values(used @ np.isnan(values) == 0)
    sides = np.full((2, planned), NAN)
    if rows:
        weights = np.array([1, -1])[:, None, None] * asked.weights[rows]
        sides[:, seeds] = (np.maximum(weights, 0) @ np.nan_to_num(values[:, seeds])).mean(axis=1)
    return used, rows, sides


def _turns(recorded: Recorded, asked: Effect, metric: str) -> bool:
    """Whether the parabolas through each seed's means bend, and turn between a trend's levels."""
    _, rows, sides = _sides(recorded, asked, metric)
    seeds, name = np.isfinite(sides[0]), asked.term.partition("=")[0]
    values = np.nan_to_num(recorded.by_seed[metric].to_numpy().reshape(-1, len(seeds))[:, seeds])
    x = recorded.levels[name]
    means = np.array([_weights(recorded, {name: {at: 1.0}})[rows].mean(axis=0) @ values for at in x])
    bend, slope, _ = np.polyfit(x, means, 2)
    if len(bend) < 2 or np.ptp(bend) * np.ptp(x) ** 2 <= 1e-9 * np.abs(means).max():  # rounding alone
        return False
    bends = stats.ttest_1samp(bend, 0).pvalue < 0.05
    return bool(bends and min(x) < -slope.mean() / (2 * bend.mean()) < max(x))


@functools.cache
def _arm_spread(recorded: Recorded, metric: str) -> tuple[float, float]:
    """Of an arm over seeds, from all claims; and its degrees of freedom, fewer for a shared baseline."""
    squares, counts = 0.0, []
    for asked in effects(recorded):
        if asked.is_claim(recorded, metric):
            _, _, sides = _sides(recorded, asked, metric)
            found = difference(sides[0], sides[1], 1)
            if found["n"] > 1:
                counts.append(found["n"] - 1)
                scale = (asked.weights**2).sum() / len(asked.weights) ** 2
                squares += counts[-1] * found["sd"] ** 2 / scale
    freedom = 4 * sum(counts) / (len(counts) + 3) if squares > 0 else 0.0
    return math.sqrt(squares / max(sum(counts), 1)), freedom


@functools.cache
def effect_row(recorded: Recorded, asked: Effect, metric: str) -> Row:
    """What the table says of one effect on a metric.

    Incomplete pairs decide nothing; then whether the interval is within the margin; then if 0 is outside.
    """
    planned, is_arm = len(recorded.seeds), asked.kind == "arm"
    used, rows, sides = _sides(recorded, asked, metric)
    size = family_size(recorded, asked, metric)
    found = difference(sides[0], sides[1], size)
    n, sd, effect, equivalence = found["n"], found["sd"], found["effect"], NAN
    margin = {**MARGINS, **recorded.study["margins"]}.get(metric, NAN)
    if sd > 0 and margin > 0:
        larger = stats.t.sf((margin - abs(effect)) * math.sqrt(n) / sd, n - 1)  # of the two tests
        equivalence = min(1.0, 2 * size * float(larger))
    # Of arms of the same predictions the weights sum to 0; of a trend all are to be the same.
    differs = asked.weights @ recorded.alike
    if asked.kind == "trend":
        differs = (used @ recorded.alike > 0).sum(axis=1) > 1
    decided, directed = found["low"] > 0 or found["high"] < 0, asked.kind != "interaction"
    words = ("higher", "lower") if not directed or metric in UNDIRECTED else ("better", "worse")
    above = found["low"] > 0 if metric in HIGHER or words[0] == "higher" else found["high"] < 0
    word, reason, needed = "undecided", "", [NAN, NAN]
    if n < planned or len(rows) < len(asked.weights):
        reason = "incomplete"
    elif not differs.any():
        word, reason = "equivalent", "identical"
    elif not sd > 0:
        reason = "too_few_seeds" if n < 2 else "no_spread"
    elif equivalence <= 0.05:
        word = "equivalent"
    elif decided:
        word = words[0] if above else words[1]
    claim = asked.is_claim(recorded, metric)
    if not claim:
        word, found["p_adjusted"] = "exploratory", NAN
    elif asked.kind == "trend" and _turns(recorded, asked, metric):
        word, reason = "undecided", "bent"
    elif word == "undecided" and margin > 0:
        spread, freedom = _arm_spread(recorded, metric)
        ratio = spread * math.sqrt((asked.weights**2).sum()) / len(asked.weights) / margin
        needed = _seeds(ratio, freedom, 0.05 / size, n + 1) if freedom else needed
    images = over_images(recorded, metric if is_arm else "", asked.term, asked.against, size)
    return {
        **{"kind": asked.kind, "term": asked.term, "against": asked.against, "metric": metric},
        **{"cells": len(rows), "cells_planned": len(asked.weights)},
        **found,
        **{"margin": margin, "p_equivalence": equivalence, "verdict": word, "reason": reason},
        **{"below_margin": word == "equivalent" and decided},
        **dict(zip(("seeds_from", "seeds_needed"), needed, strict=True)),
        **{"low_images": images["low"], "high_images": images["high"]},
        "rho": found["rho"] if is_arm else NAN,
        "detectable": sd * detectable(n, 0.05 / size) if sd > 0 else NAN,
        "p_sign_flip": sign_flip(sides[0], sides[1]),
        **unpaired(sides[0], sides[1]),
    }


def unpaired(arm: Array, other: Array) -> Row:
    """Welch's test of both sides by scipy, and the largest of the squared differences as a part of all."""
    there = np.isfinite(arm - other)
    arm, other = arm[there], other[there]
    spread = len(arm) > 1 and max(np.ptp(arm), np.ptp(other)) > 0
    with warnings.catch_warnings(action="ignore"):  # of samples that are all but equal
        p = stats.ttest_ind(arm, other, equal_var=False).pvalue if spread else NAN
    squares = (arm - other) ** 2
    paired = difference(arm, other, 1)["p"]
    return {"p_welch": p, "largest_share": squares.max() / squares.sum() if paired > 0 else NAN}


def _most_values(there: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """Combinations, the fullest first, and the seeds they all have: as many values as possible."""
    order = np.argsort(-there.sum(axis=1), kind="stable")
    best: tuple[list[int], list[int]] = ([], [])
    for count in range(1, len(order) + 1):
        rows = sorted(order[:count].tolist())
        seeds = np.flatnonzero(there[rows].all(axis=0)).tolist()
        if seeds and len(seeds) * count >= len(best[0]) * len(best[1]):
            best = rows, seeds
    return best


def over_images(recorded: Recorded, metric: str, arm: str, other: str = "", size: int = 1) -> Row:
    """Runs of an arm, their mean, or difference from another's, its interval for new seeds and images."""
    runs = [{t.seed: t.images for t in recorded.complete(name)} for name in (arm, other) if name]
    shared = [seed for seed in recorded.seeds if all(seed in own for own in runs)]
    if metric not in PER_IMAGE or not shared:
        return {"n_pairs": 0, "effect": NAN, "low": NAN, "high": NAN}
    sides = [np.array([own[seed][metric] for seed in shared]) for own in runs]
    values = functools.reduce(np.subtract, sides)
    mean = float(values.mean())
    low, high = _in_range("" if other else metric, mean, _half_over_images(values, size))
    return {"n_pairs": len(shared), "effect": mean, "low": low, "high": high}


def _half_over_images(values: Array, size: int) -> float:
    """Half the interval of the mean of values [seeds, images] for others of both (Cornfield and Tukey 1956).

    The half-widths of the seeds' part and of what the images add are squared and added (Zou and Donner 2008).
    """
    n, images = values.shape
    if n < 2:
        return NAN
    by_seed, by_image = values.mean(axis=1), values.mean(axis=0)
    seeds = float(by_seed.var(ddof=1)) / n
    squares = float(((values - by_image - by_seed[:, None] + values.mean()) ** 2).sum())
    added = max(float(by_image.var(ddof=1)) - squares / ((n - 1) * (images - 1)) / n, 0.0) / images
    parts = ((n - 1, seeds), (images - 1, added))
    half = math.hypot(*(stats.t.isf(0.025 / size, df) * math.sqrt(variance) for df, variance in parts))
    return half if half > 1e-12 * float(np.abs(values).max()) else NAN


@dataclass
class Audit:
    """What was compared, file by file, what did not agree, and what was left out."""

    compared: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)

    def check(self, place: str, shown: Any, expected: Any, tolerance: float = 1e-9) -> None:
        """A text, an unrounded number (nothing is NaN), or the ends between which one lies."""
        self.compared[place.split(":")[0]] += 1
        if isinstance(expected, tuple):
            agrees = expected[0] <= float(shown) <= expected[1]
        elif isinstance(expected, (str, bool)) or expected is None:
            agrees = shown == ("" if expected is None else str(expected))
        elif shown in (None, "") or not math.isfinite(expected):
            agrees = shown in (None, "") and not math.isfinite(expected)
        else:
            number = float({"True": 1, "False": 0}.get(shown, shown))
            agrees = math.isclose(number, expected, rel_tol=tolerance, abs_tol=1e-3 * tolerance)
        if not agrees:
            self.wrong.append(f"{place}: holds {shown!r}, recomputed {expected!r}")


def audit_arms(recorded: Recorded, table: Mapping[str, Any]) -> Audit:
    """Means of arms with their intervals, in report.json's `arms` or `more_metrics`."""
    audit = Audit()
    for arm, row in zip(recorded.arms, table["rows"], strict=True):
        audit.check("arms", row[1]["value"], len(recorded.complete(arm)))
        for head, cell in zip(table["columns"][2:], row[2:], strict=True):
            metric = SHOWN[head["label"]]
            runs = recorded.complete(arm)
            mean = mean_of((_floored(trial, metric) for trial in runs), metric=metric)
            if metric in PER_IMAGE and math.isfinite(mean[1]):
                mean = tuple(list(over_images(recorded, metric, arm).values())[1:])
            tolerance = TOLERANCE.get(metric, 1e-9)
            for name, expected in zip(("value", "low", "high"), mean, strict=True):
                audit.check(f"arms: {arm}, {metric}, {name}", cell[name], expected, tolerance)
    return audit


def audit_published(recorded: Recorded, section: Mapping[str, Any]) -> Audit:
    """Where one more run would lie in each epoch, and whether the published value lies there."""
    audit = Audit()
    theirs = {int(row["epoch"]): row for row in recorded.study["published"]["epochs"]}
    for table, arm in zip(section["tables"], recorded.arms, strict=True):
        histories = [trial.record.get("history", ()) for trial in recorded.complete(arm)]
        own = [{epoch["epoch"]: epoch for epoch in history} for history in histories]
        inside = 0
        for row in table["rows"]:
            epoch = int(row[0]["value"])
            for head, ours, their in zip(table["columns"][1::2], row[1::2], row[2::2], strict=True):
                name = SHOWN[head["label"].removesuffix(": ours")]
                _, low, high = mean_of((history[epoch][name] for history in own if epoch in history), more=1)
                value = theirs.get(epoch, {}).get(name, NAN)
                lies = NAN if math.isnan(low + value) else float(low <= value <= high)
                inside += lies == 1
                for shown, number in ((ours["low"], low), (ours["high"], high), (their["inside"], lies)):
                    audit.check(f"published: {arm}, {epoch}, {name}", shown, number)
        audit.check(f"published: {arm}", table["inside"], inside)
    return audit


def rows_of(path: Path) -> list[Any]:
    return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")


def audit_csv(recorded: Recorded, folder: Path) -> Audit:
    """Every CSV file of a results folder; `left_out` names columns as file.column."""
    audit = Audit()
    for path in sorted(folder.glob("*.csv")):
        name = path.stem
        shown = rows_of(path)
        if not hasattr(Files, name):
            audit.left_out.add(name)
            continue
        expected = list(getattr(Files(recorded, shown), name)())
        if len(shown) != len(expected):
            audit.wrong.append(f"{name}: {len(shown)} rows, recomputed {len(expected)}")
            continue
        for at, (row, own) in enumerate(zip(shown, expected, strict=True)):
            # Of differences and their tests, in which a metric's own tolerance grows.
            tolerance = 100 * TOLERANCE.get(str(own["metric"]), 1e-11) if name == "effects" else 1e-9
            for column, value in row.items():
                if column in own:
                    allowed = max(tolerance, TOLERANCE.get(column, 0))
                    audit.check(f"{name}.csv: row {at}, {column}", value, own[column], allowed)
                else:
                    of = f" of {own['metric']}" if name == "floors" else ""
                    audit.left_out.add(f"{name}.{column}{of}")
    return audit


def _floored(trial: Trial, metric: str) -> float:
    if trial.row and metric.endswith("_floor"):
        return float(drawn_errors(trial)[metric.removesuffix("_floor")].mean())
    return trial.row.get(metric, NAN)


@dataclass(frozen=True)
class Files:
    """The rows of each file, by its name, from what is recorded; `shown` are those that it holds."""

    recorded: Recorded
    shown: Sequence[Mapping[str, str]]

    def trials(self) -> Rows:
        floors = {f"{name}_floor" for name in CALIBRATION if name != "smece"}
        for trial in self.recorded.trials:
            # A record from before a setting existed does not hold it.
            yield {
                **{name: _floored(trial, name) for name in {*SHOWN.values(), *COSTS, *floors}},
                **{name: trial.record.get(name) or NAN for name in ("parameters", "macs")},
                "threads": trial.record.get("environment", {}).get("threads", NAN),
                "repeat": trial.repeat,
                **trial.fields,
                **trial.key,
            }

    def epochs(self) -> Rows:
        for trial in self.recorded.trials:
            for epoch in trial.record.get("history", ()):
                miss = np.abs(np.subtract(epoch["bin_confidence"], epoch["bin_correct"])).sum()
                kept = {name: value for name, value in epoch.items() if not isinstance(value, list)}
                yield {**trial.key, **kept, "valid_ece": float(miss) / sum(epoch["bin_count"])}

    def reliability(self) -> Rows:
        for trial in (trial for trial in self.recorded.trials if trial.row):
            confidence = trial.p.max(axis=1)
            images = pd.DataFrame({"confidence": confidence, "accuracy": trial.images["accuracy"]})
            bins = images.groupby(_bins(confidence)).mean().reindex(range(15))
            count = np.bincount(_bins(confidence), minlength=15)
            for at, (mean, accuracy) in enumerate(bins.to_numpy()):
                edges = {"bin": at, "lower": at / 15, "upper": (at + 1) / 15, "count": count[at]}
                yield {**trial.key, **edges, "confidence": mean, "accuracy": accuracy}

    def floors(self) -> Rows:
        """Of the mean over each arm's complete runs."""
        for arm, runs in ((arm, self.recorded.complete(arm)) for arm in self.recorded.arms):
            for metric in CALIBRATION if runs else ():
                key = {"arm": arm, "runs": len(runs), "metric": metric}
                yield key | ({} if metric == "smece" else floor_band(runs, metric))

    def confusion(self) -> Rows:
        for arm in self.recorded.arms:
            runs = self.recorded.complete(arm)
            names = (runs[0].record.get("class_names") if runs else None) or ()
            taken = [zip(run.arrays["labels"], run.logits.argmax(axis=1), strict=True) for run in runs]
            counts = Counter(itertools.chain(*taken))
            for (true, name), (predicted, other) in itertools.product(enumerate(names), repeat=2):
                yield {"arm": arm, "class": name, "predicted": other, "count": counts[true, predicted]}

    def projection(self) -> Rows:
        for runs in map(self.recorded.complete, self.recorded.arms):
            for trial, split in itertools.product(runs[:1], ("train", "valid")):
                names = trial.record.get("class_names")
                points = trial.arrays.get(f"projection_{split}", np.empty((0, 2)))
                labels = trial.arrays.get(f"projection_{split}_labels", np.empty(0))
                for (x, y), label in zip(points, labels, strict=True):
                    name = names[label] if names else str(label)
                    yield {**trial.key, "split": split, "class": name, "x": float(x), "y": float(y)}

    def effects(self) -> Rows:
        metrics = list(dict.fromkeys(row["metric"] for row in self.shown))
        asked = itertools.product(effects(self.recorded), metrics)
        return [
            effect_row(self.recorded, effect, metric)
            for effect, metric in asked
            if effect.kind != "pair" or effect.is_claim(self.recorded, metric)
        ]

    def new_images(self) -> Rows:
        arms = [asked for asked in effects(self.recorded) if asked.kind == "arm"]
        told = [(asked.term, asked.against, asked) for asked in arms]
        alone = [(arm, "", None) for arm in self.recorded.arms]
        for (arm, other, asked), metric in itertools.product([*told, *alone], PER_IMAGE):
            size = family_size(self.recorded, asked, metric) if asked else 1
            found = over_images(self.recorded, metric, arm, other, size)
            own = {"arm": arm, "baseline": other or None, "metric": metric, "comparisons": size}
            images = len(self.recorded.complete(arm)[0].p) if found["n_pairs"] else NAN
            yield {**own, "images": images, **found}

    def step_times(self) -> Rows:
        timing = self.recorded.timing
        for case, times, steps in zip(timing["cases"], timing["step_ms"], timing["steps"], strict=True):
            own = {**case, "steps": steps, "threads": timing["environment"]["threads"]}
            yield from ({**own, "round": at, "step_ms": ms} for at, ms in enumerate(times))

    def timing(self) -> Rows:
        timing = self.recorded.timing
        for case, times in zip(timing["cases"], timing["step_ms"], strict=True):
            plain = {**case, "loss": "cross_entropy", "reduction": "mean"}
            beside = timing["step_ms"][timing["cases"].index(plain)]
            own = dict(zip(("step_ms", "low", "high"), median_of(np.array(times)), strict=True))
            ratio = median_of(np.array(times) / np.array(beside))
            own |= dict(zip(("ratio_to_plain", "ratio_low", "ratio_high"), ratio, strict=True))
            exclusive = None if timing["others"] is None else timing["others"] < 0.1
            yield {**case, **own, "plain": case == plain, "n": len(times), "exclusive": exclusive}

    def tuning(self) -> Rows:
        stored, declared = self.recorded.tuning, self.recorded.tuning["search"]
        states = Counter(point["state"] for point in stored["points"])
        runs = {run.trial_id: run for own in self.recorded.runs for run in own if run.record}
        objectives = {at: self.recorded.objectives.get(at) for at in ("", "_2")}
        yield {
            **stored,
            **{name: declared[name] for name in ("seeds", "sampler", "pruning")},
            **{"points_planned": declared["points"], "points_done": states["complete"]},
            **{f"points_{state}": states[state] for state in ("pruned", "failed")},
            **{"trainings": len(runs), "seconds": math.fsum(run.seconds for run in runs.values())},
            **{f"objective{at}": metric for at, metric in objectives.items()},
            **{
                f"direction{at}": metric and ("higher" if metric in HIGHER else "lower")
                for at, metric in objectives.items()
            },
        }

    def points(self) -> Rows:
        points = zip(self.recorded.tuning["points"], self.recorded.runs, self._on_front(), strict=True)
        for point, runs, on_front in points:
            first = next((run.record for run in runs if run.record), None)
            own = {**point, "reason": point["reason"] or None, "pruned_at": point["pruned_at"] or NAN}
            own["levels"] = ", ".join(f"{name}={level}" for name, level in point["levels"].items())
            own |= first["trial"]["fields"] if first else point["levels"]
            own |= {"seeds_planned": len(point["seeds"]), "seeds_done": sum(bool(run.row) for run in runs)}
            for suffix in ("", "_2"):
                metric = self.recorded.objectives.get(suffix)
                own[f"objective{suffix}"] = metric
                complete = metric and point["state"] == "complete"
                values = [run.row[str(metric)] for run in runs if complete and run.row]
                columns = (f"{name}{suffix}" for name in ("value", "low", "high"))
                own |= dict(zip(columns, mean_of(values, metric=str(metric)), strict=True))
                own[f"sd{suffix}"] = float(np.std(values, ddof=1)) if len(values) > 1 else NAN
            seen = [run.row[self.recorded.objectives[""]] for run in runs if run.row]
            seen = seen or list(point["intermediate"].values())[-1:]
            own["last_seen"] = float(np.mean(seen)) if seen and point["state"] == "pruned" else NAN
            own |= {"on_front": on_front, "winner": point["number"] in self.recorded.tuning["winners"]}
            yield {**own, "seconds": math.fsum(run.seconds for run in runs)}

    def _on_front(self) -> list[bool | None]:
        """Of the smoothed values as they are written."""
        signs = {at: 1 if metric in HIGHER else -1 for at, metric in self.recorded.objectives.items()}
        fits = pd.DataFrame(self.shown)[[f"smoothed{at}" for at in signs]].replace("", NAN).astype(float)
        gains = fits.to_numpy() * list(signs.values())
        beaten = ((gains[:, None] >= gains).all(axis=2) & (gains[:, None] > gains).any(axis=2)).any(axis=0)
        known = np.isfinite(gains) & (len(signs) == 2)
        rows = zip(np.asarray(beaten), known, strict=True)
        return [not lost if there.all() else None for lost, there in rows]

    def point_values(self) -> Rows:
        for number, run in ((number, run) for number, runs in enumerate(self.recorded.runs) for run in runs):
            status = run.record.get("status", "missing")
            own = {"number": number, "seed": run.seed, "trial_id": run.trial_id, "status": status}
            metrics = self.recorded.objectives
            yield own | {f"value{at}": run.row.get(metrics.get(at, ""), NAN) for at in ("", "_2")}

    def importances(self) -> Rows:
        for own in self.recorded.tuning["importances"]:
            yield from ({**own, "field": name, "share": share} for name, share in own["shares"].items())
