"""What a calibration error of a perfectly calibrated model would be: its noise floor, and how far it strays.

The images and their probabilities stay as they are, and the labels are drawn anew, each image's from its own
probabilities. The mean of the error over the draws is its floor: an error near it cannot be told from
calibration. The central 95 % of the draws is the band: an error above it is evidence of miscalibration.

References:
    Bröcker and Smith 2007, consistency resampling, https://doi.org/10.1175/WAF993.1
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ablate.metrics.predictions import Array, Predictions

DRAWS = 1000
BAND = (0.025, 0.975)
"""Of calibrated models, the shares that score less than the band's lower and upper end."""
BLOCK = 1 << 18
"""Drawn labels held at once."""


def resample(
    predictions: Predictions, estimators: Mapping[str, Callable[[Predictions], Array]]
) -> dict[str, Array]:
    """[DRAWS] values of each estimator, all of them under the same drawn labels.

    The random numbers are the same for all predictions, so equal predictions have equal floors.
    """
    blocks = [
        {name: estimate(drawn) for name, estimate in estimators.items()} for drawn in _drawn(predictions)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in estimators}


def _drawn(predictions: Predictions) -> Iterator[Predictions]:
    """The predictions with drawn labels, block after block.

    Most draws are the predicted class. The others are looked up in one ascending row: for each image its
    number plus the summed probabilities of its other classes.
    """
    # RandomState and not default_rng: NumPy promises its stream for good (NEP 19), and with it the floors.
    rng, confidence = np.random.RandomState(0), predictions.confidence
    images, classes = predictions.logits.shape
    upper = (np.cumsum(predictions.other_probabilities, axis=1) + np.arange(images)[:, None]).ravel()
    block = max(1, BLOCK // images)
    for start in range(0, DRAWS, block):
        uniform = rng.random_sample((min(block, DRAWS - start), images))
        labels = np.tile(predictions.predicted, (len(uniform), 1))
        draw, image = np.nonzero(uniform >= confidence)
        found = np.searchsorted(upper, image + (uniform[draw, image] - confidence[image]), side="right")
        # Rounding may leave the last draws of an image beyond its last class.
        labels[draw, image] = np.minimum(found - classes * image, classes - 1)
        yield predictions.relabelled(labels)


def band_of_mean(runs: Sequence[Array]) -> tuple[float, float]:
    """Ends of the band of an error's mean over independent runs, of each [DRAWS] resampled values."""
    # One stream of random numbers draws every run's labels: shuffled, the runs' values are independent.
    rng = np.random.RandomState(1)
    low, high = np.quantile(np.mean([rng.permutation(values) for values in runs], axis=0), BAND)
    return float(low), float(high)
