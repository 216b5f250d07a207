import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import ablate
from ablate.data import Dataset, open_dataset, prepare
from ablate.data.dataset import (
    ARRAYS,
    array_digest,
    fingerprint,
    normalisation,
    read_description,
    write_description,
)
from ablate.errors import DataError

ImageTree = Callable[..., Path]


def prepared(root: Path, cache: Path, image_size: int = 8, **options: Any) -> Dataset:
    return prepare(f"folder:{root}", image_size=image_size, cache_dir=cache, **options)


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Start a fresh interpreter that can import the package."""
    environment = os.environ | {"PYTHONPATH": str(Path(ablate.__file__).parents[1])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- what prepare returns


def test_pixels_labels_and_names_are_those_of_the_files(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    dataset = prepared(root, tmp_path / "cache")
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.names == tuple(
        f"train/{n}.png" for n in ("cat/0", "cat/1", "cat/2", "dog/0", "dog/1")
    )
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.valid.labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.train.labels.dtype == np.int64
    for split in (dataset.train, dataset.valid):
        assert split.images.shape == (len(split), 8, 8, 3)
        for name, pixels in zip(split.names, split.images, strict=True):
            direct = Image.open(root / name).resize((8, 8), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(pixels, np.asarray(direct))


def test_open_dataset_gives_the_same_without_the_originals(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    dataset = prepared(root, tmp_path / "cache")
    root.rename(tmp_path / "gone")
    again = open_dataset(dataset.folder)
    for field in ("name", "folder", "classes", "mean", "std", "fingerprint"):
        assert getattr(again, field) == getattr(dataset, field)
    for split in ("train", "valid"):
        ours, theirs = getattr(again, split), getattr(dataset, split)
        assert ours.names == theirs.names
        np.testing.assert_array_equal(ours.images, theirs.images)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_dataset_is_frozen(image_tree: ImageTree, tmp_path: Path) -> None:
    dataset = prepared(image_tree(), tmp_path / "cache")
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.fingerprint = "other"  # type: ignore[misc]


def test_torch_takes_the_maps_and_a_write_stays_in_memory(image_tree: ImageTree, tmp_path: Path) -> None:
    dataset = prepared(image_tree(), tmp_path / "cache")
    before = contents(dataset.folder)
    for array in (dataset.train.images, dataset.train.labels):
        assert isinstance(array, np.memmap)
        tensor = torch.from_numpy(array)  # a warning about a read-only array would be an error here
        tensor.fill_(7)
        array.flush()
        assert (array == 7).all()
    assert contents(dataset.folder) == before
    assert not (open_dataset(dataset.folder).train.images == 7).all()


# ---- identity


def test_fingerprint_ignores_folder_and_file_names(image_tree: ImageTree, tmp_path: Path) -> None:
    one = prepared(image_tree("here"), tmp_path / "a")
    other = prepared(image_tree("else/where", prefix="x ", classes=("kitten", "puppy")), tmp_path / "b")
    assert one.train.names != other.train.names
    assert one.classes != other.classes
    assert one.fingerprint == other.fingerprint


def test_fingerprint_changes_with_one_pixel(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    before = prepared(root, tmp_path / "cache", image_size=16).fingerprint
    path = root / "val" / "dog" / "2.png"
    pixels = np.array(Image.open(path))
    pixels[7:9, 9:12, 1] ^= 128
    Image.fromarray(pixels).save(path)
    assert prepared(root, tmp_path / "cache", image_size=16).fingerprint != before


def test_fingerprint_changes_with_one_label(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    before = prepared(root, tmp_path / "cache")
    (root / "train/cat/2.png").rename(root / "train/dog/.2.png")  # sorts first: the pixels keep their order
    after = prepared(root, tmp_path / "cache")
    np.testing.assert_array_equal(after.train.images, before.train.images)
    assert after.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert after.fingerprint != before.fingerprint


def test_fingerprint_depends_on_every_part() -> None:
    digests = dict.fromkeys(ARRAYS, "0")
    half = (0.5, 0.5, 0.5)
    base = fingerprint(digests, 3, half, half)
    assert base == fingerprint(dict(reversed(digests.items())), 3, half, half)
    others = [fingerprint(digests | {name: "1"}, 3, half, half) for name in ARRAYS]
    others += [fingerprint(digests, 4, half, half), fingerprint(digests, 3, (0.5, 0.5, 0.4), half)]
    others += [fingerprint(digests, 3, half, (0.5, 0.5, 0.4))]
    assert len({base, *others}) == len(others) + 1


def test_image_sizes_do_not_share_a_copy(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    small, large = (prepared(root, tmp_path / "cache", image_size=size) for size in (4, 8))
    assert small.train.images.shape[1:] == (4, 4, 3)
    assert large.train.images.shape[1:] == (8, 8, 3)
    assert small.fingerprint != large.fingerprint


def test_ways_to_resize_do_not_share_a_copy(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    squashed, cropped = (
        prepared(root, tmp_path / "cache", resize=resize) for resize in ("squash", "center_crop")
    )
    assert squashed.folder != cropped.folder
    assert "squash" in squashed.folder.name
    assert "center_crop" in cropped.folder.name
    assert squashed.fingerprint != cropped.fingerprint
    for name, pixels in zip(cropped.train.names, cropped.train.images, strict=True):
        with Image.open(root / name) as image:  # 20×16 pixels
            direct = image.resize((10, 8), Image.Resampling.BILINEAR).crop((1, 0, 9, 8))
        np.testing.assert_array_equal(pixels, np.asarray(direct))


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)))
@settings(max_examples=50, deadline=None)
def test_array_digest_is_sha256_of_header_and_bytes(array: np.ndarray) -> None:
    header = json.dumps(["|u1", list(array.shape)], separators=(",", ":")).encode()
    assert array_digest(array) == hashlib.sha256(header + array.tobytes()).hexdigest()


def test_array_digest_of_more_than_one_block() -> None:
    array = np.arange(5_000_001, dtype=np.int64)  # 40 MB, and not a multiple of the block
    header = json.dumps(["<i8", [5_000_001]], separators=(",", ":")).encode()
    assert array_digest(array) == hashlib.sha256(header + array.tobytes()).hexdigest()


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 600), st.just(1), st.integers(1, 3), st.just(3))))
@settings(max_examples=50, deadline=None)
def test_normalisation_agrees_with_numpy(images: np.ndarray) -> None:
    mean, std = normalisation(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), atol=1e-12)
    expected = scaled.std((0, 1, 2))
    varies = images.min((0, 1, 2)) != images.max((0, 1, 2))
    np.testing.assert_allclose(std, np.where(varies, expected, 1.0), atol=1e-9)


# ---- cache hits


def test_a_hit_does_not_decode_again(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    first = prepared(root, tmp_path / "cache")
    path = root / "train" / "cat" / "0.png"
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)  # decoding this again would fail
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert prepared(root, tmp_path / "cache").fingerprint == first.fingerprint
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(DataError, match="not an image"):
        prepared(root, tmp_path / "cache")


def test_equal_names_sizes_and_times_elsewhere_are_other_data(image_tree: ImageTree, tmp_path: Path) -> None:
    one, other = image_tree("one"), image_tree("other")
    for root, level in ((one, 10), (other, 200)):
        for path in root.rglob("*.png"):
            path.unlink()
            Image.new("RGB", (8, 8), (level, 0, 0)).save(path.with_suffix(".bmp"))
            os.utime(path.with_suffix(".bmp"), ns=(0, 0))
    assert prepared(one, tmp_path / "cache").train.images[0, 0, 0, 0] == 10
    assert prepared(other, tmp_path / "cache").train.images[0, 0, 0, 0] == 200


def test_name_is_the_one_asked_for(
    image_tree: ImageTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_tree()
    long = prepared(root, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    short = prepare("folder:photos", image_size=8, cache_dir=Path("cache"))
    assert short.folder == long.folder
    assert short.name == "folder:photos"
    assert short.folder.is_absolute()


# ---- damage


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*(f"{array}.npy" for array in ARRAYS), "dataset.json"])
@pytest.mark.parametrize("position", [-1, -20])
def test_a_flipped_bit_is_found_and_mended(
    image_tree: ImageTree,
    tmp_path: Path,
    progress: Any,
    name: str,
    position: int,
) -> None:
    root = image_tree()
    first = prepared(root, tmp_path / "cache")
    before = contents(first.folder)
    flip(first.folder / name, position)
    second = prepared(root, tmp_path / "cache", progress=progress)
    assert any("damaged" in stage for stage in progress.stages())
    assert "decoding train images" in progress.stages()
    assert second.fingerprint == first.fingerprint
    assert contents(second.folder) == before


def test_an_intact_copy_is_not_called_damaged(image_tree: ImageTree, tmp_path: Path, progress: Any) -> None:
    root = image_tree()
    prepared(root, tmp_path / "cache")
    prepared(root, tmp_path / "cache", progress=progress)
    assert progress.stages() == ["checking decoded images"]


def test_any_changed_header_byte_is_an_error_or_harmless(image_tree: ImageTree, tmp_path: Path) -> None:
    dataset = prepared(image_tree(), tmp_path / "cache")
    path = dataset.folder / "train_images.npy"
    intact = path.read_bytes()
    for position in range(128):
        flip(path, position)
        with contextlib.suppress(DataError):
            opened = open_dataset(dataset.folder)
            np.testing.assert_array_equal(opened.train.images, dataset.train.images)
        path.write_bytes(intact)


@pytest.mark.parametrize("name", [*(f"{array}.npy" for array in ARRAYS), "dataset.json"])
def test_open_dataset_refuses_a_cut_or_missing_file(image_tree: ImageTree, tmp_path: Path, name: str) -> None:
    folder = prepared(image_tree(), tmp_path / "cache").folder
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=name):
        open_dataset(folder)
    path.unlink()
    with pytest.raises(DataError, match=r"Run the study again"):
        open_dataset(folder)


def test_open_dataset_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the decoded images"):
        open_dataset(tmp_path)


def test_open_dataset_refuses_a_folder_of_an_earlier_version(image_tree: ImageTree, tmp_path: Path) -> None:
    folder = prepared(image_tree(), tmp_path / "cache").folder
    description = read_description(folder)
    del description["noise"]
    write_description(folder, description)
    with pytest.raises(DataError, match="earlier version"):
        open_dataset(folder)


# ---- kills, races, full disks

KILLED = """
import os, signal, sys
from pathlib import Path
from ablate.data import prepare
def progress(stage, done, total):
    if sys.argv[3] in stage and done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
