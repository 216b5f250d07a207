"""Metrics by hand, with ties and planted errors, against libraries; floors against enumeration."""

import math
from itertools import pairwise, permutations, product

import numpy as np
import pytest
import relplot
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from references import recompute
from scipy.stats import binned_statistic
from sklearn.metrics import roc_auc_score

from ablate.metrics import (
    FLOORS,
    METRICS,
    Predictions,
    band_of_mean,
    reliability_bins,
    resampled,
    risk_coverage_counts,
)
from ablate.metrics.calibration import ece_debiased, smooth_errors
from ablate.metrics.predictions import equal_mass_bin_ids
from ablate.metrics.registry import BAND, DRAWS
from ablate.metrics.selective import aurc, auroc_error, coverage_at_1, coverage_at_2

Array = NDArray[np.float64]
Rows = list[list[float]]
NAN = math.nan
SEEDS = st.integers(0, 2**32 - 1)


def two(*confidences: float) -> Rows:
    """Logits of two classes whose softmax is (c, 1 - c), c >= .5."""
    return [[math.log(c / (1 - c)) if c < 1 else 1e4, 0.0] for c in confidences]


RANKED = two(0.9, 0.8, 0.7, 0.6)
CASES: dict[str, tuple[Rows, list[int], dict[str, float]]] = {
    "ties predict the lowest class": ([[1, 1, 0], [0, 2, 2], [0, 0, 0]], [0, 2, 0], {"accuracy": 2 / 3}),
    "certain and right": ([[1e4, -1e4, -1e4]], [0], {"nll": 0, "brier": 0, "smece": 0, "ece_floor": 0}),
    "certain and wrong": ([[1e4, -1e4, -1e4]], [1], {"nll": 2e4, "brier": 2}),
    # .95 right and 1.0 wrong share a bin. In one of its own, as torchmetrics 1.9 has it, 1.0 adds .5.
    "a confidence of one": (two(0.95, 1.0), [0, 1], {"ece": abs(0.5 - 0.975)}),
    "under-confident": (two(*[0.8] * 10), [0] * 10, {"confidence_gap": -0.2, "ece": 0.2, "smece": 0.2}),
    "less than noise alone would give": (
        two(*[0.6] * 10, *[0.8] * 10), [0] * 6 + [1] * 4 + [0] * 8 + [1] * 2,
        {"ece_debiased": -math.sqrt(0.5 * 0.6 * 0.4 / 9 + 0.5 * 0.8 * 0.2 / 9), "ece_equal_mass": 0},
    ),
    "a bin of one image adds nothing": (
        two(0.9, 0.6, 0.6), [1, 0, 1], {"ece_debiased": -math.sqrt(-2 / 3 * (0.1**2 - 0.5 * 0.5 / 1))}
    ),
    "each image in a bin of its own": (two(0.6, 0.7, 0.8), [0, 0, 1], {"ece_debiased": NAN}),
    "the best ranking has no excess": (RANKED, [0, 0, 1, 1], {"aurc": (1 / 3 + 2 / 4) / 4, "eaurc": 0}),
    "never wrong": (RANKED, [0] * 4, {"aurc": 0, "eaurc": 0, "coverage_at_1": 1, "auroc_error": NAN}),
    "never right": (RANKED, [1] * 4, {"aurc": 1, "eaurc": 0, "coverage_at_1": 0, "auroc_error": NAN}),
    "one image, no temperature, no variance in a bin, none wrong": (
        two(0.8), [0],
        dict.fromkeys(METRICS.keys() - FLOORS.values(), NAN) | dict.fromkeys(FLOORS, 0.2)
        | {"accuracy": 1, "nll": -math.log(0.8), "brier": 0.08, "mean_confidence": 0.8}
        | {"confidence_gap": -0.2, "aurc": 0, "eaurc": 0, "coverage_at_1": 1, "coverage_at_2": 1},
    ),
    # The confidences all round to 1.
    "certainty is ranked": ([[50, 0], [60, 0], [40, 0]], [0, 0, 1], {"auroc_error": 1}),
    "certainty in between": ([[50, 0], [60, 0], [40, 0]], [1, 0, 0], {"auroc_error": 0.5}),
    # Centred: (2, -1, -1) and (1, 0, -1), so .816 and .707; the second has the higher probability.
    "normalised": ([[2, -1, -1], [9, 0, -9]], [0, 1], {"auroc_error": 0, "auroc_error_normalised": 1}),
    "two classes are tied": (two(0.9, 0.6), [0, 1], {"auroc_error_normalised": 0.5}),
    "constant though their mean is rounded": (
        [[0.1] * 3, [0.1] * 3, [3, 0, 0]], [1, 0, 0], {"auroc_error_normalised": 0.75}
    ),
    "constant ones last": ([[5, 5, 5], [1, 1, 0], [3, 0, 0]], [1, 0, 0], {"auroc_error_normalised": 1}),
    "constant logits have no temperature": (
        [[7.0] * 10] * 50, [*range(10)] * 5, {"temperature": 1, "ece_scaled": 0, "nll_scaled": math.log(10)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case: str) -> None:
    logits, labels, expected = CASES[case]
    predictions = Predictions.of(np.array(logits, dtype=float), np.array(labels))
    values = {name: METRICS[name].score(predictions) for name in expected}
    assert values == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


def coverages(images: int, wrong: NDArray[np.intp]) -> tuple[float, float]:
    """At 1 and 2 % risk, of images of falling confidence."""
    labels = np.isin(np.arange(images), wrong).astype(int)
    logits = np.array(two(*np.linspace(0.95, 0.6, images)))
    return METRICS["coverage_at_1"](logits, labels), METRICS["coverage_at_2"](logits, labels)


def test_coverage_counts_exactly() -> None:
    # 29 wrong of 2,900 is 1 %; one more image, wrong, is not.
    assert coverages(2901, np.array([*range(29), 2900])) == (2900 / 2901, 1)
    # The most confident prediction is wrong, yet from 100 images on it is 1 % of them.
    first = np.array([0])
    assert [coverages(n, first) for n in (150, 99, 49)] == [(1, 1), (0, 1), (0, 0)]
    # The curve itself: a group of equal confidences at a time.
    predictions = Predictions.of(np.array(two(0.9, 0.9, 0.8, 0.6)), np.array([0, 1, 0, 1]))
    answered, wrong = risk_coverage_counts(predictions)
    assert (answered.tolist(), wrong.tolist()) == ([0, 2, 3, 4], [0, 1, 1, 2])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_confidence_of_k_fifteenths_is_in_its_bin_in_every_metric(dtype: type) -> None:
    """Image k has the confidence k / 15 and the rest of it spread evenly over 15 classes; all are wrong."""
    classes, k = 15, np.arange(2, 15)
    p = np.repeat(((15 - k) / 15 / (classes - 1))[:, None], classes, axis=1)
    p[:, 0] = k / 15
    logits, labels = np.log(p.astype(dtype)), np.ones(len(k), int)
    predictions = Predictions.of(logits, labels)
    assert reliability_bins(predictions)["count"].tolist() == [0, 0] + [1] * 13
    assert METRICS["mce"](logits, labels) == pytest.approx(14 / 15)
    assert predictions.class_bins[:, 0].tolist() == k.tolist()
    # All classes alike: every probability is 1 / 15, the lower edge of bin 1.
    even = np.log(np.full((1, classes), 1 / 15, dtype))
    assert (Predictions.of(even, labels[:1]).class_bins % 15 == 1).all()


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40, unique=True), SEEDS)
def test_permutations_of_one_vector_of_logits_are_tied(vector: list[float], seed: int) -> None:
    """All confidences are one, whatever the order in which the classes' probabilities are summed."""
    rng = np.random.default_rng(seed)
    logits = np.array([rng.permutation(vector) for _ in range(50)])
    labels = np.where(np.arange(50) % 3 == 0, logits.argmin(axis=1), logits.argmax(axis=1))
    predictions = Predictions.of(logits, labels)
    accuracy = 33 / 50
    assert [METRICS[f"auroc_error{which}"](logits, labels) for which in ("", "_normalised")] == [0.5, 0.5]
    assert METRICS["aurc"](logits, labels) == pytest.approx(1 - accuracy)
    assert (METRICS["coverage_at_1"](logits, labels), METRICS["coverage_at_2"](logits, labels)) == (0, 0)
    assert set(predictions.mass_bins) == {0}
    assert len(set(predictions.width_bins)) == 1
    gap = abs(predictions.confidence[0] - accuracy)
    for name in ("ece", "ece_equal_mass", "mce"):
        assert METRICS[name](logits, labels) == pytest.approx(gap)


