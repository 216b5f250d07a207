"""`cifar10`: CIFAR-10, 50,000 + 10,000 images of 32×32 pixels, ten classes.

Read by torchvision, which compares each file's MD5 with its list first. The test batch is the reported split.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html; the archive's SHA-256:
https://github.com/keras-team/keras/blob/master/keras/src/datasets/cifar10.py
"""

from functools import partial
from pathlib import Path
from typing import Any

from ablate.data.fetch import Archive, unpacked
from ablate.data.source import Contents, Part, Request, Source
from ablate.errors import DataError

ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    size=170_498_071,
    digest="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    folder="cifar-10-batches-py",
    contents=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
)


def locate(name: str, request: Request, archive: Archive = ARCHIVE) -> Source:
    """Find CIFAR-10; download it when there is no `data_dir`."""
    root, remedy = unpacked(archive, request)
    # torchvision accepts one content only, so where the files lie and when they were written is no matter
    return Source(name, "cifar10", {"sha256": archive.digest}, partial(_read, root, remedy))


def _read(root: Path, remedy: str) -> Contents:
    from torchvision import datasets  # slow to import; needed to decode alone

    named = type("CIFAR10", (datasets.CIFAR10,), {"base_folder": root.name})  # a copy may have another name
    try:
        train, test = (named(root.parent, train=train) for train in (True, False))
    except Exception as error:  # a RuntimeError, or one of many kinds that pickles raise
        raise DataError(
            f"{root} is no CIFAR-10, or a file's MD5 digest is not torchvision's: {error}. {remedy}"
        ) from error

    def part(split: str, images: Any) -> Part:
        names = tuple(f"{split}/{row:05d}" for row in range(len(images)))
        return Part(names, tuple(images.targets), list(images.data))

    return Contents(tuple(train.classes), part("train", train), part("test", test), remedy)