prepare("folder:" + sys.argv[1], image_size=8, cache_dir=Path(sys.argv[2]), progress=progress)
"""


@pytest.mark.parametrize(("stage", "done"), [("train", 3), ("valid", 5), ("hashing", 4)])
def test_a_killed_decode_is_never_taken_for_whole(
    image_tree: ImageTree, tmp_path: Path, stage: str, done: int
) -> None:
    root, cache = image_tree(), tmp_path / "cache"
    process = python(KILLED, root, cache, stage, done)
    process.communicate()
    assert process.returncode == -9
    left = [path for path in (cache / "decoded").iterdir() if path.is_dir()]
    assert [path.suffix for path in left] == [".tmp"]
    dataset = prepared(root, cache)
    assert dataset.fingerprint == prepared(root, tmp_path / "fresh").fingerprint
    assert [path for path in (cache / "decoded").iterdir() if path.is_dir()] == [dataset.folder]


def test_leftovers_of_another_dataset_go_unless_it_is_being_written(
    image_tree: ImageTree, tmp_path: Path
) -> None:
    import filelock

    decoded = tmp_path / "cache" / "decoded"
    dead, alive = decoded / "folder-4-aaaa.0.tmp", decoded / "folder-4-bbbb.0.tmp"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    with filelock.FileLock(decoded / "folder-4-bbbb.lock"):
        prepared(image_tree(), tmp_path / "cache")
    assert not dead.exists()
    assert alive.exists()


RACER = """
import sys, time
from pathlib import Path
from ablate.data import prepare
waiting = Path(sys.argv[3])
stages = []
def progress(stage, done, total):
    stages.append(stage)
    if "waiting" in stage:
        waiting.touch()
    if "decoding train" in stage:  # hold the lock until the other process is seen to wait for it
        deadline = time.monotonic() + 30
        while not waiting.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
