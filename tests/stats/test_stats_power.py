"""Power, detectable effects and seeds, against statsmodels, simulation and the study's planning table."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from ablate.stats import (
    equivalence_power,
    minimal_detectable_effect,
    paired_effect,
    paired_power,
    seeds_needed,
    verdict,
)


def test_planning_table() -> None:
    # sd and correlation of the arms, effect, comparisons, seeds; 80 % power at .05.
    for sd, rho, effect, comparisons, seeds in (
        (0.25, 0, 0.3, 1, 13), (0.40, 0, 0.5, 1, 13), (0.40, 0, 0.5, 4, 18), (0.40, 0.3, 0.5, 4, 14),
        (0.40, 0, 1.0, 1, 5), (0.50, 0, 0.3, 1, 46),
    ):  # fmt: skip
        of_differences = sd * math.sqrt(2 * (1 - rho))
        assert seeds_needed(-effect, sd=of_differences, comparisons=comparisons) == seeds


@given(n=st.integers(2, 60), size=st.floats(0.01, 2), comparisons=st.integers(1, 10))
def test_power_equals_statsmodels(n: int, size: float, comparisons: int) -> None:
    theirs = TTestPower().power(size, n, 0.05 / comparisons)
    assume(not math.isnan(theirs))  # its noncentral t gives NaN for some powers near 1
    assert paired_power(size, n, sd=1, comparisons=comparisons) == pytest.approx(theirs, abs=1e-7)


@given(
    n=st.integers(2, 200), sd=st.floats(0.01, 10), power=st.floats(0.2, 0.99), comparisons=st.integers(1, 20)
)
def test_the_detectable_effect_is_detected(n: int, sd: float, power: float, comparisons: int) -> None:
    effect = minimal_detectable_effect(n, sd=sd, power=power, comparisons=comparisons)
    assert paired_power(effect, n, sd=sd, comparisons=comparisons) == pytest.approx(power, abs=1e-7)


def test_without_seeds_spread_or_effect() -> None:
    assert paired_power(0.0, 5, sd=0.4, comparisons=4) == pytest.approx(0.0125)
    assert minimal_detectable_effect(1, sd=0.4) == math.inf
    assert paired_power(10.0, 1, sd=0.4) == equivalence_power(0.5, 1, sd=1) == 0
    assert minimal_detectable_effect(5, sd=0) == 0
    assert seeds_needed(0.1, sd=0) == 2
    assert (paired_power(0.1, 5, sd=0), paired_power(0.0, 5, sd=0)) == (1, 0)
    assert equivalence_power(0.5, 5, sd=0, difference=0.4) == 1
    assert equivalence_power(0.5, 5, sd=0, difference=-0.5) == 0
    # Far ends.
    assert minimal_detectable_effect(2, sd=1, comparisons=1000) > 1e4
    # (z.975 + z.8)^2 = 7.849
    assert seeds_needed(1e-3, sd=1, most=10**8) == pytest.approx(7.849 / 1e-6, rel=1e-3)
    assert seeds_needed(1e300, sd=1e-300) == 2
    assert (seeds_needed(0.08, sd=1), seeds_needed(0.0, sd=1)) == (None, None)  # more than 1,000
    with pytest.raises(ValueError, match="with 2 seeds; plan more seeds"):
        minimal_detectable_effect(2, sd=1, alpha=1e-6)


@pytest.mark.parametrize("n", [2, 3, 10, 100, 1000])
def test_power_has_no_gaps(n: int) -> None:
    # At single noncentralities around 1,500 scipy gives NaN, both of the noncentral F and of the t.
    powers = [paired_power(size / math.sqrt(n), n, sd=1) for size in np.geomspace(0.1, 1000, 500)]
    assert np.all(np.diff(powers) > -1e-9)
    assert powers[-1] == pytest.approx(1)


def test_equivalence_power_equals_the_published_example() -> None:
    # PowerTOST's manual: sampleN.TOST(CV = 0.3) gives n = 40 at a power of 0.815845, for a 2x2 crossover
    # with a ratio of 0.95 and bounds of 0.8 and 1.25: 38 degrees of freedom, standard error s sqrt(2 / 40).
    standard_error = math.sqrt(math.log(1 + 0.3**2)) * math.sqrt(2 / 40)
    sd, difference = standard_error * math.sqrt(39), math.log(0.95)
    found = equivalence_power(math.log(1.25), 39, sd=sd, difference=difference)
    assert found == pytest.approx(0.815845, abs=1e-6)


@pytest.mark.parametrize(
    ("n", "margin", "difference", "comparisons"),
    [(2, 12.0, 0.0, 1), (3, 4.0, 1.0, 1), (5, 2.0, 0.0, 6), (5, 2.0, -2.0, 1), (20, 0.9, 0.2, 3)],
)
def test_equivalence_power_is_how_often_the_test_passes(
    n: int, margin: float, difference: float, comparisons: int
) -> None:
    differences = difference + np.random.default_rng(n).normal(size=(40_000, n))
    effects = paired_effect(differences, np.zeros(n), comparisons=comparisons)
    passed = verdict(effects, planned=n, higher_is_better=None, margin=margin).p_equivalence <= 0.1
    power = equivalence_power(margin, n, sd=1, difference=difference, comparisons=comparisons)
    assert passed.mean() == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / 40_000) + 1e-4)


@pytest.mark.parametrize("effect", [0.8, 0.1, 0.5])
@pytest.mark.parametrize("margin", [math.nan, 0.2, 0.9])
@pytest.mark.parametrize("comparisons", [1, 6])
def test_seeds_needed_are_the_fewest_that_would_decide(
    effect: float, margin: float, comparisons: int
) -> None:
    family: dict[str, Any] = {"sd": 1.0, "comparisons": comparisons}

    def decides(n: int) -> bool:
        equivalent = 0.0 if math.isnan(margin) else equivalence_power(margin, n, alpha=0.025, **family)
        return max(paired_power(effect, n, **family), equivalent) >= 0.8

    fewest = next((n for n in range(6, 1001) if decides(n)), None)
    assert seeds_needed(effect, margin=margin, least=6, **family) == fewest


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"sd": -1}, "finite sd >= 0, got -1"),
        ({"sd": math.nan}, "got nan; estimate it from at least two seeds"),
        ({"sd": 1, "alpha": 5}, "Expected alpha between 0 and 1"),
        ({"sd": 1, "comparisons": 0}, "got comparisons=0"),
        ({"sd": 1, "power": 80}, "= 0.05 and 1, got 80; 80 % is written 0.8"),
        ({"sd": 1, "power": 0.01}, "and 1, got 0.01"),
    ],
)
def test_refused(keywords: dict[str, Any], message: str) -> None:
    for judge in (minimal_detectable_effect, seeds_needed):
        with pytest.raises(ValueError, match=message):
            judge(5, **keywords)
    for margin in (0.0, -0.5, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite margin > 0"):
            equivalence_power(margin, 5, sd=1)
