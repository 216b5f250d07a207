import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ablate.data import Dataset, prepare
from ablate.errors import DataError

ImageTree = Callable[..., Path]
WriteImage = Callable[..., Path]


def prepared(root: object, cache: Path, **options: Any) -> Dataset:
    return prepare(f"folder:{root}", image_size=8, cache_dir=cache, **options)


def problems(root: Path, tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepared(root, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))
    return str(caught.value)


def test_mean_and_std_are_those_of_the_training_pixels(image_tree: ImageTree, tmp_path: Path) -> None:
    dataset = prepared(image_tree(), tmp_path / "cache")
    scaled = np.asarray(dataset.train.images, np.float64) / 255
    np.testing.assert_allclose(dataset.mean, scaled.mean((0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(dataset.std, scaled.std((0, 1, 2)), atol=1e-12)


def test_names_of_every_kind_are_kept(tmp_path: Path, write_image: WriteImage) -> None:
    classes = sorted(["<b>bold", "a|b", "two words", "ünïcode 猫", "'quoted\"", "-rf", "=1+1"])
    names = ["a b.PNG", "<i>.Jpeg", "x|y.bmp", "é.webp", ".hidden.png", "new\nline.tif", "a.gif"]
    for class_name in classes:
        for seed, name in enumerate(names):
            write_image(tmp_path / "set" / "train" / class_name / name, seed=seed)
            write_image(tmp_path / "set" / "val" / class_name / name, seed=seed)
    dataset = prepared(tmp_path / "set", tmp_path / "cache")
    assert dataset.classes == tuple(classes)
    assert dataset.train.names == tuple(f"train/{c}/{n}" for c in classes for n in sorted(names))
    assert dataset.train.labels.tolist() == [label for label in range(7) for _ in names]
    assert prepared(tmp_path / "set", tmp_path / "cache").train.names == dataset.train.names


def test_names_that_are_not_utf8(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    os.rename(root / "train/cat/0.png", os.fsencode(root / "train/cat") + b"/\xff.png")
    dataset = prepared(root, tmp_path / "cache")
    assert dataset.train.names[2] == "train/cat/\udcff.png"
    assert prepared(root, tmp_path / "cache").train.names == dataset.train.names
    os.rename(root / "train/cat/1.png", os.fsencode(root / "train/cat") + b"/\xfe.txt")
    assert "\\udcfe.txt" in problems(root, tmp_path / "other")


def test_class_folders_are_ordered_by_name_not_by_disk(image_tree: ImageTree, tmp_path: Path) -> None:
    dataset = prepared(image_tree(classes=("zebra", "Ant")), tmp_path / "cache")
    assert dataset.classes == ("Ant", "zebra")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert dataset.train.names[0] == "train/Ant/0.png"


def test_held_out_folder_may_be_called_valid(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    before = prepared(root, tmp_path / "cache").fingerprint
    (root / "val").rename(root / "valid")
    after = prepared(root, tmp_path / "cache")
    assert after.fingerprint == before
    assert after.valid.names[0] == "valid/cat/0.png"


def test_links_to_images_and_folders_are_followed(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    before = prepared(root, tmp_path / "cache").fingerprint
    (root / "train/cat").rename(tmp_path / "cats")
    (root / "train/cat").symlink_to(tmp_path / "cats")
    assert prepared(root, tmp_path / "cache").fingerprint == before


def test_relative_path_and_home(
    image_tree: ImageTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_tree()
    expected = prepared(root, tmp_path / "cache").fingerprint
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepared("~/photos", tmp_path / "cache").fingerprint == expected
    monkeypatch.chdir(root / "train")
    assert prepared("..", tmp_path / "cache").fingerprint == expected


def test_what_lies_beside_the_splits_is_not_looked_at(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    before = prepared(root, tmp_path / "cache").fingerprint
    (root / "README.md").write_text("mine")
    (root / "test").mkdir()
    (root / "train" / ".DS_Store").write_text("x")
    assert prepared(root, tmp_path / "cache").fingerprint == before


def test_a_class_folder_is_never_taken_for_a_dropping(image_tree: ImageTree, tmp_path: Path) -> None:
    dataset = prepared(image_tree(classes=("._cat", "Thumbs.db")), tmp_path / "cache")
    assert dataset.classes == ("._cat", "Thumbs.db")


def test_constant_channel_gets_deviation_one(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[..., 2] = 51
        Image.fromarray(pixels).save(path)
    dataset = prepared(root, tmp_path / "cache")
    assert dataset.mean[2] == pytest.approx(0.2)
    assert dataset.std[2] == 1.0
    assert dataset.std[0] < 1.0


@pytest.mark.parametrize("path", ["", "/nowhere/at all"])
def test_no_such_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="PATH/train/CLASS/IMAGE"):
        prepared(path, tmp_path / "cache")


def test_missing_split_folder(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    (root / "val").rename(root / "held out")
    message = problems(root, tmp_path)
    assert "1 problem in" in message  # not one more for each class
    assert "'val' or 'valid': no such folder; the folders in PATH are: 'held out', 'train'" in message
    (root / "train").rename(root / "val")
    assert "'train': no such folder; the folders in PATH are: 'held out', 'val'" in problems(root, tmp_path)


def test_class_folders_without_splits(image_tree: ImageTree, tmp_path: Path) -> None:
    message = problems(image_tree() / "train", tmp_path)
    assert "'train': no such folder; the folders in PATH are: 'cat', 'dog'" in message
    assert "'val' or 'valid': no such folder" in message


def test_images_without_class_folders(tmp_path: Path, write_image: WriteImage) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / "flat" / split / "a.png")
    message = problems(tmp_path / "flat", tmp_path)
    assert "'train': no class folders in it" in message
    assert "'val': no class folders in it" in message
    assert "'val/a.png': a file beside" in message


def test_a_file_in_the_place_of_a_folder(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    message = problems(root / "train/cat/0.png", tmp_path)
    assert "0.png' is not a folder" in message
    shutil.rmtree(root / "val")
    (root / "val").write_text("x")
    assert "'val' or 'valid': no such folder" in problems(root, tmp_path)


@pytest.mark.parametrize(
    ("train", "val"), [("Dog", "dog"), ("\u00e9t\u00e9", "e\u0301te\u0301"), ("<B>", "<b>")]
)
def test_class_names_that_look_the_same(image_tree: ImageTree, tmp_path: Path, train: str, val: str) -> None:
    root = image_tree(classes=("cat", train))
    (root / "val" / train).rename(root / "val" / val)
    message = problems(root, tmp_path)
    assert f"missing, the other split has this class as {train!a}; here it is spelt {val!a}" in message


def test_the_content_decides_the_format_not_the_name(
    image_tree: ImageTree, tmp_path: Path, write_image: WriteImage
) -> None:
    root = image_tree()
    before = prepared(root, tmp_path / "cache").fingerprint
    (root / "train/cat/0.png").rename(root / "train/cat/0.jpg")
    assert prepared(root, tmp_path / "cache").fingerprint == before
    with Image.open(root / "train/cat/0.jpg") as image:
        image.save(root / "train/cat/1.png", format="ICO")
    message = problems(root, tmp_path / "other")
    assert "1 file cannot be decoded" in message
    assert "1.png': not an image of a known format (JPEG, PNG, BMP, WEBP, TIFF, GIF)" in message


def test_both_names_of_the_held_out_folder(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    (root / "valid").mkdir()
    assert "'val' and 'valid' both exist" in problems(root, tmp_path)


def test_one_class_only(tmp_path: Path, write_image: WriteImage) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / "one" / split / "cat" / "a.png")
    assert "expected at least 2 class folders, found 1" in problems(tmp_path / "one", tmp_path)


def test_everything_wrong_is_in_one_list(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    (root / "train/empty").mkdir()
    (root / "val/only here").mkdir()
    (root / "val/only here/a.png").write_bytes((root / "val/cat/0.png").read_bytes())
    (root / "train/cat/notes.txt").write_text("x")
    (root / "train/cat/sub").mkdir()
    (root / "train/loose.png").write_text("x")
    (root / "train/dog/0.png").write_bytes(b"")
    (root / "val/dog/0.png").write_text("not an image")
    os.mkfifo(root / "val/dog/pipe.png")
    message = problems(root, tmp_path)
    expected = [
        "9 problems",
        "'train/empty': no images",
        "'val/empty': missing",
        "'train/only here': missing",
        "'train/cat/notes.txt': not an image file",
        "'train/cat/sub': a folder inside",
        "'train/loose.png': a file beside",
        "train/dog/0.png': empty (0 bytes)",
        "val/dog/0.png': not an image",
        "'val/dog/pipe.png': not a regular file",
    ]
    for line in expected:
        assert line in message


def test_unreadable_images_alone_are_listed_too(image_tree: ImageTree, tmp_path: Path) -> None:
    root = image_tree()
    (root / "train/dog/0.png").write_bytes(b"")
    (root / "val/cat/1.png").write_bytes(b"oops")
    message = problems(root, tmp_path)
    assert "2 files cannot be decoded" in message
    assert "train/dog/0.png': empty" in message
    assert "val/cat/1.png': not an image" in message
