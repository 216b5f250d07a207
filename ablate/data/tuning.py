"""The tuning split: images held back from the training images, so that nothing is tuned on the reported ones.

Of each class the same part is held back, chosen by the hash of the file names: no seed, order or content has
a say, and a smaller part's images are among a larger part's. Both splits are decoded arrays like those of any
dataset, in a folder of their own, written and checked by `ablate.data.cache`.
"""

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ablate.data.dataset import Dataset, Images, Labels, Progress, Split, array_digest
from ablate.data.source import Contents, Part, Source, refuse
from ablate.errors import DataError

# Salted, so that the choice has nothing to do with others by the same names: those of `digits` fall into its
# two splits by a plain hash, which would make the held-back ones come from late in its files.
_SALT = b"tuning split 1\n"
_CHUNK = 256  # images copied at a time


def held_back(names: Sequence[str], labels: Labels, classes: Sequence[str], part: float) -> NDArray[np.int64]:
    """Choose the training images that are held back to tune on; return their rows, ascending.

    Of a class of n images they are the `round(part · n)`, and at least one, whose names have the smallest
    SHA-256 (salted). `classes` are K names for people, for the error alone.

    Raises:
        DataError: A class would have no image left to train on; all such classes are listed.
    """
    hashes = [hashlib.sha256(_SALT + name.encode(errors="surrogateescape")).digest() for name in names]
    by_class: dict[int, list[int]] = {}
    for row in sorted(range(len(names)), key=hashes.__getitem__):
        by_class.setdefault(int(labels[row]), []).append(row)
    counts = {label: max(1, round(part * len(rows))) for label, rows in by_class.items()}
    problems = [
        f"{classes[label]!r}: {counts[label]} of {len(by_class[label])} training images would be held back"
        for label in sorted(by_class)
        if counts[label] >= len(by_class[label])
    ]
    if problems:
        remedy = "Expected one or more left to train on: take a smaller part, or add images of these classes."
        raise refuse("problem", f"with tuning_part={part:g}", problems, remedy)
    return np.array(sorted(row for label in by_class for row in by_class[label][: counts[label]]), np.int64)


def tuning_source(full: Dataset, original: Source, part: float, progress: Progress) -> Source:
    """Return a dataset's training images as a dataset: what is left to train on, and the tuning split.

    Its normalisation is that of all the training images, so that what was tuned meets the same inputs when it
    is trained on all of them. Labels are the true ones; a list of wrong labels is that of the images left.

    Reading it raises a DataError when `held_back` does, and when the reported split holds all of the tuning
    split's images.
    """
    identity = {"of": original.identity, "fingerprint": full.fingerprint, "part": part, "by": _SALT.decode()}
    read = partial(_contents, full, part, progress)
    return Source(original.name, f"{original.kind}-tuning", identity, read)


def _contents(full: Dataset, part: float, progress: Progress) -> Contents:
    train = full.train
    held = held_back(train.names, train.labels, full.classes, part)
    kept = np.setdiff1d(np.arange(len(train)), held)
    reported = set(map(array_digest, full.valid.images))
    if all(array_digest(train.images[row]) in reported for row in held):
        raise DataError(
            f"expected a tuning split of {full.name} other than its reported split, but each of its "
            f"{len(held)} images is, pixel by pixel, among the {len(full.valid)} reported ones: to tune on "
            "it would be to tune on what is reported. Do train and val hold the same images? Take out of "
            "train those that are in val, and run again."
        )
    return Contents(
        classes=full.classes,
        train=_part(train, kept, "copying the images left to train on", progress),
        valid=_part(train, held, "copying the tuning split", progress),
        normalisation=(full.mean, full.std),
        noise=full.noise.take(kept.tolist()) if full.noise else None,
    )


def _part(split: Split, rows: NDArray[np.int64], stage: str, progress: Progress) -> Part:
    def copy(out: Images) -> list[str]:
        for start in range(0, len(rows), _CHUNK):
            chosen = rows[start : start + _CHUNK]
            out[start : start + len(chosen)] = split.images[chosen]
            progress(stage, start + len(chosen), len(rows))
        return []

    return Part(tuple(split.names[row] for row in rows), tuple(split.labels[rows].tolist()), copy)
