"""Proper scoring rules: in expectation, the true class probabilities and nothing else score best."""

import numpy as np

from ablate.metrics.predictions import MetricFunction, Predictions


@MetricFunction
def nll(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the labels in nats (natural log), in [0, inf); 0 is best.

    Never smoothed, whatever the training loss was: losses at different ε have different floors and
    cannot be compared. Predicting uniformly scores ln K.

    References:
        Gneiting and Raftery 2007, https://doi.org/10.1198/016214506000001437
    """
    true_class = np.arange(len(predictions.labels)), predictions.labels
    return float(0.0 - predictions.log_probabilities[true_class].mean())  # a bare minus would print -0.0


@MetricFunction
def brier(predictions: Predictions) -> float:
    """Squared distance of the probabilities to the one-hot label, summed over classes; mean over images.

    In [0, 2]: 0 is best, 2 is certainty in a wrong class, and predicting uniformly scores 1 - 1/K. This is
    Brier's own definition. Others divide by K, or square the error of the true class only; for K = 2 either
    is half of this.

    References:
        Brier 1950, https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2
    """
    residuals = predictions.probabilities.copy()
    residuals[np.arange(len(predictions.labels)), predictions.labels] -= 1
    return float(np.square(residuals).sum(axis=1).mean())
