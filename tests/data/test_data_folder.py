"""One's own images, in folders, split, or of a function; and how files are decoded."""

import os
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from small_data import Recorder, image_tree, make_request, prepared, refused, squashed, write_image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ablate.data import Dataset, bind_data, prepare
from ablate.data.decode import decode_all, decode_image, decoder_version
from ablate.errors import DataError, StudyError


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
    for split, other in (("train", val), ("val", train)):
        assert f"'{split}/{other}': missing, the other split has this class, {other!a}" in problems(
            root, tmp_path
        )


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


LABELS = np.array([0, 1, 2, 0, 1, 2])
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), dtype=np.uint8)
PAIRS = [*zip(IMAGES, LABELS, strict=True)]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("own_data")
    monkeypatch.setitem(sys.modules, "own_data", module)
    return module


def prepare_own(own: ModuleType, cache: Path, returned: Any, **options: Any) -> Dataset:
    vars(own)["load"] = returned if callable(returned) else lambda: returned
    return prepare("own_data:load", **{"image_size": 8, "cache_dir": cache, **options})


def same(a: Dataset, b: Dataset) -> None:
    assert a.fingerprint == b.fingerprint
    for one, other in ((a.train, b.train), (a.valid, b.valid)):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def arrays(root: Path) -> dict[str, Any]:
    splits = {}
    for split, folder in (("train", "train"), ("valid", "val")):
        paths = sorted((root / folder).glob("*/*.png"))
        images = np.stack([np.asarray(Image.open(path)) for path in paths])
        splits[split] = images, [["cat", "dog"].index(path.parent.name) for path in paths]
    return {**splits, "classes": ["cat", "dog"]}


def test_arrays_and_torch_datasets_are_what_folders_are(own: ModuleType, tmp_path: Path) -> None:
    root = image_tree(tmp_path)
    folder, cache = prepared(root, tmp_path / "cache"), tmp_path / "other"
    given = arrays(root)
    of_arrays = prepare_own(own, cache, given)
    same(of_arrays, folder)
    assert (of_arrays.classes, of_arrays.name) == (folder.classes, "own_data:load")
    of_torch = prepare_own(own, cache, (ImageFolder(root / "train"), ImageFolder(root / "val")))
    same(of_torch, folder)
    assert of_torch.folder == of_arrays.folder  # the same content, so it is decoded once
    tensors = [
        [
            (torch.from_numpy(image).permute(2, 0, 1), torch.tensor(label))
            for image, label in zip(*split, strict=True)
        ]
        for split in (given["train"], given["valid"])
    ]
    same(prepare_own(own, cache, tuple(tensors)), folder)
    grey = {split: (images[..., 0], labels) for split, (images, labels) in list(given.items())[:2]}
    channels_first = {split: (images[:, None], labels) for split, (images, labels) in grey.items()}
    same(prepare_own(own, cache, grey), prepare_own(own, cache, channels_first))


def test_one_other_pixel_or_label_is_other_data_and_arguments_arrive(own: ModuleType, tmp_path: Path) -> None:
    def load(image_size: int, value: int = 0) -> dict[str, Any]:
        images = np.full((6, image_size, image_size), 7, np.uint8)
        images[0, 0, 0] = value
        return {"train": (images, LABELS), "valid": (255 - images, np.roll(LABELS, value))}

    made = [prepare_own(own, tmp_path, load, arguments=values) for values in ((), (("value", 1),))]
    assert made[0].fingerprint != made[1].fingerprint
    assert (made[1].train.images[0, 0, 0, 0], made[1].valid.labels.tolist()) == (1, [2, 0, 1, 2, 0, 1])
    held = prepare_own(own, tmp_path, load, tuning_part=0.4)
    assert (len(held.train), len(held.valid)) == (3, 3)
    assert (made[0].noisy_train_labels(0.5) != LABELS).sum() == 3
    with pytest.raises(StudyError, match=r"data\.valu: 'own_data:load' takes no such argument.*'value'"):
        bind_data("own_data:load", {"valu": 1})
    with pytest.raises(StudyError, match=r"data\.n: 'digits' takes no such argument"):
        bind_data("digits", {"n": 1})


def both(images: Any, labels: Any = LABELS, **more: Any) -> dict[str, Any]:
    return {"train": (images, labels), "valid": (IMAGES, LABELS), **more}


