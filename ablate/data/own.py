"""Images from a function of the user's own, named by its import path: arrays, or two torch datasets.

It is called once in every run, and each image is read once, for the digest that stands for the originals.
"""

import operator
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ablate.data.dataset import Images, array_digest, json_digest
from ablate.data.decode import EIGHT_BIT_MODES
from ablate.data.source import Contents, Part, Request, Source
from ablate.errors import FOREIGN_FAULTS, DataError
from ablate.plugins import bind, is_foreign, load_foreign

EXPECTED = (
    "Expected {'train': (images, labels), 'valid': (images, labels)}, with 'classes': names if there are "
    "any, or two torch datasets of (image, label), first the one to train on; images of uint8, [H, W] or "
    "[H, W, 3], the same whenever they are read. Of numbers from 0 to 1 write "
    "(255 * images).round().astype('uint8'), leave ToTensor, Normalize and random augmentation out (ablate "
    "augments while it trains), and number classes by np.unique(labels, return_inverse=True)[1]"
)


def bind_data(name: str, arguments: Mapping[str, Any], image_size: int = 0) -> Callable[[], Any]:
    """The code of a dataset, its arguments in place; those that it does not take are a StudyError."""
    own = is_foreign(name) and not name.startswith("folder:")
    code = load_foreign("data", name) if own else lambda: None
    return partial(code, **bind("data", name, code, arguments, {"image_size": image_size}))


def locate(name: str, request: Request) -> Source:
    """Call the function and read what it returns; the first thing wrong with it is a DataError."""
    code = bind_data(name, dict(request.arguments), request.image_size)
    try:
        returned = code()
        if isinstance(returned, Mapping):
            classes = returned.get("classes")
            train, valid = (_rows(*returned[split]) for split in ("train", "valid"))
        else:
            train, valid = ((one.__getitem__, len(one)) for one in returned)
            classes = getattr(returned[0], "classes", None)
        trained, trained_digest = _read("train", *train, request)
        reported, reported_digest = _read("valid", *valid, request)
        used = {*trained.labels, *reported.labels}
        names = tuple(map(str, range(len(used)) if classes is None else classes))
        if odd := ({*range(len(names))} ^ {*trained.labels}) | (used - {*range(len(names))}):
            wanted = f"the labels 0 to {len(names) - 1}, all of them in train"
            raise ValueError(f"expected {wanted}, but not so are {sorted(odd)[:5]}")
    except FOREIGN_FAULTS as error:
        raise DataError(f"data {name!r}: {type(error).__name__}: {error}. {EXPECTED}") from error
    identity = {"train": trained_digest, "valid": reported_digest, "classes": names}
    return Source(name, "own", identity, lambda: Contents(names, trained, reported))


def _rows(images: Any, labels: Any) -> tuple[Callable[[int], Any], int]:
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images, but {len(labels)} labels")
    return (lambda row: (images[row], labels[row])), len(images)


def _read(split: str, read: Callable[[int], Any], count: int, request: Request) -> tuple[Part, str]:
    """One split from what gives the image and the label of a row; and its digest."""
    lock = threading.Lock()  # images are decoded by several threads

    def pixels(row: int) -> Images:
        with lock:
            return _pixels(read(row)[0])

    digests, labels = [], []
    for row in range(count):
        image, label = read(row)
        digests.append(array_digest(_pixels(image)))
        labels.append(operator.index(label))
        if row % 1000 == 999 or row == count - 1:
            request.progress(f"reading {split} images", row + 1, count)
    if not count:
        raise ValueError(f"no images in {split}")
    if any(array_digest(pixels(row)) != digests[row] for row in range(min(8, count))):
        raise ValueError(f"an image of {split} that is read twice is not the same")
    names = tuple(f"{split}/{row:06d}" for row in range(count))
    part = Part(names, tuple(labels), [partial(pixels, row) for row in range(count)])
    return part, json_digest([digests, labels])


def _pixels(image: Any) -> Images:
    """One image as uint8 [H, W] or [H, W, 3]; a ValueError says what else came."""
    if isinstance(image, Image.Image) and image.mode in EIGHT_BIT_MODES:
        image = image.convert("RGB")
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, 2)  # a tensor has its channels first
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8 or pixels.shape[2:] not in ((), (3,)) or pixels.ndim < 2:
        raise ValueError(f"an image of {pixels.dtype} {list(pixels.shape)}")
    return np.ascontiguousarray(pixels)
