"""Images in class folders, `SPLIT/CLASS/FILE`; and `folder:PATH`, one's own in `PATH/train` and `PATH/val`.

They are listed here and not by torchvision, which passes over what it does not know, enters folders inside of
class folders, and would be imported at every start of a run.
"""

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ablate.data.decode import decode_files, unreadable
from ablate.data.source import Contents, Part, Request, Source, refuse
from ablate.errors import DataError

PREFIX = "folder:"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Files that desktop systems leave in folders by themselves. They are the only ones passed over in silence.
_DROPPINGS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_REMEDY = (
    "Expected PATH/train/CLASS/IMAGE and PATH/val/CLASS/IMAGE, the same classes in both, and nothing but "
    f"images ({' '.join(SUFFIXES)}) in the class folders. Mend or move these and run again; no image is ever "
    "skipped."
)


class ImageFile(NamedTuple):
    """An image file: its name relative to the dataset's folder, and what tells a changed one."""

    name: str
    size: int
    mtime_ns: int


@dataclass
class Listing:
    """The class folders of one split, sorted by name, their files sorted by name, and what is wrong."""

    root: Path
    classes: dict[str, list[ImageFile]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def files(self) -> list[ImageFile]:
        """Return the files of all classes, in order."""
        return [file for files in self.classes.values() for file in files]

    def paths(self) -> list[Path]:
        """Return the files' paths, in order."""
        return [self.root / file.name for file in self.files()]

    def part(self, labels: Mapping[str, int], stage: str, request: Request) -> Part:
        """Return the split as originals to decode, by the class id of each class folder."""
        return Part(
            names=tuple(file.name for file in self.files()),
            labels=tuple(labels[name] for name, files in self.classes.items() for _ in files),
            write=partial(decode_files, self.paths(), stage=stage, request=request),
        )


def is_dropping(name: str) -> bool:
    """Tell whether a file name is one that macOS or Windows writes into folders by itself."""
    return name in _DROPPINGS or name.startswith("._")


def list_split(root: Path, split: str, is_image: Callable[[str], bool]) -> Listing:
    """List the class folders and images of ROOT/SPLIT; whatever else lies there is a problem, never skipped.

    Only what macOS and Windows drop into folders (`._*`, `Thumbs.db` and the like) is passed over. `is_image`
    tells from a file's name whether it should be an image.
    """
    listing = Listing(root)
    problems = listing.problems
    for folder in _scan(root / split, split, problems):
        if not folder.is_dir():
            problems.append(f"{f'{split}/{folder.name}'!r}: a file beside the class folders")
            continue
        files = listing.classes[folder.name] = []
        for entry in _scan(folder, f"{split}/{folder.name}", problems):
            name = f"{split}/{folder.name}/{entry.name}"
            if entry.is_dir():
                problems.append(f"{name!r}: a folder inside a class folder")
            elif not entry.is_file():  # a pipe would block the reader, a dangling link has nothing to read
                problems.append(f"{name!r}: not a regular file")
            elif not is_image(entry.name):
                problems.append(f"{name!r}: not an image file by its name")
            else:
                status = entry.stat()
                files.append(ImageFile(name, status.st_size, status.st_mtime_ns))
    return listing


def _scan(folder: "Path | os.DirEntry[str]", name: str, problems: list[str]) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if entry.is_dir() or not is_dropping(entry.name)]
        return sorted(kept, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(f"{name!r}: {error.strerror or error}")
        return []


def identity(train: Listing, valid: Listing) -> object:
    """Return what tells one state of the files from another: folder, and each file's name, size and mtime.

    The folder's path is part of it since two copies may have equal names, sizes and times and other pixels;
    it decides where decoded images are cached and nothing else.
    """
    return {"root": os.fsdecode(train.root), "files": [*train.files(), *valid.files()]}


def check(train: Listing, valid: Listing, problems: Sequence[str], remedy: str, request: Request) -> None:
    """Refuse splits with problems, of the listings or beside them; unreadable images are then listed too."""
    if problems := [*train.problems, *valid.problems, *problems]:
        problems += unreadable([*train.paths(), *valid.paths()], request)
        raise refuse("problem", f"in {str(train.root)!r}", problems, remedy)


def contents(
    train: Listing, valid: Listing, classes: Mapping[str, str], remedy: str, request: Request
) -> Contents:
    """Return both splits as originals; `classes` are names for people, by class folder."""
    labels = {folder: label for label, folder in enumerate(classes)}
    return Contents(
        classes=tuple(classes.values()),
        train=train.part(labels, "decoding train images", request),
        valid=valid.part(labels, "decoding valid images", request),
        remedy=remedy,
    )


def locate(name: str, request: Request) -> Source:
    """Find the images of `folder:PATH`; all that is wrong with them is listed in one error.

    The held-out split's folder is `val` or `valid`. Class folders have one level; their names, sorted by code
    point, give the class ids. Whatever else lies beside the split folders (a test split, a readme) is not
    looked at. A relative path starts at the current directory, `~` is the home folder; the request's
    `data_dir` is ignored.

    Raises:
        DataError: No such folder; a split folder missing; fewer than two classes; classes without images or
            that differ between the splits; files that are not images; and, beside any of these, unreadable
            images.
    """
    path = name.removeprefix(PREFIX)
    if not path:
        raise DataError(f"expected {PREFIX}PATH with the path of a folder, got {name!r}. {_REMEDY}")
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        raise DataError(f"{name!r}: there is no folder {str(root)!r}. {_REMEDY}")
    held_out, problems = _split_folders(root)
    listings = {split: Listing(root) for split in ("train", held_out)}
    for split in listings:
        if (root / split).is_dir():
            listings[split] = list_split(root, split, lambda file: file.lower().endswith(SUFFIXES))
            if not listings[split].classes:
                problems.append(f"{split!r}: no class folders in it")
    train, valid = listings.values()
    if train.classes and valid.classes:  # else every class of the one would be missing in the other
        problems += _class_problems("train", train, valid) + _class_problems(held_out, valid, train)
        if len(train.classes) < 2:
            problems.append(f"'train': expected at least 2 class folders, found {len(train.classes)}")
    check(train, valid, problems, _REMEDY, request)
    classes = dict(zip(train.classes, train.classes, strict=True))
    read = partial(contents, train, valid, classes, _REMEDY, request)
    return Source(name, "folder", identity(train, valid), read)


def _split_folders(root: Path) -> tuple[str, list[str]]:
    """Return the name of the held-out split's folder, and what is wrong with the two folders' names."""
    try:
        folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(f"cannot look into {str(root)!r}: {error.strerror or error}. {_REMEDY}") from error
    listed = ", ".join(map(repr, folders[:5])) + ", …" * (len(folders) > 5)
    missing = f"no such folder; the folders in PATH are: {listed or 'none'}"
    problems = [] if "train" in folders else [f"'train': {missing}"]
    held_out = [split for split in ("val", "valid") if split in folders]
    if not held_out:
        problems.append(f"'val' or 'valid': {missing}")
    elif len(held_out) == 2:
        problems.append("'val' and 'valid' both exist: which of them is meant?")
    return (held_out or ["val"])[0], problems


def _class_problems(split: str, listing: Listing, other: Listing) -> list[str]:
    problems = [f"{f'{split}/{name}'!r}: no images" for name, files in listing.classes.items() if not files]
    for name in sorted(other.classes.keys() - listing.classes.keys()):
        problem = f"{f'{split}/{name}'!r}: missing, the other split has this class"
        # a class folder that looks the same has another letter case, or an accent encoded otherwise
        if twins := [ascii(twin) for twin in listing.classes if _plain(twin) == _plain(name)]:
            problem += f" as {name!a}; here it is spelt {', '.join(twins)}"
        problems.append(problem)
    return problems


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
