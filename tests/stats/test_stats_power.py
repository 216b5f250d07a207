"""Power, detectable effects and seeds, against statsmodels, simulation and published examples."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from references import recompute
from statsmodels.stats.power import TTestPower

from ablate.stats.effect import paired_effect
from ablate.stats.power import (
    confirmable_margin,
    equivalence_power,
    minimal_detectable_effect,
    paired_power,
    pooled_sd,
    seeds_needed,
    seeds_range,
)


@given(n=st.integers(2, 60), size=st.floats(0.01, 2), comparisons=st.integers(1, 10))
def test_power_equals_statsmodels(n: int, size: float, comparisons: int) -> None:
    theirs = TTestPower().power(size, n, 0.05 / comparisons)
    assume(not math.isnan(theirs))  # its noncentral t gives NaN for some powers near 1
    assert paired_power(size, n, sd=1, comparisons=comparisons) == pytest.approx(theirs, abs=1e-7)


def test_without_seeds_spread_or_effect() -> None:
    assert paired_power(0.0, 5, sd=0.4, comparisons=4) == pytest.approx(0.0125)
    assert minimal_detectable_effect(1, sd=0.4) == math.inf
    assert paired_power(10.0, 1, sd=0.4) == equivalence_power(0.5, 1, sd=1) == 0
    assert minimal_detectable_effect(5, sd=0) == 0
    assert seeds_needed(0.1, sd=0) == 2
    assert confirmable_margin(1, sd=0.4) == math.inf
    assert (paired_power(0.1, 5, sd=0), paired_power(0.0, 5, sd=0)) == (1, 0)
    assert equivalence_power(0.5, 5, sd=0, difference=0.4) == 1
    assert equivalence_power(0.5, 5, sd=0, difference=-0.5) == 0
    # Far ends.
    assert minimal_detectable_effect(2, sd=1, comparisons=1000) > 1e4
    # (z.975 + z.9)^2 = 10.507
    assert seeds_needed(1e-3, sd=1, most=10**8) == pytest.approx(10.507 / 1e-6, rel=1e-3)
    assert seeds_needed(1e300, sd=1e-300) == 2
    assert seeds_needed(0.1, sd=1) is None  # more than 1,000
    # Of two seeds the sd seen is |Z|, which is below z.9 = 1.28155 in 80 %; and their t is Cauchy's.
    critical = 1 / math.tan(math.pi / 2 * 0.05 / 50_000)
    far = minimal_detectable_effect(2, sd=1, comparisons=50_000)
    assert far == pytest.approx(1.28155 * critical / math.sqrt(2), rel=1e-5)
    for judge in (minimal_detectable_effect, confirmable_margin, seeds_needed):
        for sd in (-1, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"finite sd >= 0, got {sd}; estimate it from"):
                judge(5, sd=sd)


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
    # Its one-sided tests are at .05, ours at .025 unless half a comparison shares it.
    half: Any = 0.5
    found = equivalence_power(math.log(1.25), 39, sd=sd, difference=difference, comparisons=half)
    assert found == pytest.approx(0.815845, abs=1e-6)


@given(n=st.integers(2, 200), sd=st.floats(0.01, 10), comparisons=st.integers(1, 20))
def test_what_is_detectable_or_confirmable_is_found(n: int, sd: float, comparisons: int) -> None:
    powers = ((paired_power, minimal_detectable_effect), (equivalence_power, confirmable_margin))
    for power, inverse in powers:
        size = inverse(n, sd=sd, comparisons=comparisons)
        assert power(size, n, sd=sd, comparisons=comparisons) == pytest.approx(0.8, abs=1e-7)


@settings(max_examples=30)
@given(sd=st.floats(0.1, 20), freedom=st.floats(1, 100), comparisons=st.integers(1, 20))
def test_seeds_that_would_decide_are_those_of_the_audit(sd: float, freedom: float, comparisons: int) -> None:
    found = seeds_range(1.0, sd=sd, freedom=freedom, comparisons=comparisons)
    known = [math.nan if seeds is None else seeds for seeds in found]
    assert known == pytest.approx(recompute._seeds(sd, freedom, 0.05 / comparisons, 2), nan_ok=True)
    assert len(set(seeds_range(1.0, sd=sd, freedom=math.inf))) == 1
    assert seeds_range(20.0, sd=1.0, freedom=3.0, least=12) == (12, 12)


def test_freedom_of_effects_that_share_a_baseline() -> None:
    """The pooled variance varies by 2 / freedom, as a chi square over its degrees of freedom does."""
    arms, baseline = np.split(np.random.default_rng(0).normal(size=(20_000, 7, 5)), [6], axis=1)
    pooled = paired_effect(arms, baseline).sd ** 2
    _, freedom = pooled_sd(paired_effect(arms[0], baseline[0]))
    assert pooled.mean(axis=1).var() / pooled.mean() ** 2 == pytest.approx(2 / freedom, rel=0.05)
