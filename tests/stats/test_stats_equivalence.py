"""The two one-sided tests."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.weightstats import ttost_paired

from ablate.stats import paired_effect, paired_effects, tost, tosts

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 20), shift=st.floats(-2, 2), margin=st.floats(0.05, 5))
def test_equals_statsmodels(seed: int, n: int, shift: float, margin: float) -> None:
    rng = np.random.default_rng(seed)
    values, baseline = rng.normal(size=n) + shift, rng.normal(size=n)
    ours = tost(paired_effect(values, baseline), margin)
    assert ours == pytest.approx(ttost_paired(values, baseline, -margin, margin)[0], rel=1e-9, abs=1e-14)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 12), margin=st.floats(0.1, 3))
def test_it_passes_when_the_90_percent_interval_lies_within_the_margin(
    seed: int, n: int, margin: float
) -> None:
    found = paired_effect(np.random.default_rng(seed).normal(size=n), np.zeros(n), confidence=0.9)
    within = -margin < found.low and found.high < margin
    assert (tost(found, margin) < 0.05) == within


def test_many_at_once_equal_one_by_one() -> None:
    values = np.random.default_rng(0).normal(size=(5, 6))
    many = tosts(paired_effects(values, np.zeros(6)), 1.0)
    np.testing.assert_array_equal(many, [tost(paired_effect(row, np.zeros(6)), 1.0) for row in values])


@pytest.mark.parametrize("values", [[0.1], [0.1, 0.1, 0.1], [math.nan, math.nan]])
def test_without_spread_there_is_no_p(values: list[float]) -> None:
    assert math.isnan(tost(paired_effect(np.array(values), np.zeros(len(values))), 0.5))


def test_without_a_margin_there_is_no_p() -> None:
    assert math.isnan(tost(paired_effect(np.array([0.1, 0.2, 0.4]), np.zeros(3)), math.nan))


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf])
def test_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="finite margin > 0"):
        tost(paired_effect(np.array([0.1, 0.2, 0.4]), np.zeros(3)), margin)
