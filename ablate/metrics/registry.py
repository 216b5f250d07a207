"""The metrics by name, each with all that its column, its axes and the pages say of it; their noise floors.

For a floor the labels are drawn anew, each image's from its own probabilities: the mean of the error over the
draws is what a perfectly calibrated model would score, and an error above their central 95 %, the band, is
evidence of miscalibration. Source: Bröcker and Smith 2007, https://doi.org/10.1175/WAF993.1
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ablate.metrics.predictions import Array, FloatArray, IntArray, Predictions

DRAWS = 1000
BAND = (0.025, 0.975)  # of calibrated models, the shares that score less than the band's lower and upper end
BLOCK = 1 << 18  # drawn labels held at once. Another number would draw other labels.
Better = Literal["higher", "lower", ""]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric: its function gives a float or values with that mean; with a floor [draws] for [draws, N]."""

    name: str
    function: Callable[[Predictions], Any]
    definition: str
    label: str
    unit: str  # of the unrounded value; a fraction is shown in percent
    source: str
    better: Better = ""  # the direction that is; "" where neither
    bounds: tuple[float, float] = (0, 1)  # smallest and largest possible value
    digits: int = 2  # shown after the decimal point, in the shown unit
    by_image: bool = False

    def score(self, predictions: Predictions) -> float:
        """The metric of predictions that were checked; what is costly is shared by all metrics of them."""
        return float(np.mean(self.function(predictions)))

    def __call__(self, logits: FloatArray, labels: IntArray) -> float:
        """Score logits [N, K] against labels [N]; ValueError as `validate` raises it."""
        return self.score(Predictions.of(logits, labels))


METRICS: dict[str, Metric] = {}
FLOORS: dict[str, str] = {}  # for each calibration error with a noise floor, the metric that is its floor


def metric(*, floor: bool = False, **about: Any) -> Callable[[Callable[[Predictions], Any]], Metric]:
    """Enter a function of `Predictions` into `METRICS`; its docstring's first line is the definition.

    With a `floor`, for which a perfectly calibrated model does not score 0, its mean over labels drawn from
    the probabilities is a metric of its own, <name>_floor. `about` are the other attributes of `Metric`.
    """

    def register(function: Callable[[Predictions], Any]) -> Metric:
        name, definition = function.__name__, (function.__doc__ or "").partition("\n")[0]
        registered = Metric(name=name, function=function, definition=definition, **about)
        METRICS[name] = registered
        if floor:
            FLOORS[name] = f"{name}_floor"
            METRICS[FLOORS[name]] = replace(
                registered,
                name=FLOORS[name],
                function=lambda predictions: resampled(predictions)[name].mean(),
                definition=f"Mean `{name}` of a perfectly calibrated model with the same probabilities, "
                f"{DRAWS:,} draws of the labels.",
                label=f"{registered.label} noise floor",
                source="Bröcker and Smith 2007, https://doi.org/10.1175/WAF993.1",
                better="",
            )
        return registered

    return register


def resampled(predictions: Predictions) -> dict[str, Array]:
    """For each metric in `FLOORS` [DRAWS] values of a calibrated model with these probabilities."""
    if not predictions.resampled:
        blocks = [{name: METRICS[name].function(own) for name in FLOORS} for own in drawn(predictions)]
        for name in FLOORS:
            predictions.resampled[name] = np.concatenate([block[name] for block in blocks])
    return predictions.resampled


def compute_metrics(predictions: Predictions) -> dict[str, float]:
    """Every metric of `METRICS`, in its order."""
    return {name: metric.score(predictions) for name, metric in METRICS.items()}


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
