"""Telling right predictions from wrong ones by confidence: selective classification and error detection.

Coverage is the share of images, the most confident ones, that a model answers; risk the share of wrong
predictions among these. Ties in confidence are never broken by the images' order.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ablate.metrics.predictions import Predictions, tied_ranks
from ablate.metrics.registry import metric

HENDRYCKS = "Hendrycks and Gimpel 2017, https://arxiv.org/abs/1610.02136"
XIA = "Xia et al. 2025, https://arxiv.org/abs/2403.14715"
GEIFMAN = "Geifman, Uziel and El-Yaniv 2019, https://arxiv.org/abs/1805.08206"
SELECTIVE = "Geifman and El-Yaniv 2017, https://arxiv.org/abs/1705.08500"


@metric(label="AUROC of errors", unit="fraction", better="higher", source=HENDRYCKS)
def auroc_error(predictions: Predictions) -> float:
    """AUROC of the confidence for right against wrong predictions; empty without both."""
    return _auroc(predictions.confidence_ranks, predictions.correct)


@metric(label="AUROC of errors, normalised logit", unit="fraction", better="higher", source=XIA)
def auroc_error_normalised(predictions: Predictions) -> float:
    """`auroc_error` ranked by the highest logit, centred and divided by the logits' norm.

    Cattelan and Silva (2024, MaxLogit-pNorm, https://arxiv.org/abs/2305.15508) tune the norm's exponent on
    held-out images; here it is 2. Constant logits count as 0; with two classes all images are tied.
    """
    centred = predictions.logits - predictions.logits.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.square(centred).sum(axis=1))
    highest = centred.max(axis=1) / np.where(np.ptp(predictions.logits, axis=1) > 0, norm, math.inf)
    return _auroc(tied_ranks(highest), predictions.correct)


@metric(label="AURC", unit="fraction", better="lower", source=GEIFMAN)
def aurc(predictions: Predictions) -> float:
    """Area under the risk-coverage curve: error rate of the n most confident, mean over n."""
    answered, wrong = risk_coverage_counts(predictions)
    number = np.arange(1, len(predictions.labels) + 1)
    return float((np.interp(number, answered, wrong) / number).mean())


@metric(label="E-AURC", unit="fraction", better="lower", source=GEIFMAN)
def eaurc(predictions: Predictions) -> float:
    """`aurc` minus the `aurc` of the best ranking of the same predictions."""
    number = np.arange(1, len(predictions.labels) + 1)
    best = (number - predictions.correct.sum()).clip(min=0) / number
    return max(0.0, float(aurc.score(predictions) - best.mean()))  # rounding can leave -1e-17


@metric(label="Coverage at 1 % risk", unit="fraction", better="higher", source=SELECTIVE)
def coverage_at_1(predictions: Predictions) -> float:
    """Largest share of images, the most confident ones, of which at most 1 % are wrong."""
    return _coverage_at(1, predictions)


@metric(label="Coverage at 2 % risk", unit="fraction", better="higher", source=SELECTIVE)
def coverage_at_2(predictions: Predictions) -> float:
    """Largest share of images, the most confident ones, of which at most 2 % are wrong."""
    return _coverage_at(2, predictions)


def risk_coverage_counts(predictions: Predictions) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """[thresholds + 1] images at or above each on the confidence, none to all, and the wrong among them."""
    ranks = predictions.confidence_ranks
    counts = (np.bincount(own, minlength=ranks.max() + 1) for own in (ranks, ranks[~predictions.correct]))
    answered, wrong = (np.append(0, np.cumsum(rising[::-1])) for rising in counts)
    return answered, wrong


def _coverage_at(percent: int, predictions: Predictions) -> float:
    answered, wrong = risk_coverage_counts(predictions)
    return float(answered[100 * wrong <= percent * answered].max() / len(predictions.labels))


def _auroc(ranks: NDArray[np.intp], correct: NDArray[np.bool_]) -> float:
    right, wrong = np.sort(ranks[correct]), ranks[~correct]
    if not len(right) or not len(wrong):
        return math.nan
    lower, not_higher = (np.searchsorted(right, wrong, side=side) for side in ("left", "right"))
    return float(1 - (lower + not_higher).mean() / (2 * len(right)))
