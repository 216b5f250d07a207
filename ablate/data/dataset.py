"""A decoded dataset on disk: two splits as memory maps, the digests that identify them, what they share."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.data.noise import ListedNoise, is_fraction, symmetric_noise
from ablate.errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total (0: not known)."""

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Channels = tuple[float, float, float]

DESCRIPTION = "dataset.json"
ARRAYS = ("train_images", "train_labels", "valid_images", "valid_labels")
_DIGEST_BLOCK = 1 << 24  # bytes hashed at a time, so that a large memory map never becomes resident at once


@dataclass(frozen=True, eq=False)
class Split:
    """One half of a dataset.

    Attributes:
        images: uint8 [N, H, W, 3], RGB, 0 is no light and 255 is full.
        labels: int64 [N], class ids 0..K-1.
        names: N file names relative to the dataset's folder (`train/n01440764/n01440764_10026.JPEG`).
    """

    images: Images
    labels: Labels
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A decoded dataset, opened.

    The images are copy-on-write memory maps: processes that open the same folder share its pages, and a write
    stays in the process that made it. Pickling copies the pixels, so hand another process `folder` and let it
    call `open_dataset`.

    Attributes:
        name: as it was asked for, such as `imagenette-160` or `folder:photos`.
        folder: where the decoded arrays are.
        train: images to train on.
        valid: images to report on; of a dataset prepared for tuning, those to choose hyper-parameters by.
        classes: K names for people, in the order of the class ids.
        mean: per channel, on the scale where 255 is 1.
        std: per channel, on the same scale.
        fingerprint: SHA-256 (hex) of pixels, labels, K and the normalisation. The data's identity: it does
            not depend on paths, file names or class names. Another Pillow or libjpeg may decode other pixels,
            and then it differs.
        noise: mislabelled training labels that came with the dataset; None when they are drawn.
    """

    name: str
    folder: Path
    train: Split
    valid: Split
    classes: tuple[str, ...]
    mean: Channels
    std: Channels
    fingerprint: str
    noise: ListedNoise | None = None

    def noisy_train_labels(self, fraction: float) -> Labels:
        """Return a copy of the training labels, a fraction of them wrong, from 0 (none) to 1 (excluded).

        Imagenette and Imagewoof bring their own lists, of 0.01, 0.05, 0.25 and 0.5, drawn independently of
        one another. Those of every other dataset are drawn by `symmetric_noise`, from the images' names.

        Raises:
            DataError: A fraction that this dataset cannot have; the list is missing or wrong.
        """
        try:
            if self.noise is not None:
                return self.noise.labels_at(fraction, self.train.labels)
            if not is_fraction(fraction):
                part = "the part of the training labels that are wrong"
                raise DataError(f"expected 0 up to, and not including, 1 ({part}), but {fraction!r} came")
        except DataError as error:
            raise DataError(f"label_noise of {self.name}: {error}") from None
        return symmetric_noise(self.train.labels, self.train.names, len(self.classes), fraction)

    def fingerprint_with(self, fraction: float) -> str:
        """Return the fingerprint of this dataset with a fraction of its training labels wrong.

        Drawn noise follows the images' names, which the plain fingerprint leaves out. At 0 it is that.
        """
        labels = self.noisy_train_labels(fraction)
        if not fraction:
            return self.fingerprint
        return hashlib.sha256(canonical_json([self.fingerprint, array_digest(labels)])).hexdigest()


def canonical_json(value: object) -> bytes:
    """Return the one ASCII spelling of a JSON value that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def array_digest(array: NDArray[Any]) -> str:
    """Return the SHA-256 (hex) of a C-contiguous array's dtype, shape and elements, read in blocks."""
    digest = hashlib.sha256(canonical_json([array.dtype.str, list(array.shape)]))
    flat = array.reshape(-1)
    step = _DIGEST_BLOCK // array.itemsize
    for start in range(0, flat.size, step):
        digest.update(flat[start : start + step].data)
    return digest.hexdigest()


