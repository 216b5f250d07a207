"""Decode once: what is kept, its identity, and damage, kills, races and full disks."""

import contextlib
import hashlib
import json
import os
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
from small_data import Recorder, decoded, image_tree, make_request, paint, prepared, squashed, start_python

from ablate.data import Split, open_dataset, overlap, split_digest
from ablate.data.cache import materialise
from ablate.data.dataset import (
    ARRAYS,
    array_digest,
    fingerprint,
    normalisation,
    read_description,
    write_description,
)
from ablate.data.source import Contents, Part, Source
from ablate.errors import DataError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- what prepare returns


def test_a_dataset_holds_what_the_files_do_and_opens_without_them(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    dataset = prepared(root, tmp_path / "cache")
    assert dataset.classes == ("cat", "dog")
    names = [f"train/{name}.png" for name in ("cat/0", "cat/1", "cat/2", "dog/0", "dog/1")]
    assert dataset.train.names == tuple(names)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.valid.labels.tolist() == [0, 0, 1, 1, 1]
    for split in (dataset.train, dataset.valid):
        assert split.images.shape == (len(split), 8, 8, 3)
        for name, pixels in zip(split.names, split.images, strict=True):
            np.testing.assert_array_equal(pixels, squashed(root / name))
    scaled = np.asarray(dataset.train.images, np.float64) / 255
    np.testing.assert_allclose((dataset.mean, dataset.std), (scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))))
    root.rename(tmp_path / "gone")
    again = open_dataset(dataset.folder)
    for field in ("name", "folder", "classes", "mean", "std", "fingerprint"):
        assert getattr(again, field) == getattr(dataset, field)
    for ours, theirs in ((again.train, dataset.train), (again.valid, dataset.valid)):
        assert ours.names == theirs.names
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_torch_takes_the_maps_and_a_write_stays_in_memory(tmp_path: Path) -> None:
    dataset = prepared(image_tree(tmp_path), tmp_path / "cache")
    before = contents(dataset.folder)
    for array in (dataset.train.images, dataset.train.labels):
        assert isinstance(array, np.memmap)
        torch.from_numpy(array).fill_(7)  # a warning about a read-only array would be an error here
        array.flush()
        assert (array == 7).all()
    assert contents(dataset.folder) == before


# ---- identity

FORMS: list[dict[str, Any]] = [{}, {"image_size": 4}, {"resize": "center_crop"}]


def test_fingerprint_follows_pixels_and_labels_and_no_names(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    before = prepared(root, tmp_path / "cache")
    renamed = image_tree(tmp_path, "else/where", prefix="x ", classes=("kitten", "puppy"))
    assert prepared(renamed, tmp_path / "cache").fingerprint == before.fingerprint
    (root / "train/cat/2.png").rename(root / "train/dog/.2.png")  # sorts first: the pixels keep their order
    relabelled = prepared(root, tmp_path / "cache")
    np.testing.assert_array_equal(relabelled.train.images, before.train.images)
    assert relabelled.train.labels.tolist() == [0, 0, 1, 1, 1]
    pixels = np.array(Image.open(root / "val/dog/2.png"))
    pixels[7:9, 9:12, 1] ^= 128
    Image.fromarray(pixels).save(root / "val/dog/2.png")
    others = [prepared(root, tmp_path / "cache", **options) for options in FORMS]
    assert len({dataset.fingerprint for dataset in (before, relabelled, *others)}) == 2 + len(FORMS)
    assert len({dataset.folder for dataset in others}) == len(FORMS)


def test_fingerprint_depends_on_every_part() -> None:
    digests = dict.fromkeys(ARRAYS, "0")
    half = (0.5, 0.5, 0.5)
    base = fingerprint(digests, 3, half, half)
    assert base == fingerprint(dict(reversed(digests.items())), 3, half, half)
    others = [fingerprint(digests | {name: "1"}, 3, half, half) for name in ARRAYS]
    others += [fingerprint(digests, 4, half, half), fingerprint(digests, 3, (0.5, 0.5, 0.4), half)]
    others += [fingerprint(digests, 3, half, (0.5, 0.5, 0.4))]
    assert len({base, *others}) == len(others) + 1


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)))
@example(np.arange(5_000_001, dtype=np.int64))  # 40 MB, more than one block and not a multiple of it
def test_array_digest_is_sha256_of_header_and_bytes(array: np.ndarray) -> None:
    header = json.dumps([array.dtype.str, list(array.shape)], separators=(",", ":")).encode()
    assert array_digest(array) == hashlib.sha256(header + array.tobytes()).hexdigest()


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 600), st.just(1), st.integers(1, 3), st.just(3))))
def test_normalisation_agrees_with_numpy(images: np.ndarray) -> None:
    mean, std = normalisation(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), atol=1e-12)
    varies = images.min((0, 1, 2)) != images.max((0, 1, 2))
    np.testing.assert_allclose(std, np.where(varies, scaled.std((0, 1, 2)), 1.0), atol=1e-9)


