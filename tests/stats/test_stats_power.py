"""Power, detectable effects and seeds, against statsmodels, simulation and the study's planning table."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from statsmodels.stats.power import TTestPower

from ablate.stats import (
    equivalence_power,
    minimal_detectable_effect,
    paired_effects,
    paired_power,
    seeds_for_equivalence,
    seeds_needed,
    tosts,
)

# sd, rho, effect, comparisons, seeds; 80 % power at .05.
SEEDS_TABLE = [
    (0.25, 0, 0.3, 1, 13), (0.25, 0, 0.5, 1, 7), (0.25, 0, 0.5, 4, 9), (0.25, 0, 1.0, 1, 4),
    (0.30, 0, 0.3, 1, 18), (0.30, 0, 0.5, 1, 8), (0.30, 0, 0.5, 4, 12), (0.30, 0, 1.0, 1, 4),
    (0.40, 0, 0.3, 1, 30), (0.40, 0, 0.5, 1, 13), (0.40, 0, 0.5, 4, 18), (0.40, 0, 1.0, 1, 5),
    (0.40, 0.3, 0.3, 1, 22), (0.40, 0.3, 0.5, 1, 10), (0.40, 0.3, 0.5, 4, 14), (0.40, 0.3, 1.0, 1, 5),
    (0.50, 0, 0.3, 1, 46), (0.50, 0, 0.5, 1, 18), (0.50, 0, 0.5, 4, 26), (0.50, 0, 1.0, 1, 7),
]  # fmt: skip


@pytest.mark.parametrize(("sd", "rho", "effect", "comparisons", "seeds"), SEEDS_TABLE)
def test_planning_table(sd: float, rho: float, effect: float, comparisons: int, seeds: int) -> None:
    assert seeds_needed(effect, sd=sd, rho=rho, comparisons=comparisons) == seeds


@pytest.mark.parametrize(("n", "effect"), [(3, 1.85), (5, 0.95), (8, 0.65), (12, 0.50), (20, 0.37)])
def test_detectable_effects(n: int, effect: float) -> None:
    assert minimal_detectable_effect(n, sd=0.4) == pytest.approx(effect, abs=0.005)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 60), size=st.floats(0.01, 2), comparisons=st.integers(1, 10), rho=st.floats(-1, 0.9))
def test_power_equals_statsmodels(n: int, size: float, comparisons: int, rho: float) -> None:
    theirs = TTestPower().power(size / math.sqrt(2 * (1 - rho)), n, 0.05 / comparisons)
    assume(not math.isnan(theirs))  # its noncentral t gives NaN for some powers near 1
    assert paired_power(size, n, sd=1, rho=rho, comparisons=comparisons) == pytest.approx(theirs, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 200),
    sd=st.floats(0.01, 10),
    rho=st.floats(-1, 0.95),
    power=st.floats(0.2, 0.99),
    comparisons=st.integers(1, 20),
)
def test_the_three_agree(n: int, sd: float, rho: float, power: float, comparisons: int) -> None:
    effect = minimal_detectable_effect(n, sd=sd, rho=rho, power=power, comparisons=comparisons)
    reached = paired_power(effect, n, sd=sd, rho=rho, comparisons=comparisons)
    assert reached == pytest.approx(power, abs=1e-7)
    needed = seeds_needed(1.0001 * effect, sd=sd, rho=rho, power=power, comparisons=comparisons)
    assert needed <= n
    assert paired_power(1.0001 * effect, needed, sd=sd, rho=rho, comparisons=comparisons) >= power
    if needed > 2:
        fewer = paired_power(1.0001 * effect, needed - 1, sd=sd, rho=rho, comparisons=comparisons)
        assert fewer < power


def test_a_planted_effect_is_found_at_the_planned_power() -> None:
    n, sd, rho = 5, 0.4, 0.3
    effect = minimal_detectable_effect(n, sd=sd, rho=rho)
    covariance = sd**2 * np.array([[1, rho], [rho, 1]])
    arms = np.random.default_rng(0).multivariate_normal([effect, 0], covariance, size=(20_000, n))
    rejected = ttest_rel(arms[:, :, 0], arms[:, :, 1], axis=1).pvalue < 0.05
    assert rejected.mean() == pytest.approx(0.8, abs=0.009)  # three standard errors


def test_no_effect_is_found_at_alpha() -> None:
    assert paired_power(0.0, 5, sd=0.4) == pytest.approx(0.05)
    assert paired_power(0.0, 5, sd=0.4, comparisons=4) == pytest.approx(0.0125)


def test_monotone() -> None:
    effects = [minimal_detectable_effect(n, sd=0.4) for n in range(2, 60)]
    assert np.all(np.diff(effects) < 0)
    seeds = [seeds_needed(effect, sd=0.4) for effect in (2, 1, 0.5, 0.2, 0.1, 0.01)]
    assert np.all(np.diff(seeds) > 0)
    assert seeds_needed(-0.5, sd=0.4) == seeds_needed(0.5, sd=0.4)


def test_one_seed_detects_nothing() -> None:
    assert minimal_detectable_effect(1, sd=0.4) == math.inf
    assert minimal_detectable_effect(0, sd=math.nan) == math.inf
    assert paired_power(10.0, 1, sd=0.4) == 0


def test_an_unknown_spread_gives_no_effect() -> None:
    assert math.isnan(minimal_detectable_effect(5, sd=math.nan))


@pytest.mark.parametrize(("sd", "rho"), [(0.0, 0.0), (0.4, 1.0)])
def test_without_spread_any_difference_shows(sd: float, rho: float) -> None:
    assert minimal_detectable_effect(5, sd=sd, rho=rho) == 0
    assert seeds_needed(0.1, sd=sd, rho=rho) == 2
    assert paired_power(0.1, 5, sd=sd, rho=rho) == 1
    assert paired_power(0.0, 5, sd=sd, rho=rho) == 0


def test_far_ends() -> None:
    assert minimal_detectable_effect(2, sd=1, comparisons=1000) > 1e4
    assert seeds_needed(1e-4, sd=1) == pytest.approx(2 * 7.849 / 1e-8, rel=1e-3)  # (z.975 + z.8)^2
    with pytest.raises(ValueError, match="with 2 seeds; plan more seeds"):
        minimal_detectable_effect(2, sd=1, alpha=1e-6)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"sd": -1}, "finite sd >= 0, got -1"),
        ({"sd": math.inf}, "finite sd >= 0, got inf"),
        ({"sd": 1, "rho": 1.5}, r"rho in \[-1, 1\], got 1.5"),
        ({"sd": 1, "alpha": 5}, "Expected alpha between 0 and 1"),
        ({"sd": 1, "comparisons": 0}, "got comparisons=0"),
        ({"sd": 1, "power": 80}, "= 0.05 and 1, got 80; 80 % is written 0.8"),
        ({"sd": 1, "power": 0.01}, "and 1, got 0.01"),
    ],
)
def test_refused(keywords: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        minimal_detectable_effect(5, **keywords)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        seeds_needed(0.5, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize("effect", [0.0, math.nan, math.inf, 1e-9])
def test_seeds_for_no_effect_are_refused(effect: float) -> None:
    with pytest.raises(ValueError, match="finite effect above a millionth"):
        seeds_needed(effect, sd=1)


def test_seeds_for_an_unknown_spread_are_refused() -> None:
    with pytest.raises(ValueError, match="got nan; estimate it from at least two seeds"):
        seeds_needed(0.5, sd=math.nan)


@pytest.mark.parametrize("n", [3, 10, 50, 100, 200, 1000])
def test_power_has_no_gaps(n: int) -> None:
    # At single noncentralities around 1,500 scipy gives NaN, both of the noncentral F and of the t.
    powers = [paired_power(size / math.sqrt(n), n, sd=1) for size in np.geomspace(0.1, 1000, 500)]
    assert np.all(np.diff(powers) > -1e-9)
    assert powers[-1] == pytest.approx(1)


def test_equivalence_power_equals_the_published_example() -> None:
    # PowerTOST's manual: sampleN.TOST(CV = 0.3) gives n = 40 at a power of 0.815845, for a 2x2 crossover
    # with a ratio of 0.95 and bounds of 0.8 and 1.25: 38 degrees of freedom, standard error s sqrt(2 / 40).
    standard_error = math.sqrt(math.log(1 + 0.3**2)) * math.sqrt(2 / 40)
    sd = standard_error * math.sqrt(39) / math.sqrt(2)
    power = equivalence_power(math.log(1.25), 39, sd=sd, difference=math.log(0.95))
    assert power == pytest.approx(0.815845, abs=1e-6)


# Standard deviation, margin, seeds: the study's planning notes.
@pytest.mark.parametrize(("sd", "margin", "seeds"), [(0.4, 0.5, 13), (0.3, 0.5, 8), (0.4, 1, 5), (0.3, 1, 4)])
def test_seeds_for_equivalence(sd: float, margin: float, seeds: int) -> None:
    assert seeds_for_equivalence(margin, sd=sd) == seeds


@pytest.mark.parametrize(
    ("n", "margin", "difference", "comparisons"),
    [(2, 12.0, 0.0, 1), (3, 4.0, 1.0, 1), (5, 2.0, 0.0, 6), (5, 2.0, -2.0, 1), (20, 0.9, 0.2, 3)],
)
def test_equivalence_power_is_how_often_the_test_passes(
    n: int, margin: float, difference: float, comparisons: int
) -> None:
    differences = difference + np.random.default_rng(n).normal(size=(40_000, n))
    passed = tosts(paired_effects(differences, np.zeros(n)), margin) * comparisons <= 0.05
    power = equivalence_power(margin, n, sd=math.sqrt(0.5), difference=difference, comparisons=comparisons)
    assert passed.mean() == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / 40_000) + 1e-4)


@settings(max_examples=40, deadline=None)
@given(
    size=st.floats(0.1, 10),
    rho=st.floats(-1, 0.9),
    power=st.floats(0.2, 0.95),
    comparisons=st.integers(1, 12),
)
def test_seeds_for_equivalence_are_the_fewest(
    size: float, rho: float, power: float, comparisons: int
) -> None:
    seeds = seeds_for_equivalence(size, sd=1, rho=rho, power=power, comparisons=comparisons)
    reached = [
        equivalence_power(size, n, sd=1, rho=rho, comparisons=comparisons) for n in (seeds, max(seeds - 1, 1))
    ]
    assert reached[0] >= power > reached[1]


def test_at_the_margin_equivalence_is_found_at_the_corrected_level() -> None:
    assert equivalence_power(8.0, 10, sd=1, difference=8.0) == pytest.approx(0.05, abs=1e-6)
    assert equivalence_power(8.0, 10, sd=1, difference=-8.0, comparisons=5) == pytest.approx(0.01, abs=1e-6)
    assert equivalence_power(0.1, 3, sd=1, difference=0.1) < 0.05


def test_equivalence_without_spread_or_seeds() -> None:
    assert equivalence_power(0.5, 1, sd=1) == 0
    assert equivalence_power(0.5, 5, sd=0) == equivalence_power(0.5, 5, sd=1, rho=1, difference=0.4) == 1
    assert equivalence_power(0.5, 5, sd=0, difference=-0.5) == 0
    assert seeds_for_equivalence(0.5, sd=0) == 2


@pytest.mark.parametrize("margin", [0.0, -0.5, math.nan, math.inf])
def test_no_margin_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="finite margin > 0"):
        equivalence_power(margin, 5, sd=1)
    with pytest.raises(ValueError, match="finite margin > 0"):
        seeds_for_equivalence(margin, sd=1)


def test_a_margin_that_no_seeds_show_is_refused() -> None:
    with pytest.raises(ValueError, match="margin above a millionth"):
        seeds_for_equivalence(1e-9, sd=1)
