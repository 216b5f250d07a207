"""The datasets that a study can name, and which of them are here decoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from ablate.data import DATASETS, Dataset, Split, takes_data_dir
from ablate.data.dataset import read_description
from ablate.data.decode import RESIZE_METHODS
from ablate.data.folder import PREFIX
from ablate.errors import DataError
from ablate.terminal import print_line, print_table


@dataclass(frozen=True)
class Entry:
    """A dataset by its name.

    Attributes:
        name: as a study writes it.
        origin: where its images come from.
        copies: its decoded copies, such as "128 px, squash"; each form once.
    """

    name: str
    origin: str
    copies: tuple[str, ...]


def list_datasets(cache_dir: Path) -> list[Entry]:
    """Every known dataset, then one's own folders that were decoded. Looks only at the cache.

    A folder that was named by a relative path is left out: the cache does not tell where it started.
    """
    copies = _decoded_copies(cache_dir)
    own = [name for name in copies if name not in DATASETS]
    return [Entry(name, _origin(name), tuple(copies.get(name, ()))) for name in (*DATASETS, *own)]


def _origin(name: str) -> str:
    if name.startswith(PREFIX):
        return "your own images"
    return "downloaded when needed" if takes_data_dir(name) else "comes with the installation"


def _decoded_copies(cache_dir: Path) -> dict[str, list[str]]:
    """Name to its decoded copies; a damaged one does not count, as a run makes it anew."""
    methods = {meaning: name for name, meaning in RESIZE_METHODS.items()}
    found: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for path in sorted((cache_dir / "decoded").glob("*/dataset.json")):
        try:
            description = read_description(path.parent)
            form = f"{description['image_size']} px, {methods[description['resize']]}"
            name = _full_name(description["name"])
        except (DataError, KeyError, RuntimeError):
            continue  # damaged, written by an earlier version, or in the home folder of nobody
        if name is not None:
            found[name].add((description["image_size"], form))
    return {name: [form for _, form in sorted(forms)] for name, forms in found.items()}


def _full_name(name: str) -> str | None:
    """A dataset's name with the full path of one's own folder; None where that is not known."""
    if not name.startswith(PREFIX):
        return name
    path = Path(name.removeprefix(PREFIX)).expanduser()
    return f"{PREFIX}{path}" if path.is_absolute() else None


def show_datasets(console: Console, entries: Iterable[Entry], cache_dir: Path) -> None:
    """Print the datasets, and how to name one's own."""
    rows = [(entry.name, entry.origin, "; ".join(entry.copies) or "–") for entry in entries]
    print_table(console, ("dataset", "images", "decoded here"), rows)
    print_line(console, f"your own images: {PREFIX}PATH, with PATH/train/CLASS/ and PATH/val/CLASS/")
    print_line(console, f"cache: {cache_dir}")


def show_dataset(console: Console, dataset: Dataset) -> None:
    """Print a decoded dataset: classes with their images in both splits, fingerprint, folder."""
    train, valid = (_class_counts(split, len(dataset.classes)) for split in (dataset.train, dataset.valid))
    rows = [
        (str(label), name, str(train[label]), str(valid[label])) for label, name in enumerate(dataset.classes)
    ]
    size = dataset.train.images.shape[1]
    print_line(console, f"{dataset.name}: {size} x {size} pixels, {len(dataset.classes)} classes")
    heads = ("id", "class", "train", "reported")
    totals = ("", "all", str(len(dataset.train)), str(len(dataset.valid)))
    print_table(console, heads, [*rows, totals], numbers=("id", "train", "reported"))
    print_line(console, f"fingerprint: {dataset.fingerprint}")
    print_line(console, f"folder: {dataset.folder}")


def _class_counts(split: Split, num_classes: int) -> list[int]:
    return [int(count) for count in np.bincount(split.labels, minlength=num_classes)]
