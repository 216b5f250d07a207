"""What `ablate data` lists: each form of a dataset once, and one's own folders by their full path."""

import io
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from test_driver import pictures

from ablate.data import DATASETS, prepare
from ablate.data.catalogue import list_datasets, show_datasets
from ablate.data.dataset import read_description, write_description


def decode_again(folder: Path, name: str) -> None:
    """A second copy of a decoded dataset, as another state of its originals or another decoder leaves."""
    other = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-{len(name)}")))
    write_description(other, {**read_description(folder), "name": name})


def test_copies_of_one_form_are_listed_once_and_forms_by_size(tmp_path: Path) -> None:
    assert set(list_datasets(tmp_path)) == set(DATASETS)
    for size, resize in ((16, "squash"), (8, "squash"), (8, "center_crop")):
        dataset = prepare("digits", image_size=size, cache_dir=tmp_path, resize=resize)
        decode_again(dataset.folder, "digits")
    assert list_datasets(tmp_path)["digits"] == ["8 px, center_crop", "8 px, squash", "16 px, squash"]
    text = io.StringIO()
    show_datasets(Console(file=text), list_datasets(tmp_path), tmp_path)
    assert text.getvalue().count("8 px, squash") == 1


def test_own_folders_are_listed_by_their_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    photos = pictures(home / "photos", prefix="x")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    prepared = prepare("folder:photos", image_size=8, cache_dir=tmp_path)
    assert not any(name.startswith("folder:") for name in list_datasets(tmp_path))
    for name in ("folder:~/photos", f"folder:{photos}{os.sep}", "folder:~nobody-of-this-name/photos"):
        decode_again(prepared.folder, name)
    own = {name: forms for name, forms in list_datasets(tmp_path).items() if name not in DATASETS}
    assert own == {f"folder:{photos}": ["8 px, squash"]}
