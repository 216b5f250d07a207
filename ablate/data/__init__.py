"""Datasets, decoded once into memory maps of uint8 images.

`prepare` downloads, checks, decodes and opens; `open_dataset` opens again in a worker process. To add a
dataset, write a file with a `locate` function and name it in `DATASETS` (docs/add_a_dataset.md).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.data import cifar10, embedded, folder, imagenette, own
from ablate.data.cache import materialise
from ablate.data.dataset import Dataset, Progress, Split, open_dataset, overlap, split_digest
from ablate.data.fetch import find_unpacked
from ablate.data.own import bind_data
from ablate.data.source import Request, Source
from ablate.data.tuning import tuning_source
from ablate.errors import DataError, nearest
from ablate.plugins import is_foreign

__all__ = [
    "ARCHIVES", "DATASETS", "Dataset", "Originals", "Progress", "Split", "bind_data", "default_cache_dir",
    "find_originals", "open_dataset", "overlap", "prepare", "split_digest",
]  # fmt: skip

DATASETS: dict[str, Callable[[str, Request], Source]] = {
    **dict.fromkeys(imagenette.SUBSETS, imagenette.locate),
    "cifar10": cifar10.locate,
    "digits": embedded.locate_digits,
    "synthetic": embedded.locate_synthetic,
}
"""Datasets by name; one's own images are `folder:PATH`, or returned by `package.module:function`."""

ARCHIVES = {name: subset.archive for name, subset in imagenette.SUBSETS.items()}
ARCHIVES["cifar10"] = cifar10.ARCHIVE
"""Archive of each dataset that is downloaded, or given by `data_dir`."""


def prepare(
    name: str,
    *,
    image_size: int,
    cache_dir: Path,
    data_dir: Path | None = None,
    progress: Progress | None = None,
    resize: str = "squash",
    tuning_part: float = 0.0,
    split: float = 0.0,
    arguments: tuple[tuple[str, Any], ...] = (),
) -> Dataset:
    """Find a dataset (download it if need be), check it, decode it once and open it; faults are a DataError.

    `name` is a key of `DATASETS`, `folder:PATH`, or the import path of a function, to which `arguments` go;
    `image_size` is in pixels a side; `data_dir` one's own copy of what would be downloaded. With a
    `tuning_part` above 0 the result holds training images alone, `valid` that part of each of their classes;
    mean and std stay those of all. The others are as the fields of the same names.
    """
    cache_dir = Path(cache_dir).expanduser().resolve()
    data_dir = Path(data_dir).expanduser().resolve() if data_dir is not None else None
    progress = progress or (lambda stage, done, total: None)
    request = Request(image_size, cache_dir, data_dir, progress, resize, split, arguments)
    _require_known(name)
    is_folder = name.startswith(folder.PREFIX)
    if split and not is_folder:
        raise DataError(f"split: is for {folder.PREFIX}PATH alone, but data is {name!r}; leave split out")
    source = (folder.locate if is_folder else DATASETS.get(name, own.locate))(name, request)
    dataset = materialise(source, request)
    if name not in DATASETS and (shared := overlap(dataset.valid, dataset.train)):
        words = f"{shared} of {len(dataset.valid)} reported images are, pixel by pixel, training images too"
        request.progress(f"{name}: {words}", 0, 0)
    if tuning_part:
        return materialise(tuning_source(dataset, source, tuning_part), request)
    return dataset


def _require_known(name: str) -> None:
    if name in DATASETS or name.startswith(folder.PREFIX) or is_foreign(name):
        return
    known = [*DATASETS, f"{folder.PREFIX}PATH", "package.module:function"]
    hint = nearest(name.lower(), known)
    if Path(name).is_dir():
        hint = f" For the images in that folder write {folder.PREFIX + name!r}."
    raise DataError(f"unknown dataset {name!r}; known are {', '.join(known)}.{hint}")


@dataclass(frozen=True)
class Originals:
    """A dataset's files before they are decoded: whether they are here, or how much a run would download."""

    data: str
    at_hand: bool
    note: str
    download_bytes: int | None = None

    def __str__(self) -> str:
        return f"{self.data}: {'at hand' if self.at_hand else 'not at hand'}, {self.note}"


def find_originals(name: str, *, data_dir: Path | None = None) -> Originals:
    """Look for a dataset's files; nothing is read, downloaded or written. An unknown name is a DataError."""
    _require_known(name)
    if name.startswith(folder.PREFIX):
        root = Path(name.removeprefix(folder.PREFIX)).expanduser().resolve()
        return Originals(name, root.is_dir(), f"in {root}" if root.is_dir() else f"there is no folder {root}")
    if (archive := ARCHIVES.get(name)) is None:
        return Originals(name, True, "your own code" if is_foreign(name) else "comes with the installation")
    data_dir = data_dir and data_dir.expanduser()
    if found := find_unpacked(archive, default_cache_dir(), data_dir):
        return Originals(name, True, f"in {found}")
    if data_dir is not None:
        return Originals(name, False, f"as neither {data_dir} nor {archive.folder} in it is {archive.url}")
    note = f"a run downloads {archive.size / 1e6:.0f} MB from {archive.url}, or takes a copy by --data-dir"
    return Originals(name, False, note, archive.size)


def default_cache_dir() -> Path:
    """The folder for downloads and decoded images: $ABLATE_CACHE, or ablate's by the XDG specification."""
    try:
        if own := os.environ.get("ABLATE_CACHE"):
            return Path(own).expanduser()
        shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (shared if shared.is_absolute() else Path.home() / ".cache") / "ablate"
    except RuntimeError:
        raise DataError("ABLATE_CACHE: expected a folder, as this user has no home folder; set it") from None
