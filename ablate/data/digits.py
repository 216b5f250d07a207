"""`digits`: the handwritten digits that scikit-learn brings along, real images without a download.

1,797 images of 8×8 pixels with 17 grey levels, ten classes. 60 images of each class are for training and
the other 1,197 for reporting, so that calibration can be seen. Both splits hold digits of the same writers,
so the accuracy is one on known writers.

References:
    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49.
"""

import hashlib
from functools import partial
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ablate.data.dataset import Images
from ablate.data.decode import resize
from ablate.data.source import Contents, Part, Request, Source

TRAIN_PER_CLASS = 60
_LEVELS = 16  # a pixel is a count of ink, 0..16

_SPLIT = "by SHA-256 of the index, 60 of each class"


def locate(name: str, request: Request) -> Source:
    """Return the digits; `data_dir` is ignored.

    Args:
        name: the registry's name of this dataset.
        request: an `image_size` other than 8 resizes as for any other image.
    """
    identity = {"scikit-learn": version("scikit-learn"), "split": _SPLIT}
    return Source(name, "digits", identity, read=lambda: _contents(request))


def _contents(request: Request) -> Contents:
    from sklearn.datasets import load_digits  # slow to import, and not needed once the images are decoded

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / _LEVELS)).astype(np.uint8)
    labels = [int(label) for label in digits.target]
    train, valid = split(labels)
    return Contents(
        classes=tuple(str(name) for name in digits.target_names),
        train=_part(pixels, labels, train, request),
        valid=_part(pixels, labels, valid, request),
        normalisation=None,
        remedy="Reinstall scikit-learn, whose package holds these images.",
    )


def split(labels: list[int]) -> tuple[list[int], list[int]]:
    """Return the indices of the training and the reported images, each in ascending order.

    Of every class, the 60 images whose index has the smallest SHA-256 are for training. No random generator
    is involved whose stream a new version could change.
    """
    by_hash = sorted(range(len(labels)), key=lambda index: hashlib.sha256(b"digits/%d" % index).digest())
    train = {
        index
        for label in set(labels)
        for index in [index for index in by_hash if labels[index] == label][:TRAIN_PER_CLASS]
    }
    return sorted(train), [index for index in range(len(labels)) if index not in train]


def _part(pixels: NDArray[np.uint8], labels: list[int], indices: list[int], request: Request) -> Part:
    return Part(
        names=tuple(f"digits/{index:04d}" for index in indices),
        labels=tuple(labels[index] for index in indices),
        write=partial(_write, pixels[indices], request),
    )


def _write(pixels: NDArray[np.uint8], request: Request, out: Images) -> list[str]:
    for row, grey in enumerate(pixels):
        out[row] = resize(Image.fromarray(grey).convert("RGB"), request.image_size, request.resize)
    request.progress("decoding digits", len(pixels), len(pixels))
    return []
