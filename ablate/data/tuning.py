"""The tuning split: of each class the same part of the training images held back, by hash of file names."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ablate.data.dataset import Dataset, Labels, array_digest, name_hashes
from ablate.data.source import Contents, Part, Source, refuse
from ablate.errors import DataError

Names = Sequence[str]
# Salted, so that the choice has nothing to do with others by the same names: those of `digits` fall into its
# two splits by a plain hash, which would make the held-back ones come from late in its files.
SALTS = {"tuning_part": b"tuning split 1\n", "split": b"reported split 1\n"}


def rows_by_hash(names: Sequence[str], labels: Sequence[int] | Labels, salt: bytes) -> dict[int, list[int]]:
    """Return the rows of each class, those whose salted names have the smallest SHA-256 first."""
    hashes = name_hashes(names, salt)
    of_class: dict[int, list[int]] = {}
    for row in sorted(range(len(names)), key=hashes.__getitem__):
        of_class.setdefault(int(labels[row]), []).append(row)
    return of_class


def held_back(
    names: Names, labels: Sequence[int] | Labels, classes: Names, part: float, field: str = "tuning_part"
) -> list[int]:
    """Rows, ascending, of each class's first `round(part · n)` images by hash, at least one and not all."""
    of_class = sorted(rows_by_hash(names, labels, SALTS[field]).items())
    held = {label: rows[: max(1, round(part * len(rows)))] for label, rows in of_class}
    full = [(classes[label], len(rows)) for label, rows in of_class if held[label] == rows]
    if problems := [f"{name!r}: all {count} training images would be held back" for name, count in full]:
        remedy = "Expected images left to train on: take a smaller part, or add images of these classes."
        raise refuse("problem", f"with {field}={part:g}", problems, remedy)
    return sorted(row for rows in held.values() for row in rows)


def tuning_source(full: Dataset, original: Source, part: float) -> Source:
    """Return a dataset's training images as a dataset: what is left to train on, and the tuning split."""
    salt = SALTS["tuning_part"].decode()
    identity = {"of": original.identity, "fingerprint": full.fingerprint, "part": part, "by": salt}
    return Source(original.name, f"{original.kind}-tuning", identity, partial(_contents, full, part))


def _contents(full: Dataset, part: float) -> Contents:
    names, labels, images = full.train.names, full.train.labels, full.train.images
    held = held_back(names, labels, full.classes, part)
    kept = sorted({*range(len(names))} - {*held})
    reported = set(map(array_digest, full.valid.images))
    if all(array_digest(images[row]) in reported for row in held):
        raise DataError(
            f"expected a tuning split of {full.name} other than its reported split, but each of its "
            f"{len(held)} images is, pixel by pixel, among the {len(full.valid)} reported ones: take out of "
            "train the images that are in val, and run again."
        )
    train, valid = (
        Part(tuple(names[row] for row in rows), tuple(labels[rows].tolist()), [images[row] for row in rows])
        for rows in (kept, held)
    )
    if noise := full.noise:
        noise = replace(noise, labels=[[listed[row] for row in kept] for listed in noise.labels])
    # Normalised as all the training images are, so that what was tuned meets the same inputs later.
    return Contents(full.classes, train, valid, normalisation=(full.mean, full.std), noise=noise)
