"""What holds for every dataset by name, and what `ablate data` lists. A new one fails here until it does."""

import inspect
import os
import re
import shutil
import sys
import urllib.request
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_study import printed
from sklearn.datasets import load_digits
from small_data import Recorder, image_tree, refused
from torchvision import datasets

import ablate
from ablate.data import ARCHIVES, DATASETS, default_cache_dir, open_dataset, prepare
from ablate.data.catalogue import list_datasets, show_datasets
from ablate.data.cifar10 import ARCHIVE as CIFAR10
from ablate.data.dataset import read_description, write_description
from ablate.data.imagenette import IMAGENETTE, IMAGEWOOF
from ablate.data.source import Request, Source

DOCUMENT = (Path(ablate.__file__).parents[1] / "docs" / "add_a_dataset.md").read_text(encoding="utf-8")
# at so many pixels these never change
EMBEDDED = {
    "digits": (8, "d80f1f40257d2fb48c7f9656ae00a5d634c6acab1f06c483ae7fc1a91160c264"),
    "synthetic": (16, "0a70f921c2697609dededad28f36a5b62b29173cf556d0f162dc811488c7c455"),
}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every download to a port at which nobody listens."""
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # urlopen keeps the proxies of its first call
    for variable in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)


def test_the_documentation_lists_the_datasets_and_its_example_is_a_source() -> None:
    assert re.findall(r"^\| `([^`]+)` \|", DOCUMENT, flags=re.MULTILINE) == [*DATASETS, "folder:PATH"]
    for name, locate in DATASETS.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert f"`{name}`" in (inspect.getmodule(locate).__doc__ or "").splitlines()[0]
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.M | re.S)
    namespace: dict[str, Any] = {}
    exec(example, namespace)
    source = namespace["locate"]("squares", Request(8, Path(), None, lambda *_: None))
    assert {field.name for field in fields(Source)} == set(vars(source))


def test_an_unknown_name_lists_the_known_and_the_nearest(tmp_path: Path) -> None:
    guesses = {"imagenet-160": "imagenette-160", "CIFAR10": "cifar10", "folder": "folder:PATH", "": None}
    for name, nearest in guesses.items():
        message = refused(prepare, name, image_size=8, cache_dir=tmp_path)
        assert f"{', '.join(DATASETS)}, folder:PATH" in message
        assert (f" Did you mean {nearest!r}?" in message) == bool(nearest)
    assert "write 'folder:" in refused(prepare, str(tmp_path), image_size=8, cache_dir=tmp_path)


def test_default_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for own, shared, expected in (
        ("~/own", "/xdg", tmp_path / "own"),
        ("", "/xdg", Path("/xdg/ablate")),
        ("", "relative", tmp_path / ".cache/ablate"),
    ):
        monkeypatch.setenv("ABLATE_CACHE", own)
        monkeypatch.setenv("XDG_CACHE_HOME", shared)
        assert default_cache_dir() == expected
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # whom nobody has named
    assert "ABLATE_CACHE: expected a folder" in refused(default_cache_dir)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_failed_download_and_no_folder_name_the_ways_out(name: str, tmp_path: Path, offline: None) -> None:
    message = refused(prepare, name, image_size=8, cache_dir=tmp_path)
    assert re.search(r"could not download https://.*refused.*--data-dir.*--profile quick", message)
    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and path.name != "sources"]
    message = refused(prepare, name, image_size=8, cache_dir=tmp_path, data_dir=tmp_path / "absent")
    assert "--data-dir" in message
    assert str(tmp_path / "absent" / ARCHIVES[name].folder) in message


def test_what_is_published_is_torchvisions() -> None:
    for size, name in (("160px", "imagenette-160"), ("320px", "imagenette-320"), ("full", "imagenette")):
        assert ARCHIVES[name].url == datasets.Imagenette._ARCHIVES[size][0]
    for name, family, digits in (("imagenette", IMAGENETTE, 64), ("imagewoof", IMAGEWOOF, 32)):
        counts = [sum(column) for column in list(zip(*family.classes.values(), strict=True))[1:]]
        assert counts == {"imagenette": [9469, 3925], "imagewoof": [9025, 3929]}[name]
        assert list(family.classes) == sorted(family.classes)
        assert len(ARCHIVES[f"{name}-320"].digest) == digits
    names = {wnid: synonyms[0] for wnid, synonyms in datasets.Imagenette._WNID_TO_CLASS.items()}
    assert {wnid: name for wnid, (name, _, _) in IMAGENETTE.classes.items()} == names
    assert IMAGEWOOF.classes.keys().isdisjoint(names)
    reference = datasets.CIFAR10
    assert (CIFAR10.url, CIFAR10.folder) == (reference.url, reference.base_folder)
    listed = [*reference.train_list, *reference.test_list, [reference.meta["filename"]]]
    assert sorted(CIFAR10.contents) == sorted(file[0] for file in listed)


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - ARCHIVES.keys()))
def test_every_embedded_dataset_keeps_the_contract(name: str, tmp_path: Path, offline: None) -> None:
    progress = Recorder()
    size, fingerprint = EMBEDDED[name]
    dataset = prepare(name, image_size=size, cache_dir=tmp_path, progress=progress)
    assert dataset.name == name
    for split in (dataset.train, dataset.valid):
        assert (split.images.shape, split.labels.shape) == ((len(split), size, size, 3), (len(split),))
        assert [array.dtype.name for array in (split.images, split.labels)] == ["uint8", "int64"]
        assert set(split.labels.tolist()) == set(range(len(dataset.classes)))
    assert len({*dataset.train.names, *dataset.valid.names}) == len(dataset.train) + len(dataset.valid)
    assert all(0 <= done <= total or total == 0 for _, done, total in progress.calls)
    elsewhere: dict[str, Any] = {"cache_dir": tmp_path / "other", "data_dir": tmp_path / "absent"}
    other = prepare(name, image_size=size, resize="center_crop", **elsewhere)  # its images are square
    assert other.fingerprint == open_dataset(dataset.folder).fingerprint == dataset.fingerprint == fingerprint


def test_digits_are_scikit_learns_which_is_not_imported_once_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = prepare("digits", image_size=8, cache_dir=tmp_path)
    reference = load_digits()
    seen = []
    for split in (dataset.train, dataset.valid):
        seen += (rows := [int(name.removeprefix("digits/")) for name in split.names])
        np.testing.assert_array_equal(split.labels, reference.target[rows])
        grey = np.round(reference.images[rows] / 16 * 255)
        np.testing.assert_array_equal(split.images, np.stack([grey] * 3, axis=-1))
    assert sorted(seen) == list(range(1797))
    assert dataset.classes == tuple("0123456789")
    assert np.bincount(dataset.train.labels).tolist() == [60] * 10
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert prepare("digits", image_size=8, cache_dir=tmp_path).folder == dataset.folder


def decode_again(folder: Path, name: str) -> None:
    """A second copy of a decoded dataset, as another state of its originals or another decoder leaves."""
    other = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-{len(name)}")))
    write_description(other, {**read_description(folder), "name": name})


def test_copies_of_one_form_are_listed_once_and_forms_by_size(tmp_path: Path) -> None:
    for size, resize in ((16, "squash"), (8, "squash"), (8, "center_crop")):
        dataset = prepare("digits", image_size=size, cache_dir=tmp_path, resize=resize)
        decode_again(dataset.folder, "digits")
    assert list_datasets(tmp_path)["digits"] == ["8 px, center_crop", "8 px, squash", "16 px, squash"]
    assert printed(show_datasets, list_datasets(tmp_path), tmp_path).count("8 px, squash") == 1


def test_own_folders_are_listed_by_their_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    photos = image_tree(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    prepared = prepare("folder:photos", image_size=8, cache_dir=tmp_path)
    assert not any(name.startswith("folder:") for name in list_datasets(tmp_path))
    for name in ("folder:~/photos", f"folder:{photos}{os.sep}", "folder:~nobody-of-this-name/photos"):
        decode_again(prepared.folder, name)
    own = {name: forms for name, forms in list_datasets(tmp_path).items() if name not in DATASETS}
    assert own == {f"folder:{photos}": ["8 px, squash"]}
