"""The 95 % bands of a perfectly calibrated model's errors: against enumeration and simulated labels."""

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from ablate.metrics import FLOORS, METRICS, Predictions, floor_band, floor_bands
from ablate.metrics.noise_band import CLASSWISE_DRAWS, SMECE_DRAWS

NAMES = pytest.mark.parametrize("name", FLOORS)
GRID = ("ece", "ece_equal_mass")
DRAWS = {"classwise_ece": CLASSWISE_DRAWS, "smece": SMECE_DRAWS}
SHARES = (0.025, 0.975)


def calibrated(n: int, *, k: int = 10, scale: float = 5.0, seed: int = 0) -> NDArray[np.float64]:
    return scale * np.random.default_rng(seed).normal(size=(n, k))


def band(name: str, logits: NDArray[np.float64]) -> tuple[float, float]:
    return floor_band(name, logits, np.zeros(len(logits), dtype=int))


def of_no_labels(logits: NDArray[np.float64]) -> Predictions:
    return Predictions.of(logits, np.zeros(len(logits), dtype=int))


def simulated(name: str, logits: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """The error when the labels are redrawn from the softmax."""
    rng = np.random.default_rng(seed)
    labels = ((logits + rng.gumbel(size=logits.shape)).argmax(axis=1) for _ in range(draws))
    return np.array([METRICS[name].function(logits, drawn) for drawn in labels])


def enumerated(name: str, logits: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The error and the probability of all labels that there can be."""
    n, k = logits.shape
    probabilities = of_no_labels(logits).probabilities
    outcomes = [np.array(labels) for labels in product(range(k), repeat=n)]
    return (
        np.array([METRICS[name].function(logits, labels) for labels in outcomes]),
        np.array([math.prod(probabilities[range(n), labels]) for labels in outcomes]),
    )


@NAMES
@pytest.mark.parametrize(("n", "k", "scale"), [(9, 2, 2.0), (5, 3, 1.0)])
def test_the_ends_are_quantiles_of_all_labels_there_can_be(name: str, n: int, k: int, scale: float) -> None:
    logits = calibrated(n, k=k, scale=scale)
    errors, probability = enumerated(name, logits)
    # Four standard errors of a share, where labels are drawn; twice what the grid is said to be off.
    slack = 4 * (0.025 * 0.975 / DRAWS[name]) ** 0.5 if name in DRAWS else 1e-12
    near = 2e-4 if name in GRID else 2e-5 if name == "smece" else 1e-12
    for end, share in zip(band(name, logits), SHARES, strict=True):
        assert probability[errors < end - near].sum() <= share + slack
        assert probability[errors <= end + near].sum() >= share - slack


@NAMES
@pytest.mark.parametrize("k", [2, 10])
def test_the_band_holds_95_percent_of_calibrated_models(name: str, k: int) -> None:
    logits = calibrated(400, k=k)
    low, high = band(name, logits)
    errors = simulated(name, logits, draws=1000, seed=2)
    # Four standard errors of a share of 2.5 % in 1,000 draws, and in those of the band. Some values are
    # frequent, of `mce` above all: those at an end count as outside once and once as inside.
    slack = 4 * (0.025 * 0.975 * (1 / 1000 + (1 / DRAWS[name] if name in DRAWS else 0))) ** 0.5
    assert np.mean(errors < low - 1e-9) < 0.025 + slack
    assert np.mean(errors <= low + 1e-9) > max(0.025 - slack, 0.0005)
    assert np.mean(errors > high + 1e-9) < 0.025 + slack
    assert np.mean(errors >= high - 1e-9) > max(0.025 - slack, 0.0005)
    assert low < METRICS[FLOORS[name]].function(logits, np.zeros(400, dtype=int)) < high


@pytest.mark.parametrize("name", GRID)
@pytest.mark.parametrize("n", [1, 4, 30, 300, 1500])
def test_a_finer_grid_moves_the_ends_by_as_little_as_is_said(
    name: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = [calibrated(n, scale=scale, seed=seed) for scale in (1.0, 8.0, 40.0) for seed in range(2)]
    coarse = [band(name, own) for own in logits]
    monkeypatch.setattr("ablate.metrics.noise_band.CELLS", 1 << 18)
    fine = [band(name, own) for own in logits]
    np.testing.assert_allclose(coarse, fine, rtol=0, atol=1e-5 if n > 1000 else 1e-4)


@pytest.mark.parametrize("name", GRID)
def test_bins_of_one_image_have_their_outcomes(name: str) -> None:
    """Two images of confidence .9 and .6: the errors are .5, .4 / 2 + .1 / 2 and so on, each known."""
    logits = np.log([[0.9, 0.1], [0.6, 0.4]])
    low, high = band(name, logits)
    # Both right with .54: .25; first alone .36: .35; second alone .06: .65; none .04: .75.
    assert low == pytest.approx(0.25, abs=1e-4)
    assert high == pytest.approx(0.75, abs=1e-4)


@pytest.mark.parametrize("name", DRAWS)
def test_drawn_bands_of_other_draws_differ_by_as_little_as_is_said(name: str) -> None:
    logits = calibrated(300)
    errors = simulated(name, logits, draws=1000, seed=5)
    uncertain = {"classwise_ece": 0.12, "smece": 0.17}[name]
    # Of the band, and of the quantiles of 1,000 draws.
    within = 3.5 * errors.std() * math.hypot(uncertain, 0.085)
    np.testing.assert_allclose(band(name, logits), np.quantile(errors, SHARES), rtol=0, atol=within)


@NAMES
def test_the_band_does_not_depend_on_the_labels_or_the_global_generator(name: str) -> None:
    logits = calibrated(100, scale=8.0)
    np.random.seed(1)
    before = band(name, logits)
    np.random.seed(2)
    assert floor_band(name, logits, np.arange(100) % 10) == before


@NAMES
def test_the_band_of_certain_predictions_is_zero(name: str) -> None:
    assert band(name, np.tile([1e4, -1e4], (300, 1))) == (0, 0)


@NAMES
def test_the_band_of_one_image_is_its_two_outcomes(name: str) -> None:
    logits = np.array([[np.log(3), 0.0]])  # confidence .75: error .25 with probability .75, else .75
    assert band(name, logits) == pytest.approx((0.25, 0.75), abs=1e-4 if name in GRID else 1e-6)


def test_all_bands_are_those_of_each_metric() -> None:
    logits = calibrated(60)
    assert floor_bands(of_no_labels(logits)) == {name: band(name, logits) for name in FLOORS}
    assert list(floor_bands(of_no_labels(logits))) == list(FLOORS)


def test_labels_that_do_not_fit_into_one_block_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = calibrated(50)
    whole = band("classwise_ece", logits)
    monkeypatch.setattr("ablate.metrics.noise_band.BLOCK", 50 * 7)
    assert band("classwise_ece", logits) == pytest.approx(whole, abs=1e-12)
