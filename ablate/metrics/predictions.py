"""One model's predictions on one split, and what several metrics need of them, computed once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from ablate.metrics.arrays import FloatArray, IntArray, validate
from ablate.metrics.binning import BINS, bin_ids, equal_mass_bin_ids
from ablate.metrics.poisson_binomial import Successes, successes_by_group
from ablate.metrics.temperature import cross_fit


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits and labels of one split in float64, with what is derived from them kept.

    `Predictions.of` is the door that checks; the constructor trusts its arguments.

    Attributes:
        logits: [N, K] float64.
        labels: [N] class ids.
    """

    logits: NDArray[np.float64]
    labels: NDArray[np.intp]

    @classmethod
    def of(cls, logits: FloatArray, labels: IntArray) -> "Predictions":
        """Check the arrays as `validate` does and widen them to float64."""
        validate(logits, labels)
        return cls(logits.astype(np.float64), labels.astype(np.intp))

    @cached_property
    def log_probabilities(self) -> NDArray[np.float64]:
        """[N, K] natural log of the softmax, in (-inf, 0]."""
        return np.asarray(log_softmax(self.logits, axis=1))

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """[N, K] softmax of the logits."""
        return np.asarray(np.exp(self.log_probabilities))

    @cached_property
    def predicted(self) -> NDArray[np.intp]:
        """[N] class of the highest logit; tied logits predict the lowest tied class id."""
        return np.asarray(self.logits.argmax(axis=1))

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """[N] probability of the predicted class, in [1/K, 1]."""
        return np.asarray(np.exp(self.log_probabilities.max(axis=1)))

    @cached_property
    def doubt(self) -> NDArray[np.float64]:
        """[N] 1 - confidence, summed from the other classes so that near certainty it is not rounded to 0.

        It ranks images as the confidence does, but keeps apart those whose confidence rounds to 1.0.
        """
        others = self.probabilities.copy()
        others[np.arange(len(self.labels)), self.predicted] = 0
        return np.asarray(others.sum(axis=1))

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """[N] whether the predicted class is the label."""
        return np.asarray(self.predicted == self.labels)

    @cached_property
    def width_bins(self) -> NDArray[np.intp]:
        """[N] bin of equal width of the confidence."""
        return bin_ids(self.confidence)

    @cached_property
    def mass_bins(self) -> NDArray[np.intp]:
        """[N] bin of equal mass of the confidence."""
        return equal_mass_bin_ids(self.confidence)

    @cached_property
    def class_bins(self) -> NDArray[np.intp]:
        """[N, K] bin of equal width of each class's probability, numbered on from class to class."""
        return bin_ids(self.probabilities) + BINS * np.arange(self.logits.shape[1])

    @cached_property
    def class_bin_sums(self) -> NDArray[np.float64]:
        """[15 K] summed probability in each bin of `class_bins`."""
        groups = BINS * self.logits.shape[1]
        sums = np.bincount(self.class_bins.ravel(), self.probabilities.ravel(), minlength=groups)
        return np.asarray(sums, dtype=np.float64)

    @cached_property
    def width_bin_successes(self) -> list[Successes]:
        """Correct predictions that a calibrated model would make in each bin of equal width with an image."""
        return successes_by_group(self.confidence, self.width_bins)

    @cached_property
    def mass_bin_successes(self) -> list[Successes]:
        """The same in each bin of equal mass."""
        return successes_by_group(self.confidence, self.mass_bins)

    @cached_property
    def _cross_fit(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        return cross_fit(self.logits, self.labels)

    @property
    def temperatures(self) -> NDArray[np.float64]:
        """[folds] temperature each fold of images is scored with; one NaN for a single image."""
        return self._cross_fit[1]

    @cached_property
    def scaled(self) -> "Predictions | None":
        """The predictions after cross-fitted temperature scaling; None for a single image."""
        if len(self.labels) < 2:
            return None
        folds, temperatures = self._cross_fit
        return Predictions(self.logits / temperatures[folds][:, None], self.labels)


class MetricFunction:
    """A metric, written as a function of `Predictions` and called with arrays.

    `metric(logits, labels)` checks the arrays and computes one number. `metric.score(predictions)` is the
    function as written; metrics scored on the same `Predictions` share what is costly.
    """

    def __init__(self, score: Callable[[Predictions], float]) -> None:
        self.score = score
        self.__name__ = score.__name__
        self.__doc__ = score.__doc__

    def __call__(self, logits: FloatArray, labels: IntArray) -> float:
        """Score logits [N, K] against labels [N]; ValueError as `validate` raises it."""
        return self.score(Predictions.of(logits, labels))

    def __repr__(self) -> str:
        return f"<metric {self.__name__}(logits, labels)>"
