"""The datasets that a study can name, and which of them are here decoded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from ablate.data import ARCHIVES, DATASETS, Dataset
from ablate.data.dataset import read_description
from ablate.data.decode import RESIZE_METHODS
from ablate.data.folder import PREFIX
from ablate.errors import DataError
from ablate.terminal import print_line, print_table


def list_datasets(cache_dir: Path) -> dict[str, list[str]]:
    """Forms, as "128 px, squash", in which datasets are decoded; not damaged ones, or of a relative path."""
    methods = {meaning: name for name, meaning in RESIZE_METHODS.items()}
    copies: dict[str, set[tuple[int, str]]] = {name: set() for name in DATASETS}
    for path in sorted((cache_dir / "decoded").glob("*/dataset.json")):
        try:
            description = read_description(path.parent)
            size, method = description["image_size"], methods[description["resize"]]
            name = description["name"]
            if name.startswith(PREFIX):
                folder = Path(name.removeprefix(PREFIX)).expanduser()
                if not folder.is_absolute():
                    continue
                name = f"{PREFIX}{folder}"
        except (DataError, KeyError, RuntimeError):
            continue  # damaged, written by an earlier version, or in the home folder of nobody
        copies.setdefault(name, set()).add((size, f"{size} px, {method}"))
    return {name: [form for _, form in sorted(forms)] for name, forms in copies.items()}


def show_datasets(console: Console, copies: Mapping[str, Sequence[str]], cache_dir: Path) -> None:
    """Print the datasets that `list_datasets` found, and how to name one's own."""
    rows = []
    for name, forms in copies.items():
        embedded = "comes with the installation" if name in DATASETS else "your own images"
        origin = "downloaded when needed" if name in ARCHIVES else embedded
        rows.append((name, origin, "; ".join(forms) or "–"))
    print_table(console, ("dataset", "images", "decoded here"), rows)
    print_line(console, f"your own images: {PREFIX}PATH, with PATH/train/CLASS/ and PATH/val/CLASS/, or code")
    print_line(console, f"cache: {cache_dir}")


def show_dataset(console: Console, dataset: Dataset) -> None:
    """Print a decoded dataset: classes with their images in both splits, fingerprint, folder."""
    train, valid, classes = dataset.train, dataset.valid, dataset.classes
    counts = (np.bincount(split.labels, minlength=len(classes)).astype(str) for split in (train, valid))
    rows = [*zip(map(str, range(len(classes))), classes, *counts, strict=True)]
    rows.append(("", "all", str(len(train)), str(len(valid))))
    size = train.images.shape[1]
    print_line(console, f"{dataset.name}: {size} x {size} pixels, {len(classes)} classes")
    heads = ("id", "class", "train", "reported")
    print_table(console, heads, rows, numbers=("id", "train", "reported"))
    print_line(console, f"fingerprint: {dataset.fingerprint}")
    print_line(console, f"folder: {dataset.folder}")
