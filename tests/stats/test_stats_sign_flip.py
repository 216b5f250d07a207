"""The exact sign-flip test."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from ablate.stats import sign_flip_p


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9))
def test_equals_scipy(counts: list[int]) -> None:
    # Small counts of images, so that many patterns tie.
    differences = np.array(counts) / 3925
    theirs = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(differences).p == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(("n", "smallest"), [(1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_smallest_p(n: int, smallest: float) -> None:
    found = sign_flip_p(np.linspace(0.1, 0.3, n))
    assert found.smallest == found.p == smallest


def test_as_many_seeds_as_it_takes() -> None:
    assert sign_flip_p(np.full(20, 0.1)).p == 2 / 2**20
    found = sign_flip_p(np.full(21, 0.1))
    assert math.isnan(found.p)
    assert found.smallest == 2 / 2**21


def test_missing_differences_are_left_out() -> None:
    assert sign_flip_p(np.array([0.1, math.nan, 0.2, -0.05])) == sign_flip_p(np.array([0.1, 0.2, -0.05]))


def test_nothing_to_flip() -> None:
    assert sign_flip_p(np.zeros(4)).p == 1
    empty = sign_flip_p(np.array([math.nan]))
    assert np.isnan([empty.p, empty.smallest]).all()


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[n\]"):
        sign_flip_p(np.ones((2, 2)))
