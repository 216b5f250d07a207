"""One model's predictions on one split, and what several metrics need of them, computed once.

How images are put into bins by a probability is part of a calibration error's definition.

- Equal width: 15 bins over [0, 1], [lower, upper) each; 1.0 belongs to the last. (torchmetrics 1.9 gives it
  one of its own: https://github.com/Lightning-AI/torchmetrics/issues/3510.) What rounding has put below an
  edge is on it.
- Equal mass: the images in ascending order are cut by rank into 15 bins whose sizes differ by at most one,
  the larger ones first. Equal confidences stay together, in the lowest bin that they reach; one may be empty.
"""

import copy
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax

from ablate.stats.intervals import OF_FLOAT32, ROUNDING

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]
Array = NDArray[np.float64]

BINS, FOLDS = 15, 5
EDGES = np.arange(BINS + 1) / BINS
TEMPERATURE_BOUNDS = (0.01, 10_000.0)


def bin_ids(probabilities: FloatArray, rounding: float = ROUNDING) -> NDArray[np.intp]:
    """Bin of equal width of each probability; any shape."""
    return np.searchsorted(EDGES[1:-1] - rounding, probabilities, side="right")


def tied_ranks(scores: Array) -> NDArray[np.intp]:
    """[N] rank, from 0, of each of [N] scores among the different ones; those apart by rounding are tied."""
    order = np.argsort(scores)
    ascending = scores[order]
    higher = np.diff(ascending) > ROUNDING * np.abs(ascending[1:])
    ranks = np.empty(len(scores), np.intp)
    ranks[order] = np.append(0, np.cumsum(higher))
    return ranks


def equal_mass_bin_ids(ranks: NDArray[np.number]) -> NDArray[np.intp]:
    """[N] bin of equal mass of each of [N] ranks, or of what is ranked by them."""
    sizes = len(ranks) // BINS + (np.arange(BINS) < len(ranks) % BINS)
    lowest_rank = np.searchsorted(np.sort(ranks), ranks, side="left")
    return np.asarray(np.repeat(np.arange(BINS), sizes)[lowest_rank])


