"""How far a calibration error of a perfectly calibrated model strays from its floor: a 95 % band.

As for the floor, the labels are drawn anew from the model's own probabilities. An error above the band is
evidence of miscalibration; one in the band cannot be told from calibration.

The band of `mce` is exact. Those of `ece` and `ece_equal_mass` follow from the exact distribution of each
bin, convolved on a fine grid. For `classwise_ece` the bins of different classes are not independent, as an
image has one label: with two classes each gap occurs twice, and a band for independent bins would be too
narrow by a quarter. So its labels are simulated, as are those of `smece`, with seeded draws.

References:
    Bröcker and Smith 2007, consistency resampling, https://doi.org/10.1175/WAF993.1
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from ablate.metrics.arrays import FloatArray, IntArray
from ablate.metrics.noise_floor import largest_gap, smece_draws
from ablate.metrics.poisson_binomial import Successes
from ablate.metrics.predictions import Predictions

Band = tuple[float, float]

SHARES = (0.025, 0.975)
"""Of calibrated models, those that score less than the band's lower and upper end."""
CELLS = 1 << 15
"""Of the grid that holds the distribution of a sum over bins."""
NEGLIGIBLE = 1e-13
"""Numbers of successes that are less probable are left out of the grid."""
CLASSWISE_DRAWS = 500
SMECE_DRAWS = 250
BLOCK = 1 << 16
"""Simulated labels held at once."""


def floor_band(metric: str, logits: FloatArray, labels: IntArray) -> Band:
    """Central 95 % band of a calibration error of a perfectly calibrated model with these probabilities.

    The same data give the same band. The ends of `mce` are exact; those of `ece` and `ece_equal_mass` are
    within 5e-4 (16 steps of a grid), as a rule within 1e-4, and from 1,000 images on within 1e-5. The ends of
    `classwise_ece` are quantiles of 500 draws, uncertain by about 12 % of the error's standard deviation; of
    `smece` of 250, and by about 17 %.

    Args:
        metric: a key of `FLOORS`.
        logits: [N, K], any floating dtype, finite; N >= 1.
        labels: [N] class ids in [0, K); checked, but the band does not depend on them.

    Returns:
        low, high: in [0, 1].

    Raises:
        ValueError: If the metric has no floor, and as for every metric.
    """
    if metric not in _BANDS:
        raise ValueError(f"Expected a metric with a noise floor, got {metric!r}; these are {list(_BANDS)}.")
    return _BANDS[metric](Predictions.of(logits, labels))


def floor_bands(predictions: Predictions) -> dict[str, Band]:
    """The band of every calibration error with a floor, in the order of `FLOORS`, of checked predictions."""
    return {metric: band(predictions) for metric, band in _BANDS.items()}


def _ece_band(predictions: Predictions) -> Band:
    return _mean_gap_band(predictions.width_bin_successes)


def _equal_mass_band(predictions: Predictions) -> Band:
    return _mean_gap_band(predictions.mass_bin_successes)


def _classwise_band(predictions: Predictions) -> Band:
    return _ends(np.quantile(_classwise_draws(predictions), SHARES))


def _mce_band(predictions: Predictions) -> Band:
    gaps, at_most = largest_gap(predictions.width_bin_successes)
    return _ends(gaps[np.searchsorted(at_most, SHARES)])


def _smece_band(predictions: Predictions) -> Band:
    return _ends(np.quantile(smece_draws(predictions, SMECE_DRAWS), SHARES))


def _ends(found: NDArray[np.float64]) -> Band:
    low, high = found
    return float(low), float(high)


def _mean_gap_band(bins: list[Successes]) -> Band:
    """Band of the sum of the bins' deviations over their images."""
    likely = [bin_.pmf > NEGLIGIBLE for bin_ in bins]
    deviations = [bin_.deviation[kept] for bin_, kept in zip(bins, likely, strict=True)]
    reach = sum(float(deviation.max()) for deviation in deviations)
    if reach == 0:  # every prediction is certain
        return 0.0, 0.0
    step = reach / (CELLS - 1 - len(bins))  # sharing adds up to a cell for each bin
    masses = [bin_.pmf[kept] for bin_, kept in zip(bins, likely, strict=True)]
    spectra = rfft(_on_grid([deviation / step for deviation in deviations], masses))
    below = np.cumsum(irfft(np.prod(spectra, axis=0), CELLS))
    # What a cell holds lies around it, so half of it is reached at the cell.
    ends = np.interp(SHARES, below, np.arange(CELLS) + 0.5)
    return _ends(ends * step / sum(bin_.trials for bin_ in bins))


def _on_grid(places: list[NDArray[np.float64]], masses: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """[bins, CELLS] each bin's masses, shared among the two cells beside them so that the mean stays."""
    place, mass = np.concatenate(places), np.concatenate(masses)
    left = place.astype(np.intp)
    first = left + np.repeat(CELLS * np.arange(len(places)), [len(own) for own in places])
    right = mass * (place - left)
    cells = np.concatenate([first, first + 1]), np.concatenate([mass - right, right])
    return np.asarray(np.bincount(*cells, minlength=CELLS * len(places)).reshape(-1, CELLS))


def _classwise_draws(predictions: Predictions) -> NDArray[np.float64]:
    """[draws] `classwise_ece` of drawn labels."""
    groups, errors = len(predictions.class_bin_sums), []
    for labelled in _drawn_class_bins(predictions):
        places = labelled + groups * np.arange(len(labelled))[:, None]
        counts = np.bincount(places.ravel(), minlength=groups * len(labelled)).reshape(-1, groups)
        errors.append(np.abs(predictions.class_bin_sums - counts).sum(axis=1))
    return np.concatenate(errors) / predictions.logits.size


def _drawn_class_bins(predictions: Predictions) -> Iterator[NDArray[np.intp]]:
    """[block, N] the entries of `class_bins` that drawn labels lie in, block after block.

    Most draws are the predicted class. The others are looked up in one ascending row: for each image its
    number plus the summed probabilities of its other classes.
    """
    rng, images = np.random.RandomState(0), np.arange(len(predictions.labels))
    bins, classes = predictions.class_bins, predictions.logits.shape[1]
    others = predictions.probabilities.copy()
    others[images, predictions.predicted] = 0
    upper = (np.cumsum(others, axis=1) + images[:, None]).ravel()
    block = max(1, BLOCK // len(images))
    for start in range(0, CLASSWISE_DRAWS, block):
        drawn = rng.random_sample((min(block, CLASSWISE_DRAWS - start), len(images)))
        labelled = np.tile(bins[images, predictions.predicted], (len(drawn), 1))
        draw, image = np.nonzero(drawn >= predictions.confidence)
        rest = image + (drawn[draw, image] - predictions.confidence[image])
        found = np.searchsorted(upper, rest, side="right")
        # Rounding may leave the last draws of an image beyond its last class.
        labelled[draw, image] = bins.ravel()[np.minimum(found, classes * image + classes - 1)]
        yield labelled


_BANDS: dict[str, Callable[[Predictions], Band]] = {
    "ece": _ece_band,
    "ece_equal_mass": _equal_mass_band,
    "classwise_ece": _classwise_band,
    "mce": _mce_band,
    "smece": _smece_band,
}
