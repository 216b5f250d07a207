"""Effects over seeds, paired and of independent samples, and the sign-flip test."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, permutation_test, ttest_ind, ttest_rel

from ablate.stats.effect import independent_effect, paired_effect, sign_flip_p, smallest_sign_flip_p, verdict
from ablate.stats.intervals import mean_interval, new_images_interval, prediction_interval
from ablate.stats.power import equivalence_power, pooled_sd, seeds_needed

SEEDS = st.integers(0, 2**32 - 1)
ENDS = ("low", "high", "p")


@given(seed=SEEDS, n=st.integers(3, 20), shift=st.floats(-2, 2), comparisons=st.integers(1, 8))
def test_paired_equals_scipy(seed: int, n: int, shift: float, comparisons: int) -> None:
    rng = np.random.default_rng(seed)
    baseline = rng.normal(size=n)
    values = 0.5 * baseline + rng.normal(size=n) + shift
    ours = paired_effect(values, baseline, comparisons=comparisons)
    theirs = ttest_rel(values, baseline)
    interval = theirs.confidence_interval(1 - 0.05 / comparisons)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-9)
    assert ours.effect == pytest.approx(np.mean(values - baseline))
    assert ours.rho == pytest.approx(pearsonr(values, baseline).statistic, abs=1e-12)
    assert (float(ours.n), float(ours.sd)) == pytest.approx((n, np.std(values - baseline, ddof=1)))
    # The interval and the corrected p never disagree, and swapping the arms changes the sign alone.
    assert (ours.low > 0 or ours.high < 0) == (ours.p * comparisons < 0.05)
    back = paired_effect(baseline, values, comparisons=comparisons)
    assert (back.effect, back.low, back.high, back.p) == (-ours.effect, -ours.high, -ours.low, ours.p)


COUNTS = st.lists(st.integers(0, 1000).map(lambda count: count / 1000), min_size=2, max_size=8)


@given(values=COUNTS, baseline=COUNTS, comparisons=st.integers(1, 30))
def test_independent_equals_scipy(values: list[float], baseline: list[float], comparisons: int) -> None:
    ours = independent_effect(np.array(values), np.array([*baseline, math.nan]), comparisons=comparisons)
    assert ours.n == min(len(values), len(baseline))
    if len(set(values)) == 1 or len(set(baseline)) == 1:  # of which scipy warns
        assert np.isnan([ours.low, ours.p]).all() == (len(set(values)) == len(set(baseline)) == 1)
        return
    theirs = ttest_ind(values, baseline, equal_var=False)
    interval = theirs.confidence_interval(1 - 0.05 / comparisons)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-7, abs=1e-9)
    assert (ours.p, ours.freedom) == pytest.approx((theirs.pvalue, theirs.df))


def test_rounding_is_no_effect_and_one_image_is_one() -> None:
    """Sums in another order differ in their last bits; one image of 3,925 on one seed is a difference."""
    with pytest.raises(ValueError, match="broadcast"):
        paired_effect(np.ones(3), np.ones(2))
    arm = np.array([0.1 + 0.2, 0.3 + 0.6, 0.7])
    found = paired_effect(arm, np.array([0.3, 0.9, 0.7]))
    assert (float(found.effect), float(found.sd)) == (0, 0)
    assert found.rho == pytest.approx(1)
    baseline = np.array([3400, 3410, 3395]) / 3925
    found = paired_effect(baseline + np.array([0, 0, 1]) / 3925, baseline)
    assert found.sd > 0
    assert 0 < found.p < 1


@pytest.mark.parametrize("compare", [paired_effect, independent_effect])
def test_too_few_values(compare: type) -> None:
    for values, n, effect in (([0.9, math.nan], 1, 0.1), ([math.nan] * 2, 0, math.nan)):
        found = compare(np.array(values), np.full(2, 0.8))
        assert (found.n, found.effect) == pytest.approx((n, effect), nan_ok=True)
        assert np.isnan([getattr(found, name) for name in (*ENDS, "rho", "sd")]).all()
    # rho needs three pairs and two varying arms.
    for baseline in ([1.0, 3.0, math.nan], [0.1] * 3):
        assert math.isnan(paired_effect(np.array([1.0, 2.0, 4.0]), np.array(baseline)).rho)


@pytest.mark.parametrize("compare", [paired_effect, independent_effect])
def test_many_at_once_equal_one_by_one(compare: type) -> None:
    rng = np.random.default_rng(3)
    values, baseline = rng.normal(size=(4, 3, 7)), rng.normal(size=(4, 1, 7))
    values[0, 0, 2] = values[1, 2, :6] = baseline[2, 0, 5] = math.nan
    values[3, 1] = baseline[3, 0] + 0.1
    many = compare(values, baseline, comparisons=3)
    for index in np.ndindex(4, 3):
        arm, reference = values[index], baseline[index[0], 0]
        paired = compare is paired_effect
        complete = ~np.isnan(arm + reference if paired else arm)  # others are left out
        reference = reference[complete] if paired else reference
        one = compare(arm[complete], reference, comparisons=3)
        for name in ("effect", *ENDS, "n", "rho", "sd", "error", "freedom"):
            np.testing.assert_allclose(getattr(many, name)[index], getattr(one, name), rtol=1e-12)
    assert many.n[1, 2] == 1


def flip_p(differences: list[float]) -> float:
    return sign_flip_p(np.array(differences), np.zeros(len(differences)))


# Small counts of images, so that many patterns tie.
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9))
def test_sign_flips_equal_scipy_and_every_pattern(counts: list[int]) -> None:
    differences = np.array(counts) / 3925
    theirs = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    # Of a sum of 0, scipy leaves out patterns that differ from it by rounding.
    assert not sum(counts) or flip_p([*differences, math.nan]) == pytest.approx(theirs.pvalue)
    sums = np.array([*itertools.product([1, -1], repeat=len(counts))]) @ counts
    of_all = np.mean(np.abs(sums) >= abs(sum(counts)))
    assert sign_flip_p(differences + 0.7, np.full(len(counts), 0.7)) == of_all


def test_the_smallest_sign_flip_p() -> None:
    for n in (1, 3, 5, 6, 20):
        assert flip_p(np.linspace(0.1, 0.3, n).tolist()) == smallest_sign_flip_p(n) == 2 / 2**n
    assert flip_p([0.0] * 4) == 1
    assert np.isnan([flip_p([0.1] * 21), flip_p([math.nan])]).all()


@pytest.mark.parametrize("widened", [False, True])
def test_equal_differences_of_float32_are_equal(widened: bool) -> None:
    """Accuracies .9 - .8 and .8 - .7 as another tool stores them, or as a table of its numbers holds them."""
    arm, baseline = np.array([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6]], np.float32)
    assert len(set((arm - baseline).tolist())) > 1
    if widened:
        arm, baseline = arm.astype(np.float64), baseline.astype(np.float64)
    found = paired_effect(arm, baseline)
    assert found.sd == 0
    assert found.effect == pytest.approx(0.1, abs=1e-7)
    assert np.isnan([getattr(found, name) for name in ENDS]).all()
    # .1 + .1 - .1: no pattern's sum is nearer to 0 than the one seen, whichever of the three is negative.
    for flipped in np.eye(3, dtype=bool):
        assert sign_flip_p(np.where(flipped, baseline, arm), np.where(flipped, arm, baseline)) == 1
    last_bit = np.nextafter(np.float32(0.9), np.array([0, 0, 1], np.float32)).astype(arm.dtype)
    assert mean_interval(last_bit).sd == independent_effect(last_bit, last_bit).sd == 0
    # One image of a million is a difference.
    assert paired_effect(arm + np.array([0, 0, 1e-6], arm.dtype), baseline).sd > 0


@given(seed=SEEDS, n=st.integers(2, 12), k=st.integers(-600, 600), tied=st.booleans())
def test_statistics_do_not_depend_on_the_unit(seed: int, n: int, k: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, (2, n)) / 4 if tied else rng.normal(size=(2, n))
    images = rng.normal(size=(n, 9)) + values[0][:, None]
    unit = 2.0**k

    def found(scale: float) -> tuple[list[float], list[float]]:
        """What is in the values' unit, and what has none."""
        arm, baseline = values * scale
        lengths = [*new_images_interval(images * scale)]
        for interval in (mean_interval(arm), prediction_interval(arm)):
            lengths += [interval.mean, interval.low, interval.high, interval.sd]
        plain: list[float] = [sign_flip_p(arm, baseline)]
        for compare in (paired_effect, independent_effect):
            effect = compare(arm, baseline, comparisons=3)
            lengths += [float(getattr(effect, name)) for name in ("effect", "low", "high", "sd", "error")]
            judged = verdict(effect, planned=n, better="higher", margin=0.7 * scale)
            plain += [float(effect.p), float(effect.rho), float(effect.freedom), float(judged.p_equivalence)]
        sd, pooled = float(lengths[-2]), pooled_sd(paired_effect(arm[None], baseline))[0]
        if sd > 0:
            plain += [equivalence_power(0.7 * scale, n, sd=sd), seeds_needed(0.7 * scale, sd=sd) or 0]
        return [*lengths, pooled], plain

    (lengths, plain), (scaled, scaled_plain) = found(1.0), found(unit)
    np.testing.assert_allclose(np.ldexp(scaled, -k), lengths, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scaled_plain, plain, rtol=1e-9)
