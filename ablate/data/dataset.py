"""A decoded dataset on disk: two splits as memory maps, the digests that identify them, wrong labels."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total (0: not known)."""

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Channels = tuple[float, float, float]

DESCRIPTION = "dataset.json"
ARRAYS = ("train_images", "train_labels", "valid_images", "valid_labels")
_NOISE_SALT = b"label noise 1\n"  # another draw for every dataset would be another number here


@dataclass(frozen=True, eq=False)
class Split:
    """One half of a dataset: its N images, their class ids 0..K-1, and names (`train/cat/1.JPEG`)."""

    images: Images
    """uint8 [N, H, W, 3], RGB, 0 is no light and 255 is full."""
    labels: Labels
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ListedNoise:
    """Lists of training labels, a fraction of them wrong, that come with a dataset; N class ids each."""

    fractions: Sequence[float] = ()
    labels: Sequence[Sequence[int]] = ()
    fault: str = ""
    """Why there are none, and what to do."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A decoded dataset, opened as copy-on-write memory maps; pickled, it is its folder, opened again."""

    name: str
    """As it was asked for, such as `imagenette-160` or `folder:photos`."""
    folder: Path
    train: Split
    valid: Split
    """Images to report on; of a dataset prepared for tuning, those to choose hyper-parameters by."""
    classes: tuple[str, ...]
    mean: Channels
    """On the scale where 255 is 1, as `std`."""
    std: Channels
    fingerprint: str
    """SHA-256 (hex) of pixels, labels, K and the normalisation, of no path or name: the data's identity."""
    noise: ListedNoise | None = None
    """Wrong training labels that came with the dataset; None when they are drawn."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open_dataset, (self.folder,), {"name": self.name}

    def noisy_train_labels(self, fraction: float) -> Labels:
        """Return the training labels, a fraction in [0, 1) of them wrong; one not listed is a DataError."""
        if fraction == 0:
            return np.array(self.train.labels)
        if (noise := self.noise) is None:
            return symmetric_noise(self.train.labels, self.train.names, len(self.classes), fraction)
        if fraction in noise.fractions:
            return np.array(noise.labels[noise.fractions.index(fraction)], dtype=np.int64)
        known = ", ".join(f"{one:g}" for one in (0, *noise.fractions))
        fault = f"expected {known} as the part of wrong labels, but {fraction!r} came"
        raise DataError(f"label_noise of {self.name}: {noise.fault or fault}")

    def fingerprint_with(self, fraction: float) -> str:
        """Return the fingerprint with a fraction of the training labels wrong; at 0 the plain one."""
        labels = self.noisy_train_labels(fraction)
        return json_digest([self.fingerprint, array_digest(labels)]) if fraction else self.fingerprint


def symmetric_noise(labels: Labels, names: Sequence[str], num_classes: int, fraction: float) -> Labels:
    """Mislabel the `round(fraction · N)` images whose names have the smallest hashes; return a new array.

    Each gets one of the other classes by another part of its hash: a smaller fraction's are among a larger's.
    """
    noisy = np.array(labels, dtype=np.int64)
    hashes = name_hashes(names, _NOISE_SALT)
    for row in sorted(range(len(names)), key=hashes.__getitem__)[: round(fraction * len(names))]:
        step = 1 + int.from_bytes(hashes[row][16:], "big") % (num_classes - 1)
        noisy[row] = (noisy[row] + step) % num_classes
    return noisy


def name_hashes(names: Sequence[str], salt: bytes) -> list[bytes]:
    """Return the SHA-256 of each salted name, by which images are chosen the same way on every machine."""
    return [hashlib.sha256(salt + name.encode(errors="surrogateescape")).digest() for name in names]


def canonical_json(value: object) -> bytes:
    """Return the one ASCII spelling of a JSON value that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def json_digest(value: object) -> str:
    """Return the SHA-256 (hex) of a JSON value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def array_digest(array: NDArray[Any]) -> str:
    """Return the SHA-256 (hex) of a C-contiguous array's dtype, shape and elements."""
    digest = hashlib.sha256(canonical_json([array.dtype.str, list(array.shape)]))
    digest.update(array.reshape(-1).data)
    return digest.hexdigest()


def split_digest(split: Split) -> str:
    """Return the SHA-256 (hex) of a split's images and labels, whatever their order and their names."""
    return json_digest(sorted(zip(map(array_digest, split.images), split.labels.tolist(), strict=True)))


def overlap(a: Split, b: Split) -> int:
    """Return how many images of `a` have exactly the pixels of some image of `b`, whatever their labels."""
    known = set(map(array_digest, b.images))
    return sum(array_digest(image) in known for image in a.images)


def normalisation(images: Images) -> tuple[Channels, Channels]:
    """Return mean and population standard deviation of each channel, where 255 is 1; of a constant one 1."""
    total = images[..., 0].size
    sums = images.sum((0, 1, 2), dtype=np.int64)
    squares = sum(np.square(image, dtype=np.int64).sum((0, 1)) for image in images)
    moments = []
    for first, second in zip(sums.tolist(), squares.tolist(), strict=True):
        variance = total * second - first * first  # times total², and exact: Python integers do not overflow
        moments.append((first / (255 * total), math.sqrt(variance) / (255 * total) if variance else 1.0))
    mean, std = zip(*moments, strict=True)
    return mean, std


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write a decoded folder's description, and its digest."""
    sealed = {"dataset": description, "sha256": json_digest(description)}
    (folder / DESCRIPTION).write_bytes(canonical_json(sealed))


def read_description(folder: Path) -> dict[str, Any]:
    """Return a decoded folder's description, or raise a DataError: it is missing, or its digest another."""
    try:
        sealed = json.loads((folder / DESCRIPTION).read_bytes())
        description: dict[str, Any] = sealed["dataset"]
        if json_digest(description) != sealed["sha256"]:
            raise ValueError("it does not match its digest")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_decoded(folder, f"{DESCRIPTION}: {error!r}") from error
    return description


def open_dataset(folder: Path) -> Dataset:
    """Open a decoded folder again, in a worker process; shapes are checked, and nothing is hashed again."""
    described = read_description(folder)
    splits, size = [], described["image_size"]
    for split in ("train", "valid"):
        names = tuple(described["names"][split])
        forms = {"images": ("uint8", (len(names), size, size, 3)), "labels": ("int64", (len(names),))}
        arrays = {}
        for kind, form in forms.items():
            path = folder / f"{split}_{kind}.npy"
            try:
                # "c" is copy-on-write: torch.from_numpy takes it as writable, and the file stays as it is
                array = arrays[kind] = np.load(path, mmap_mode="c", allow_pickle=False)
                if (array.dtype.name, array.shape) != form:
                    raise ValueError(f"expected {form}, found {array.dtype} {array.shape}")
            except Exception as error:  # numpy parses the header as Python: a damaged one raises many kinds
                raise _not_decoded(folder, f"{path.name}: {error!r}") from error
        splits.append(Split(**arrays, names=names))
    train, valid = splits
    name, fingerprint, noise = (described[key] for key in ("name", "fingerprint", "noise"))
    classes, mean, std = (tuple(described[key]) for key in ("classes", "mean", "std"))
    listed = ListedNoise(**noise) if noise else None
    return Dataset(name, folder, train, valid, classes, mean, std, fingerprint, listed)


def _not_decoded(folder: Path, found: str) -> DataError:
    return DataError(
        f"expected the decoded images of a dataset in {folder}; {found}. "
        "Run the study again: a damaged copy is decoded anew."
    )
