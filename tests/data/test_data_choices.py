"""What the names' hashes choose: wrong labels (lists are tested with Imagenette), and the tuning split."""

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from small_data import Recorder, decoded, image_tree, paint, prepared, refused

from ablate.data import Dataset, open_dataset, overlap, prepare, split_digest
from ablate.data.dataset import array_digest, symmetric_noise
from ablate.data.tuning import held_back

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


def test_noise_of_a_dataset_is_of_a_fraction_and_leaves_everything_else_alone(digits: Dataset) -> None:
    truth = digits.train.labels.copy()
    noisy, again = digits.noisy_train_labels(0.3), open_dataset(digits.folder)
    assert (noisy != truth).sum() == 180
    np.testing.assert_array_equal(again.noisy_train_labels(np.float64(0.3)), noisy)
    for fraction in (0, 0.3):
        digits.noisy_train_labels(fraction)[:] = 0  # a caller's own copy
    np.testing.assert_array_equal(digits.train.labels, truth)
    np.testing.assert_array_equal(digits.noisy_train_labels(0), truth)
    assert digits.fingerprint_with(0) == digits.fingerprint == again.fingerprint
    assert len({digits.fingerprint_with(fraction) for fraction in (0, 0.3, 0.5)}) == 3
    never_changes = "3710d487e5cec3c1bb86abefab09b8f6801f45f68600e472540c621efd4b8897"
    assert array_digest(digits.noisy_train_labels(0.2)) == never_changes
    for refusable in (-0.1, 1, 1.0, 2, np.nan, np.inf, True, False, "0.1", None):
        message = refused(digits.noisy_train_labels, refusable)
        assert message.startswith("label_noise of digits: expected 0 up to, and not including, 1 (")


# ---- the tuning split


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Write 10 cats and 6 dogs to train on, and 5 of each to report on, all different."""
    return image_tree(tmp_path, counts=(10, 6, 5, 5))


def by_hand(names: list[str], labels: list[int], part: float) -> list[int]:
    """Take the smallest hash of a class out again and again."""
    chosen: list[int] = []
    for label in set(labels):
        rows = [row for row in range(len(names)) if labels[row] == label]
        for _ in range(max(1, round(part * len(rows)))):
            salted = {row: b"tuning split 1\n" + os.fsencode(names[row]) for row in rows}
            smallest = min(rows, key=lambda row: hashlib.sha256(salted[row]).hexdigest())
            rows.remove(smallest)
            chosen.append(smallest)
    return sorted(chosen)


@given(st.dictionaries(st.text(max_size=6), st.integers(0, 2), min_size=1, max_size=40), st.floats(0.001, 1))
@example({f"train/{'äbc'[n % 3]}/{n}\udcff.JPEG": n % 3 for n in range(70)}, 0.125)
@example({**{f"{n}.png": 0 for n in range(4)}, **{f"{n}.jpg": 1 for n in range(20)}}, 0.75)
def test_the_choice_is_a_loops_and_leaves_every_class_an_image(label_of: dict[str, int], part: float) -> None:
    names, labels = list(label_of), list(label_of.values())
    expected = by_hand(names, labels, part)
    held, all_of = Counter(labels[row] for row in expected), Counter(labels)
    arguments = names, np.array(labels), "abc", part
    if none_left := [label for label in all_of if held[label] == all_of[label]]:
        message = refused(held_back, *arguments)
        assert message.startswith(f"{len(none_left)} problem")
        for label in none_left:
            count = all_of[label]
            assert f"'{'abc'[label]}': {count} of {count} training images would be held back" in message
        assert "take a smaller part, or add images" in message
    else:
        assert held_back(*arguments) == expected


@pytest.mark.parametrize("name", ["digits", "synthetic", "folder"])
def test_training_images_are_split_and_nothing_else(name: str, tree: Path, tmp_path: Path) -> None:
    name = f"folder:{tree}" if name == "folder" else name
    full, tuning = (prepare(name, image_size=8, cache_dir=tmp_path, tuning_part=part) for part in (0, 0.3))
    held = by_hand(list(full.train.names), full.train.labels.tolist(), 0.3)
    kept = [row for row in range(len(full.train)) if row not in held]
    for split, rows in ((tuning.train, kept), (tuning.valid, held)):
        assert split.names == tuple(full.train.names[row] for row in rows)
        assert split.labels.tolist() == [full.train.labels[row] for row in rows]
        np.testing.assert_array_equal(split.images, full.train.images[rows])
        assert overlap(split, full.valid) == 0
    for field in ("mean", "std", "name", "classes"):
        assert getattr(tuning, field) == getattr(full, field)
    assert open_dataset(tuning.folder).fingerprint == tuning.fingerprint != full.fingerprint
    noisy = tuning.noisy_train_labels(0.3)  # drawn noise is of the images left
    assert (noisy != tuning.train.labels).sum() == round(0.3 * len(kept))
    if name == "digits":
        never_changes = "d95c3eb2335ff606d7669daa4cebfd9074bfaa8b8e53d31ea3096de32d5c3fa7"
        fifth = prepare(name, image_size=8, cache_dir=tmp_path, tuning_part=0.2).valid
        assert split_digest(fifth) == never_changes


def test_a_part_has_a_copy_that_follows_the_pixels(tree: Path, tmp_path: Path) -> None:
    """A full copy made anew from other pixels under the same names, sizes and times keeps its folder."""
    paint(tree, 0)
    cache, progress = tmp_path / "cache", Recorder()
    full, before, more = (prepared(tree, cache, part) for part in (0, 0.2, 0.4))
    assert len({full.folder, before.folder, more.folder}) == 3
    assert set(before.valid.names) < set(more.valid.names)
    assert prepared(tree, cache, 0.2, progress=progress).folder == before.folder
    assert progress.stages() == ["checking decoded images"]
    paint(tree, 100)
    (full.folder / "dataset.json").unlink()
    after = prepared(tree, cache, 0.2)
    assert after.valid.names == before.valid.names
    assert (after.valid.images[..., 0] == before.valid.images[..., 0] + 100).all()


@pytest.mark.parametrize("other_label", [False, True])
def test_reported_images_in_the_tuning_split(tree: Path, tmp_path: Path, other_label: bool) -> None:
    held = prepared(tree, tmp_path / "cache", 0.3).valid.names
    for number, name in enumerate(held):
        assert overlap(*(prepared(tree, tmp_path / "cache", part).valid for part in (0.3, 0))) == number
        label = Path(name).parent.name
        target = {"cat": "dog", "dog": "cat"}[label] if other_label else label
        (tree / "val" / target / f"copy {number}.png").write_bytes((tree / name).read_bytes())
    before = len(decoded(tmp_path / "cache"))
    for _ in range(2):
        message = refused(prepared, tree, tmp_path / "cache", 0.3)
        assert "each of its 5 images is, pixel by pixel, among the 15 reported ones" in message
    assert len(decoded(tmp_path / "cache")) == before + 1  # the full one