class Jittered(list[Any]):
    """A torch dataset with a random transform."""

    def __getitem__(self, row: Any) -> Any:
        image, label = super().__getitem__(row)
        return image ^ np.random.default_rng().integers(0, 256, image.shape, dtype=np.uint8), label


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "two torch datasets of"),
        ({"train": (IMAGES, LABELS)}, "KeyError: 'valid'"),
        (both(IMAGES / 255), r"float64 \[9, 7, 3\]\. .* numbers from 0 to 1 write \(255 \* images\)"),
        (both(torch.rand(6, 3, 8, 8)), "leave ToTensor, Normalize"),
        (both(IMAGES.reshape(6, -1)), r"uint8 \[189\]"),
        (both(IMAGES, LABELS[:5]), "6 images, but 5 labels"),
        (both(IMAGES[:0], LABELS[:0]), "no images in train"),
        (both(IMAGES, LABELS + 1), r"expected the labels 0 to 3, all of them in train, but not so are \[0\]"),
        (both(IMAGES, LABELS, classes=["a", "b"]), r"labels 0 to 1, .* not so are \[2\]"),
        (both(IMAGES, [*"aabbcc"]), "cannot be interpreted as an integer"),
        ((Jittered(PAIRS), PAIRS), "train that is read twice is not the same.* random augmentation"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_the_way_out(
    own: ModuleType, tmp_path: Path, returned: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare_own(own, tmp_path, returned)
    assert "\n" not in str(caught.value)
    assert "data 'own_data:load'" in str(caught.value)
    assert not list(tmp_path.rglob("*.npy"))


def test_images_that_are_in_both_splits_are_counted(own: ModuleType, tmp_path: Path) -> None:
    told = Recorder()
    other = np.concatenate([IMAGES[:2], 255 - IMAGES[2:]])
    prepare_own(own, tmp_path, {"train": (IMAGES, LABELS), "valid": (other, LABELS)}, progress=told)
    words = "2 of 6 reported images are, pixel by pixel, training images too"
    assert told.stages()[-1] == f"own_data:load: {words}"


def flat_tree(here: Path, counts: tuple[int, int] = (10, 25)) -> Path:
    for label, count in zip(("cat", "dog"), counts, strict=True):
        for index in range(count):
            write_image(here / f"photos/{label}/{index}.png", seed=100 * len(label) + index + ord(label[0]))
    return here / "photos"


def test_a_split_takes_its_part_of_each_class_whatever_the_place_and_the_content(tmp_path: Path) -> None:
    root = flat_tree(tmp_path / "a")
    small, large = (prepared(root, tmp_path / "cache", split=part) for part in (0.2, 0.5))
    assert np.bincount(small.valid.labels).tolist() == [2, 5]
    assert np.bincount(small.train.labels).tolist() == [8, 20]
    assert len({*small.train.names, *small.valid.names}) == 35
    assert {*small.valid.names} < {*large.valid.names}
    for path in root.glob("*/*.png"):
        write_image(path, seed=int(path.stem) + 50 * (path.parent.name == "dog"))
    moved = shutil.move(root, tmp_path / "b")
    assert prepared(moved, tmp_path / "cache", split=0.2).valid.names == small.valid.names
    tuned = prepared(moved, tmp_path / "cache", 0.2, split=0.2)
    assert {*tuned.train.names, *tuned.valid.names} == {*small.train.names}


def test_a_split_where_there_is_one_already_or_none_to_take(tmp_path: Path) -> None:
    flat, tree, cache = flat_tree(tmp_path, (1, 3)), image_tree(tmp_path, "tree"), tmp_path / "cache"
    assert "or, with the field split=0.2, PATH/CLASS/IMAGE" in refused(prepared, flat, cache)
    assert "PATH has ['train', 'val']; leave split out" in refused(prepared, tree, cache, split=0.2)
    assert "1 problem with split=0.2" in refused(prepared, flat, cache, split=0.2)
    assert "no class folders in it" in refused(prepared, flat / "cat", cache, split=0.2)
    message = refused(prepare, "digits", image_size=8, cache_dir=cache, split=0.2)
    assert message == "split: is for folder:PATH alone, but data is 'digits'; leave split out"
