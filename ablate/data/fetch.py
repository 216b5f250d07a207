"""An archive's unpacked files: in a folder of one's own, or downloaded once into the cache."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ablate.data.archive import AllowList, Limits, extract
from ablate.data.cache import locked, new_temporary, remove_leftovers
from ablate.data.download import RemoteFile, download
from ablate.data.source import Request
from ablate.errors import DataError


@dataclass(frozen=True)
class Archive:
    """What is downloaded, and what may be in it.

    Attributes:
        remote: where it is fetched from.
        folder: the one folder in it.
        contents: names of the folder's entries that tell a copy of it, for messages too.
        allowed: full names that may occur.
        limits: what unpacking accepts at most.
    """

    remote: RemoteFile
    folder: str
    contents: tuple[str, ...]
    allowed: AllowList
    limits: Limits


def limits(remote: RemoteFile) -> Limits:
    """Return what an archive of JPEG files or of raw pixels may hold: half as much again as it weighs.

    JPEG hardly compresses further, and the pixels of CIFAR-10 by a tenth.
    """
    return Limits(members=20_000, member_bytes=32 << 20, total_bytes=remote.size * 3 // 2 + (64 << 20))


def unpacked(archive: Archive, request: Request, check: Callable[[Path], object]) -> Path:
    """Return the archive's folder: the caller's own copy if `data_dir` is given, else the downloaded one.

    Args:
        archive: what to look for.
        request: its `data_dir` is the archive's folder, or the one that holds it.
        check: called with a fresh download; what it raises keeps the download from being used.

    Raises:
        DataError: No copy in `data_dir`; a failed download; what `check` raises.
    """
    return own_copy(request.data_dir, archive) if request.data_dir else _fetched(archive, request, check)


def remedy(archive: Archive, root: Path, request: Request) -> str:
    """Return what to do about files that are missing or damaged."""
    if request.data_dir:
        return f"Restore these files from {archive.remote.url}; no image is ever skipped."
    return f"Delete {root} and run again to download it anew."


def own_copy(data_dir: Path, archive: Archive) -> Path:
    """Return the folder of a copy: `data_dir` itself, or the archive's folder in it.

    Raises:
        DataError: It is in neither.
    """
    for root in (data_dir / archive.folder, data_dir):
        if all((root / name).exists() for name in archive.contents):
            return root
    raise DataError(
        f"expected {' and '.join(archive.contents)} in {data_dir / archive.folder} or in {data_dir} itself, "
        f"and found them in neither. Point --data-dir at an unpacked copy of {archive.remote.url}, or leave "
        "it out to download."
    )


def _fetched(archive: Archive, request: Request, check: Callable[[Path], object]) -> Path:
    """Return the unpacked download; it is in place only once everything in it was found right."""
    root = request.cache_dir / "sources" / archive.folder
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(root, request.progress):
            remove_leftovers(root)
            if not root.exists():
                _fetch(root, archive, request, check)
    except OSError as error:
        raise DataError(
            f"cannot keep {archive.remote.url} in {root.parent}: {error}. Free space there, or set "
            "ABLATE_CACHE to a folder that can be written, or give a copy with --data-dir, or run with "
            "--profile quick."
        ) from error
    return root


def _fetch(root: Path, archive: Archive, request: Request, check: Callable[[Path], object]) -> None:
    temporary = new_temporary(root)
    try:
        packed = temporary / archive.remote.url.rpartition("/")[2]
        download(archive.remote, packed, request.progress)
        target = temporary / "unpacked"
        target.mkdir()
        extract(packed, target, archive.allowed, archive.limits, request.progress)
        check(target / archive.folder)
        (target / archive.folder).rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
