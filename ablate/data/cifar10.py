"""`cifar10`: CIFAR-10, 50,000 + 10,000 images of 32×32 pixels, ten classes.

Downloaded and unpacked here, read by torchvision, which compares the MD5 digest of each file with its own
list before it opens it. The test batch is the reported split.

References:
    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html. The archive's SHA-256 is the one that Keras records:
    https://github.com/keras-team/keras/blob/master/keras/src/datasets/cifar10.py.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ablate.data.archive import AllowList
from ablate.data.dataset import Images
from ablate.data.decode import resize
from ablate.data.download import RemoteFile
from ablate.data.fetch import Archive, limits, remedy, unpacked
from ablate.data.source import Contents, Part, Request, Source
from ablate.errors import DataError

_FOLDER = "cifar-10-batches-py"
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
_REMOTE = RemoteFile(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    size=170_498_071,
    digest="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
ARCHIVE = Archive(
    remote=_REMOTE,
    folder=_FOLDER,
    contents=_BATCHES,
    allowed=AllowList(
        files=re.compile(rf"{_FOLDER}/({'|'.join(map(re.escape, _BATCHES))}|readme\.html)"),
        directories=re.compile(rf"{_FOLDER}/?"),
    ),
    limits=limits(_REMOTE),
)


def locate(name: str, request: Request, archive: Archive = ARCHIVE) -> Source:
    """Find CIFAR-10; download it when there is no `data_dir`.

    Args:
        name: the registry's name of this dataset.
        request: its `data_dir` is the folder `cifar-10-batches-py`, or the one that holds it.
        archive: what to expect.

    Raises:
        DataError: No copy in `data_dir`; a failed download; damaged files; torchvision is not installed.
    """
    root = unpacked(archive, request, lambda fresh: None)
    # torchvision accepts one content only, so where the files lie and when they were written is no matter
    identity = {"sha256": archive.remote.digest}
    return Source(
        name, "cifar10", identity, read=lambda: _contents(root, request, remedy(archive, root, request))
    )


def _contents(root: Path, request: Request, mend: str) -> Contents:
    train, test = (_read(root, train, mend) for train in (True, False))
    return Contents(
        classes=tuple(train.classes),
        train=_part("train", train, request),
        valid=_part("test", test, request),
        normalisation=None,
        remedy=mend,
    )


def _read(root: Path, train: bool, mend: str) -> Any:
    try:
        from torchvision.datasets import CIFAR10  # brings torch along; not needed once the images are decoded
    except ImportError as error:
        raise DataError(
            f"cifar10 is read by torchvision: {error}. Install it: pip install torchvision"
        ) from error

    named = type("CIFAR10", (CIFAR10,), {"base_folder": root.name})  # one's own copy may have another name
    try:
        return named(root.parent, train=train)
    except RuntimeError as error:
        raise DataError(
            f"{root}: a file is missing, or its MD5 digest is not the one that torchvision lists. {mend}"
        ) from error
    except Exception as error:  # files that cannot be read, and pickles, raise many kinds
        raise DataError(f"{root} cannot be read as CIFAR-10: {error}. {mend}") from error


def _part(split: str, images: Any, request: Request) -> Part:
    return Part(
        names=tuple(f"{split}/{index:05d}" for index in range(len(images))),
        labels=tuple(images.targets),
        write=partial(_write, split, images.data, request),
    )


def _write(split: str, pixels: Images, request: Request, out: Images) -> list[str]:
    for row, image in enumerate(pixels, 1):
        out[row - 1] = resize(Image.fromarray(image), request.image_size, request.resize)
        if row % 1000 == 0 or row == len(pixels):
            request.progress(f"decoding {split} images", row, len(pixels))
    return []
