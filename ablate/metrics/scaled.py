"""Metrics of cross-fitted temperature scaling. All are NaN for a single image: nothing is left to fit T on.

Scaling divides all logits of an image by one T > 0, so predicted classes and accuracy do not change.
"""

import math

from ablate.metrics.calibration import GUO, ece
from ablate.metrics.predictions import Predictions
from ablate.metrics.registry import metric
from ablate.metrics.scores import nll
from ablate.metrics.temperature import TEMPERATURE_BOUNDS

SOURCE = f"{GUO}, section 4.2, cross-fitted here"


@metric(label="Temperature", unit="ratio", bounds=TEMPERATURE_BOUNDS, digits=3, source=SOURCE)
def temperature(predictions: Predictions) -> float:
    """Mean over 5 folds of the T that minimises the NLL of logits / T on the other folds.

    Above 1 the logits were over-confident, below 1 under-confident. A value at either end means that no T in
    between is best; `fit_temperature` says when.
    """
    return float(predictions.cross_fit[1].mean())


@metric(label="ECE, scaled", unit="fraction", better="lower", source=SOURCE)
def ece_scaled(predictions: Predictions) -> float:
    """`ece` after temperature scaling, each image with the T fitted without its fold."""
    return math.nan if predictions.scaled is None else ece.score(predictions.scaled)


@metric(label="NLL, scaled", unit="nats", better="lower", bounds=(0, math.inf), digits=4, source=SOURCE)
def nll_scaled(predictions: Predictions) -> float:
    """`nll` after temperature scaling, each image with the T fitted without its fold.

    It may exceed the unscaled NLL: T is fitted on other images. It does so by far when the only errors
    fall into one fold, which is then scored with the lowest T.
    """
    return math.nan if predictions.scaled is None else nll.score(predictions.scaled)