def split(levels: list[int], labels: list[int] | None = None) -> Split:
    """Write down a split of 2×2 pixels, one image of each level."""
    images = np.array(levels, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    names = tuple(f"{row}.png" for row in range(len(levels)))
    return Split(images, np.array(labels or [0] * len(levels), np.int64), names)


PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=10)


@given(PAIRS, PAIRS, st.randoms(use_true_random=False))
def test_split_digest_and_overlap_know_the_images_and_no_order(
    one: list[tuple[int, int]], other: list[tuple[int, int]], random: Any
) -> None:
    orders = (one, other, random.sample(one, len(one)))
    a, b, moved = (split(*map(list, zip(*pairs, strict=True))) for pairs in orders)
    assert split_digest(moved) == split_digest(a)
    assert (split_digest(a) == split_digest(b)) == (sorted(one) == sorted(other))
    assert overlap(a, b) == sum(any((mine == theirs).all() for theirs in b.images) for mine in a.images)


def test_digest_and_overlap_look_at_every_pixel() -> None:
    a, b = split([1, 2, 3], [0, 0, 0]), split([3, 2, 1], [1, 1, 1])
    before = split_digest(b)
    for pixel in np.ndindex(2, 2, 3):
        assert overlap(a, b) == 3
        b.images[(1, *pixel)] ^= 1
        assert overlap(a, b) == 2
        assert split_digest(b) != before
        b.images[(1, *pixel)] ^= 1
    tall = Split(np.arange(24, dtype=np.uint8).reshape(1, 4, 2, 3), np.zeros(1, np.int64), ("a",))
    assert split_digest(tall) != split_digest(replace(tall, images=tall.images.reshape(1, 2, 4, 3)))


# ---- cache hits


def test_a_hit_does_not_decode_again(tmp_path: Path) -> None:
    progress = Recorder()
    root = image_tree(tmp_path)
    first = prepared(root, tmp_path / "cache")
    path = root / "train" / "cat" / "0.png"
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)  # decoding this again would fail
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert prepared(root, tmp_path / "cache", progress=progress).fingerprint == first.fingerprint
    assert progress.stages() == ["checking decoded images"]
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(DataError, match="not an image"):
        prepared(root, tmp_path / "cache")
    assert decoded(tmp_path / "cache") == [first.folder]  # nothing is left of the decode that failed


def test_equal_names_sizes_and_times_elsewhere_are_other_data(tmp_path: Path) -> None:
    for name, level in (("one", 10), ("other", 200)):
        root = image_tree(tmp_path, name)
        paint(root, level)
        assert prepared(root, tmp_path / "cache").train.images[0, 0, 0, 0] == level


# ---- damage


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*(f"{array}.npy" for array in ARRAYS), "dataset.json"])
@pytest.mark.parametrize("part", [0, 0.4])
def test_a_flipped_bit_is_found_and_mended(tmp_path: Path, name: str, part: float) -> None:
    root = image_tree(tmp_path)
    first = prepared(root, tmp_path / "cache", part)
    before = contents(first.folder)
    flip(first.folder / name, -20)  # of the description that is a digit of its digest
    progress = Recorder()
    second = prepared(root, tmp_path / "cache", part, progress=progress)
    assert any("damaged" in stage for stage in progress.stages())
    assert ("decoding train images" in progress.stages()) == (not part)
    assert second.fingerprint == first.fingerprint
    assert contents(second.folder) == before
    assert len(decoded(tmp_path / "cache")) == (2 if part else 1)


def test_any_changed_header_byte_is_an_error_or_harmless(tmp_path: Path) -> None:
    dataset = prepared(image_tree(tmp_path), tmp_path / "cache")
    path = dataset.folder / "train_images.npy"
    intact = path.read_bytes()
    for position in range(128):
        flip(path, position)
        with contextlib.suppress(DataError):
            opened = open_dataset(dataset.folder)
            np.testing.assert_array_equal(opened.train.images, dataset.train.images)
        path.write_bytes(intact)


