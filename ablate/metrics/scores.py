"""Accuracy and proper scoring rules, all of them means over images.

In expectation the true class probabilities, and nothing else, score best by a proper rule.
"""

import math
from typing import Any

import numpy as np

from ablate.metrics.predictions import Array, Predictions
from ablate.metrics.registry import metric

SCIKIT = "scikit-learn, https://scikit-learn.org/stable/modules/model_evaluation.html#accuracy-score"
GNEITING = "Gneiting and Raftery 2007, https://doi.org/10.1198/016214506000001437"
BRIER = "Brier 1950, https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2"
PROPER: dict[str, Any] = {"better": "lower", "digits": 4, "by_image": True}


@metric(label="Accuracy", unit="fraction", better="higher", source=SCIKIT, by_image=True)
def accuracy(predictions: Predictions) -> Array:
    """Share of images whose highest logit is the label's; ties predict the lowest class id."""
    return predictions.correct.astype(np.float64)


@metric(label="NLL", unit="nats", bounds=(0, math.inf), source=GNEITING, **PROPER)
def nll(predictions: Predictions) -> Array:
    """Mean negative log-likelihood of the labels, natural log, never smoothed."""
    true_class = np.arange(len(predictions.labels)), predictions.labels
    return np.asarray(0.0 - predictions.log_probabilities[true_class])  # a bare minus would print -0.0


@metric(label="Brier score", unit="squared probability", bounds=(0, 2), source=BRIER, **PROPER)
def brier(predictions: Predictions) -> Array:
    """Squared error of the probabilities, summed over classes (not divided by K), image mean.

    Brier's own definition: others divide by K, or square the error of the true class only.
    """
    residuals = predictions.probabilities.copy()
    residuals[np.arange(len(predictions.labels)), predictions.labels] -= 1
    return np.asarray(np.square(residuals).sum(axis=1))
