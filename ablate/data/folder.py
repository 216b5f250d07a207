"""Images in class folders, `SPLIT/CLASS/FILE`; and `folder:PATH`, one's own in its `train` and `val`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ablate.data.decode import decode_all
from ablate.data.source import Contents, Part, Request, Source, refuse
from ablate.data.tuning import held_back
from ablate.errors import DataError

PREFIX = "folder:"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# What systems and tools leave in folders by themselves, beside hidden names, which begin with a dot.
_DROPPINGS = {"Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "$RECYCLE.BIN"}
_REMEDY = (
    "Expected PATH/train/CLASS/IMAGE and PATH/val/CLASS/IMAGE, the same classes in both, or, with the field "
    f"split=0.2, PATH/CLASS/IMAGE; and nothing but images ({' '.join(SUFFIXES)}) in the class folders. "
    "Mend or move these and run again; no image is ever skipped."
)


class ImageFile(NamedTuple):
    """A file: its name relative to the dataset's folder, and what tells a changed one."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int
    """Of its last change by the system's clock, which nobody sets back as they may `mtime_ns`."""

    @classmethod
    def of(cls, name: str, status: os.stat_result) -> "ImageFile":
        """A file in its present state."""
        return cls(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass
class Tree:
    """The images of each split by class folder, folders and files sorted by name, and what is wrong."""

    root: Path
    splits: dict[str, dict[str, list[ImageFile]]]
    problems: list[str]
    passed_over: list[str]
    """Names of hidden and machine-made files and folders."""

    def files(self) -> list[ImageFile]:
        """Return the files of all splits, in order."""
        return [file for folders in self.splits.values() for files in folders.values() for file in files]

    def identity(self) -> object:
        """Return what tells one state of the files from another; copies may differ in their pixels alone."""
        return {"root": os.fsdecode(self.root), "files": self.files()}

    def check(self, remedy: str, request: Request) -> None:
        """Refuse a tree with problems; unreadable images are then listed too. Say what was passed over."""
        if self.passed_over:
            names = ", ".join(map(repr, self.passed_over[:5])) + ", …" * (len(self.passed_over) > 5)
            request.progress(f"passed over in {self.root}, as hidden or machine-made: {names}", 0, 0)
        if self.problems:
            paths = [self.root / file.name for file in self.files()]
            out = np.empty((len(paths), 1, 1, 3), np.uint8)
            problems = [*self.problems, *decode_all(paths, out, "checking files", request)]
            raise refuse("problem", f"in {str(self.root)!r}", problems, remedy)

    def contents(self, classes: Mapping[str, str], remedy: str) -> Contents:
        """Return both splits as originals; `classes` are names for people, by class folder."""
        ids = {folder: label for label, folder in enumerate(classes)}

        def part(folders: Mapping[str, Sequence[ImageFile]]) -> Part:
            names = tuple(file.name for files in folders.values() for file in files)
            labels = tuple(ids[folder] for folder, files in folders.items() for _ in files)
            return Part(names, labels, [self.root / name for name in names])

        train, valid = map(part, self.splits.values())
        return Contents(tuple(classes.values()), train, valid, remedy)


def is_dropping(name: str) -> bool:
    """Tell whether a name is hidden, or of what systems and tools write into folders by themselves."""
    return name in _DROPPINGS or name.startswith(".")


def list_tree(root: Path, splits: Sequence[str]) -> Tree:
    """List the class folders and images (by suffix) of ROOT/SPLIT; what else is not hidden is a problem."""
    tree = Tree(root, {split: {} for split in splits}, problems := [], [])

    def scan(name: str) -> "list[os.DirEntry[str]]":
        try:
            with os.scandir(root / name) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{name!r}: {error.strerror or error}")
            return []
        tree.passed_over += [f"{name}/{entry.name}" for entry in found if is_dropping(entry.name)]
        return [entry for entry in found if not is_dropping(entry.name)]

    for split in (split for split in splits if (root / split).is_dir()):
        for folder in scan(split):
            if not folder.is_dir():
                problems.append(f"{f'{split}/{folder.name}'!r}: a file beside the class folders")
                continue
            files = tree.splits[split][folder.name] = []
            for entry in scan(f"{split}/{folder.name}"):
                name = f"{split}/{folder.name}/{entry.name}"
                if entry.is_dir():
                    problems.append(f"{name!r}: a folder inside a class folder")
                elif not entry.is_file():  # such as a pipe, which would block the reader
                    problems.append(f"{name!r}: not a regular file")
                elif not entry.name.lower().endswith(SUFFIXES):
                    problems.append(f"{name!r}: not an image file by its name")
                else:
                    files.append(ImageFile.of(name, entry.stat()))
    return tree


def locate(name: str, request: Request) -> Source:
    """Find the images of `folder:PATH`; all that is wrong with them is listed in one error.

    The held-out split is `val` or `valid`; with the request's `split`, PATH has the class folders itself.
    """
    root = Path(name.removeprefix(PREFIX)).expanduser().resolve()
    try:
        if name == PREFIX:
            raise FileNotFoundError(f"expected {PREFIX}PATH with the path of a folder")
        folders = sorted(one.name for one in root.iterdir() if one.is_dir() and not is_dropping(one.name))
    except OSError as error:
        raise DataError(f"{name!r}: {error}. {_REMEDY}") from error
    held_out = "valid" if "valid" in folders and "val" not in folders else "val"
    splits = (".",) if request.split else ("train", held_out)
    both = {"train", "val", "valid"} & {*folders}
    if request.split and both:
        raise DataError(f"split: expected PATH/CLASS/IMAGE, but PATH has {sorted(both)}; leave split out")
    tree = list_tree(root, splits)
    listed = ", ".join(map(repr, folders[:5])) + ", …" * (len(folders) > 5)
    for split in splits:
        if not (root / split).is_dir():
            shown = "'train'" if split == "train" else "'val' or 'valid'"
            tree.problems.append(f"{shown}: no such folder; the folders in PATH are: {listed or 'none'}")
        elif not tree.splits[split]:
            tree.problems.append(f"{split!r}: no class folders in it")
    if {"val", "valid"} <= both:
        tree.problems.append("'val' and 'valid' both exist: which of them is meant?")
    train, valid = tree.splits[splits[0]], tree.splits[splits[-1]]
    if train and valid:  # else every class of the one would be missing in the other
        for split in splits:
            own, other = tree.splits[split], valid if split == "train" else train
            tree.problems += [f"{f'{split}/{name}'!r}: no images" for name, files in own.items() if not files]
            tree.problems += [  # escaped too, as some look alike
                f"{f'{split}/{name}'!r}: missing, the other split has this class, {name!a}"
                for name in sorted(other.keys() - own.keys())
            ]
        if len(train) < 2:
            tree.problems.append(f"{splits[0]!r}: expected at least 2 class folders, found {len(train)}")
    tree.check(_REMEDY, request)
    identity = tree.identity()
    if request.split:
        files = tree.files()
        labels = [label for label, own in enumerate(train.values()) for _ in own]
        held = held_back([file.name for file in files], labels, [*train], request.split, "split")
        reported = {files[row] for row in held}
        tree.splits = {
            split: {one: [file for file in own if (file in reported) == out] for one, own in train.items()}
            for split, out in (("train", False), ("valid", True))
        }
        identity = {"of": identity, "split": request.split}
    return Source(name, "folder", identity, lambda: tree.contents({c: c for c in train}, _REMEDY))
