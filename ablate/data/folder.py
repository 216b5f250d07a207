"""`folder:PATH`: one's own images, `PATH/train/CLASS/FILE` and `PATH/val/CLASS/FILE`.

The held-out split's folder is `val` or `valid`. Class folders have one level; their names, sorted by code
point, give the class ids. Whatever else lies beside the split folders (a test split, a readme) is not
looked at.
"""

import unicodedata
from pathlib import Path

from ablate.data.decode import unreadable
from ablate.data.source import Contents, Request, Source, refuse
from ablate.data.tree import Listing, identity, list_split, part, paths
from ablate.errors import DataError

PREFIX = "folder:"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_REMEDY = (
    "Expected PATH/train/CLASS/IMAGE and PATH/val/CLASS/IMAGE, the same classes in both, and nothing but "
    f"images ({' '.join(SUFFIXES)}) in the class folders. Mend or move these and run again; no image is ever "
    "skipped."
)


def locate(name: str, request: Request) -> Source:
    """Find the images of `folder:PATH`; all that is wrong with them is listed in one error.

    Args:
        name: `folder:` and a path; a relative one starts at the current directory, `~` is the home folder.
        request: its `data_dir` is ignored.

    Raises:
        DataError: No such folder; a split folder missing; fewer than two classes; classes without images or
            that differ between the splits; files that are not images; and, beside any of these, unreadable
            images.
    """
    root = _resolve(name)
    held_out, problems = _split_folders(root)
    splits = ("train", held_out)
    train, valid = (
        list_split(root, split, _is_image) if (root / split).is_dir() else Listing() for split in splits
    )
    problems += train.problems + valid.problems
    if train.classes and valid.classes:  # else every class of the one would be missing in the other
        problems += _class_problems(train, valid, held_out)
    for split, listing in zip(splits, (train, valid), strict=True):
        if (root / split).is_dir() and not listing.classes:
            problems.append(f"{split!r}: no class folders in it")
    if problems:
        problems += unreadable(paths(root, train) + paths(root, valid), request.progress)
        raise refuse("problem", f"in {str(root)!r}", problems, _REMEDY)
    return Source(
        name=name,
        kind="folder",
        identity=identity(root, [train, valid]),
        read=lambda: _contents(root, train, valid, request),
    )


def _resolve(name: str) -> Path:
    path = name.removeprefix(PREFIX)
    if not path:
        raise DataError(f"expected {PREFIX}PATH with the path of a folder, got {name!r}. {_REMEDY}")
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        found = f"{str(root)!r} is not a folder" if root.exists() else f"there is no folder {str(root)!r}"
        raise DataError(f"{name!r}: {found}. {_REMEDY}")
    return root


def _split_folders(root: Path) -> tuple[str, list[str]]:
    """Return the name of the held-out split's folder, and what is wrong with the two folders' names."""
    try:
        there = sorted(path.name for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(f"cannot look into {str(root)!r}: {error.strerror or error}. {_REMEDY}") from error
    found = ", ".join(map(repr, there[:5])) + ", …" * (len(there) > 5)
    beside = f"the folders in PATH are: {found or 'none'}"
    problems = [] if "train" in there else [f"'train': no such folder; {beside}"]
    present = [split for split in ("val", "valid") if split in there]
    if not present:
        problems.append(f"'val' or 'valid': no such folder; {beside}")
    elif len(present) == 2:
        problems.append("'val' and 'valid' both exist: which of them is meant?")
    return (present or ["val"])[0], problems


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _class_problems(train: Listing, valid: Listing, held_out: str) -> list[str]:
    problems = []
    for split, listing, other in (("train", train, valid), (held_out, valid, train)):
        problems += [f"{f'{split}/{c}'!r}: no images" for c, files in listing.classes.items() if not files]
        problems += [
            f"{f'{split}/{c}'!r}: missing, the other split has this class{_twin(c, listing)}"
            for c in sorted(other.classes.keys() - listing.classes.keys())
        ]
    if len(train.classes) < 2:
        problems.append(f"'train': expected at least 2 class folders, found {len(train.classes)}")
    return problems


def _twin(missing: str, listing: Listing) -> str:
    """Point out a class folder that looks the same: other letter case, or an accent encoded otherwise."""

    def look(name: str) -> str:
        return unicodedata.normalize("NFKC", name).casefold()

    twins = [ascii(name) for name in listing.classes if look(name) == look(missing)]
    return f" as {missing!a}; here it is spelt {', '.join(twins)}" if twins else ""


def _contents(root: Path, train: Listing, valid: Listing, request: Request) -> Contents:
    labels = {name: label for label, name in enumerate(train.classes)}
    return Contents(
        classes=tuple(train.classes),
        train=part(root, train, labels, "decoding train images", request),
        valid=part(root, valid, labels, "decoding valid images", request),
        normalisation=None,
        remedy=_REMEDY,
    )
