import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from small_data import image_tree, prepared, refused, write_image

from ablate.data import prepare


def problems(root: Path, tmp_path: Path) -> str:
    message = refused(prepared, root, tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.npy"))
    return message


def test_names_of_every_kind_are_kept_and_ordered(tmp_path: Path) -> None:
    classes = ["<b>bold", "Zebra", "ant", "._b", "Thumbs.db", "ünïcode 猫", "'quoted\"", "-rf", "=1+1"]
    names = ["a b.PNG", "<i>.Jpeg", "x|y.bmp", "é.webp", ".h.png", "new\nline.tif", "a.gif", "\udcff.png"]
    for class_name in classes:
        for seed, name in enumerate(names):
            path = write_image(tmp_path / f"set/train/{class_name}/{seed}{Path(name).suffix}", seed=seed)
            path.rename(path.with_name(name))  # Pillow cannot write a name that is not UTF-8
    shutil.copytree(tmp_path / "set" / "train", tmp_path / "set" / "val")
    for _ in range(2):  # decoded, and found in the cache
        dataset = prepared(tmp_path / "set", tmp_path / "cache")
        assert dataset.classes == tuple(sorted(classes))
        assert dataset.train.names == tuple(f"train/{c}/{n}" for c in sorted(classes) for n in sorted(names))
        assert dataset.train.labels.tolist() == [label for label in range(9) for _ in names]
    os.rename(tmp_path / "set/train/-rf/a.gif", os.fsencode(tmp_path / "set/train/-rf") + b"/\xfe.txt")
    assert "\\udcfe.txt" in problems(tmp_path / "set", tmp_path)


def test_what_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, other names of the held-out folder and of the path, what lies beside, a suffix that is wrong."""
    root = image_tree(tmp_path)
    before = prepared(root, tmp_path / "cache").fingerprint
    (root / "train/cat").rename(tmp_path / "cats")
    (root / "train/cat").symlink_to(tmp_path / "cats")
    (root / "val").rename(root / "valid")
    (root / "README.md").write_text("mine")
    (root / "test").mkdir()
    (root / "train" / ".DS_Store").write_text("x")
    (root / "train/dog/0.png").rename(root / "train/dog/0.JPG")
    after = prepared(root, tmp_path / "cache")
    assert after.fingerprint == before
    assert after.valid.names[0] == "valid/cat/0.png"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(root / "train")
    for path in ("~/photos", ".."):
        again = prepare(f"folder:{path}", image_size=8, cache_dir=Path("../../cache"))
        assert (again.folder, again.name) == (after.folder, f"folder:{path}")


def test_folders_that_are_missing_or_too_many(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    for path in ("", "/nowhere/at all", root / "train/cat/0.png"):
        assert "Expected PATH/train/CLASS/IMAGE" in refused(prepared, path, tmp_path / "other")
    message = problems(root / "train", tmp_path)
    assert "'train': no such folder; the folders in PATH are: 'cat', 'dog'" in message
    assert "'val' or 'valid': no such folder" in message
    (root / "valid").mkdir()
    assert "'val' and 'valid' both exist" in problems(root, tmp_path)
    (root / "valid").rmdir()
    (root / "val").rename(root / "held out")
    (root / "val").write_text("a file in the place of a folder")
    assert "1 problem in" in problems(root, tmp_path)  # not one more for each class
    for split in ("train", "val"):
        write_image(tmp_path / "flat" / split / "a.png")
        write_image(tmp_path / "one" / split / "cat" / "a.png")
    message = problems(tmp_path / "flat", tmp_path)
    for line in ("'train': no class folders in it", "'val': no class folders", "'val/a.png': a file beside"):
        assert line in message
    assert "expected at least 2 class folders, found 1" in problems(tmp_path / "one", tmp_path)


@pytest.mark.parametrize(("train", "val"), [("Dog", "dog"), ("\u00e9t\u00e9", "e\u0301te\u0301")])
def test_class_names_that_look_the_same(tmp_path: Path, train: str, val: str) -> None:
    root = image_tree(tmp_path, classes=("cat", train))
    (root / "val" / train).rename(root / "val" / val)
    line = f"missing, the other split has this class as {train!a}; here it is spelt {val!a}"
    assert line in problems(root, tmp_path)


def test_everything_wrong_is_in_one_list(tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    (root / "train/dog/0.png").write_bytes(b"")
    with Image.open(root / "train/cat/0.png") as image:
        image.save(root / "val/dog/0.png", format="ICO")
    unreadable = ["train/dog/0.png': empty (0 bytes)", "val/dog/0.png': not an image of a known format (JPEG"]
    for line in ("2 files cannot be decoded", *unreadable):
        assert line in problems(root, tmp_path)
    (root / "train/empty").mkdir()
    shutil.copytree(root / "val/cat", root / "val/only here")
    (root / "train/cat/notes.txt").write_text("x")
    (root / "train/cat/sub").mkdir()
    (root / "train/loose.png").write_text("x")
    os.mkfifo(root / "val/dog/pipe.png")
    (root / "val/dog/link.png").symlink_to("nowhere")
    message = problems(root, tmp_path)
    expected = {
        "train/empty": "no images", "val/empty": "missing", "train/only here": "missing",
        "train/cat/notes.txt": "not an image file", "train/cat/sub": "a folder inside",
        "train/loose.png": "a file beside",
        "val/dog/pipe.png": "not a regular file", "val/dog/link.png": "not a regular file",
    }  # fmt: skip
    for line in ("10 problems", *(f"'{path}': {problem}" for path, problem in expected.items()), *unreadable):
        assert line in message