dataset = prepare("folder:" + sys.argv[1], image_size=8, cache_dir=Path(sys.argv[2]), progress=progress)
print(dataset.fingerprint, "decoding train images" in stages, any("waiting" in stage for stage in stages))
"""


def test_two_processes_at_once_decode_once(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    racers = [python(RACER, root, tmp_path / "cache", tmp_path / "waiting") for _ in range(2)]
    results = [racer.communicate() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], results
    lines = sorted(out.split() for out, _ in results)
    assert lines[0][0] == lines[1][0]
    assert [line[1:] for line in lines] == [["False", "True"], ["True", "False"]]


FULL_DISK = """
import resource, sys
from pathlib import Path
from ablate.data import prepare
from ablate.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    prepare("folder:" + sys.argv[1], image_size=512, cache_dir=Path(sys.argv[2]))
except DataError as error:
    print(error)
"""


def test_no_room_is_an_error_and_leaves_nothing(image_tree: ImageTree, tmp_path: Path) -> None:
    process = python(FULL_DISK, image_tree(), tmp_path / "cache")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "ABLATE_CACHE" in out
    assert "File too large" in out
    assert [path for path in (tmp_path / "cache" / "decoded").iterdir() if path.is_dir()] == []


def test_a_cache_folder_that_cannot_be_made(image_tree: ImageTree, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="ABLATE_CACHE"):
        prepared(image_tree(), tmp_path / "file" / "cache")


def test_a_failed_decode_leaves_nothing(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    (root / "train/cat/0.png").write_bytes(b"")
    with pytest.raises(DataError):
        prepared(root, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache" / "decoded").iterdir() if path.is_dir()] == []
