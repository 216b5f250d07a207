"""The calibration errors of a perfectly calibrated model: against enumeration, scipy and simulation."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, poisson_binom

from ablate.metrics import FLOORS, METRICS, Predictions
from ablate.metrics.noise_floor import SMECE_FLOOR_DRAWS
from ablate.metrics.poisson_binomial import poisson_binomial_pmfs, successes_by_group

NAMES = pytest.mark.parametrize("name", FLOORS)
EXACT = pytest.mark.parametrize("name", sorted(FLOORS.keys() - {"smece"}))


def calibrated(n: int, *, k: int = 10, scale: float = 8.0, seed: int = 0) -> NDArray[np.float64]:
    return scale * np.random.default_rng(seed).normal(size=(n, k))


def floor(name: str, logits: NDArray[np.float64]) -> float:
    return METRICS[FLOORS[name]].function(logits, np.zeros(len(logits), dtype=int))


def simulated(name: str, logits: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """The error when the labels are redrawn from the softmax."""
    rng = np.random.default_rng(seed)
    labels = ((logits + rng.gumbel(size=logits.shape)).argmax(axis=1) for _ in range(draws))
    return np.array([METRICS[name].function(logits, drawn) for drawn in labels])


def enumerated(name: str, logits: NDArray[np.float64]) -> float:
    """Mean of the error over all labels that there can be."""
    n, k = logits.shape
    probabilities = Predictions.of(logits, np.zeros(n, dtype=int)).probabilities
    return math.fsum(
        math.prod(probabilities[range(n), labels]) * METRICS[name].function(logits, np.array(labels))
        for labels in product(range(k), repeat=n)
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=40), min_size=1, max_size=5))
def test_pmfs_equal_scipy(groups: list[list[float]]) -> None:
    sizes = np.array([len(group) for group in groups])
    for pmf, p in zip(poisson_binomial_pmfs(np.concatenate(groups), sizes), groups, strict=True):
        expected = poisson_binom(np.array(p)).pmf(np.arange(len(p) + 1))
        np.testing.assert_allclose(pmf, expected, atol=1e-14)
        assert pmf.min() >= 0


@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, 3925])
def test_pmf_of_equal_probabilities_is_binomial(n: int) -> None:
    (pmf,) = poisson_binomial_pmfs(np.full(n, 0.83), np.array([n]))
    np.testing.assert_allclose(pmf, binom.pmf(np.arange(n + 1), n, 0.83), atol=1e-13)
    assert pmf.min() >= 0


def test_groups_come_in_order_and_without_the_empty_ones() -> None:
    found = successes_by_group(np.array([0.5, 0.25, 1.0]), np.array([7, 2, 7]))
    assert [group.trials for group in found] == [1, 2]
    assert [group.mean for group in found] == [0.25, 1.5]
    assert found[0].pmf.tolist() == [0.75, 0.25]
    assert found[1].pmf.tolist() == [0, 0.5, 0.5]
    assert found[1].deviation.tolist() == [1.5, 0.5, 0.5]


@EXACT
@pytest.mark.parametrize(("n", "k"), [(9, 2), (5, 3)])
def test_floor_equals_the_enumeration_of_all_labels(name: str, n: int, k: int) -> None:
    logits = calibrated(n, k=k, scale=2.0)
    assert floor(name, logits) == pytest.approx(enumerated(name, logits), abs=1e-12)


def test_the_simulated_floor_is_near_the_enumeration_of_all_labels() -> None:
    logits = calibrated(8, k=2, scale=2.0)
    spread = simulated("smece", logits, draws=400, seed=0).std()
    assert floor("smece", logits) == pytest.approx(
        enumerated("smece", logits), abs=3.5 * spread / SMECE_FLOOR_DRAWS**0.5
    )


@NAMES
def test_a_calibrated_model_scores_the_floor_on_average(name: str) -> None:
    logits = calibrated(1000)
    errors = simulated(name, logits, draws=500, seed=1)
    # The floor of `smece` is itself the mean of 64 draws.
    own = errors.std() / SMECE_FLOOR_DRAWS**0.5 if name == "smece" else 0.0
    standard_error = math.hypot(errors.std() / 500**0.5, own)
    assert floor(name, logits) == pytest.approx(errors.mean(), abs=3.5 * standard_error)
    assert standard_error < 0.03 * errors.mean()


def test_the_square_of_the_debiased_error_of_a_calibrated_model_is_zero_on_average() -> None:
    errors = simulated("ece_debiased", calibrated(1000), draws=1000, seed=3)
    squares = np.copysign(errors**2, errors)
    assert abs(squares.mean()) < 3.5 * squares.std() / 1000**0.5
    # What is taken off is most of what there is.
    assert squares.std() / 1000**0.5 < 0.05 * np.square(floor("ece_equal_mass", calibrated(1000)))


@NAMES
def test_floor_does_not_depend_on_the_labels_or_the_global_generator(name: str) -> None:
    logits = calibrated(100)
    metric, labels = METRICS[FLOORS[name]].function, np.arange(100) % 10
    np.random.seed(1)
    before = floor(name, logits)
    np.random.seed(2)
    assert metric(logits, labels) == before


@NAMES
def test_the_floor_of_certain_predictions_is_zero(name: str) -> None:
    logits = np.tile([1e4, -1e4], (300, 1))
    assert 0 <= floor(name, logits) < 1e-12


@pytest.mark.parametrize(("name", "exponent"), [("ece", 1 / 2), ("ece_equal_mass", 1 / 2), ("smece", 1 / 3)])
def test_the_floor_falls_with_the_number_of_images(name: str, exponent: float) -> None:
    logits = calibrated(4000)
    floors = [floor(name, logits[:n]) for n in (40, 200, 1000, 4000)]
    assert np.all(np.diff(floors) < 0)
    # In the limit by this power of n: smECE widens its Gaussian where there are few images.
    assert floors[2] / floors[3] == pytest.approx(4**exponent, rel=0.1)


@NAMES
def test_one_image_has_two_outcomes(name: str) -> None:
    logits = np.array([[np.log(3), 0.0]])  # confidence .75: error .25 with probability .75, else .75
    assert floor(name, logits) == pytest.approx(2 * 0.75 * 0.25, abs=0.05 if name == "smece" else 1e-12)


def test_images_that_do_not_fit_into_one_block_are_simulated_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = calibrated(50)
    whole = floor("smece", logits)
    monkeypatch.setattr("ablate.metrics.noise_floor.BLOCK", 50 * 7)
    assert floor("smece", logits) == pytest.approx(whole, abs=1e-12)