def fingerprint(digests: Mapping[str, str], num_classes: int, mean: Channels, std: Channels) -> str:
    """Return the identity of a dataset: SHA-256 (hex) of its arrays' digests, K and its normalisation."""
    parts = {"arrays": dict(digests), "num_classes": num_classes, "mean": list(mean), "std": list(std)}
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def split_digest(split: Split) -> str:
    """Return the SHA-256 (hex) of a split's images and labels, whatever their order and their names."""
    pairs = zip(map(array_digest, split.images), split.labels.tolist(), strict=True)
    return hashlib.sha256(canonical_json(sorted(pairs))).hexdigest()


def overlap(a: Split, b: Split) -> int:
    """Return how many images of `a` have exactly the pixels of some image of `b`: 0..len(a).

    Labels and names are not looked at. A copy that was compressed again is not found.
    """
    known = set(map(array_digest, b.images))
    return sum(array_digest(image) in known for image in a.images)


def normalisation(images: Images) -> tuple[Channels, Channels]:
    """Return the mean and population standard deviation of each channel, on the scale where 255 is 1.

    The sums are integers, so the order of the images is no matter. A channel that never changes gets the
    deviation 1: dividing by it keeps the channel at zero.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), 256):
        pixels = images[start : start + 256].reshape(-1, 3)
        counts += np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    moments = []
    for channel in counts:
        total, first, second = (int(channel @ np.arange(256) ** power) for power in range(3))
        variance = total * second - first * first  # times total², and exact: Python integers do not overflow
        moments.append((first / (255 * total), math.sqrt(variance) / (255 * total) if variance else 1.0))
    mean, std = zip(*moments, strict=True)
    return mean, std


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write a decoded folder's description together with its digest."""
    sealed = {"dataset": dict(description), "sha256": hashlib.sha256(canonical_json(description)).hexdigest()}
    (folder / DESCRIPTION).write_bytes(canonical_json(sealed))


def read_description(folder: Path) -> dict[str, Any]:
    """Return a decoded folder's description, or raise a DataError: it is missing, or its digest another."""
    try:
        sealed = json.loads((folder / DESCRIPTION).read_bytes())
        description: dict[str, Any] = sealed["dataset"]
        intact = hashlib.sha256(canonical_json(description)).hexdigest() == sealed["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_decoded(folder, f"{DESCRIPTION}: {error!r}") from error
    if not intact:
        raise _not_decoded(folder, f"{DESCRIPTION} does not match its digest")
    return description


def open_dataset(folder: Path) -> Dataset:
    """Open the folder of a prepared dataset again, in a worker process; its arrays are not hashed again.

    Raises:
        DataError: The folder is not a decoded dataset, or an array does not have the recorded shape.
    """
    folder = Path(folder)
    description = read_description(folder)
    if "noise" not in description:
        raise _not_decoded(folder, "an earlier version of this package wrote it")
    return Dataset(
        name=description["name"],
        folder=folder,
        train=_open_split(folder, "train", description),
        valid=_open_split(folder, "valid", description),
        classes=tuple(description["classes"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
        fingerprint=description["fingerprint"],
        noise=ListedNoise(**description["noise"]) if description["noise"] else None,
    )


def _open_split(folder: Path, split: str, description: Mapping[str, Any]) -> Split:
    """Map a split's arrays, after a check of their shape, dtype and length on disk."""
    names, size = tuple(description["names"][split]), description["image_size"]
    arrays = []
    for kind, shape, dtype in (
        ("images", (len(names), size, size, 3), np.dtype(np.uint8)),
        ("labels", (len(names),), np.dtype(np.int64)),
    ):
        path = folder / f"{split}_{kind}.npy"
        try:
            # "c" is copy-on-write: torch.from_numpy takes it as writable, and the file stays as it is
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        except Exception as error:  # numpy parses the header as Python, so a damaged one raises many kinds
            raise _not_decoded(folder, f"{path.name}: {error!r}") from error
        if (array.shape, array.dtype) != (shape, dtype):
            given = f"{array.dtype} {array.shape}"
            raise _not_decoded(folder, f"{path.name}: expected {dtype} {shape}, found {given}")
        arrays.append(array)
    images, labels = arrays
    return Split(images, labels, names)


def _not_decoded(folder: Path, found: str) -> DataError:
    return DataError(
        f"expected the decoded images of a dataset in {folder}; {found}. "
        "Run the study again: a damaged copy is decoded anew."
    )
