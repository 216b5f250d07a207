"""`cifar10`: CIFAR-10, 50,000 + 10,000 images of 32×32 pixels, ten classes.

Read by torchvision, which compares the MD5 digest of each file with its own list before it opens it. The test
batch is the reported split.
"""

from functools import partial
from pathlib import Path
from typing import Any

from ablate.data.decode import resize_all
from ablate.data.fetch import unpacked
from ablate.data.manifest import CIFAR10, Archive
from ablate.data.source import Contents, Part, Request, Source
from ablate.errors import DataError


def locate(name: str, request: Request, archive: Archive = CIFAR10) -> Source:
    """Find CIFAR-10; download it when there is no `data_dir`.

    Raises:
        DataError: No copy in `data_dir`, or a failed download; on reading, damaged files.
    """
    root, remedy = unpacked(archive, request)
    # torchvision accepts one content only, so where the files lie and when they were written is no matter
    return Source(name, "cifar10", {"sha256": archive.digest}, read=partial(_contents, root, request, remedy))


def _contents(root: Path, request: Request, remedy: str) -> Contents:
    train, test = (_read(root, train, remedy) for train in (True, False))
    return Contents(
        tuple(train.classes), _part("train", train, request), _part("test", test, request), remedy
    )


def _read(root: Path, train: bool, remedy: str) -> Any:
    from torchvision import datasets  # slow to import; needed to decode alone

    # one's own copy may have another name
    named = type("CIFAR10", (datasets.CIFAR10,), {"base_folder": root.name})
    try:
        return named(root.parent, train=train)
    except Exception as error:  # a RuntimeError, or one of many kinds that pickles raise
        raise DataError(
            f"{root} cannot be read as CIFAR-10: {error}. A file is missing, or its MD5 digest is not the "
            f"one that torchvision lists. {remedy}"
        ) from error


def _part(split: str, images: Any, request: Request) -> Part:
    return Part(
        names=tuple(f"{split}/{row:05d}" for row in range(len(images))),
        labels=tuple(images.targets),
        write=lambda out: resize_all(images.data, out, f"decoding {split} images", request),
    )
