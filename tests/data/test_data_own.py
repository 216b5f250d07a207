"""Images from a function of the user's own: arrays or torch datasets; and the split of a folder."""

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import Recorder, image_tree, prepared, refused, write_image
from torchvision.datasets import ImageFolder

from ablate.data import Dataset, bind_data, prepare
from ablate.errors import DataError, StudyError

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


def test_arrays_and_torch_datasets_are_what_the_same_images_in_folders_are(
    own: ModuleType, tmp_path: Path
) -> None:
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


def test_a_change_of_one_pixel_or_label_is_other_data_and_arguments_reach_the_function(
    own: ModuleType, tmp_path: Path
) -> None:
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
        (both(IMAGES.astype(np.int64)), r"int64 \[9, 7, 3\]\. .* images of uint8"),
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
    assert "expected a split of 0" in refused(prepared, flat, cache, split=-0.5)
    message = refused(prepare, "digits", image_size=8, cache_dir=cache, split=0.2)
    assert message == "split: is for folder:PATH alone, but data is 'digits'; leave split out"
