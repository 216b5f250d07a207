"""Decode once: what is kept, its identity, damage, races, full disks; wrong labels; the tuning split."""

import contextlib
import hashlib
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import stats
from small_data import (
    Recorder,
    decoded,
    image_tree,
    make_request,
    paint,
    prepared,
    refused,
    squashed,
    start_python,
)

from ablate.data import Dataset, Split, open_dataset, overlap, prepare, split_digest
from ablate.data.cache import materialise
from ablate.data.dataset import ARRAYS, array_digest, normalisation, symmetric_noise
from ablate.data.source import Contents, Part, Source
from ablate.data.tuning import held_back
from ablate.errors import DataError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_dataset_holds_what_the_files_do_and_opens_without_them(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    dataset = prepared(root, tmp_path / "cache")
    names = [f"train/{name}.png" for name in ("cat/0", "cat/1", "cat/2", "dog/0", "dog/1")]
    assert (dataset.classes, dataset.train.names) == (("cat", "dog"), tuple(names))
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.valid.labels.tolist() == [0, 0, 1, 1, 1]
    for split in (dataset.train, dataset.valid):
        np.testing.assert_array_equal(split.images, [squashed(root / name) for name in split.names])
    root.rename(tmp_path / "gone")
    again = open_dataset(dataset.folder)
    for field in ("name", "folder", "classes", "mean", "std", "fingerprint"):
        assert getattr(again, field) == getattr(dataset, field)
    for ours, theirs in ((again.train, dataset.train), (again.valid, dataset.valid)):
        np.testing.assert_equal(vars(ours), vars(theirs))
    before = contents(dataset.folder)
    for array in (dataset.train.images, dataset.train.labels):
        torch.from_numpy(array).fill_(7)  # a warning about a read-only array would be an error here
        assert isinstance(array, np.memmap)
        array.flush()
        assert (array == 7).all()
    assert contents(dataset.folder) == before  # a write stays in memory


def test_fingerprint_follows_pixels_and_labels_and_no_names(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    before = prepared(root, tmp_path / "cache")
    renamed = image_tree(tmp_path, "else/where", prefix="x ", classes=("kitten", "puppy"))
    assert prepared(renamed, tmp_path / "cache").fingerprint == before.fingerprint
    (root / "train/cat/2.png").rename(root / "train/dog/-2.png")  # sorts first: the pixels keep their order
    relabelled = prepared(root, tmp_path / "cache")
    np.testing.assert_array_equal(relabelled.train.images, before.train.images)
    assert relabelled.train.labels.tolist() == [0, 0, 1, 1, 1]
    pixels = np.array(Image.open(root / "val/dog/2.png"))
    pixels[7:9, 9:12, 1] ^= 128
    Image.fromarray(pixels).save(root / "val/dog/2.png")
    forms: list[dict[str, Any]] = [{}, {"image_size": 4}, {"resize": "center_crop"}]
    others = [prepared(root, tmp_path / "cache", **options) for options in forms]
    assert len({dataset.fingerprint for dataset in (before, relabelled, *others)}) == 5
    assert len({dataset.folder for dataset in others}) == 3


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 600), st.just(1), st.integers(1, 3), st.just(3))))
def test_normalisation_agrees_with_numpy(images: np.ndarray) -> None:
    mean, std = normalisation(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), atol=1e-12)
    varies = images.min((0, 1, 2)) != images.max((0, 1, 2))
    np.testing.assert_allclose(std, np.where(varies, scaled.std((0, 1, 2)), 1.0), atol=1e-9)


def split(levels: list[int], labels: list[int]) -> Split:
    """Write down a split of 2×2 pixels, one image of each level."""
    images = np.array(levels, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    return Split(images, np.array(labels, np.int64), tuple(f"{row}.png" for row in range(len(levels))))


PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=10)


@given(PAIRS, PAIRS, st.randoms(use_true_random=False))
def test_digest_and_overlap(one: list[tuple[int, int]], other: list[tuple[int, int]], random: Any) -> None:
    orders = (one, other, random.sample(one, len(one)))
    a, b, moved = (split(*map(list, zip(*pairs, strict=True))) for pairs in orders)
    assert split_digest(moved) == split_digest(a)
    assert (split_digest(a) == split_digest(b)) == (sorted(one) == sorted(other))
    assert overlap(a, b) == sum(any((mine == theirs).all() for theirs in b.images) for mine in a.images)
    assert overlap(a, replace(b, images=b.images + np.eye(2, dtype=np.uint8)[..., None])) == 0  # some pixels


