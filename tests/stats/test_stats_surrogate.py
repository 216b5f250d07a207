"""Smoothed values beside a Gaussian process by hand and scikit-learn's, fronts beside pairwise loops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from sklearn.metrics import r2_score

from ablate.stats.surrogate import AMPLITUDES, LENGTHS, best_two, chosen_of_two, is_on_front, smoothed

FloatArray = NDArray[np.float64]
NAN = float("nan")


def curve(n: int, *, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Places [n, 1], true values and values seen [n]."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 0.5, (n, 1))
    true = -40 * (places[:, 0] - 0.12) ** 2
    return places, true, true + rng.normal(0, 0.23, n)


def seeds_of(values: FloatArray, spread: float, each: FloatArray | int = 3) -> list[FloatArray]:
    """Values by seed with these means and this standard deviation; one each where it is NaN."""
    if math.isnan(spread):
        return [np.array([value]) for value in values]
    many = np.broadcast_to(each, len(values))
    luck = [np.arange(n) - (n - 1) / 2 for n in many]
    scales = [spread / of.std(ddof=1) if len(of) > 1 else 0.0 for of in luck]
    return [value + scale * of for value, scale, of in zip(values, scales, luck, strict=True)]


def smooth(
    places: FloatArray, values: FloatArray, spread: float, each: FloatArray | int = 3
) -> tuple[FloatArray, FloatArray]:
    return smoothed(places, seeds_of(values, spread, each), higher_is_better=True)


def matern(a: FloatArray, b: FloatArray, length: float) -> FloatArray:
    """Rasmussen and Williams, equation 4.17."""
    r = math.sqrt(5) * cdist(a, b) / length
    return np.asarray((1 + r + r**2 / 3) * np.exp(-r))


def test_the_posterior_is_the_textbooks() -> None:
    places, _, values = curve(25)
    replicates = np.array([1, 2, 3, 4, 5] * 5)
    unit = (places - places.min()) / np.ptp(places)
    y = (values - values.mean()) / values.std()
    noise = np.diag((0.4 / values.std()) ** 2 / replicates)

    def loss(logs: FloatArray) -> float:
        amplitude, length = np.exp(logs)
        covariance = amplitude * matern(unit, unit, length) + noise
        return float(np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y))

    best = minimize(loss, np.log([1.0, 0.5]), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
    amplitude, length = np.exp(best.x)
    assert AMPLITUDES[0] < amplitude < AMPLITUDES[1]  # else the bounds decide, and not what is tested here
    assert LENGTHS[0] < length < LENGTHS[1]
    # A constant whose variance is as good as endless is an unknown one.
    across = amplitude * matern(unit, unit, length) + 1e3
    gain = across @ np.linalg.inv(across + noise)
    mean, sd = smooth(places, values, 0.4, replicates)
    assert mean == pytest.approx(gain @ y * values.std() + values.mean(), abs=2e-3)
    assert sd == pytest.approx(np.sqrt(np.diag(across - gain @ across)) * values.std(), rel=1e-2)


@pytest.mark.parametrize("spread", [0.4, NAN])
def test_smoothed_values_are_nearer_to_the_truth_and_say_how_near(spread: float) -> None:
    found = []
    for places, true, values in (curve(40, seed=seed) for seed in range(20)):
        mean, sd = smooth(places, values, spread)
        found.append((mean - true, values - true, (mean - true) / sd))
    errors, raw, standardised = np.std(found, axis=(0, 2))
    assert errors < 0.5 * raw
    assert 0.6 < standardised < 1.4


def test_columns_that_do_not_matter_do_not_blur_and_categories_keep_apart() -> None:
    rng = np.random.default_rng(3)
    places = rng.uniform(size=(60, 3))
    true = np.sin(6 * places[:, 1])
    assert r2_score(true, smooth(places, true + rng.normal(0, 0.2, 60), NAN)[0]) > 0.95
    category = rng.integers(0, 3, 45)
    true = np.array([0.0, 1.0, 2.0])[category]
    mean = smooth(np.eye(3)[category], true + rng.normal(0, 0.3, 45), NAN)[0]
    assert mean == pytest.approx(true, abs=0.3)
    assert max(np.ptp(mean[category == level]) for level in range(3)) < 1e-6  # one place has one value


@given(
    places=st.lists(st.sampled_from([0.0, 0.005, 0.1, 0.25, 0.5]), min_size=1, max_size=12),
    scale=st.sampled_from([1e-9, 1.0, 1e9]),
    shift=st.sampled_from([0.0, -3.0, 1e3]),
    spread=st.sampled_from([0.0, 0.3, 50.0, NAN]),
    seed=st.integers(0, 5),
)
def test_any_points_smooth(places: list[float], scale: float, shift: float, spread: float, seed: int) -> None:
    values = scale * (shift + np.random.default_rng(seed).integers(-3, 4, len(places)).astype(float))
    mean, sd = smooth(np.array(places)[:, None], values, scale * spread)
    kept = np.isfinite(mean)
    assert kept.all() or (kept.sum() >= 4 and values[kept].min() > values[~kept].max())
    mean, sd, values = mean[kept], sd[kept], values[kept]
    assert ((sd >= 0) & np.isfinite(sd)).all()
    slack = 0.5 * np.ptp(values) + 1e-9 * scale
    assert ((mean >= values.min() - slack) & (mean <= values.max() + slack)).all()


@pytest.mark.parametrize(
    ("values", "places", "spread", "sd"),
    [
        ([], np.empty((0, 1)), 0.6, 0.6),
        ([1.0, 5.0, 2.0], np.arange(3.0)[:, None], 0.6, 0.6),
        ([7.0] * 10, np.linspace(0, 1, 10)[:, None], 0.6, 0.6),
        ([1.0, 2.0, 3.0, 4.0, 5.0], np.full((5, 2), 0.3), 0.6, 0.6),  # one place
        ([1.0, 2.0, 3.0, 4.0, 5.0], np.empty((5, 0)), 0.6, 0.6),
        ([4.0, 6.0], np.zeros((2, 1)), NAN, 1.0),
    ],
)
def test_what_cannot_be_smoothed(values: list[float], places: FloatArray, spread: float, sd: float) -> None:
    mean, of_mean = smooth(places, np.array(values), spread)
    assert mean.tolist() == values
    assert of_mean == pytest.approx(np.full(len(values), sd / math.sqrt(1 if math.isnan(spread) else 3)))


def test_units_do_not_matter() -> None:
    places, _, values = curve(30)
    mean, sd = smooth(places, values, 0.4)
    in_other_units = smooth(1e6 * places - 7, 1e-3 * values + 5, 4e-4)
    assert in_other_units[0] == pytest.approx(1e-3 * mean + 5, abs=1e-6)
    assert in_other_units[1] == pytest.approx(1e-3 * sd, rel=1e-2)


@given(
    fails=st.integers(1, 30),
    spread=st.sampled_from([0.4, 10.0]),
    each=st.sampled_from([1, 3]),
    seed=st.integers(0, 20),
)
def test_what_fails_has_no_say_in_what_works(fails: int, spread: float, each: int, seed: int) -> None:
    """A part of the range at chance, or noisy there; the rest is smoothed as if it alone had been tried."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(np.linspace(0, 1, 12 + fails))[:, None]
    works = places[:, 0] < np.sort(places[:, 0])[12]
    tried = [rng.normal(90 if good else 10, 0.4 if good else spread, each) for good in works]
    mean, sd = smoothed(places, tried, higher_is_better=True)
    alone = smoothed(
        places[works], [of for of, good in zip(tried, works, strict=True) if good], higher_is_better=True
    )
    np.testing.assert_array_equal((mean[works], sd[works]), alone)
    assert np.isnan([mean[~works], sd[~works]]).all()
    mirrored, of_mirrored = smoothed(places, [-of for of in tried], higher_is_better=False)
    np.testing.assert_allclose((-mirrored, of_mirrored), (mean, sd), rtol=1e-6)


