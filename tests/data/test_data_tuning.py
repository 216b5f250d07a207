import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

import ablate
from ablate.data import Dataset, Split, open_dataset, overlap, prepare, split_digest
from ablate.data.cache import materialise
from ablate.data.dataset import ARRAYS
from ablate.data.noise import ListedNoise
from ablate.data.source import Contents, Part, Request, Source
from ablate.data.tuning import held_back
from ablate.errors import DataError

ImageTree = Callable[..., Path]
NAMES = st.lists(st.text(max_size=6), min_size=4, max_size=40, unique=True)
PARTS = st.floats(0.001, 0.5)


@pytest.fixture
def tree(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Write 10 cats and 6 dogs to train on, and 5 of each to report on, all different."""
    root = tmp_path / "photos"
    for number, (split, count) in enumerate(
        [("train/cat", 10), ("train/dog", 6), ("val/cat", 5), ("val/dog", 5)]
    ):
        for index in range(count):
            write_image(root / split / f"{index}.png", seed=100 * number + index)
    return root


def prepared(root: Path, cache: Path, part: float, **options: Any) -> Dataset:
    return prepare(f"folder:{root}", image_size=8, cache_dir=cache, tuning_part=part, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def decoded(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "decoded").iterdir() if path.is_dir())


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


def two_classes(names: list[str]) -> np.ndarray:
    return np.arange(len(names), dtype=np.int64) % 2


def choose(names: list[str], labels: np.ndarray, part: float) -> set[str]:
    return {names[row] for row in held_back(names, labels, ("cat", "dog"), part)}


@pytest.mark.parametrize("part", [0.01, 0.125, 0.2, 0.5, 0.9])
def test_the_choice_is_that_of_a_loop(part: float) -> None:
    names = [f"train/{'äbc'[index % 3]}/{index}.JPEG" for index in range(70)] + ["train/a/\udcff.png"]
    labels = [index % 3 if index < 40 else 2 for index in range(71)]
    rows = held_back(names, np.array(labels), ("a", "b", "c"), part)
    assert rows.tolist() == by_hand(names, labels, part)
    assert rows.dtype == np.int64


@given(NAMES, PARTS)
@settings(max_examples=60, deadline=None)
def test_of_every_class_that_part_is_held_back(names: list[str], part: float) -> None:
    labels = two_classes(names)
    rows = held_back(names, labels, ("cat", "dog"), part)
    assert len(set(rows.tolist())) == len(rows)
    for label in (0, 1):
        n = int((labels == label).sum())
        held = int((labels[rows] == label).sum())
        assert 1 <= held < n
        assert abs(held - part * n) <= max(0.5, 1 - part * n)


@given(NAMES, PARTS, PARTS)
@settings(max_examples=60, deadline=None)
def test_a_larger_part_holds_a_smaller_ones_images(names: list[str], one: float, other: float) -> None:
    few, many = (choose(names, two_classes(names), part) for part in sorted((one, other)))
    assert few <= many


@given(NAMES, PARTS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_images_is_no_matter(names: list[str], part: float, random: Any) -> None:
    order = random.sample(range(len(names)), len(names))
    labels = two_classes(names)
    moved = choose([names[row] for row in order], labels[order], part)
    assert moved == choose(names, labels, part)


def test_images_of_another_class_are_no_matter() -> None:
    names = [f"{index}.png" for index in range(40)]
    labels = two_classes(names)
    of_cats = {name for name in choose(names, labels, 0.3) if int(name[:-4]) % 2 == 0}
    assert of_cats == choose(names[::2], labels[::2], 0.3)


@pytest.mark.parametrize(
    ("cats", "part", "held"), [(4, 0.75, 3), (3, 0.9, 3), (2, 0.75, 2), (1, 0.1, 1), (1, 0.9, 1)]
)
def test_a_class_with_none_left_is_refused(cats: int, part: float, held: int) -> None:
    names = [f"{index}.png" for index in range(cats + 20)]
    labels = np.array([0] * cats + [1] * 20)
    if held < cats:
        assert (labels[held_back(names, labels, ("cat", "dog"), part)] == 0).sum() == held
        return
    with pytest.raises(DataError) as caught:
        held_back(names, labels, ("cat", "dog"), part)
    assert f"1 problem with tuning_part={part}:" in str(caught.value)
    assert f"'cat': {held} of {cats} training images would be held back" in str(caught.value)
    assert "take a smaller part, or add images" in str(caught.value)
    assert "dog" not in str(caught.value)


# ---- the dataset


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_embedded_training_images_are_split_and_nothing_else(name: str, tmp_path: Path) -> None:
    full = prepare(name, image_size=8, cache_dir=tmp_path)
    tuning = prepare(name, image_size=8, cache_dir=tmp_path, tuning_part=0.25)
    check_is_split(full, tuning, 0.25)
    again = prepare(name, image_size=8, cache_dir=tmp_path)
    assert (again.folder, again.fingerprint) == (full.folder, full.fingerprint)


def test_a_folder_of_images_is_split(tree: Path, tmp_path: Path) -> None:
    full, tuning = (prepared(tree, tmp_path / "cache", part) for part in (0, 0.3))
    check_is_split(full, tuning, 0.3)
    assert np.bincount(tuning.valid.labels).tolist() == [3, 2]
    assert np.bincount(tuning.train.labels).tolist() == [7, 4]


def check_is_split(full: Dataset, tuning: Dataset, part: float) -> None:
    """Hold a tuning dataset against the full one, image by image."""
    held = by_hand(list(full.train.names), full.train.labels.tolist(), part)
    kept = [row for row in range(len(full.train)) if row not in held]
    for split, rows in ((tuning.train, kept), (tuning.valid, held)):
        assert split.names == tuple(full.train.names[row] for row in rows)
        assert split.labels.tolist() == [full.train.labels[row] for row in rows]
        for mine, row in zip(split.images, rows, strict=True):
            np.testing.assert_array_equal(mine, full.train.images[row])
        assert isinstance(split.images, np.memmap)
        assert not set(split.names) & set(full.valid.names)
        assert overlap(split, full.valid) == 0
    assert (tuning.mean, tuning.std) == (full.mean, full.std)
    assert (tuning.name, tuning.classes) == (full.name, full.classes)
    assert tuning.fingerprint != full.fingerprint
    assert tuning.folder != full.folder
    again = open_dataset(tuning.folder)
    assert again.fingerprint == tuning.fingerprint
    np.testing.assert_array_equal(again.valid.images, tuning.valid.images)


def test_the_tuning_split_of_digits_never_changes(tmp_path: Path) -> None:
    tuning = prepare("digits", image_size=8, cache_dir=tmp_path, tuning_part=0.2).valid
    assert np.bincount(tuning.labels).tolist() == [12] * 10
    names = "\n".join(tuning.names).encode()
    assert hashlib.sha256(names).hexdigest()[:16] == "7bb67c903dd01894"
    assert split_digest(tuning) == "d95c3eb2335ff606d7669daa4cebfd9074bfaa8b8e53d31ea3096de32d5c3fa7"


def test_the_tuning_split_of_digits_is_from_all_over_its_files(tmp_path: Path) -> None:
    """A choice by the hash that made digits' own splits would take most of it from the last 800 images."""
    full, tuning = (
        prepare("digits", image_size=8, cache_dir=tmp_path, tuning_part=part) for part in (0, 0.2)
    )
    late = sum(int(name[-4:]) >= 1000 for name in tuning.valid.names)
    late_of_all = sum(int(name[-4:]) >= 1000 for name in full.train.names)
    assert stats.hypergeom.cdf(late, 600, late_of_all, 120) > 1e-3
    assert stats.hypergeom.sf(late - 1, 600, late_of_all, 120) > 1e-3


def test_parts_do_not_share_a_copy_and_the_same_part_does(tree: Path, tmp_path: Path, progress: Any) -> None:
    few, many = (prepared(tree, tmp_path / "cache", part) for part in (0.2, 0.4))
    assert few.folder != many.folder
    assert few.fingerprint != many.fingerprint
    assert set(few.valid.names) < set(many.valid.names)
    again = prepared(tree, tmp_path / "cache", 0.2, progress=progress)
    assert again.folder == few.folder
    assert progress.stages() == ["checking decoded images"]


def test_changed_originals_make_another_tuning_split(
    tree: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    before = prepared(tree, tmp_path / "cache", 0.3)
    write_image(tree / before.valid.names[0], seed=77)
    after = prepared(tree, tmp_path / "cache", 0.3)
    assert after.valid.names == before.valid.names
    assert split_digest(after.valid) != split_digest(before.valid)


def test_sizes_and_ways_to_resize_have_their_own(tree: Path, tmp_path: Path) -> None:
    folders = {
        prepare(f"folder:{tree}", image_size=size, cache_dir=tmp_path, resize=resize, tuning_part=0.3).folder
        for size in (4, 8)
        for resize in ("squash", "center_crop")
    }
    assert len(folders) == 4


@pytest.mark.parametrize("part", [1, 1.0, -0.1, 1.5, math.nan, math.inf, True, False, "0.1", None])
def test_what_is_not_a_part_is_refused_before_anything_is_done(tmp_path: Path, part: Any) -> None:
    with pytest.raises(DataError, match=r"expected a tuning_part of 0 .* but .* came"):
        prepare("synthetic", image_size=8, cache_dir=tmp_path / "cache", tuning_part=part)
    assert not (tmp_path / "cache").exists()


def test_too_large_a_part_keeps_nothing(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'dog': 6 of 6 training images would be held back"):
        prepared(tree, tmp_path / "cache", 0.93)
    assert len(decoded(tmp_path / "cache")) == 1  # the full dataset


# ---- noise


def test_drawn_noise_is_of_the_images_left(tmp_path: Path) -> None:
    tuning = prepare("digits", image_size=8, cache_dir=tmp_path, tuning_part=0.25)
    noisy = tuning.noisy_train_labels(0.3)
    assert (noisy != tuning.train.labels).sum() == round(0.3 * 450)
    np.testing.assert_array_equal(open_dataset(tuning.folder).noisy_train_labels(0.3), noisy)
    assert tuning.fingerprint_with(0.3) != tuning.fingerprint == tuning.fingerprint_with(0)


def listed(request: Request, noise: ListedNoise) -> Source:
    """Return `synthetic` as a dataset that brings a list of wrong labels."""

    def read() -> Contents:
        def part(seed: int) -> Part:
            def write(out: np.ndarray) -> list[str]:
                out[:] = np.random.default_rng(seed).integers(0, 256, out.shape, dtype=np.uint8)
                return []

            return Part(
                tuple(f"{seed}/{row}.png" for row in range(30)), tuple(row % 3 for row in range(30)), write
            )

        return Contents(("a", "b", "c"), part(1), part(2), None, "", noise)

    return Source("listed", "listed", noise.to_json(), read)


def tuned(request: Request, noise: ListedNoise, part: float) -> tuple[Dataset, Dataset]:
    from ablate.data.tuning import tuning_source

    source = listed(request, noise)
    full = materialise(source, request)
    return full, materialise(tuning_source(full, source, part, request.progress), request)


def test_a_list_of_wrong_labels_is_that_of_the_images_left(make_request: Callable[..., Request]) -> None:
    rng = np.random.default_rng(3)
    noise = ListedNoise({f: rng.integers(0, 3, 30).tolist() for f in (0.01, 0.05, 0.25, 0.5)})
    full, tuning = tuned(make_request(), noise, 0.3)
    for fraction in (0.0, 0.01, 0.05, 0.25, 0.5):
        of_full = dict(zip(full.train.names, full.noisy_train_labels(fraction), strict=True))
        for dataset in (tuning, open_dataset(tuning.folder)):
            noisy = dataset.noisy_train_labels(fraction)
            assert noisy.tolist() == [of_full[name] for name in tuning.train.names]
    assert tuning.valid.labels.tolist() == [int(name.split("/")[1][:-4]) % 3 for name in tuning.valid.names]
    with pytest.raises(DataError, match=r"0, 0\.01, 0\.05, 0\.25 or 0\.5"):
        tuning.noisy_train_labels(0.1)


def test_a_missing_list_is_still_missed(make_request: Callable[..., Request]) -> None:
    _, tuning = tuned(make_request(), ListedNoise({}, "put the list there"), 0.3)
    assert tuning.noisy_train_labels(0).tolist() == tuning.train.labels.tolist()
    with pytest.raises(DataError, match="put the list there"):
        tuning.noisy_train_labels(0.5)


# ---- splits that hold the same images


def copy_images(tree: Path, wanted: Callable[[str], bool], other_label: bool = False) -> None:
    """Copy training images into the reported split."""
    for path in sorted((tree / "train").rglob("*.png")):
        label = path.parent.name
        if wanted(f"train/{label}/{path.name}"):
            target = {"cat": "dog", "dog": "cat"}[label] if other_label else label
            (tree / "val" / target / f"copy of {label} {path.name}").write_bytes(path.read_bytes())


def only_copies(tree: Path) -> None:
    for path in (tree / "val").rglob("[0-9].png"):
        path.unlink()


def test_a_tuning_split_that_is_the_reported_split_is_refused(tree: Path, tmp_path: Path) -> None:
    held = set(prepared(tree, tmp_path / "cache", 0.3).valid.names)
    copy_images(tree, held.__contains__)
    only_copies(tree)
    full = prepared(tree, tmp_path / "cache", 0)
    names, labels = list(full.train.names), full.train.labels
    rows = held_back(names, labels, full.classes, 0.3)
    chosen = Split(full.train.images[rows], labels[rows], tuple(names[row] for row in rows))
    assert split_digest(chosen) == split_digest(full.valid)
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"each of its 5 images is, .* among the 5 reported ones"
        ) as caught:
            prepared(tree, tmp_path / "cache", 0.3)
        assert "Take out of train those that are in val" in str(caught.value)
    assert full.folder in decoded(tmp_path / "cache")
    assert len(decoded(tmp_path / "cache")) == 3  # the tuning split of before, and no other


@pytest.mark.parametrize("other_label", [False, True])
def test_train_and_val_of_the_same_images_are_refused(tree: Path, tmp_path: Path, other_label: bool) -> None:
    copy_images(tree, lambda name: True, other_label)
    for part in (0.1, 0.5):
        with pytest.raises(DataError, match="Do train and val hold the same images"):
            prepared(tree, tmp_path / "cache", part)


def test_some_images_in_common_are_counted_and_not_refused(tree: Path, tmp_path: Path) -> None:
    *others, last = prepared(tree, tmp_path / "cache", 0.3).valid.names
    copy_images(tree, set(others).__contains__)
    full, tuning = (prepared(tree, tmp_path / "cache", part) for part in (0, 0.3))
    assert last in tuning.valid.names
    assert overlap(tuning.valid, full.valid) == 4 == len(tuning.valid) - 1
    assert split_digest(tuning.valid) != split_digest(full.valid)


# ---- damage, kills, races


def test_other_pixels_under_the_same_names_sizes_and_times_are_followed(tree: Path, tmp_path: Path) -> None:
    """A full copy made anew from such originals keeps its folder; the old tuning split must not stay."""

    def write_levels(base: int) -> None:
        for number, path in enumerate(sorted(tree.rglob("?.*"))):
            path.unlink()
            Image.new("RGB", (8, 8), (base + number, 0, 0)).save(path.with_suffix(".bmp"))
            os.utime(path.with_suffix(".bmp"), ns=(0, 0))

    write_levels(0)
    full, before = (prepared(tree, tmp_path / "cache", part) for part in (0, 0.3))
    write_levels(100)
    (full.folder / "dataset.json").unlink()
    after = prepared(tree, tmp_path / "cache", 0.3)
    assert after.valid.names == before.valid.names
    assert (after.valid.images[..., 0] == before.valid.images[..., 0] + 100).all()


@pytest.mark.parametrize("name", [*(f"{array}.npy" for array in ARRAYS), "dataset.json"])
def test_a_damaged_copy_is_made_anew(tree: Path, tmp_path: Path, progress: Any, name: str) -> None:
    first = prepared(tree, tmp_path / "cache", 0.3)
    before = contents(first.folder)
    damaged = bytearray(before[name])
    damaged[-1] ^= 1
    (first.folder / name).write_bytes(damaged)
    second = prepared(tree, tmp_path / "cache", 0.3, progress=progress)
    assert any("damaged" in stage for stage in progress.stages())
    assert "copying the tuning split" in progress.stages()
    assert "decoding train images" not in progress.stages()
    assert second.fingerprint == first.fingerprint
    assert contents(second.folder) == before


def test_a_damaged_full_copy_is_mended_first(tree: Path, tmp_path: Path, progress: Any) -> None:
    full, first = (prepared(tree, tmp_path / "cache", part) for part in (0, 0.3))
    before = contents(full.folder)
    (full.folder / "train_images.npy").write_bytes(b"")
    second = prepared(tree, tmp_path / "cache", 0.3, progress=progress)
    assert "decoding train images" in progress.stages()
    assert (second.folder, second.fingerprint) == (first.folder, first.fingerprint)
    assert contents(full.folder) == before


CODE = """
import os, signal, sys, time
from pathlib import Path
from ablate.data import prepare
waiting, mode = Path(sys.argv[3]), sys.argv[4]
stages = []
def progress(stage, done, total):
    stages.append(stage)
    if "waiting" in stage:
        waiting.touch()
    if "copying the tuning split" in stage:
        if mode == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        deadline = time.monotonic() + 30  # hold the lock until the other process is seen to wait for it
        while not waiting.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
dataset = prepare(
    "folder:" + sys.argv[1], image_size=8, cache_dir=Path(sys.argv[2]), progress=progress, tuning_part=0.3
)
print(dataset.fingerprint, stages.count("copying the tuning split"))
"""


def python(*arguments: object) -> "subprocess.Popen[str]":
    """Start a fresh interpreter that prepares a tuning split."""
    environment = os.environ | {"PYTHONPATH": str(Path(ablate.__file__).parents[1])}
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_at_once_make_one_copy(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prepared(tree, cache, 0)  # so that the two meet at the tuning split
    racers = [python(tree, cache, tmp_path / "waiting", "race") for _ in range(2)]
    results = [racer.communicate() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], results
    lines = sorted(out.split()[::-1] for out, _ in results)
    assert [line[0] for line in lines] == ["0", "1"]
    assert lines[0][1] == lines[1][1]
    assert len(decoded(cache)) == 2


def test_a_killed_copy_is_never_taken_for_whole(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    killed = python(tree, cache, tmp_path / "waiting", "die")
    killed.communicate()
    assert killed.returncode == -9
    assert sorted(path.suffix for path in decoded(cache)) == ["", ".tmp"]
    dataset = prepared(tree, cache, 0.3)
    assert dataset.fingerprint == prepared(tree, tmp_path / "fresh", 0.3).fingerprint
    assert [path.suffix for path in decoded(cache)] == ["", ""]


# ---- the real images


@pytest.mark.imagenette
def test_real_tuning_split(imagenette_dir: Path, tmp_path: Path) -> None:
    full, tuning = (
        prepare(
            "imagenette-160", image_size=16, cache_dir=tmp_path, data_dir=imagenette_dir, tuning_part=part
        )
        for part in (0, 0.125)
    )
    assert np.bincount(tuning.valid.labels).tolist() == [
        round(0.125 * int(count)) for count in np.bincount(full.train.labels)
    ]
    assert overlap(tuning.valid, full.valid) == overlap(tuning.train, full.valid) == 0
    for fraction in (0.01, 0.05, 0.25, 0.5):
        of_full = dict(zip(full.train.names, full.noisy_train_labels(fraction), strict=True))
        noisy = tuning.noisy_train_labels(fraction)
        assert noisy.tolist() == [of_full[name] for name in tuning.train.names]
        assert abs((noisy != tuning.train.labels).mean() - fraction) < 0.01
