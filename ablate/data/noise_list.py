"""The CSV of wrong labels that comes with Imagenette and Imagewoof.

Columns `path`, `noisy_labels_0`, `_1`, `_5`, `_25`, `_50` (WordNet ids at so many per cent of wrong labels)
and `is_valid`; a row for each image of both splits. The lists were drawn one by one, so an image that is
mislabelled at 5 % need not be so at 25 %, and the images of `val` keep their labels.

References:
    Abraham, "Generating Noisy Label Image(nette/woof) dataset", 2020,
    https://github.com/fastai/imagenette/tree/master/noisy_labels.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablate.data.dataset import array_digest
from ablate.data.noise import ListedNoise
from ablate.data.source import Part, refuse

COLUMNS = {0.0: "noisy_labels_0", 0.01: "noisy_labels_1", 0.05: "noisy_labels_5",
           0.25: "noisy_labels_25", 0.5: "noisy_labels_50"}  # fmt: skip
"""Column of each fraction."""

Rows = dict[str, dict[str, str | None]]


@dataclass(frozen=True)
class NoiseList:
    """What a CSV of wrong labels should be.

    Attributes:
        file: its name.
        sha256: SHA-256 of the class ids that it gives the training images, int64 [4, N], as `array_digest`
            takes it: fractions ascending, images sorted by path.
        url: where it can be had.
    """

    file: str
    sha256: str
    url: str


def state(root: Path, noise: NoiseList) -> object:
    """Return what tells one state of the CSV from another: its size and mtime, None where it is missing."""
    try:
        status = (root / noise.file).stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def read_noise(root: Path, noise: NoiseList, labels: Mapping[str, int], train: Part) -> ListedNoise:
    """Read a CSV of wrong labels; a missing or wrong one is a fault that shows once noise is asked for.

    Args:
        root: the folder that it lies in, beside `train` and `val`.
        noise: what to expect.
        labels: class id of each WordNet id.
        train: the training images, their names and true labels.
    """
    path = root / noise.file
    put = f"Put {noise.file} of {noise.url} into {root}, beside train and val, and run again."
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return ListedNoise({}, f"label noise needs {path}, which is missing. {put}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return ListedNoise({}, f"label noise needs {path}, which cannot be read: {error}. {put}")
    problems = _problems(rows, labels, train)
    if not problems:
        listed = _listed(rows, labels, train)
        ids = np.array([listed[fraction] for fraction in sorted(listed)], dtype=np.int64)
        if array_digest(ids[:, np.argsort(np.array(train.names))]) == noise.sha256:
            return ListedNoise(listed)
        problems = ["its labels are well-formed, but not those of the official list"]
    return ListedNoise({}, str(refuse("problem", f"in {path}, which label noise needs", problems, put)))


def _problems(rows: list[dict[str, str]], labels: Mapping[str, int], train: Part) -> list[str]:
    missing = [column for column in ("path", *COLUMNS.values()) if not rows or column not in rows[0]]
    if missing:
        return [f"no column {column!r}" for column in missing]
    true = dict(zip(train.names, train.labels, strict=True))
    counts = Counter(row["path"] for row in rows)
    problems = [f"{name!r}: named {counts[name]} times instead of once" for name in true if counts[name] != 1]
    for row in rows:
        problems += [
            f"{row['path']!r}: {row[column]!r} in {column} is not a class"
            for column in COLUMNS.values()
            if row[column] not in labels
        ]
        if row["path"] in true and labels.get(row[COLUMNS[0.0]]) != true[row["path"]]:
            problems.append(f"{row['path']!r}: {COLUMNS[0.0]} is not the class of its folder")
    return problems or _rate_problems(_listed(rows, labels, train), train)


def _rate_problems(listed: Mapping[float, list[int]], train: Part) -> list[str]:
    problems = []
    for fraction, ids in listed.items():
        wrong = sum(given != true for given, true in zip(ids, train.labels, strict=True))
        if abs(wrong - fraction * len(ids)) > 1:
            problems.append(f"{COLUMNS[fraction]}: {wrong} of {len(ids)} labels are wrong")
    return problems


def _listed(rows: list[dict[str, str]], labels: Mapping[str, int], train: Part) -> dict[float, list[int]]:
    """Return the class ids of the training images at every fraction but 0, in the order of `train`."""
    by_path = {row["path"]: row for row in rows}
    return {
        fraction: [labels[by_path[name][column]] for name in train.names]
        for fraction, column in COLUMNS.items()
        if fraction
    }
