"""The verdict on an effect, its equivalence test, and corrections for a family."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind, ttest_rel
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_paired

from ablate.stats.effect import Effect, independent_effect, paired_effect, verdict

SEEDS = st.integers(0, 2**32 - 1)


def effect_of(mean: float, sd: float = 1.0, n: int = 5) -> Effect:
    """Of differences that have exactly this mean and standard deviation."""
    pattern = np.linspace(-1, 1, n)
    differences = mean + sd * pattern / pattern.std(ddof=1)
    return paired_effect(differences, np.zeros(n))


@given(
    seed=SEEDS,
    n=st.integers(2, 12),
    shift=st.floats(-3, 3),
    margin=st.floats(0.1, 4),
    comparisons=st.integers(1, 6),
    paired=st.booleans(),
)
def test_equals_the_rules_with_scipy_and_statsmodels(
    seed: int, n: int, shift: float, margin: float, comparisons: int, paired: bool
) -> None:
    rng = np.random.default_rng(seed)
    values, baseline = rng.normal(size=n) + shift, rng.normal(size=n)
    if paired:
        effect = paired_effect(values, baseline, comparisons=comparisons)
        differs, same = ttest_rel(values, baseline).pvalue, ttost_paired(values, baseline, -margin, margin)[0]
    else:
        effect = independent_effect(values, baseline, comparisons=comparisons)
        differs = ttest_ind(values, baseline, equal_var=False).pvalue
        both = CompareMeans(DescrStatsW(values), DescrStatsW(baseline))
        same = both.ttost_ind(-margin, margin, usevar="unequal")[0]
    differs, same = min(1, comparisons * differs), min(1, 2 * comparisons * same)
    found = verdict(effect, planned=n, better="higher", margin=margin)
    assert found.p_adjusted == pytest.approx(differs, rel=1e-9)
    assert found.p_equivalence == pytest.approx(same, rel=1e-9, abs=1e-14)
    called = "better" if values.mean() > baseline.mean() else "worse"
    assert found.word == ("equivalent" if same <= 0.05 else called if differs <= 0.05 else "undecided")
    assert found.below_margin == (same <= 0.05 and differs <= 0.05)
    assert found.reason == ""
    lower = verdict(effect, planned=n, better="lower", margin=margin)
    assert lower.word == {"better": "worse", "worse": "better"}.get(str(found.word), found.word)
    plain = verdict(effect, planned=n, better="")
    assert ((plain.word == "higher"), (plain.word == "lower")) == (effect.low > 0, effect.high < 0)
    assert math.isnan(plain.p_equivalence)


def judged(effect: Effect, planned: int = 5, **changes: Any) -> tuple[str, str, bool]:
    found = verdict(effect, planned=planned, **{"better": "higher", **changes})
    return str(found.word), str(found.reason), bool(found.below_margin)


def test_identical_predictions_are_equivalent() -> None:
    arm = np.array([0.91, 0.92, 0.93])
    found = paired_effect(arm, arm.copy())
    assert judged(found, 3, identical=True) == ("equivalent", "identical", False)
    # Equal accuracies of other predictions say little, one seed says nothing, and so does a lost one.
    assert judged(found, 3, margin=0.01) == ("undecided", "no_spread", False)
    assert judged(paired_effect(arm[:1], arm[:1]), 1, identical=True)[:2] == ("undecided", "too_few_seeds")
    assert judged(found, 4, identical=True)[:2] == ("undecided", "incomplete")
    # It is believed only of differences that are zero.
    assert judged(paired_effect(arm, arm - 0.1), 3, identical=True)[1] == "no_spread"
    assert judged(effect_of(9.0), identical=True) == ("better", "", False)
