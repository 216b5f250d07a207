"""Holm's adjustment."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from ablate.stats import bonferroni, holm


def loop_holm(p: list[float]) -> list[float]:
    """Holm 1979, by hand: the i-th smallest of m times m - i + 1, never below the one before, at most 1."""
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        running = max(running, (len(p) - rank) * p[index])
        adjusted[index] = min(1.0, running)
    return adjusted


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_equals_the_loop(p: list[float]) -> None:
    np.testing.assert_allclose(holm(np.array(p)), loop_holm(p), rtol=1e-12)


def test_equals_statsmodels() -> None:
    p = np.random.default_rng(0).uniform(0, 0.1, 12).round(2)  # rounded, so that some are tied
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-12)


def test_worked_example() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_an_undefined_p_stays_so_and_is_counted() -> None:
    adjusted = holm(np.array([0.01, math.nan, 0.02]))
    assert adjusted[[0, 2]] == pytest.approx([0.03, 0.04])
    assert math.isnan(adjusted[1])


@pytest.mark.parametrize("p", [[], [math.nan], [math.nan, math.nan]])
def test_nothing_to_adjust(p: list[float]) -> None:
    adjusted = holm(np.array(p, dtype=float))
    assert adjusted.shape == (len(p),)
    assert np.isnan(adjusted).all()


@pytest.mark.parametrize("p", [[0.5, 1.5], [-0.1], [[0.1, 0.2]]])
def test_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\] or NaN, of shape \[m\]"):
        holm(np.array(p))


def test_bonferroni_equals_statsmodels() -> None:
    p = np.random.default_rng(0).uniform(0, 0.3, 12)
    np.testing.assert_allclose(bonferroni(p, 12), multipletests(p, method="bonferroni")[1], rtol=1e-12)


def test_bonferroni_counts_what_was_planned() -> None:
    np.testing.assert_allclose(bonferroni(np.array([0.01, math.nan, 0.3]), 6), [0.06, math.nan, 1.0])
    with pytest.raises(ValueError, match="got comparisons=0"):
        bonferroni(np.array([0.1]), 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_bonferroni_does(p: list[float]) -> None:
    assert (holm(np.array(p)) <= bonferroni(np.array(p), len(p))).all()
