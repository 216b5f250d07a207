"""What holds for every entry of the registry. A new one fails here until it does, and has a stand-in."""

import hashlib
import inspect
import pickle
import re
import socket
import urllib.request
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, Imagenette

import ablate
from ablate.data import DATASETS, DOWNLOADED, cifar10, imagenette, imagewoof, prepare, takes_data_dir
from ablate.data.imagenet_subset import ImageClass, Subset
from ablate.data.source import Request, Source
from ablate.errors import DataError

SUBSETS = imagenette.SUBSETS | imagewoof.SUBSETS
EMBEDDED = sorted(DATASETS.keys() - DOWNLOADED)
DOCUMENT = Path(ablate.__file__).parents[1] / "docs" / "add_a_dataset.md"
StandIn = Callable[[str, Path, pytest.MonkeyPatch, Callable[..., Path]], None]


def stand_in_subset(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, write_image: Callable[..., Path]
) -> None:
    """Write two images of each class, and have the registry expect just them."""
    subset = SUBSETS[name]
    side = subset.shorter_side or 97
    names = [f"{split}/{wnid}/{wnid}_1.JPEG" for split in ("train", "val") for wnid in subset.classes]
    for seed, path in enumerate(names):
        write_image(folder / subset.folder / path, seed=seed, size=(side + 5, side))
    small = replace(
        subset,
        classes={wnid: ImageClass(given.name, 1, 1) for wnid, given in subset.classes.items()},
        names_sha256=hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest(),
    )
    family = imagenette if name in imagenette.SUBSETS else imagewoof
    monkeypatch.setitem(family.SUBSETS, name, small)


def stand_in_cifar10(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, write_image: Callable[..., Path]
) -> None:
    """Write batches of ten images, and tell torchvision their digests."""
    root = folder / cifar10.ARCHIVE.folder
    root.mkdir(parents=True)
    batch = {
        "data": np.arange(10 * 3072, dtype=np.uint32).astype(np.uint8).reshape(10, -1),
        "labels": [*range(10)],
    }
    content, meta = pickle.dumps(batch), pickle.dumps({"label_names": [*"abcdefghij"]})
    for file in cifar10.ARCHIVE.contents:
        (root / file).write_bytes(content)
    (root / "batches.meta").write_bytes(meta)
    digest = hashlib.md5(content).hexdigest()
    for split in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, split, [[file, digest] for file, _ in getattr(CIFAR10, split)])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()})


STAND_INS: dict[str, StandIn] = {**dict.fromkeys(SUBSETS, stand_in_subset), "cifar10": stand_in_cifar10}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every download to a port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}"
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, nowhere)
    monkeypatch.setattr(urllib.request, "_opener", None)  # urlopen keeps the proxies of its first call
    for variable in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("name", DATASETS)
