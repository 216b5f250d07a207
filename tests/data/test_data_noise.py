"""Drawn label noise; the lists that come with a dataset are tested with Imagenette."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from small_data import refused

from ablate.data import Dataset, open_dataset, prepare
from ablate.data.dataset import array_digest, symmetric_noise

NAMES = st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True)
FRACTIONS = st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2)


@given(NAMES, st.integers(2, 7), FRACTIONS, st.randoms(use_true_random=False))
def test_so_many_labels_are_wrong_by_name_alone_and_stay_so_as_the_fraction_grows(
    names: list[str], num_classes: int, fractions: list[float], random: Any
) -> None:
    labels = np.arange(len(names)) % num_classes
    before = labels.copy()
    few, many = (symmetric_noise(labels, names, num_classes, fraction) for fraction in sorted(fractions))
    for noisy, fraction in zip((few, many), sorted(fractions), strict=True):
        assert noisy.dtype == np.int64
        assert (noisy != labels).sum() == round(fraction * len(names))
        assert set(noisy) <= set(range(num_classes))
    np.testing.assert_array_equal(many[few != labels], few[few != labels])
    order = random.sample(range(len(names)), len(names))
    moved = symmetric_noise(labels[order], [names[row] for row in order], num_classes, min(fractions))
    np.testing.assert_array_equal(moved, few[order])
    np.testing.assert_array_equal(labels, before)
    assert not np.shares_memory(few, labels)


def test_the_wrong_classes_and_the_chosen_images_are_even() -> None:
    labels = np.arange(20_000) % 5
    pairs = np.zeros((5, 5))
    noisy = symmetric_noise(labels, [f"train/{index}.png" for index in range(20_000)], 5, 0.4)
    np.add.at(pairs, (labels, noisy), 1)
    assert stats.chisquare(pairs[~np.eye(5, dtype=bool)]).pvalue > 1e-3


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare("digits", image_size=8, cache_dir=tmp_path_factory.mktemp("digits"))


def test_noise_of_a_dataset_leaves_everything_else_alone(digits: Dataset) -> None:
    truth, reported = digits.train.labels.copy(), digits.valid.labels.copy()
    noisy, again = digits.noisy_train_labels(0.3), open_dataset(digits.folder)
    assert (noisy != truth).sum() == 180
    np.testing.assert_array_equal(again.noisy_train_labels(np.float64(0.3)), noisy)
    for fraction in (0, 0.3):
        digits.noisy_train_labels(fraction)[:] = 0  # a caller's own copy
    np.testing.assert_array_equal(digits.train.labels, truth)
    np.testing.assert_array_equal(digits.valid.labels, reported)
    np.testing.assert_array_equal(digits.noisy_train_labels(0), truth)
    assert digits.fingerprint_with(0) == digits.fingerprint == again.fingerprint
    assert len({digits.fingerprint_with(fraction) for fraction in (0, 0.3, 0.5)}) == 3
    never_changes = "3710d487e5cec3c1bb86abefab09b8f6801f45f68600e472540c621efd4b8897"
    assert array_digest(digits.noisy_train_labels(0.2)) == never_changes


def test_what_is_not_a_fraction_is_refused(digits: Dataset) -> None:
    for fraction in (-0.1, 1, 1.0, 2, np.nan, np.inf, True, False, "0.1", None):
        message = refused(digits.noisy_train_labels, fraction)
        assert message.startswith("label_noise of digits: expected 0 up to, and not including, 1 (")