def test_reliability_bins_against_scipy() -> None:
    rng = np.random.default_rng(15)
    confidence = [*rng.uniform(0.5, 1, 500), 1.0]
    predictions = Predictions.of(np.array(two(*confidence)), rng.integers(0, 2, 501))
    bins = reliability_bins(predictions)

    def scipy(values: Array, statistic: str) -> Array:
        edges = {"bins": 15, "range": (0, 1)}
        return np.asarray(binned_statistic(predictions.confidence, values, statistic, **edges).statistic)

    correct = predictions.correct.astype(float)
    assert np.array_equal(bins["count"], scipy(correct, "count"))
    np.testing.assert_allclose(bins["confidence"], scipy(predictions.confidence, "mean"), rtol=1e-12)
    np.testing.assert_allclose(bins["accuracy"], scipy(correct, "mean"), rtol=1e-12)
    assert np.isnan(bins["accuracy"][:7]).all(), "empty bins"
    assert (bins["lower"][0], bins["upper"][-1]) == (0, 1)
    assert np.array_equal(bins["lower"][1:], bins["upper"][:-1])


@given(st.lists(st.sampled_from([0.1, 0.3, 0.9, 1.0]) | st.floats(0, 1), min_size=1, max_size=60), SEEDS)
def test_equal_mass_bins_with_ties(confidences: list[float], seed: int) -> None:
    ordered = np.sort(confidences)
    ids = equal_mass_bin_ids(ordered)
    parts = np.array_split(np.arange(len(ordered)), 15)
    bin_of_rank = [b for b, part in enumerate(parts) for _ in part]
    for value in set(confidences):
        ranks = [rank for rank, found in enumerate(ordered) if found == value]
        assert set(ids[ranks].tolist()) == {min(bin_of_rank[rank] for rank in ranks)}
    shuffle = np.random.default_rng(seed).permutation(len(ordered))
    assert np.array_equal(equal_mass_bin_ids(ordered[shuffle]), ids[shuffle])


