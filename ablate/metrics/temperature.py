"""Temperature scaling, cross-fitted, so that no image is scored with a temperature it helped to fit.

Guo et al. 2017, section 4.2, https://arxiv.org/abs/1706.04599, fit T on a held-out split. Here the reported
images are divided into folds, and each is scored with the T fitted on the others.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Array = NDArray[np.float64]
FOLDS = 5
TEMPERATURE_BOUNDS = (0.01, 10_000.0)


def fit_temperature(logits: Array, labels: NDArray[np.intp]) -> float:
    """Temperature T > 0 that minimises the NLL of softmax(logits / T), [N, K] logits of [N] class ids.

    Outside `TEMPERATURE_BOUNDS` the nearer bound is returned: the lower one when every image is predicted
    correctly, the upper one when the true classes' logits are no higher than the average. T is 1 when every
    row of logits is constant.
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


def fold_ids(num_images: int) -> NDArray[np.intp]:
    """[N] fold of each image, in [0, min(N, 5)), by N alone; fold sizes differ by at most one."""
    # RandomState and not default_rng: NumPy promises its stream for good (NEP 19), and with it these folds.
    shuffled = np.random.RandomState(0).permutation(num_images)
    return np.asarray(shuffled % FOLDS, dtype=np.intp)


def cross_fit(logits: Array, labels: NDArray[np.intp]) -> tuple[NDArray[np.intp], Array]:
    """[N] fold of each image, and for each fold the temperature fitted on all others; NaN for one image."""
    folds = fold_ids(len(labels))
    if len(labels) < 2:
        return folds, np.array([np.nan])
    others = [folds != fold for fold in range(folds.max() + 1)]
    return folds, np.array([fit_temperature(logits[own], labels[own]) for own in others])


def _nll_slope(log_inverse_temperature: float, margins: Array) -> float:
    """Slope of the mean NLL along 1/T: the mean over images of E_p[logit] - true logit."""
    scores = margins * np.exp(log_inverse_temperature)
    scores -= scores.max(axis=0)
    # exp below -708 is subnormal, which costs six times as much and changes no sum.
    weights = np.exp(np.maximum(scores, -700.0, out=scores), out=scores)
    return float(np.mean((weights * margins).sum(axis=0) / weights.sum(axis=0)))
