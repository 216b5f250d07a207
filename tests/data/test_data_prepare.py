import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ablate
from ablate.data import DATASETS, DOWNLOADED, Dataset, default_cache_dir, open_dataset, prepare
from ablate.errors import DataError


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - DOWNLOADED))
def test_every_embedded_dataset_keeps_the_contract(name: str, tmp_path: Path, progress: Any) -> None:
    dataset = prepare(name, image_size=9, cache_dir=tmp_path, progress=progress)
    assert dataset.name == name
    for split in (dataset.train, dataset.valid):
        assert split.images.shape == (len(split), 9, 9, 3)
        assert split.images.dtype == "uint8"
        assert split.labels.shape == (len(split),)
        assert split.labels.dtype == "int64"
        assert sorted(set(split.labels.tolist())) == list(range(len(dataset.classes)))
        assert len(set(split.names)) == len(split)
    assert all(0 < level < 1 for level in (*dataset.mean, *dataset.std))
    assert len(dataset.fingerprint) == 64
    assert dataset.folder.is_relative_to(tmp_path)
    for _, done, total in progress.calls:
        assert 0 <= done <= total or total == 0
    other = prepare(name, image_size=9, cache_dir=tmp_path / "elsewhere")
    assert other.fingerprint == dataset.fingerprint == open_dataset(dataset.folder).fingerprint


def test_prepare_takes_what_the_driver_gives() -> None:
    assert set(inspect.signature(prepare).parameters) == {
        "name", "image_size", "cache_dir", "data_dir", "progress", "resize", "tuning_part",
    }  # fmt: skip
    assert Dataset.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("imagenet-160", "imagenette-160"),
        ("imagewoof160", "imagewoof-160"),
        ("CIFAR10", "cifar10"),
        ("digit", "digits"),
        ("Synthetic", "synthetic"),
        ("folder", "folder:PATH"),
    ],
)
def test_unknown_name_lists_the_known_and_the_nearest(tmp_path: Path, name: str, nearest: str) -> None:
    with pytest.raises(DataError, match=f"{', '.join(DATASETS)}, folder:PATH") as caught:
        prepare(name, image_size=8, cache_dir=tmp_path)
    assert f"Did you mean {nearest!r}?" in str(caught.value)


def test_unknown_name_far_from_all_has_no_guess(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare("", image_size=8, cache_dir=tmp_path)
    assert "Did you mean" not in str(caught.value)


def test_a_folder_named_without_its_prefix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="write 'folder:"):
        prepare(str(tmp_path), image_size=8, cache_dir=tmp_path)


@pytest.mark.parametrize("image_size", [0, -1, 4097, True, 8.0, "8", None])
def test_image_size_is_checked(tmp_path: Path, image_size: Any) -> None:
    with pytest.raises(DataError, match=r"1\.\.4096"):
        prepare("synthetic", image_size=image_size, cache_dir=tmp_path)


@pytest.mark.parametrize("resize", ["crop", "centre_crop", "", "Squash", None, 3])
def test_resize_is_checked(tmp_path: Path, resize: Any) -> None:
    with pytest.raises(DataError, match=f"expected squash or center_crop as resize, got {resize!r}"):
        prepare("synthetic", image_size=8, cache_dir=tmp_path, resize=resize)
    with pytest.raises(DataError, match="Did you mean 'center_crop'"):
        prepare("synthetic", image_size=8, cache_dir=tmp_path, resize="centercrop")


def test_data_dir_without_imagenette(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="imagenette2-160"):
        prepare("imagenette-160", image_size=8, cache_dir=tmp_path, data_dir=tmp_path / "absent")


def test_default_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("ABLATE_CACHE", "~/own")
    assert default_cache_dir() == tmp_path / "own"
    monkeypatch.setenv("ABLATE_CACHE", "")
    assert default_cache_dir() == Path("/xdg/ablate")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache_dir() == tmp_path / ".cache/ablate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("ABLATE_CACHE")
    assert default_cache_dir() == tmp_path / ".cache/ablate"


FRESH = """
import sys
from pathlib import Path
from ablate.data import open_dataset, prepare
folder = prepare("digits", image_size=8, cache_dir=Path(sys.argv[1])).folder
assert open_dataset(folder).classes
print("torch" in sys.modules, "sklearn" in sys.modules)
"""


def test_no_torch_and_no_scikit_learn_once_decoded(tmp_path: Path) -> None:
    prepare("digits", image_size=8, cache_dir=tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)],
        cwd=Path(ablate.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "False"]
