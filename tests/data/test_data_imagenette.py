"""Imagenette, Imagewoof and CIFAR-10: what a copy must hold, lists of wrong labels, and the real images."""

import hashlib
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_data import make_request, packed, refused, squashed, write_image
from torchvision import datasets, transforms

from ablate.data import Dataset, cifar10, open_dataset, overlap, prepare
from ablate.data.cache import materialise
from ablate.data.cifar10 import ARCHIVE
from ablate.data.dataset import array_digest
from ablate.data.decode import decode_image
from ablate.data.fetch import Archive
from ablate.data.imagenette import IMAGENETTE, SUBSETS, Subset
from ablate.data.source import Request

OFFICIAL = SUBSETS["imagenette-160"]
FOLDER = OFFICIAL.archive.folder
WNIDS = ("n00000001", "n00000002")
NAMES = [
    f"{split}/{WNIDS[label]}/{label}_{index}.JPEG"
    for split, label, count in (("train", 0, 3), ("train", 1, 2), ("val", 0, 2), ("val", 1, 3))
    for index in range(count)
]
TRAIN = NAMES[:5]
# of the five training images one is mislabelled at 25 %, and two at 50 %
NOISY = {0: [0, 0, 0, 1, 1], 1: [0, 0, 0, 1, 1], 5: [0, 0, 0, 1, 1], 25: [0, 0, 0, 1, 0], 50: [1, 0, 0, 0, 1]}
Rows = list[dict[str, str]]


def noise_rows() -> Rows:
    """Write down the list in an order of its own, an image of the other split included."""
    rows = [
        {"path": name, **{f"noisy_labels_{part}": WNIDS[labels[row]] for part, labels in NOISY.items()}}
        for row, name in enumerate(TRAIN)
    ]
    return [*reversed(rows), rows[0] | {"path": NAMES[-1]}]