def test_a_slope_three_good_points_and_what_fails_alike_leave_nothing_out() -> None:
    places = np.linspace(0, 1, 12)[:, None]
    for values in (-80 * places[:, 0], np.repeat([90.0, 10.0], [3, 9]), np.full(12, 10.0)):
        for spread in (0.4, NAN):
            assert np.isfinite(smooth(places, values, spread)).all()


values_of_two = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=12).map(
    lambda rows: np.array(rows, dtype=np.float64)
)


@given(values=values_of_two)
def test_the_front_is_what_no_point_beats_and_the_best_two_dominate_the_most(values: FloatArray) -> None:
    on_front = is_on_front(values)
    for own, stays in zip(values, on_front, strict=True):
        assert stays != any((other >= own).all() and (other > own).any() for other in values)
    front = values[on_front]
    chosen = best_two(front)
    assert (list(chosen), len(chosen)) == (sorted(set(chosen)), min(2, len(front)))
    if len(front) < 3:
        return
    low, extent = front.min(axis=0), np.maximum(np.ptp(front, axis=0), 1e-300)

    def area(pair: tuple[int, ...]) -> float:
        """Of the union of two rectangles, from their steps."""
        (a, b), (c, d) = sorted(((front[list(pair)] - low) / extent + 0.1).tolist())
        return float(a * max(b, d) + (c - a) * d)

    most = max(map(area, itertools.combinations(range(len(front)), 2)))
    assert area(chosen) == pytest.approx(most)