def test_a_hit_does_not_decode_again(tmp_path: Path) -> None:
    progress = Recorder()
    root = image_tree(tmp_path)
    first = prepared(root, tmp_path / "cache")
    path = root / "train" / "cat" / "0.png"
    status = path.stat()
    assert prepared(root, tmp_path / "cache", progress=progress).fingerprint == first.fingerprint
    assert progress.stages() == ["checking decoded images"]
    time.sleep(0.02)  # of which the clock of some file systems takes no notice
    path.write_bytes(b"\0" * status.st_size)  # as large and, by what may be set, as old
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "not an image" in refused(prepared, root, tmp_path / "cache")
    assert decoded(tmp_path / "cache") == [first.folder]  # nothing is left of the decode that failed
    # Equal names, sizes and times elsewhere are other data.
    for name, level in (("one", 10), ("other", 200)):
        paint(root := image_tree(tmp_path, name), level)
        assert prepared(root, tmp_path / "cache").train.images[0, 0, 0, 0] == level


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_files_cut_missing_or_with_a_flipped_bit_are_found_and_mended(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    dataset = prepared(root, tmp_path / "cache")
    folder, before = dataset.folder, contents(dataset.folder)
    assert before.keys() == {*(f"{array}.npy" for array in ARRAYS), "dataset.json"}
    for name, content in before.items():
        (folder / name).write_bytes(content[:-1])
        assert name in refused(open_dataset, folder)
        (folder / name).unlink()
        message = refused(open_dataset, folder)
        assert "expected the decoded images" in message
        assert "Run the study again" in message
        (folder / name).write_bytes(content)
        flip(folder / name, -20)  # of the description that is a digit of its digest
        progress = Recorder()
        assert prepared(root, tmp_path / "cache", progress=progress).fingerprint == dataset.fingerprint
        assert any("damaged" in stage for stage in progress.stages())
        assert contents(folder) == before
        assert decoded(tmp_path / "cache") == [folder]
    for position in range(128):  # any byte of a header is an error or harmless
        flip(folder / "train_images.npy", position)
        with contextlib.suppress(DataError):
            np.testing.assert_array_equal(open_dataset(folder).train.images, dataset.train.images)
        flip(folder / "train_images.npy", position)


CODE = """
import os, resource, signal, sys, time
from pathlib import Path
from ablate.data import prepare
from ablate.errors import DataError
root, cache, size, part, fate, work = sys.argv[1:]
waiting = Path(cache, "waiting")
stages = []
def progress(stage, done, total):
    stages.append(stage)
    if "waiting" in stage:
        waiting.touch()
    if stage == work and fate == "killed" and done > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if stage == work and fate == "race":  # hold the lock until the other process is seen to wait for it
        deadline = time.monotonic() + 30
        while not waiting.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
if fate == "full disk":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
options = {"cache_dir": Path(cache), "tuning_part": float(part), "progress": progress}
try:
    dataset = prepare("folder:" + root, image_size=int(size), **options)
    print(dataset.fingerprint, work in stages, any("waiting" in stage for stage in stages))
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("work", ["decoding train images", "decoding valid images", "hashing decoded images"])
def test_a_killed_decode_is_never_taken_for_whole(tmp_path: Path, work: str) -> None:
    root, cache = image_tree(tmp_path), tmp_path / "cache"
    process = start_python(CODE, root, cache, 8, 0, "killed", work)
    process.communicate()
    assert process.returncode == -9
    assert [path.suffix for path in decoded(cache)] == [".tmp"]
    dead, written = (cache / f"decoded/folder-4-{name}.0.tmp" for name in ("aaaa", "bbbb"))
    dead.mkdir()
    written.mkdir()
    with filelock.FileLock(cache / "decoded/folder-4-bbbb.lock"):
        dataset = prepared(root, cache)
    assert dataset.fingerprint == prepared(root, tmp_path / "fresh").fingerprint
    assert set(decoded(cache)) == {dataset.folder, written}


@pytest.mark.parametrize("part", [0, 0.4])
def test_two_processes_at_once_decode_once(tmp_path: Path, part: float) -> None:
    root, cache = image_tree(tmp_path), tmp_path / "cache"
    if part:
        prepared(root, cache)  # so that the two meet at the tuning split
    arguments = (root, cache, 8, part, "race", "decoding train images")
    results = [racer.communicate() for racer in [start_python(CODE, *arguments) for _ in range(2)]]
    lines = sorted((out.split() for out, _ in results), key=lambda line: line[1:])
    assert [line[1:] for line in lines] == [["False", "True"], ["True", "False"]], results
    assert lines[0][0] == lines[1][0]


def test_no_room_or_no_folder_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    root, cache = image_tree(tmp_path), tmp_path / "cache"
    out, err = start_python(CODE, root, cache, 512, 0, "full disk", "").communicate()
    assert "ABLATE_CACHE" in out, err
    assert "File too large" in out
    assert decoded(cache) == []
    (tmp_path / "file").touch()
    assert "ABLATE_CACHE" in refused(prepared, root, tmp_path / "file" / "cache")


def test_room_is_claimed_before_anything_is_decoded(tmp_path: Path) -> None:
    """A page of a memory map that finds no room on the disk would end the process by a signal."""

    class Watching(list[Path]):
        def __getitem__(self, row: Any) -> Any:
            (written,) = (tmp_path / "cache").rglob("train_images.npy")
            raise OSError(f"{written.stat().st_blocks * 512 >= written.stat().st_size > 2 * 64**2 * 3}")

    part = Part(("a", "b"), (0, 1), Watching([tmp_path, tmp_path]))
    source = Source("x", "x", 1, lambda: Contents(("a", "b"), part, part))
    with pytest.raises(DataError, match="True"):
        materialise(source, make_request(tmp_path, 64))


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
            assert f"'{'abc'[label]}': all {count} training images would be held back" in message
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


def test_reported_images_in_the_tuning_split(tree: Path, tmp_path: Path) -> None:
    held = prepared(tree, tmp_path / "cache", 0.3).valid.names
    for number, name in enumerate(held):
        assert overlap(*(prepared(tree, tmp_path / "cache", part).valid for part in (0.3, 0))) == number
        target = {"cat": "dog", "dog": "cat"}[Path(name).parent.name]  # whatever their labels
        (tree / "val" / target / f"copy {number}.png").write_bytes((tree / name).read_bytes())
    before = len(decoded(tmp_path / "cache"))
    for _ in range(2):
        message = refused(prepared, tree, tmp_path / "cache", 0.3)
        assert "each of its 5 images is, pixel by pixel, among the 15 reported ones" in message
    assert len(decoded(tmp_path / "cache")) == before + 1  # the full one