def write_noise(root: Path, rows: Rows) -> None:
    pd.DataFrame(rows).to_csv(root / IMAGENETTE.noise_file, index=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small copy, as if unpacked by hand, that is all that `imagenette-160` is expected to hold."""
    root = tmp_path / "own" / FOLDER
    for seed, name in enumerate(NAMES):
        write_image(root / name, seed=seed)
    write_noise(root, noise_rows())
    family = replace(
        IMAGENETTE,
        classes={WNIDS[0]: ("tench", 3, 2), WNIDS[1]: ("church", 2, 3)},
        names_sha256=hashlib.sha256("\n".join(sorted(NAMES)).encode()).hexdigest(),
        noise_sha256=array_digest(np.array([NOISY[part] for part in (1, 5, 25, 50)])),
    )
    monkeypatch.setitem(SUBSETS, "imagenette-160", Subset(family, 16, OFFICIAL.archive))
    return root


def prepared(root: Path, part: float = 0) -> Dataset:
    cache = root.parents[1] / "cache"
    return prepare("imagenette-160", image_size=8, cache_dir=cache, data_dir=root, tuning_part=part)


def test_a_copy_is_decoded(root: Path) -> None:
    turned = Image.Exif()
    turned[274] = 6  # which nobody heeds who reads these files
    with Image.open(root / NAMES[-1]) as image:
        image.save(root / NAMES[-1], exif=turned)
    dataset = prepared(root)
    assert dataset.classes == ("tench", "church")
    assert (dataset.mean, dataset.std) == ((0.47, 0.48, 0.45), (0.29, 0.28, 0.30))
    assert dataset.train.names + dataset.valid.names == tuple(NAMES)
    labels = [split.labels.tolist() for split in (dataset.train, dataset.valid)]
    assert labels == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]
    np.testing.assert_array_equal(dataset.valid.images, [squashed(root / name) for name in NAMES[5:]])
    for name in (".DS_Store", "train/.DS_Store", "val/n00000001/._a.JPEG", "val/Thumbs.db", "README"):
        (root / name).write_bytes(b"x")
    assert prepared(root).folder == dataset.folder


@pytest.mark.parametrize("shorter_side", [160, 320, None])
def test_a_copy_of_other_size(root: Path, monkeypatch: pytest.MonkeyPatch, shorter_side: int | None) -> None:
    subset = replace(SUBSETS["imagenette-160"], shorter_side=shorter_side)
    monkeypatch.setitem(SUBSETS, "imagenette-160", subset)
    for size in ((160, 180), (180, 160), (320, 340), (70, 90)):
        for name in NAMES:  # one image of an odd size is no other archive
            write_image(root / name, size=size if name != NAMES[1] else (90, 91))
        if min(size) == (shorter_side or 70):
            assert len(prepared(root).train) == 5
        else:
            assert "archive of another size" in refused(prepared, root)


ONE, TWO = "train/n00000001", "val/n00000001"
DEFECTS: dict[str, tuple[list[str], list[str], str]] = {  # files taken away, files of a byte put there
    "missing file": ([NAMES[0]], [], f"'{ONE}': expected 3 images, found 2"),
    "unknown class": ([], ["train/n9/a.JPEG"], "'train/n9': not a class of Imagenette"),
    "renamed": ([NAMES[0]], [f"{ONE}/b.JPEG"], "not named as in the official archive"),
    "splits mixed": ([NAMES[0], NAMES[5]], [f"{ONE}/b.JPEG", f"{TWO}/b.JPEG"], "not named as in the off"),
    "corrupt": ([], [NAMES[6]], "not an image"),
    "many": ([NAMES[0]], [NAMES[9], *(f"val/{n}.txt" for n in range(29))], "… and 11 more (31 in all)"),
}


@pytest.mark.parametrize(("away", "there", "message"), DEFECTS.values(), ids=DEFECTS.keys())
def test_defects_stop_and_are_listed(root: Path, away: list[str], there: list[str], message: str) -> None:
    for name in away:
        (root / name).unlink()
    for name in there:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    shown = refused(prepared, root)
    for words in (message, FOLDER, f"Restore these files from {OFFICIAL.archive.url}"):
        assert words in shown


def test_downloads_are_checked(
    root: Path, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def downloaded(cache: Path) -> Dataset:
        archive = packed(root, OFFICIAL.archive, server.serve)
        monkeypatch.setitem(SUBSETS, "imagenette-160", replace(SUBSETS["imagenette-160"], archive=archive))
        return prepare("imagenette-160", image_size=8, cache_dir=cache)

    dataset = downloaded(tmp_path / "one")
    assert dataset.fingerprint == prepared(root).fingerprint
    assert dataset.noisy_train_labels(0.5).tolist() == NOISY[50]
    (root / NAMES[0]).unlink()
    assert "and run again to download it anew" in refused(downloaded, tmp_path / "two")


def test_listed_noise_is_in_the_decoded_folder(root: Path) -> None:
    folder, tuning = prepared(root).folder, prepared(root, 0.4)
    shutil.rmtree(root)
    worker, left = open_dataset(folder), [TRAIN.index(name) for name in tuning.train.names]
    assert len(left) == 3
    for part, labels in NOISY.items():
        assert worker.noisy_train_labels(part / 100).tolist() == labels
        # the list of the images that a tuning split leaves is the same one
        assert tuning.noisy_train_labels(part / 100).tolist() == [labels[row] for row in left]
    assert worker.train.labels.tolist() == NOISY[0]
    assert worker.valid.labels.tolist() == [0, 0, 1, 1, 1]
    for fraction in (0.1, 0.02, 1, -0.05, np.nan):
        message = refused(worker.fingerprint_with, fraction)
        assert message.startswith("label_noise of imagenette-160: expected 0, 0.01, 0.05, 0.25, 0.5 as ")
        assert f"but {fraction!r} came" in message


def changed(column: str, value: str) -> Rows:
    return [row | {column: value} if row["path"] == TRAIN[0] else row for row in noise_rows()]


NOISE_DEFECTS: dict[str, tuple[Rows | bytes | None, str]] = {
    "no list": (None, "No such file"),
    "image left out": (noise_rows()[1:], f"KeyError: '{TRAIN[4]}'"),
    "no column": ([{"path": row["path"]} for row in noise_rows()], "KeyError: 'noisy_labels_1'"),
    "another draw": (changed("noisy_labels_25", WNIDS[1]), "not the official list"),
    "empty": (b"", "KeyError: 'train/"),
    "a field without end": (b'"' + b"x" * 200_000, "field larger"),
}


@pytest.mark.parametrize(("content", "message"), NOISE_DEFECTS.values(), ids=NOISE_DEFECTS.keys())
def test_a_wrong_list_shows_with_noise(root: Path, content: Rows | bytes | None, message: str) -> None:
    path = root / IMAGENETTE.noise_file
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        write_noise(root, content)
    dataset = prepared(root)
    assert dataset.noisy_train_labels(0).tolist() == NOISY[0]
    remedy = f"Put noisy_imagenette.csv of https://github.com/fastai/imagenette into {root}"
    for each in (dataset, prepared(root, 0.4)):
        shown = refused(each.noisy_train_labels, 0.05)
        assert all(part in shown for part in (message, str(path), remedy))
    write_noise(root, noise_rows())
    assert prepared(root).noisy_train_labels(0.5).tolist() == NOISY[50]
    assert prepared(root).fingerprint == dataset.fingerprint


@pytest.fixture(scope="module")
def real_root() -> Path:
    if not (folder := os.environ.get("ABLATE_DATA_DIR")):
        pytest.skip("ABLATE_DATA_DIR does not name a folder with imagenette2-160")
    return Path(folder) if Path(folder, "train").is_dir() else Path(folder, FOLDER)


@pytest.fixture(scope="module")
def real(real_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cache = tmp_path_factory.mktemp("imagenette")
    return prepare("imagenette-160", image_size=128, cache_dir=cache, data_dir=real_root)


@pytest.mark.imagenette
@pytest.mark.slow
def test_real_images_are_those_of_pil_and_torchvision(real: Dataset, real_root: Path) -> None:
    crop = transforms.Compose([transforms.Resize(128), transforms.CenterCrop(128)])
    assert (len(real.train), len(real.valid)) == (9469, 3925)
    for split, folder in ((real.train, "train"), (real.valid, "val")):
        reference = datasets.ImageFolder(real_root / folder)
        assert reference.classes == list(IMAGENETTE.classes)
        assert split.labels.tolist() == reference.targets
        assert [real_root / name for name in split.names] == [Path(path) for path, _ in reference.samples]
        for row in range(0, len(split), 97):
            path = real_root / split.names[row]
            np.testing.assert_array_equal(split.images[row], squashed(path, 128))
            cropped = decode_image(path, 128, "center_crop")
            np.testing.assert_array_equal(cropped, np.asarray(crop(reference[row][0])))
    assert real.classes == tuple(names[0] for names in datasets.Imagenette._WNID_TO_CLASS.values())


@pytest.mark.imagenette
@pytest.mark.slow
def test_real_names_and_noise_are_those_of_the_shipped_list(real: Dataset, real_root: Path) -> None:
    table = pd.read_csv(real_root / IMAGENETTE.noise_file).set_index("path")
    classes = list(IMAGENETTE.classes)
    for split, is_valid in ((real.train, False), (real.valid, True)):
        true = table[table["is_valid"] == is_valid]["noisy_labels_0"].to_dict()
        assert {name: classes[label] for name, label in zip(split.names, split.labels, strict=True)} == true
    where: dict[str, Any] = {"cache_dir": real.folder.parents[1], "data_dir": real_root}
    tuning = prepare("imagenette-160", image_size=128, tuning_part=0.125, **where)
    held = [round(0.125 * int(count)) for count in np.bincount(real.train.labels)]
    assert np.bincount(tuning.valid.labels).tolist() == held
    assert overlap(tuning.valid, real.valid) == overlap(tuning.train, real.valid) == 0
    for fraction, column, wrong in ((0.01, 1, 95), (0.05, 5, 474), (0.25, 25, 2368), (0.5, 50, 4735)):
        for dataset in (real, tuning):
            noisy = dataset.noisy_train_labels(fraction)
            listed = table.loc[list(dataset.train.names), f"noisy_labels_{column}"].tolist()
            assert [classes[label] for label in noisy] == listed
        assert (real.noisy_train_labels(fraction) != real.train.labels).sum() == wrong


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with batches of ten images, the MD5 digests of whose files torchvision is told."""
    root = tmp_path / "own" / ARCHIVE.folder
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    digests = {}
    for name in ARCHIVE.contents:
        pixels = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        batch = {"data": pixels, "labels": rng.permutation(10).tolist()}
        content = pickle.dumps({"label_names": [*"abcdefghij"]} if name == "batches.meta" else batch)
        (root / name).write_bytes(content)
        digests[name] = hashlib.md5(content).hexdigest()
    for split in ("train_list", "test_list"):
        listed = [[name, digests[name]] for name, _ in getattr(datasets.CIFAR10, split)]
        monkeypatch.setattr(datasets.CIFAR10, split, listed)
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": digests["batches.meta"]})
    return root


def opened(request: Request, archive: Archive = ARCHIVE) -> Dataset:
    return materialise(cifar10.locate("cifar10", request, archive), request)


def test_images_and_labels_are_torchvisions(small: Path, tmp_path: Path) -> None:
    dataset = opened(make_request(tmp_path, 20, data_dir=small))
    assert dataset.classes == tuple("abcdefghij")
    assert (dataset.train.names[7], dataset.valid.names[9]) == ("train/00007", "test/00009")
    for split, train in ((dataset.train, True), (dataset.valid, False)):
        reference = datasets.CIFAR10(small.parent, train=train)
        for image, label, (original, true) in zip(split.images, split.labels, reference, strict=True):
            direct = original.resize((20, 20), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(image, np.asarray(direct))
            assert label == true
    renamed = small.rename(small.with_name("mine"))
    other = opened(make_request(tmp_path, 20, data_dir=renamed, cache="other"))
    assert other.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_file_is_never_unpickled(small: Path, tmp_path: Path, name: str) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (small / "canary",))

    (small / name).write_bytes(pickle.dumps(Payload()))
    assert "MD5 digest is not" in refused(opened, make_request(tmp_path, data_dir=small))
    assert not (small / "canary").exists()


def test_a_download_gives_what_a_copy_does(server: Any, small: Path, tmp_path: Path) -> None:
    whole = opened(make_request(tmp_path), packed(small, ARCHIVE, server.serve))
    own = opened(make_request(tmp_path, data_dir=small.parent, cache="own"))
    assert whole.fingerprint == own.fingerprint
