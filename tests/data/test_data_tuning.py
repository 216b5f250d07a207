"""The tuning split: which images, what its dataset holds, and splits that hold the same images."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_data import Recorder, decoded, image_tree, paint, prepared, write_image

from ablate.data import open_dataset, overlap, prepare, split_digest
from ablate.data.tuning import held_back
from ablate.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Write 10 cats and 6 dogs to train on, and 5 of each to report on, all different."""
    return image_tree(tmp_path, counts=(10, 6, 5, 5))


# ---- which images


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
def test_the_choice_is_that_of_a_loop_and_leaves_every_class_an_image(
    label_of: dict[str, int], part: float
) -> None:
    names, labels = list(label_of), list(label_of.values())
    expected = by_hand(names, labels, part)
    held, all_of = Counter(labels[row] for row in expected), Counter(labels)
    if none_left := [label for label in all_of if held[label] == all_of[label]]:
        with pytest.raises(DataError, match=rf"{len(none_left)} problems? with tuning_part=.*") as caught:
            held_back(names, np.array(labels), "abc", part)
        for label in none_left:
            count = all_of[label]
            line = f"'{'abc'[label]}': {count} of {count} training images would be held back"
            assert line in str(caught.value)
        assert "take a smaller part, or add images" in str(caught.value)
    else:
        rows = held_back(names, np.array(labels), "abc", part)
        assert rows.tolist() == expected
        assert rows.dtype == np.int64


# ---- the dataset


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
        assert isinstance(split.images, np.memmap)
        assert overlap(split, full.valid) == 0
    assert (tuning.mean, tuning.std) == (full.mean, full.std)
    assert (tuning.name, tuning.classes) == (full.name, full.classes)
    assert tuning.fingerprint != full.fingerprint
    again = open_dataset(tuning.folder)
    assert again.fingerprint == tuning.fingerprint
    np.testing.assert_array_equal(again.valid.images, tuning.valid.images)
    noisy = tuning.noisy_train_labels(0.3)  # drawn noise is of the images left
    assert (noisy != tuning.train.labels).sum() == round(0.3 * len(kept))
    assert tuning.fingerprint_with(0.3) != tuning.fingerprint


def test_the_tuning_split_of_digits_never_changes(tmp_path: Path) -> None:
    tuning = prepare("digits", image_size=8, cache_dir=tmp_path, tuning_part=0.2).valid
    assert np.bincount(tuning.labels).tolist() == [12] * 10
    assert hashlib.sha256("\n".join(tuning.names).encode()).hexdigest()[:16] == "7bb67c903dd01894"
    assert split_digest(tuning) == "d95c3eb2335ff606d7669daa4cebfd9074bfaa8b8e53d31ea3096de32d5c3fa7"


def test_what_shares_a_copy_and_what_does_not(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    few, many = (prepared(tree, cache, part) for part in (0.2, 0.4))
    cropped = prepared(tree, cache, 0.2, resize="center_crop")
    progress = Recorder()
    assert len({few.folder, many.folder, cropped.folder}) == 3
    assert len({few.fingerprint, many.fingerprint, cropped.fingerprint}) == 3
    assert set(few.valid.names) < set(many.valid.names)
    assert prepared(tree, cache, 0.2, progress=progress).folder == few.folder
    assert progress.stages() == ["checking decoded images"]
    write_image(tree / few.valid.names[0], seed=77)
    after = prepared(tree, cache, 0.2)
    assert after.valid.names == few.valid.names
    assert split_digest(after.valid) != split_digest(few.valid)


def test_other_pixels_under_the_same_names_sizes_and_times_are_followed(tree: Path, tmp_path: Path) -> None:
    """A full copy made anew from such originals keeps its folder; the old tuning split must not stay."""
    paint(tree, 0)
    full, before = (prepared(tree, tmp_path / "cache", part) for part in (0, 0.3))
    paint(tree, 100)
    (full.folder / "dataset.json").unlink()
    after = prepared(tree, tmp_path / "cache", 0.3)
    assert after.valid.names == before.valid.names
    assert (after.valid.images[..., 0] == before.valid.images[..., 0] + 100).all()


# ---- splits that hold the same images


def copy_images(tree: Path, names: set[str] | None = None, other_label: bool = False) -> None:
    """Copy training images, all of them or some, into the reported split."""
    for path in sorted((tree / "train").rglob("*.png")):
        label = path.parent.name
        if names is None or f"train/{label}/{path.name}" in names:
            target = {"cat": "dog", "dog": "cat"}[label] if other_label else label
            (tree / "val" / target / f"copy of {label} {path.name}").write_bytes(path.read_bytes())


def test_a_tuning_split_that_is_the_reported_split_is_refused(tree: Path, tmp_path: Path) -> None:
    before = prepared(tree, tmp_path / "cache", 0.3)
    copy_images(tree, set(before.valid.names))
    for path in (tree / "val").rglob("[0-9].png"):
        path.unlink()
    full = prepared(tree, tmp_path / "cache", 0)
    assert split_digest(before.valid) == split_digest(full.valid)
    message = (
        r"each of its 5 images is, .* among the 5 reported ones.* Take out of train those that are in val"
    )
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            prepared(tree, tmp_path / "cache", 0.3)
    assert len(decoded(tmp_path / "cache")) == 3  # two full ones and the tuning split of before


@pytest.mark.parametrize("other_label", [False, True])
def test_train_and_val_of_the_same_images_are_refused(tree: Path, tmp_path: Path, other_label: bool) -> None:
    copy_images(tree, other_label=other_label)
    for part in (0.1, 0.5):
        with pytest.raises(DataError, match="Do train and val hold the same images"):
            prepared(tree, tmp_path / "cache", part)


def test_some_images_in_common_are_counted_and_not_refused(tree: Path, tmp_path: Path) -> None:
    *others, last = prepared(tree, tmp_path / "cache", 0.3).valid.names
    copy_images(tree, set(others))
    full, tuning = (prepared(tree, tmp_path / "cache", part) for part in (0, 0.3))
    assert last in tuning.valid.names
    assert overlap(tuning.valid, full.valid) == 4 == len(tuning.valid) - 1
