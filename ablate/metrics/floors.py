"""What a calibration error of a perfectly calibrated model would be: its noise floor, and how far it strays.

The labels are drawn anew, each image's from its own probabilities. The mean of the error over the draws is
its floor, their central 95 % the band: an error above it is evidence of miscalibration.

Source: Bröcker and Smith 2007, consistency resampling, https://doi.org/10.1175/WAF993.1
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ablate.metrics.predictions import Array, Predictions

DRAWS = 1000
BAND = (0.025, 0.975)  # of calibrated models, the shares that score less than the band's lower and upper end
BLOCK = 1 << 18  # drawn labels held at once. Another number would draw other labels.


def drawn(predictions: Predictions) -> Iterator[Predictions]:
    """The predictions with drawn labels, [draws, N] in a block, `DRAWS` in all; of equals the same ones."""
    # RandomState and not default_rng: NumPy promises its stream for good (NEP 19), and with it the floors.
    rng, confidence = np.random.RandomState(np.random.SFC64(0)), predictions.confidence[:, None]
    images, classes = predictions.logits.shape
    # Most draws are the predicted class. The others are looked up in the summed probabilities of an image's
    # other classes, all of them at once: numpy's own bisection takes a branch for each, guessed wrong.
    depth = (classes - 1).bit_length()
    upper = np.full((images, 1 << depth), np.inf)
    upper[:, : classes - 1] = np.cumsum(predictions.other_probabilities, axis=1)[:, :-1]
    block = max(1, BLOCK // images)
    for start in range(0, DRAWS, block):
        uniform = rng.random_sample((images, min(block, DRAWS - start)))
        labels = np.repeat(predictions.predicted, uniform.shape[1])
        other = np.flatnonzero(uniform >= confidence)
        image = other // uniform.shape[1]
        rest, place = uniform.ravel()[other] - confidence[image, 0], image << depth
        for step in 1 << np.arange(depth)[::-1]:
            place += step * (rest >= upper.ravel()[place + step - 1])
        labels[other] = place - (image << depth)
        yield predictions.relabelled(labels.reshape(uniform.shape).T)


def band_of_mean(runs: Sequence[Array]) -> tuple[float, float]:
    """Ends of the band of an error's mean over independent runs, of each [DRAWS] resampled values."""
    # One stream of random numbers draws every run's labels: shuffled, the runs' values are independent.
    rng = np.random.RandomState(1)
    low, high = np.quantile(np.mean([rng.permutation(values) for values in runs], axis=0), BAND)
    return float(low), float(high)