def test_open_dataset_refuses_cut_missing_and_old_files(tmp_path: Path) -> None:
    folder = prepared(image_tree(tmp_path), tmp_path / "cache").folder
    description = read_description(folder)
    for name, content in contents(folder).items():
        (folder / name).write_bytes(content[:-1])
        with pytest.raises(DataError, match=name):
            open_dataset(folder)
        (folder / name).unlink()
        with pytest.raises(DataError, match=r"expected the decoded images .* Run the study again"):
            open_dataset(folder)
        (folder / name).write_bytes(content)
    del description["noise"]
    write_description(folder, description)
    with pytest.raises(DataError, match="earlier version"):
        open_dataset(folder)


# ---- kills, races, full disks

CODE = """
import os, resource, signal, sys, time
from pathlib import Path
from ablate.data import prepare
from ablate.errors import DataError
root, cache, size, part, fate, work, at = sys.argv[1:]
waiting = Path(cache, "waiting")
stages = []
def progress(stage, done, total):
    stages.append(stage)
    if "waiting" in stage:
        waiting.touch()
    if stage == work and fate == "killed" and done == int(at):
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
KILLS = {
    ("decoding train images", 3, 0): [".tmp"],
    ("decoding valid images", 5, 0): [".tmp"],
    ("hashing decoded images", 4, 0): [".tmp"],
    ("copying the tuning split", 2, 0.4): ["", ".tmp"],
}


@pytest.mark.parametrize(("work", "at", "part"), KILLS)
def test_a_killed_decode_is_never_taken_for_whole(tmp_path: Path, work: str, at: int, part: float) -> None:
    root, cache = image_tree(tmp_path), tmp_path / "cache"
    process = start_python(CODE, root, cache, 8, part, "killed", work, at)
    process.communicate()
    assert process.returncode == -9
    left = KILLS[work, at, part]
    assert sorted(path.suffix for path in decoded(cache)) == left
    dataset = prepared(root, cache, part)
    assert dataset.fingerprint == prepared(root, tmp_path / "fresh", part).fingerprint
    assert [path.suffix for path in decoded(cache)] == [""] * len(left)


def test_leftovers_of_another_dataset_go_unless_it_is_being_written(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "decoded"
    dead, alive = folder / "folder-4-aaaa.0.tmp", folder / "folder-4-bbbb.0.tmp"
    for leftover in (dead, alive):
        leftover.mkdir(parents=True)
    with filelock.FileLock(folder / "folder-4-bbbb.lock"):
        prepared(image_tree(tmp_path), tmp_path / "cache")
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize(("work", "part"), [("decoding train images", 0), ("copying the tuning split", 0.4)])
def test_two_processes_at_once_decode_once(tmp_path: Path, work: str, part: float) -> None:
    root, cache = image_tree(tmp_path), tmp_path / "cache"
    if part:
        prepared(root, cache)  # so that the two meet at the tuning split
    racers = [start_python(CODE, root, cache, 8, part, "race", work, 0) for _ in range(2)]
    results = [racer.communicate() for racer in racers]
    lines = sorted((out.split() for out, _ in results), key=lambda line: line[1:])
    assert [line[1:] for line in lines] == [["False", "True"], ["True", "False"]], results
    assert lines[0][0] == lines[1][0]


def test_no_room_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    out, err = start_python(CODE, image_tree(tmp_path), cache, 512, 0, "full disk", "", 0).communicate()
    assert "ABLATE_CACHE" in out, err
    assert "File too large" in out
    assert decoded(cache) == []


def test_room_is_claimed_before_anything_is_decoded(tmp_path: Path) -> None:
    """A page of a memory map that finds no room on the disk would end the process by a signal."""

    def write(out: np.ndarray) -> list[str]:
        assert isinstance(out, np.memmap)
        assert os.stat(str(out.filename)).st_blocks * 512 >= out.nbytes
        return ["seen"]

    part = Part(("a", "b"), (0, 1), write)
    with pytest.raises(DataError, match=r"2 files cannot be decoded:\n  seen\n  seen"):
        materialise(Source("x", "x", 1, lambda: Contents(("a", "b"), part, part)), make_request(tmp_path, 64))


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="ABLATE_CACHE"):
        prepared(image_tree(tmp_path), tmp_path / "file" / "cache")