def test_an_objective_without_a_signal_has_no_say() -> None:
    good = np.array([0.0, 3.0, 2.0, -30.0])
    none = np.array([0.0, 0.0, 1e-5, 2e-5])
    sds = np.full((4, 2), (0.1, 0.01))
    assert chosen_of_two(np.column_stack([good, none]), sds) == (1,)
    assert chosen_of_two(np.column_stack([none, good]), sds[:, ::-1]) == (1,)
    assert chosen_of_two(np.column_stack([none, none[::-1]]), sds) == (3,)
    # As soon as the intervals of two points lie apart, it has one.
    for gain, expected in ((0.039, (1,)), (0.0393, (1, 2))):
        assert chosen_of_two(np.column_stack([good, [0, 0, gain, 0]]), sds) == expected


def test_a_gain_within_the_noise_is_not_paid_for() -> None:
    """Though both objectives show a signal, by the last point."""
    values = np.array([[3.0, 1.0], [-30.0, 1.00001], [-40.0, 0.0]])
    sds = np.full((3, 2), (0.1, 0.01))
    assert chosen_of_two(values, sds) == (0,)
    assert chosen_of_two(values[:, ::-1], sds[:, ::-1]) == (0,)
    values[1, 1] = 1.011  # more than the deviation
    assert chosen_of_two(values, sds) == (0, 1)
    values[1] = 2.7, 1.00001  # costs no more than the noise
    assert chosen_of_two(values, sds) == (0, 1)


@given(values=values_of_two, sd=st.tuples(st.floats(0, 3), st.floats(0, 3)))
def test_one_or_two_of_the_front_are_chosen(values: FloatArray, sd: tuple[float, float]) -> None:
    front = np.flatnonzero(is_on_front(values))
    both = (np.ptp(values, axis=0) > 0).all()
    expected = front[list(best_two(values[front]))] if both else front[:1]
    assert chosen_of_two(values, np.zeros_like(values)) == tuple(expected)
    chosen = chosen_of_two(values, np.full_like(values, sd))
    assert 1 <= len(chosen) <= 2
    assert set(chosen) <= set(front)