def validate(logits: FloatArray, labels: IntArray) -> None:
    """Refuse, with a ValueError, all but finite logits [N, K], N >= 1, and labels [N], integers in [0, K)."""
    if not isinstance(logits, np.ndarray) or not isinstance(labels, np.ndarray):
        kinds = f"{type(logits).__name__} and {type(labels).__name__}"
        raise ValueError(f"Expected logits and labels as numpy arrays, got {kinds}; convert them first.")
    shaped = logits.ndim == 2 and len(logits) > 0 and labels.shape == logits.shape[:1]
    if not (shaped and logits.dtype.kind == "f" and labels.dtype.kind in "iu"):
        raise ValueError(
            "Expected floating-point logits [N, K], a row for each of at least one image, and integer labels "
            f"[N], class ids and not one-hot rows; got {logits.dtype} of shape {logits.shape} and "
            f"{labels.dtype} of shape {labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"Expected labels in [0, {logits.shape[1]}), got {labels.min()} to {labels.max()}; "
            "leave out ignored images and check that labels and logits are of the same data set."
        )
    if broken := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise ValueError(
            f"Expected finite logits, got NaN or infinity for {broken} of {len(logits)} images; "
            "a diverged training run has no metrics, record it as diverged."
        )


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits [N, K] in float64 and class ids [N] of one split, with what is derived from them kept.

    Labels that are drawn anew to find a noise floor are [draws, N]. `Predictions.of` is the door that checks.
    """

    logits: Array
    labels: NDArray[np.intp]
    rounding: float = ROUNDING
    resampled: dict[str, Array] = field(default_factory=dict, init=False, repr=False)
    """The errors under drawn labels, once `registry.resampled` has computed them."""

    @classmethod
    def of(cls, logits: FloatArray, labels: IntArray) -> "Predictions":
        """Check the arrays as `validate` does and widen them to float64."""
        validate(logits, labels)
        rounding = OF_FLOAT32 if np.array_equal(logits, logits.astype(np.float32)) else ROUNDING
        return cls(logits.astype(np.float64), labels.astype(np.intp), rounding)

    def relabelled(self, labels: NDArray[np.intp]) -> "Predictions":
        """The same logits, and all that follows from them alone, with other labels, [draws, N]."""
        other = copy.copy(self)
        for name in ("correct", "cross_fit", "scaled"):
            vars(other).pop(name, None)
        vars(other)["labels"] = labels
        return other

    @cached_property
    def log_probabilities(self) -> Array:
        """[N, K] natural log of the softmax, in (-inf, 0]."""
        return np.asarray(log_softmax(self.logits, axis=1))

    @cached_property
    def probabilities(self) -> Array:
        """[N, K] softmax of the logits."""
        return np.asarray(np.exp(self.log_probabilities))

    @cached_property
    def predicted(self) -> NDArray[np.intp]:
        """[N] class of the highest logit; tied logits predict the lowest tied class id."""
        return np.asarray(self.logits.argmax(axis=1))

    @cached_property
    def confidence(self) -> Array:
        """[N] probability of the predicted class, in [1/K, 1]."""
        return np.asarray(np.exp(self.log_probabilities.max(axis=1)))

    @cached_property
    def other_probabilities(self) -> Array:
        """[N, K] softmax with 0 in place of the predicted class."""
        others = self.probabilities.copy()
        others[np.arange(len(others)), self.predicted] = 0
        return others

    @cached_property
    def confidence_ranks(self) -> NDArray[np.intp]:
        """[N] rank of the confidence, by the other classes' sum: what rounds to 1.0 is ranked; equals tie."""
        return tied_ranks(-self.other_probabilities.sum(axis=1))

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """[N] whether the predicted class is the label; [draws, N] of drawn labels."""
        return np.asarray(self.predicted == self.labels)

    @cached_property
    def width_bins(self) -> NDArray[np.intp]:
        """[N] bin of equal width of the confidence."""
        return bin_ids(self.confidence, self.rounding)

    @cached_property
    def mass_bins(self) -> NDArray[np.intp]:
        """[N] bin of equal mass of the confidence."""
        return equal_mass_bin_ids(self.confidence_ranks)

    @cached_property
    def class_bins(self) -> NDArray[np.intp]:
        """[N, K] bin of equal width of each class's probability, numbered on from class to class."""
        return bin_ids(self.probabilities, self.rounding) + BINS * np.arange(self.logits.shape[1])

    @cached_property
    def class_bin_sums(self) -> Array:
        """[15 K] summed probability in each bin of `class_bins`."""
        groups = BINS * self.logits.shape[1]
        sums = np.bincount(self.class_bins.ravel(), self.probabilities.ravel(), minlength=groups)
        return np.asarray(sums, dtype=np.float64)

    @cached_property
    def cross_fit(self) -> tuple[NDArray[np.intp], Array]:
        """[N] fold of each image, by N alone, and of each fold the temperature fitted on all others.

        So no image is scored with a T it helped to fit, where Guo et al. 2017 (section 4.2,
        https://arxiv.org/abs/1706.04599) fit it on a held-out split. Of a single image it is NaN.
        """
        # RandomState and not default_rng: NumPy promises its stream for good (NEP 19), and so these folds.
        folds = np.asarray(np.random.RandomState(0).permutation(len(self.labels)) % FOLDS, dtype=np.intp)
        if len(folds) < 2:
            return folds, np.array([np.nan])
        others = [folds != fold for fold in range(folds.max() + 1)]
        return folds, np.array([fit_temperature(self.logits[own], self.labels[own]) for own in others])

    @cached_property
    def scaled(self) -> "Predictions | None":
        """The predictions after cross-fitted temperature scaling; None for a single image."""
        if len(self.labels) < 2:
            return None
        folds, temperatures = self.cross_fit
        return Predictions(self.logits / temperatures[folds][:, None], self.labels, self.rounding)


def fit_temperature(logits: Array, labels: NDArray[np.intp]) -> float:
    """Temperature T > 0 that minimises the NLL of softmax(logits / T), [N, K] logits of [N] class ids.

    Outside `TEMPERATURE_BOUNDS` the nearer one: the lower if all images are right, the upper where the true
    classes' logits are no higher than the average. It is 1 where every row of logits is constant.
    """
    # The NLL is convex in 1/T: its slope has one root, looked for from T = 1 outwards in ever longer steps.
    true_logit = logits[np.arange(len(labels)), labels]
    # Classes first: sums over K then run along contiguous rows of N, three times as fast for K = 10.
    margins = np.ascontiguousarray((logits - true_logit[:, None]).T)
    if not margins.any():
        return 1.0
    rising = _nll_slope(0.0, margins) > 0
    bound, step = (TEMPERATURE_BOUNDS[1], -0.2) if rising else (TEMPERATURE_BOUNDS[0], 0.2)
    near, far, last = 0.0, step, -math.log(bound)
    while (_nll_slope(far, margins) > 0) is rising:
        if far == last:
            return bound
        step *= 2
        near, far = far, max(far + step, last) if rising else min(far + step, last)
    return math.exp(-brentq(_nll_slope, near, far, args=(margins,)))


def _nll_slope(log_inverse_temperature: float, margins: Array) -> float:
    """Slope of the mean NLL along 1/T: the mean over images of E_p[logit] - true logit."""
    scores = margins * np.exp(log_inverse_temperature)
    scores -= scores.max(axis=0)
    # exp below -708 is subnormal, which costs six times as much and changes no sum.
    weights = np.exp(np.maximum(scores, -700.0, out=scores), out=scores)
    return float(np.mean((weights * margins).sum(axis=0) / weights.sum(axis=0)))
