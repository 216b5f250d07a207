"""`imagenette-160`, `imagenette-320`, `imagenette`, `imagewoof-160`, `imagewoof-320`, `imagewoof`.

Version 2 of both, ten classes of ImageNet each: 9,469 + 3,925 and 9,025 + 3,929 images, whose shorter side
has 160 or 320 px or the full size. The images and their names are the same at every size. Every count is
checked, the file names too, and a file that is missing, does not belong or cannot be read stops with a list.

A CSV of wrong labels comes with them: columns `path`, `noisy_labels_0`, `_1`, `_5`, `_25`, `_50` (WordNet ids
at so many per cent of wrong labels) and `is_valid`, a row for each image of both splits. The lists were drawn
one by one, so an image mislabelled at 5 % need not be so at 25 %; the images of `val` keep their labels.

References:
    Abraham, "Generating Noisy Label Image(nette/woof) dataset", 2020,
    https://github.com/fastai/imagenette/tree/master/noisy_labels. For the others see `manifest`.
"""

import contextlib
import csv
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ablate.data.dataset import array_digest
from ablate.data.fetch import unpacked
from ablate.data.folder import Listing, check, contents, identity, list_split
from ablate.data.manifest import SUBSETS, Family, Subset
from ablate.data.noise import ListedNoise
from ablate.data.source import Contents, Part, Request, Source, refuse

TRUE_COLUMN = "noisy_labels_0"
NOISE_COLUMNS = {fraction: f"noisy_labels_{round(100 * fraction)}" for fraction in (0.01, 0.05, 0.25, 0.5)}
"""Column of each fraction of wrong labels."""


def locate(name: str, request: Request) -> Source:
    """Find a copy of the dataset and check that it is complete; download it when there is no `data_dir`.

    Raises:
        DataError: No copy in `data_dir`; a failed download; files missing, in excess, unreadable, misnamed
            or of another size.
    """
    subset = SUBSETS[name]
    root, remedy = unpacked(subset.archive, request)
    train, val = _checked(root, subset, remedy, request)
    try:
        status = (root / subset.family.noise_file).stat()
        noise = [status.st_size, status.st_mtime_ns]
    except OSError:
        noise = None
    return Source(
        name=name,
        kind=name,
        identity={"images": identity(train, val), "noise": noise},
        read=partial(_contents, train, val, subset.family, remedy, request),
    )


def _checked(root: Path, subset: Subset, remedy: str, request: Request) -> tuple[Listing, Listing]:
    """Return the files of both splits. Files beside `train` and `val` are not part of the dataset."""
    train, val = (list_split(root, split, lambda file: file.endswith(".JPEG")) for split in ("train", "val"))
    problems = _count_problems("train", train, subset.family) + _count_problems("val", val, subset.family)
    names = sorted(file.name for listing in (train, val) for file in listing.files())
    digest = hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()
    if not (train.problems or val.problems or problems) and digest != subset.family.names_sha256:
        problems.append("the numbers of files are right, but some are not named as in the official archive")
    problems += _size_problems(train, subset.shorter_side)
    check(train, val, problems, remedy, request)
    return train, val


def _count_problems(split: str, listing: Listing, family: Family) -> list[str]:
    expected = {wnid: train if split == "train" else val for wnid, (_, train, val) in family.classes.items()}
    counts = {wnid: len(files) for wnid, files in listing.classes.items()}
    unknown = [f"{f'{split}/{c}'!r}: not a class of {family.title}" for c in counts.keys() - expected.keys()]
    wrong = [
        f"'{split}/{wnid}': expected {count} images, found {counts.get(wnid, 0)}"
        for wnid, count in expected.items()
        if counts.get(wnid, 0) != count
    ]
    return sorted(unknown + wrong)


def _size_problems(train: Listing, shorter_side: int | None) -> list[str]:
    """Tell the archives of one family apart, whose files have the same names at every size.

    One image of each class is looked at, and most must agree: that not one image is an exception is not
    published.
    """
    sides: Counter[int] = Counter()
    for files in filter(None, train.classes.values()):
        with (
            contextlib.suppress(Exception),  # many kinds on corrupt bytes; decoding reports this file
            Image.open(train.root / files[0].name, formats=("JPEG", "PNG")) as image,
        ):
            sides[min(image.size)] += 1
    if not sides:
        return []
    side, count = sides.most_common(1)[0]
    resized = 2 * count > sides.total() and side in {160, 320, shorter_side}
    if (side if resized else None) == shorter_side:
        return []
    wanted = f"{shorter_side} px" if shorter_side else "the full size"
    return [
        f"expected images of {wanted} (shorter side); {count} of {sides.total()} looked at have {side} px: "
        "is this the archive of another size?"
    ]


def _contents(train: Listing, val: Listing, family: Family, remedy: str, request: Request) -> Contents:
    classes = {wnid: name for wnid, (name, _, _) in family.classes.items()}
    plain = contents(train, val, classes, remedy, request)
    noise = _read_noise(train.root, family, plain.train)
    return replace(plain, normalisation=family.normalisation, noise=noise)


def _read_noise(root: Path, family: Family, train: Part) -> ListedNoise:
    """Read the CSV beside `train` and `val`; what is wrong with it shows once noise is asked for."""
    path = root / family.noise_file
    remedy = f"Put {path.name} of https://github.com/fastai/imagenette into {root}, and run again."
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return ListedNoise(fault=f"label noise needs {path}, which cannot be read: {error}. {remedy}")
    labels = {wnid: label for label, wnid in enumerate(family.classes)}
    problems = _noise_problems(rows, labels, train)
    if not problems:
        by_path = {row["path"]: row for row in rows}
        listed = [
            [labels[by_path[name][column]] for name in train.names] for column in NOISE_COLUMNS.values()
        ]
        ids = np.array(listed, dtype=np.int64)[:, np.argsort(np.array(train.names))]
        if array_digest(np.ascontiguousarray(ids)) == family.noise_sha256:
            return ListedNoise(tuple(NOISE_COLUMNS), listed)
        problems = ["its labels are well-formed, but not those of the official list"]
    return ListedNoise(fault=str(refuse("problem", f"in {path}, which label noise needs", problems, remedy)))


def _noise_problems(rows: list[dict[str, str]], labels: Mapping[str, int], train: Part) -> list[str]:
    columns = (TRUE_COLUMN, *NOISE_COLUMNS.values())
    if missing := [column for column in ("path", *columns) if not rows or column not in rows[0]]:
        return [f"no column {column!r}" for column in missing]
    true = dict(zip(train.names, train.labels, strict=True))
    counts = Counter(row["path"] for row in rows)
    problems = [f"{name!r}: named {counts[name]} times instead of once" for name in true if counts[name] != 1]
    for row in rows:
        unknown = [column for column in columns if row[column] not in labels]
        problems += [f"{row['path']!r}: {row[column]!r} in {column} is not a class" for column in unknown]
        if row["path"] in true and labels.get(row[TRUE_COLUMN]) != true[row["path"]]:
            problems.append(f"{row['path']!r}: {TRUE_COLUMN} is not the class of its folder")
    return problems
