"""One's own folders of images, and how files are decoded."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from small_data import Recorder, image_tree, make_request, prepared, refused, squashed, write_image
from torchvision import transforms

from ablate.data import prepare
from ablate.data.decode import decode_all, decode_image, decoder_version


def problems(root: Path, tmp_path: Path) -> str:
    message = refused(prepared, root, tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.npy"))
    return message


def test_names_of_every_kind_are_kept_and_ordered(tmp_path: Path) -> None:
    classes = ["<b>bold", "Zebra", "ant", "_b", "Thumbs", "ünïcode 猫", "'quoted\"", "-rf", "=1+1"]
    names = ["a b.PNG", "<i>.Jpeg", "x|y.bmp", "é.webp", "@h.png", "new\nline.tif", "a.gif", "\udcff.png"]
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
    (root / "train/dog/0.png").rename(root / "train/dog/0.JPG")
    odd = ["train/.DS_Store", "train/.ipynb_checkpoints/0.png", "train/cat/.0.png", "train/cat/@eaDir/0.png"]
    for name in (*odd, "valid/__MACOSX/cat/._0.png", ".git/config", "__MACOSX/train/cat/0.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    after = prepared(root, tmp_path / "cache", progress=(progress := Recorder()))
    assert after.fingerprint == before
    (note,) = (stage for stage in progress.stages() if "passed over" in stage)
    assert all(repr(name.removesuffix("/0.png")) in note for name in (*odd, "valid/__MACOSX"))
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


SIDES = (st.integers(1, 60), st.integers(1, 60), st.integers(1, 24))


@given(*SIDES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_squash_and_crop_are_pils_and_torchs(tmp_path: Path, width: int, height: int, side: int) -> None:
    path = write_image(tmp_path / "a.png", size=(width, height))
    whole, cropped = (decode_image(path, side, method) for method in ("squash", "center_crop"))
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, squashed(path, side))
    crop = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)])
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None]
        torchs = torch.nn.functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        # torch rounds once, Pillow after each of its two passes
        assert np.abs(whole - torchs[0].permute(1, 2, 0).numpy()).max() <= 1.6
        np.testing.assert_array_equal(cropped, np.asarray(crop(image)))
        np.testing.assert_array_equal(cropped, decode_image(np.asarray(image), side, "center_crop"))


def test_every_kind_of_file_becomes_rgb(tmp_path: Path) -> None:
    grey = decode_image(write_image(tmp_path / "grey.JPEG", mode="L"), 8)
    assert (grey == grey[..., :1]).all()
    assert grey.std() > 0
    Image.new("CMYK", (12, 12), (0, 255, 255, 0)).save(tmp_path / "red.JPEG")
    frames = [Image.new("RGB", (6, 6), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "first is red.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "palette.png", transparency=b"\x80\x00")
    with warnings.catch_warnings():  # transparency is dropped without one
        warnings.simplefilter("error")
        for name in ("red.JPEG", "first is red.gif", "clear.png", "palette.png"):
            assert np.abs(decode_image(tmp_path / name, 4).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_orientation_of_a_camera(tmp_path: Path, suffix: str) -> None:
    """By NumPy's turns of what is shown by each of EXIF's eight ways; damaged EXIF data turn nothing."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:4, :8] = 255
    rows = [(1, pixels), (2, pixels[:, ::-1]), (3, np.rot90(pixels, 2)), (4, pixels[::-1])]
    rows += [
        (5, pixels.swapaxes(0, 1)),
        (6, np.rot90(pixels, 3)),
        (7, np.rot90(pixels.swapaxes(0, 1), 2)),
        (8, np.rot90(pixels)),
    ]
    for tag, shown in rows:
        exif = Image.Exif()
        exif[274] = tag
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif, quality=100, lossless=True)
        for upright, wanted in ((True, shown), (False, pixels)):
            side = decode_image(tmp_path / f"a.{suffix}", 8, "center_crop", upright=upright)
            top, left = (wanted.shape[0] - 8) // 2, (wanted.shape[1] - 8) // 2
            assert np.abs(side.astype(int) - wanted[top : top + 8, left : left + 8]).max() <= 8, tag
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0MM\0*\0\0", quality=100)
    decode_image(tmp_path / f"a.{suffix}", 8)


def test_every_bad_file_is_reported_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write_image(tmp_path / "good.jpg", size=(60, 60))
    bad: dict[str, tuple[bytes | None, str]] = {
        "empty": (b"", "empty (0 bytes)"),
        "text": (b"not an image", "not an image of a known format (JPEG, PNG, BMP, WEBP, TIFF, GIF)"),
        "cut": (good.read_bytes()[:-200], "truncated"),
        "head": (b"\xff\xd8\xff\xe0", "not an image"),
        "absent": (None, "No such file"),
    }
    for name, (content, _) in bad.items():
        if content is not None:
            (tmp_path / f"{name}.jpg").write_bytes(content)
    for mode in ("I;16", "F", "I"):  # refused, not clipped
        deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16)).convert(mode)
        deep.save(tmp_path / f"{mode}.jpg", format="TIFF")
        bad[mode] = None, "not of 8 bits"
    paths = [good, *(tmp_path / f"{name}.jpg" for name in bad)]
    rest = np.empty((9, 1, 1, 3), np.uint8), "checking", make_request(tmp_path)
    for problem, path, (_, reason) in zip(decode_all(paths, *rest), paths[1:], bad.values(), strict=True):
        assert str(path) in problem
        assert reason in problem
    assert f"Pillow {PIL.__version__}" in decoder_version()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    decode_image(tmp_path / "cut.jpg", 8)  # Pillow fills the rest with grey and says nothing
    assert "LOAD_TRUNCATED_IMAGES" in refused(decode_all, [good], *rest)
