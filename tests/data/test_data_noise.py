"""Drawn label noise; the lists that come with a dataset are tested with Imagenette."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablate.data import Dataset, open_dataset, prepare
from ablate.data.dataset import array_digest
from ablate.data.noise import symmetric_noise
from ablate.errors import DataError

NAMES = st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True)
FRACTIONS = st.floats(0, 1, exclude_max=True)


def true_labels(names: list[str], num_classes: int) -> np.ndarray:
    return np.arange(len(names), dtype=np.int64) % num_classes


@given(NAMES, st.integers(2, 7), FRACTIONS, FRACTIONS, st.randoms(use_true_random=False))
def test_so_many_labels_are_wrong_by_name_alone_and_stay_so_as_the_fraction_grows(
    names: list[str], num_classes: int, one: float, other: float, random: Any
) -> None:
    labels = true_labels(names, num_classes)
    before = labels.copy()
    few, many = (symmetric_noise(labels, names, num_classes, f) for f in sorted((one, other)))
    for noisy, fraction in zip((few, many), sorted((one, other)), strict=True):
        assert noisy.dtype == np.int64
        assert (noisy != labels).sum() == round(fraction * len(names))
        assert set(noisy) <= set(range(num_classes))
    np.testing.assert_array_equal(many[few != labels], few[few != labels])
    order = random.sample(range(len(names)), len(names))
    moved = symmetric_noise(labels[order], [names[row] for row in order], num_classes, min(one, other))
    np.testing.assert_array_equal(moved, few[order])
    np.testing.assert_array_equal(labels, before)
    assert not np.shares_memory(few, labels)


def test_the_wrong_classes_and_the_chosen_images_are_even() -> None:
    names = [f"train/{index}.png" for index in range(20_000)]
    labels = true_labels(names, 5)
    pairs = np.zeros((5, 5))
    np.add.at(pairs, (labels, symmetric_noise(labels, names, 5, 0.4)), 1)
    wrong = pairs[~np.eye(5, dtype=bool)]
    assert stats.chisquare(wrong).pvalue > 1e-3
    assert wrong.sum() == 8000


@pytest.mark.parametrize(("num_classes", "fraction"), [(1, 0.5), (0, 0.0), (3, -0.1), (3, 1.1), (3, np.nan)])
def test_arguments_of_the_function_are_checked(num_classes: int, fraction: float) -> None:
    with pytest.raises(ValueError, match="expected 2 or more classes"):
        symmetric_noise(np.zeros(1, np.int64), ["a"], num_classes, fraction)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare("digits", image_size=8, cache_dir=tmp_path_factory.mktemp("digits"))


def test_noise_of_a_dataset_leaves_everything_else_alone(digits: Dataset) -> None:
    truth, reported = digits.train.labels.copy(), digits.valid.labels.copy()
    noisy = digits.noisy_train_labels(0.3)
    assert (noisy != truth).sum() == 180
    again = open_dataset(digits.folder)
    np.testing.assert_array_equal(again.noisy_train_labels(np.float64(0.3)), noisy)
    noisy[:] = 0  # a caller's own copy
    np.testing.assert_array_equal(digits.train.labels, truth)
    np.testing.assert_array_equal(digits.valid.labels, reported)
    np.testing.assert_array_equal(digits.noisy_train_labels(0), truth)
    assert digits.fingerprint_with(0) == digits.fingerprint == again.fingerprint
    assert len({digits.fingerprint_with(fraction) for fraction in (0, 0.3, 0.5)}) == 3


def test_drawn_noise_never_changes(digits: Dataset) -> None:
    expected = "3710d487e5cec3c1bb86abefab09b8f6801f45f68600e472540c621efd4b8897"
    assert array_digest(digits.noisy_train_labels(0.2)) == expected


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.0, 2, np.nan, np.inf, True, "0.1", None])
def test_what_is_not_a_fraction_is_refused(digits: Dataset, fraction: Any) -> None:
    with pytest.raises(DataError, match=r"^label_noise of digits: expected 0 up to, and not including, 1"):
        digits.noisy_train_labels(fraction)