def test_debiased_error_finds_a_planted_error_whatever_the_number_of_images() -> None:
    # Every confidence is .8 and every prediction right with probability .7.
    rng = np.random.default_rng(0)
    for n in (50, 200):
        squares = []
        for _ in range(2000):
            value = ece_debiased(np.array(two(*[0.8] * n)), (rng.random(n) > 0.7).astype(int))
            squares.append(math.copysign(value**2, value))
        assert np.mean(squares) == pytest.approx(0.1**2, abs=3.5 * float(np.std(squares)) / 2000**0.5)


TIED = st.tuples(st.sampled_from([0.6, 0.7, 0.9]), st.booleans())
"""Confidence in class 0, and whether that is right."""


@given(st.lists(TIED, min_size=1, max_size=6))
def test_ties_against_all_orders_scikit_learn_and_all_thresholds(images: list[tuple[float, bool]]) -> None:
    confidence, correct = (np.array(values) for values in zip(*images, strict=True))
    arrays, areas = (np.array(two(*confidence)), (~correct).astype(int)), []
    for order in permutations(images):
        if all(first[0] >= second[0] for first, second in pairwise(order)):
            wrong = np.cumsum([not right for _, right in order])
            areas.append(np.mean(wrong / np.arange(1, len(order) + 1)))
    assert aurc(*arrays) == pytest.approx(np.mean(areas))
    both = len(set(correct)) == 2
    expected = roc_auc_score(correct, confidence) if both else math.nan
    assert auroc_error(*arrays) == pytest.approx(expected, nan_ok=True)
    for percent, metric in ((1, coverage_at_1), (2, coverage_at_2)):
        answered = [correct[confidence >= threshold] for threshold in (0.6, 0.7, 0.9)]
        kept = [len(own) for own in answered if len(own) and (~own).mean() <= percent / 100]
        assert metric(*arrays) == pytest.approx(max(kept, default=0) / len(images))


