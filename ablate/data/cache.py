"""Decode once: a folder of arrays per dataset and image size, written whole or not at all.

A decoded folder is written under a temporary name beside its final one, flushed to disk and renamed, so a
process killed at any moment leaves nothing that is taken for whole. A lock file makes two processes take
turns: the second finds what the first wrote. What a killed process left behind is removed by the next one.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from ablate.data.dataset import (
    ARRAYS,
    Dataset,
    Progress,
    array_digest,
    canonical_json,
    fingerprint,
    normalisation,
    open_array,
    open_dataset,
    read_description,
    write_description,
)
from ablate.data.decode import RESIZE_METHODS, decoder_version
from ablate.data.source import Contents, Part, Request, Source, refuse
from ablate.errors import DataError

CACHE_VERSION = 2
"""Raised when decoded folders written by an earlier version must not be used any more."""


def materialise(source: Source, request: Request) -> Dataset:
    """Open a dataset's decoded images; decode them first if the cache lacks them or its copy is damaged.

    Every array of a copy found in the cache is hashed and compared with the digest stored when it was
    written.

    Raises:
        DataError: Originals that cannot be decoded (all of them listed), or a cache folder that cannot be
            written.
    """
    key = cache_key(source, request)
    form = f"{source.kind}-{request.image_size}-{request.resize}"
    folder = request.cache_dir / "decoded" / f"{form}-{key[:16]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder, request.progress):
            remove_leftovers(folder)
            if not _usable(folder, key, request.progress):
                _decode(source, request, folder, key)
    except OSError as error:
        raise DataError(
            f"cannot keep the decoded images in {folder.parent}: {error}. "
            "Free space there, or set ABLATE_CACHE to a folder that can be written."
        ) from error
    return replace(open_dataset(folder), name=source.name)


def cache_key(source: Source, request: Request) -> str:
    """Return the SHA-256 (hex) of everything that decides what a decoded folder holds."""
    parts = {
        "cache_version": CACHE_VERSION,
        "kind": source.kind,
        "identity": source.identity,
        "image_size": request.image_size,
        "resize": RESIZE_METHODS[request.resize],
        "decoder": decoder_version(),
    }
    return hashlib.sha256(canonical_json(parts)).hexdigest()


@contextlib.contextmanager
def locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of a folder that this or another process is about to write; wait for it if need be."""
    lock = filelock.FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        progress(f"waiting for another process that prepares {folder.name}", 0, 0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def new_temporary(folder: Path) -> Path:
    """Create an empty folder beside `folder`, of a name that `remove_leftovers` knows."""
    temporary = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    return temporary


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left beside a locked folder.

    The caller holds the lock of `folder`; leftovers of another folder go only when nobody holds that one's
    lock.
    """
    for temporary in folder.parent.glob("*.tmp"):
        owner = temporary.name.rsplit(".", 2)[0]
        if owner == folder.name:
            shutil.rmtree(temporary)
            continue
        with (
            contextlib.suppress(filelock.Timeout),
            filelock.FileLock(folder.with_name(f"{owner}.lock"), timeout=0),
        ):
            shutil.rmtree(temporary)


def _usable(folder: Path, key: str, progress: Progress) -> bool:
    if not folder.exists():
        return False
    try:
        _verify(folder, key, progress)
    except DataError as damage:
        progress(f"the decoded copy is damaged and will be made anew: {damage}", 0, 0)
        condemned = new_temporary(folder)
        folder.rename(condemned / "damaged")  # a process that has it open keeps its pages
        shutil.rmtree(condemned)
        return False
    return True


def _verify(folder: Path, key: str, progress: Progress) -> None:
    description = read_description(folder)
    if description["key"] != key or description["cache_version"] != CACHE_VERSION:
        raise DataError(f"{folder} was written for other originals")
    dataset = open_dataset(folder)
    arrays: dict[str, NDArray[Any]] = {
        "train_images": dataset.train.images,
        "train_labels": dataset.train.labels,
        "valid_images": dataset.valid.images,
        "valid_labels": dataset.valid.labels,
    }
    found = _digests(arrays, "checking decoded images", progress)
    changed = [name for name in ARRAYS if found[name] != description["digests"][name]]
    if changed:
        raise DataError(f"{', '.join(changed)} in {folder} do not match the digests stored with them")


def _digests(arrays: Mapping[str, NDArray[Any]], stage: str, progress: Progress) -> dict[str, str]:
    digests = {}
    with ThreadPoolExecutor(len(arrays)) as pool:
        for name, digest in zip(arrays, pool.map(array_digest, arrays.values()), strict=True):
            digests[name] = digest
            progress(stage, len(digests), len(arrays))
    return digests


def _decode(source: Source, request: Request, folder: Path, key: str) -> None:
    temporary = new_temporary(folder)
    try:
        _write(source.read(), temporary, {"key": key, "name": source.name}, request)
        for path in temporary.iterdir():
            _flush(path)
        _flush(temporary)
        temporary.rename(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already when all went well


def _write(contents: Contents, folder: Path, description: dict[str, Any], request: Request) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    problems: list[str] = []
    for split, part in (("train", contents.train), ("valid", contents.valid)):
        arrays[f"{split}_images"] = images = _new_images(folder / f"{split}_images.npy", part, request)
        problems += part.write(images)
        images.flush()
        np.save(folder / f"{split}_labels.npy", np.array(part.labels, dtype=np.int64))
        arrays[f"{split}_labels"] = open_array(folder, f"{split}_labels", (len(part.labels),), "int64")
    if problems:
        raise refuse("file", "cannot be decoded", problems, contents.remedy)
    mean, std = contents.normalisation or normalisation(arrays["train_images"])
    digests = _digests(arrays, "hashing decoded images", request.progress)
    description |= {
        "cache_version": CACHE_VERSION,
        "decoder": decoder_version(),
        "resize": RESIZE_METHODS[request.resize],
        "image_size": request.image_size,
        "classes": contents.classes,
        "names": {"train": contents.train.names, "valid": contents.valid.names},
        "mean": mean,
        "std": std,
        "digests": digests,
        "fingerprint": fingerprint(digests, len(contents.classes), mean, std),
        "noise": contents.noise.to_json() if contents.noise else None,
    }
    write_description(folder, description)


def _new_images(path: Path, part: Part, request: Request) -> "np.memmap[Any, np.dtype[np.uint8]]":
    shape = (len(part.names), request.image_size, request.image_size, 3)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    _reserve(path)
    return images


def _reserve(path: Path) -> None:
    """Claim a file's blocks, so that a full disk is an error now and not a fatal signal in the memory map."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems cannot
            raise


def _flush(path: Path) -> None:
    """Have the kernel write a file or folder to disk, pages dirtied through a memory map included."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
