"""Decode once: a folder of arrays per dataset and image size, written whole or not at all, by one process.

Every array of a copy that is found is hashed again, so that a damaged one is made anew.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from ablate.data.dataset import (
    ARRAYS,
    Dataset,
    Progress,
    array_digest,
    json_digest,
    normalisation,
    open_dataset,
    read_description,
    write_description,
)
from ablate.data.decode import RESIZE_METHODS, decode_all, decoder_version
from ablate.data.source import Contents, Request, Source, refuse
from ablate.errors import DataError

CACHE_VERSION = 2
"""Raised when decoded folders written by an earlier version must not be used any more."""


def materialise(source: Source, request: Request) -> Dataset:
    """Open a dataset's decoded images; decode them first if the cache lacks them or its copy is damaged."""
    form = {
        "cache_version": CACHE_VERSION,
        "image_size": request.image_size,
        "resize": RESIZE_METHODS[request.resize],
        "decoder": decoder_version(),
    }
    key = json_digest(form | {"kind": source.kind, "identity": source.identity})
    name = f"{source.kind}-{request.image_size}-{request.resize}-{key[:16]}"
    folder = request.cache_dir / "decoded" / name
    with locked(folder, request.progress):
        if not _usable(folder, request.progress):
            with temporary_beside(folder) as temporary:
                whole = Path(temporary, "whole")  # with the user's mode; that of a TemporaryDirectory is 0700
                whole.mkdir()
                _write(source.read(), whole, form | {"key": key, "name": source.name}, request)
                whole.rename(folder)
    return replace(open_dataset(folder), name=source.name)


@contextlib.contextmanager
def locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock of a folder to be written, clear what killed processes left; OSErrors are DataErrors."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{folder}.lock")
        try:
            held = lock.acquire(timeout=0)
        except filelock.Timeout:
            progress(f"waiting for another process that prepares {folder.name}", 0, 0)
            held = lock.acquire()
        with held:
            for leftover in folder.parent.glob("*.tmp"):
                owner = folder.with_name(leftover.name.rsplit(".", 2)[0])
                other = lock if owner == folder else filelock.FileLock(f"{owner}.lock", timeout=0)
                with contextlib.suppress(filelock.Timeout), other:
                    shutil.rmtree(leftover)
            yield
    except OSError as error:
        raise DataError(
            f"cannot keep {folder.name} in {folder.parent}: {error}. "
            "Free space there, or set ABLATE_CACHE to a folder that can be written."
        ) from error


def temporary_beside(folder: Path) -> "TemporaryDirectory[str]":
    """Return a new folder beside `folder`, removed at the end of its `with`, or by `locked` after a kill."""
    return TemporaryDirectory(".tmp", f"{folder.name}.", folder.parent, ignore_cleanup_errors=True)


def _usable(folder: Path, progress: Progress) -> bool:
    """Tell whether an intact decoded copy is there; a damaged one is removed."""
    if not folder.exists():
        return False
    try:
        description = read_description(folder)
        dataset = open_dataset(folder)
        arrays = [array for split in (dataset.train, dataset.valid) for array in (split.images, split.labels)]
        digests = _digests(dict(zip(ARRAYS, arrays, strict=True)), "checking decoded images", progress)
        if changed := [name for name in ARRAYS if digests[name] != description["digests"][name]]:
            raise DataError(f"{', '.join(changed)} in {folder} do not match the digests stored with them")
    except DataError as damage:
        progress(f"the decoded copy is damaged and will be made anew: {damage}", 0, 0)
        shutil.rmtree(folder)  # a process that has it open keeps its pages
        return False
    return True


def _digests(arrays: Mapping[str, NDArray[Any]], stage: str, progress: Progress) -> dict[str, str]:
    digests = {}
    with ThreadPoolExecutor(len(arrays)) as pool:
        for name, digest in zip(arrays, pool.map(array_digest, arrays.values()), strict=True):
            digests[name] = digest
            progress(stage, len(digests), len(arrays))
    return digests


def _write(contents: Contents, folder: Path, description: dict[str, Any], request: Request) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    problems: list[str] = []
    for split, part in (("train", contents.train), ("valid", contents.valid)):
        path = folder / f"{split}_images.npy"
        shape = (len(part.names), request.image_size, request.image_size, 3)
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(path)
        stage = f"decoding {split} images"
        problems += decode_all(part.originals, images, stage, request, upright=contents.upright)
        images.flush()
        labels = np.array(part.labels, dtype=np.int64)
        np.save(folder / f"{split}_labels.npy", labels)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    if problems:
        raise refuse("file", "cannot be decoded", problems, contents.remedy)
    mean, std = contents.normalisation or normalisation(arrays["train_images"])
    digests = _digests(arrays, "hashing decoded images", request.progress)
    identity = {"arrays": digests, "num_classes": len(contents.classes), "mean": mean, "std": std}
    names = {"train": contents.train.names, "valid": contents.valid.names}
    noise = asdict(contents.noise) if contents.noise else None
    description |= {"classes": contents.classes, "names": names, "mean": mean, "std": std, "noise": noise}
    write_description(folder, description | {"digests": digests, "fingerprint": json_digest(identity)})


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
