"""The tuning split: which images, what its dataset holds, and splits that hold the same images."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_data import Recorder, decoded, image_tree, paint, prepared, refused, write_image

from ablate.data import open_dataset, overlap, prepare, split_digest
from ablate.data.tuning import held_back


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
def test_the_choice_is_that_of_a_loop_and_leaves_every_class_an_image(
    label_of: dict[str, int], part: float
) -> None:
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
    assert (tuning.mean, tuning.std) == (full.mean, full.std)
    assert (tuning.name, tuning.classes) == (full.name, full.classes)
    assert open_dataset(tuning.folder).fingerprint == tuning.fingerprint != full.fingerprint
    noisy = tuning.noisy_train_labels(0.3)  # drawn noise is of the images left
    assert (noisy != tuning.train.labels).sum() == round(0.3 * len(kept))
    if name == "digits":
        never_changes = "d95c3eb2335ff606d7669daa4cebfd9074bfaa8b8e53d31ea3096de32d5c3fa7"
        fifth = prepare(name, image_size=8, cache_dir=tmp_path, tuning_part=0.2).valid
        assert split_digest(fifth) == never_changes


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


@pytest.mark.parametrize("other_label", [False, True])
def test_reported_images_are_counted_in_the_tuning_split_and_all_of_them_are_refused(
    tree: Path, tmp_path: Path, other_label: bool
) -> None:
    held = prepared(tree, tmp_path / "cache", 0.3).valid.names
    for number, name in enumerate(held, 1):
        label = Path(name).parent.name
        target = {"cat": "dog", "dog": "cat"}[label] if other_label else label
        (tree / "val" / target / f"copy {number}.png").write_bytes((tree / name).read_bytes())
        if number < len(held):
            full, tuning = (prepared(tree, tmp_path / "cache", part) for part in (0, 0.3))
            assert overlap(tuning.valid, full.valid) == number
    before = len(decoded(tmp_path / "cache"))
    for _ in range(2):
        message = refused(prepared, tree, tmp_path / "cache", 0.3)
        assert "each of its 5 images is, pixel by pixel, among the 15 reported ones" in message
        assert "Do train and val hold the same images? Take out of train those that are in val" in message
    assert len(decoded(tmp_path / "cache")) == before + 1  # the full one