def test_an_entry_has_a_plain_name_and_a_locate_function(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    signature = inspect.signature(DATASETS[name])
    signature.bind(name, Request(8, Path(), None, lambda *_: None))
    assert signature.return_annotation is Source
    assert DATASETS[name].__module__.startswith("ablate.data.")
    assert inspect.getmodule(DATASETS[name]).__doc__.startswith("`")  # type: ignore[union-attr]


@pytest.mark.parametrize("name", DATASETS)
def test_an_entry_is_in_the_documentation_and_in_its_own_files(name: str) -> None:
    assert f"| `{name}` |" in DOCUMENT.read_text(encoding="utf-8")
    assert f"`{name}`" in (inspect.getmodule(DATASETS[name]).__doc__ or "").splitlines()[0]


def test_the_documentation_lists_nothing_else() -> None:
    listed = re.findall(r"^\| `([^`]+)` \|", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert listed == [*DATASETS, "folder:PATH"]


def test_the_example_of_the_documentation_is_a_source() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    namespace: dict[str, Any] = {}
    exec(example, namespace)
    source = namespace["locate"]("squares", Request(8, Path(), None, lambda *_: None))
    assert isinstance(source, Source)
    assert {field.name for field in fields(Source)} == set(vars(source))


def test_downloaded_datasets_are_registered_and_have_a_stand_in() -> None:
    assert DATASETS.keys() >= DOWNLOADED
    assert set(STAND_INS) == DOWNLOADED
    assert {name for name in DATASETS if takes_data_dir(name)} == DOWNLOADED
    assert not takes_data_dir("folder:x")


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_dataset_needs_neither_network_nor_data_dir(
    name: str, tmp_path: Path, offline: None
) -> None:
    plain = prepare(name, image_size=8, cache_dir=tmp_path)
    other = prepare(
        name, image_size=8, cache_dir=tmp_path / "other", data_dir=tmp_path / "absent", resize="center_crop"
    )
    assert plain.fingerprint == other.fingerprint  # its images are square
    assert (plain.noisy_train_labels(0.3) != plain.train.labels).sum() == round(0.3 * len(plain.train))


@pytest.mark.parametrize("name", sorted(DOWNLOADED))
def test_a_downloaded_dataset_honours_data_dir(
    name: str,
    tmp_path: Path,
    offline: None,
    monkeypatch: pytest.MonkeyPatch,
    write_image: Callable[..., Path],
) -> None:
    STAND_INS[name](name, tmp_path / "own", monkeypatch, write_image)
    dataset = prepare(name, image_size=8, cache_dir=tmp_path / "cache", data_dir=tmp_path / "own")
    assert dataset.name == name
    assert sorted(set(dataset.train.labels.tolist())) == list(range(len(dataset.classes))) == list(range(10))
    assert not (tmp_path / "cache" / "sources").exists()
    np.testing.assert_array_equal(dataset.noisy_train_labels(0), dataset.train.labels)


@pytest.mark.parametrize("name", sorted(DOWNLOADED))
def test_a_data_dir_without_the_dataset_is_named(name: str, tmp_path: Path, offline: None) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="--data-dir") as caught:
        prepare(name, image_size=8, cache_dir=tmp_path, data_dir=tmp_path / "empty")
    assert str(tmp_path / "empty") in str(caught.value)


@pytest.mark.parametrize("name", sorted(DOWNLOADED))
def test_a_failed_download_names_its_cause_and_the_ways_out(name: str, tmp_path: Path, offline: None) -> None:
    with pytest.raises(DataError, match="refused") as caught:
        prepare(name, image_size=8, cache_dir=tmp_path)
    for word in ("could not download https://", "--data-dir", "--profile quick"):
        assert word in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and path.name != "sources"]


# ---- facts of the archives


@pytest.mark.parametrize(("name", "subset"), SUBSETS.items(), ids=SUBSETS.keys())
def test_a_subset_is_described_as_published(name: str, subset: Subset) -> None:
    totals = {"Imagenette": (9469, 3925), "Imagewoof": (9025, 3929)}
    counts = subset.classes.values()
    assert (sum(c.train for c in counts), sum(c.val for c in counts)) == totals[subset.title]
    assert list(subset.classes) == sorted(subset.classes)
    assert name == subset.folder.replace("2", "", 1)
    assert subset.shorter_side == (int(name.rpartition("-")[2]) if "-" in name else None)
    assert subset.remote.url.endswith(f"/{subset.folder}.tgz")
    for digest, algorithm in (
        (subset.remote.digest, subset.remote.algorithm),
        (subset.names_sha256, "sha256"),
        (subset.noise.sha256, "sha256"),
    ):
        assert re.fullmatch(r"[0-9a-f]+", digest)
        assert len(digest) == 2 * hashlib.new(algorithm).digest_size


@pytest.mark.parametrize(("name", "subset"), SUBSETS.items(), ids=SUBSETS.keys())
def test_limits_leave_room_for_the_archive_and_for_little_more(name: str, subset: Subset) -> None:
    limits = subset.archive().limits
    images = sum(c.train + c.val for c in subset.classes.values())
    # a tar member has a header of 512 bytes and is padded to as many; some have an extended header too
    assert limits.total_bytes > subset.remote.size + 2048 * images
    assert limits.total_bytes < 2 * subset.remote.size + (64 << 20)
    assert images + 40 < limits.members < 2 * images


@pytest.mark.parametrize(
    ("size", "name"), [("160px", "imagenette-160"), ("320px", "imagenette-320"), ("full", "imagenette")]
)
def test_imagenette_is_torchvisions(size: str, name: str) -> None:
    subset = imagenette.SUBSETS[name]
    assert subset.remote.url == Imagenette._ARCHIVES[size][0]
    expected = {wnid: names[0] for wnid, names in Imagenette._WNID_TO_CLASS.items()}
    assert {wnid: image_class.name for wnid, image_class in subset.classes.items()} == expected
