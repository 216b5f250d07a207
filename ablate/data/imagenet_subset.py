"""Ten classes of ImageNet as fast.ai packs them: `train/WNID/*.JPEG`, `val/WNID/*.JPEG`, wrong labels.

What Imagenette and Imagewoof share. Every count is checked, the file names too, and a file that is missing,
does not belong or cannot be read stops with a list.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ablate.data.archive import AllowList
from ablate.data.dataset import Channels
from ablate.data.decode import unreadable
from ablate.data.download import RemoteFile
from ablate.data.fetch import Archive, limits, remedy, unpacked
from ablate.data.noise_list import NoiseList, read_noise, state
from ablate.data.source import Contents, Request, Source, refuse
from ablate.data.tree import ImageFile, Listing, identity, list_split, part, paths

SPLITS = ("train", "val")
SHORTER_SIDES = (160, 320)
"""Pixels of the shorter side in the archives that are resized."""


@dataclass(frozen=True)
class ImageClass:
    """A class's name for people, and its number of images in `train` and in `val`."""

    name: str
    train: int
    val: int


@dataclass(frozen=True)
class Subset:
    """What one archive is and holds.

    Attributes:
        title: the dataset's name for people, without a size.
        remote: where the archive is fetched from.
        folder: the one folder in it.
        shorter_side: pixels that nearly all images' shorter side has; None at full size.
        classes: class of each WordNet id, sorted by id.
        names_sha256: SHA-256 of the files' names (`train/n01440764/…`), sorted and joined by newlines.
        noise: the CSV of wrong labels beside `train` and `val`.
        normalisation: mean and std of the channels where 255 is 1; None computes them.
    """

    title: str
    remote: RemoteFile
    folder: str
    shorter_side: int | None
    classes: Mapping[str, ImageClass]
    names_sha256: str
    noise: NoiseList
    normalisation: tuple[Channels, Channels] | None = None

    def archive(self) -> Archive:
        """Return what downloading and unpacking need to know."""
        folder = re.escape(self.folder)
        image = r"(train|val)/n\d{8}/[\w.-]+\.JPEG"
        allowed = AllowList(
            files=re.compile(rf"{folder}/({image}|{re.escape(self.noise.file)})", re.ASCII),
            directories=re.compile(rf"{folder}(/(train|val)(/n\d{{8}})?)?", re.ASCII),
        )
        return Archive(self.remote, self.folder, SPLITS, allowed, limits(self.remote))


def locate_subset(name: str, request: Request, subset: Subset) -> Source:
    """Find a copy of the dataset and check that it is complete; download it when there is no `data_dir`.

    Args:
        name: the registry's name of this dataset.
        request: its `data_dir` is the archive's folder, or the one that holds it.
        subset: what to expect.

    Raises:
        DataError: No copy in `data_dir`; a failed download; files missing, in excess, unreadable, misnamed
            or of another size.
    """
    archive = subset.archive()
    not_kept = "The archive does not hold the dataset that it should; nothing of it was kept."
    root = unpacked(archive, request, lambda fresh: _check(fresh, subset, request, not_kept))
    mend = remedy(archive, root, request)
    train, val = _check(root, subset, request, mend)
    return Source(
        name=name,
        kind=name,
        identity={"images": identity(root, [train, val]), "noise": state(root, subset.noise)},
        read=partial(_contents, root, train, val, subset, request, mend),
    )


def _check(root: Path, subset: Subset, request: Request, mend: str) -> tuple[Listing, Listing]:
    """Return the files of both splits. Files beside `train` and `val` are not part of the dataset."""
    train, val = (list_split(root, split, lambda name: name.endswith(".JPEG")) for split in SPLITS)
    problems = train.problems + val.problems
    for split, listing in zip(SPLITS, (train, val), strict=True):
        problems += _count_problems(split, listing, subset)
    if not problems and _names_digest(train, val) != subset.names_sha256:
        problems.append("the numbers of files are right, but some are not named as in the official archive")
    problems += _size_problems(root, train, subset)
    if problems:
        problems += unreadable(paths(root, train) + paths(root, val), request.progress)
        raise refuse("problem", f"in {root}", problems, mend)
    return train, val


def _names_digest(train: Listing, val: Listing) -> str:
    names = sorted(file.name for listing in (train, val) for file in listing.files())
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()


def _count_problems(split: str, listing: Listing, subset: Subset) -> list[str]:
    expected = {wnid: getattr(image_class, split) for wnid, image_class in subset.classes.items()}
    found = {wnid: len(files) for wnid, files in listing.classes.items()}
    problems = [
        f"{f'{split}/{wnid}'!r}: not a class of {subset.title}" for wnid in found.keys() - expected.keys()
    ]
    problems += [
        f"'{split}/{wnid}': expected {count} images, found {found.get(wnid, 0)}"
        for wnid, count in expected.items()
        if found.get(wnid, 0) != count
    ]
    return sorted(problems)


def _size_problems(root: Path, train: Listing, subset: Subset) -> list[str]:
    """Tell the archives of one dataset apart, whose files have the same names at every size.

    One image of each class is looked at, and most must agree: that not one image is an exception is not
    published.
    """
    sides = Counter(_shorter_sides(root, [files[0] for files in train.classes.values() if files]))
    if not sides:
        return []
    side, count = sides.most_common(1)[0]
    resized = 2 * count > sides.total() and side in {*SHORTER_SIDES, subset.shorter_side}
    if (side if resized else None) == subset.shorter_side:
        return []
    wanted = f"{subset.shorter_side} px" if subset.shorter_side else "the full size"
    return [
        f"expected images of {wanted} (shorter side); {count} of {sides.total()} looked at have {side} px: "
        "is this the archive of another size?"
    ]


def _shorter_sides(root: Path, files: list[ImageFile]) -> Iterator[int]:
    for file in files:
        try:
            with Image.open(root / file.name, formats=("JPEG", "PNG")) as image:
                yield min(image.size)
        except Exception:  # Pillow raises many kinds on corrupt bytes; decoding reports this file
            continue


def _contents(
    root: Path, train: Listing, val: Listing, subset: Subset, request: Request, mend: str
) -> Contents:
    labels = {wnid: label for label, wnid in enumerate(subset.classes)}
    training = part(root, train, labels, "decoding train images", request)
    return Contents(
        classes=tuple(image_class.name for image_class in subset.classes.values()),
        train=training,
        valid=part(root, val, labels, "decoding valid images", request),
        normalisation=subset.normalisation,
        remedy=mend,
        noise=read_noise(root, subset.noise, labels, training),
    )