def outcomes(seed: int, n: int, gap: float = 0.0) -> tuple[Array, NDArray[np.bool_]]:
    """Confidences as of a good classifier, right with probability confidence - gap."""
    rng = np.random.default_rng(seed)
    confidence = 1 - 0.9 * rng.beta(1, 5, size=n)
    return confidence, rng.random(n) < confidence - gap


def test_agrees_with_relplot() -> None:
    # relplot finds the bandwidth to 1/1024 and cuts its kernel off, which shows where the error is large.
    for seed in range(15):
        confidence, correct = outcomes(seed, n=200 * (1 + seed % 5), gap=(0, 0.02, 0.05)[seed % 3])
        value = float(smooth_errors(confidence, correct[None])[0])
        assert value < 0.12
        assert value == pytest.approx(relplot.smECE(confidence, correct.astype(float)), abs=2e-3)


@pytest.mark.parametrize(("n", "gap"), [(300, 0.0), (3925, 0.0), (3925, 0.05)])
def test_of_thousands_it_is_that_of_a_cosine_series(n: int, gap: float) -> None:
    """Were the sharing of residuals among cells not undone, it would show as 3.5e-5 or more."""
    confidence, correct = outcomes(n, n, gap)
    series = recompute._smooth_ece(confidence, correct)
    assert float(smooth_errors(confidence, correct[None])[0]) == pytest.approx(series, abs=2e-6)
    if n > 3000 and not gap:  # cells of a third of the bandwidth
        coarse = smooth_errors(confidence, correct[None], cells=int(3 / series))
        assert float(coarse[0]) == pytest.approx(series, abs=2e-5)


def calibrated(n: int, *, k: int = 10, scale: float = 8.0) -> Predictions:
    logits = scale * np.random.default_rng(0).normal(size=(n, k))
    return Predictions.of(logits, np.zeros(n, dtype=int))


def scored(predictions: Predictions, labels: NDArray[np.intp]) -> dict[str, Array]:
    rows = [Predictions(predictions.logits, row) for row in labels]
    return {name: np.array([METRICS[name].score(row) for row in rows]) for name in FLOORS}


@pytest.mark.parametrize(("n", "k", "scale"), [(9, 2, 2.0), (5, 3, 1.0), (1, 2, 1.0)])
def test_all_labels_there_can_be(n: int, k: int, scale: float) -> None:
    """Floor and band against the error and the probability of each."""
    predictions = calibrated(n, k=k, scale=scale)
    labels = np.array(list(product(range(k), repeat=n)))
    probability = predictions.probabilities[np.arange(n), labels].prod(axis=1)
    share = 4 * math.sqrt(0.025 * 0.975 / DRAWS)
    for name, errors in scored(predictions, labels).items():
        mean = probability @ errors
        spread = math.sqrt(probability @ (errors - mean) ** 2)
        floor = METRICS[FLOORS[name]].score(predictions)
        assert floor == pytest.approx(mean, abs=4 * spread / math.sqrt(DRAWS)), name
        for end, below in zip(band_of_mean([resampled(predictions)[name]]), BAND, strict=True):
            assert probability[errors < end - 1e-4].sum() <= below + share, name
            assert probability[errors <= end + 1e-4].sum() >= below - share, name


def test_floors_depend_on_nothing_but_the_probabilities() -> None:
    first = calibrated(100)
    np.random.seed(1)
    before = {name: values.copy() for name, values in resampled(first).items()}
    np.random.seed(2)
    for name, values in resampled(Predictions.of(first.logits + 3, np.arange(100) % 10)).items():
        np.testing.assert_allclose(values, before[name], atol=1e-4 if name == "smece" else 1e-12)
