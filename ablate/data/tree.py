"""Images in folders: `SPLIT/CLASS/FILE`, listed with everything that does not belong there."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ablate.data.decode import decode_files
from ablate.data.source import Part, Request

# Files that desktop systems leave in folders by themselves. They are the only ones passed over in silence.
_DROPPINGS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class ImageFile:
    """One image file of a split: its name relative to the dataset's folder, and what tells a changed file."""

    name: str
    size: int
    mtime_ns: int


@dataclass
class Listing:
    """The class folders of one split, sorted by name, their files sorted by name, and what is wrong."""

    classes: dict[str, list[ImageFile]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def files(self) -> list[ImageFile]:
        """Return the files of all classes, in order."""
        return [file for files in self.classes.values() for file in files]


def is_dropping(name: str) -> bool:
    """Tell whether a file name is one that macOS or Windows writes into folders by itself."""
    return name in _DROPPINGS or name.startswith("._")


def list_split(root: Path, split: str, is_image: Callable[[str], bool]) -> Listing:
    """List a split's class folders and images; whatever else lies there is a problem, never skipped.

    A file beside the class folders, a folder inside one, a link to nothing and a file whose name is not an
    image's are problems. Only what macOS and Windows drop into folders (`.DS_Store`, `._*`, `Thumbs.db`,
    `desktop.ini`) is passed over.

    Args:
        root: the dataset's folder.
        split: name of the split's folder in it.
        is_image: tells from a file's name whether it should be an image.
    """
    listing = Listing()
    for entry in _scan(root / split, split, listing.problems):
        if entry.is_dir():
            listing.classes[entry.name] = _list_class(
                entry, f"{split}/{entry.name}", is_image, listing.problems
            )
        else:
            listing.problems.append(f"{f'{split}/{entry.name}'!r}: a file beside the class folders")
    return listing


def _list_class(
    folder: os.DirEntry[str], name: str, is_image: Callable[[str], bool], problems: list[str]
) -> list[ImageFile]:
    files = []
    for entry in _scan(Path(folder.path), name, problems):
        where = f"{name}/{entry.name}"
        if entry.is_dir():
            problems.append(f"{where!r}: a folder inside a class folder")
        elif not entry.is_file():  # a pipe would block the reader, a dangling link has nothing to read
            problems.append(f"{where!r}: not a regular file")
        elif not is_image(entry.name):
            problems.append(f"{where!r}: not an image file by its name")
        else:
            status = entry.stat()
            files.append(ImageFile(where, status.st_size, status.st_mtime_ns))
    return files


def _scan(folder: Path, name: str, problems: list[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if entry.is_dir() or not is_dropping(entry.name)]
        return sorted(kept, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(f"{name!r}: {error.strerror or error}")
        return []


def identity(root: Path, listings: Sequence[Listing]) -> object:
    """Return what tells one state of the files from another: folder, and each file's name, size and mtime.

    The folder's path is part of it since two copies may have equal names, sizes and times and other pixels;
    it decides where decoded images are cached and nothing else.
    """
    files = [[file.name, file.size, file.mtime_ns] for listing in listings for file in listing.files()]
    return {"root": os.fsdecode(root), "files": files}


def part(root: Path, listing: Listing, labels: Mapping[str, int], stage: str, request: Request) -> Part:
    """Return a listed split as originals to decode, classes in the order of the listing.

    Args:
        root: the dataset's folder.
        listing: what `list_split` found.
        labels: class id of each class folder.
        stage: what the request's `progress` is told is being done.
        request: says how to resize.
    """
    files = listing.files()
    return Part(
        names=tuple(file.name for file in files),
        labels=tuple(labels[name] for name, files in listing.classes.items() for _ in files),
        write=partial(
            decode_files,
            paths(root, listing),
            stage=stage,
            progress=request.progress,
            method=request.resize,
        ),
    )


def paths(root: Path, listing: Listing) -> list[Path]:
    """Return the paths of a listing's files."""
    return [root / file.name for file in listing.files()]
