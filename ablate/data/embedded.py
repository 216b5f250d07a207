"""`digits` and `synthetic`: small datasets that need no download.

`digits` are scikit-learn's handwritten digits: 1,797 of 8×8 pixels with 17 grey levels, ten classes. 60 of
each are for training and the other 1,197, by the same writers, for reporting: enough to see calibration.
Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49

`synthetic` is for tests: three classes, 64 training and 64 reported images of a bright blob on noise, whose
place and colour lean to its class. Pixels come from integer arithmetic on numpy's frozen `RandomState`
stream.
"""

from functools import partial
from importlib.metadata import version

import numpy as np

from ablate.data.dataset import Images
from ablate.data.source import Contents, Part, Request, Source
from ablate.data.tuning import rows_by_hash

DIGITS_PER_CLASS = 60
_CLASSES = ("red", "green", "blue")
_GRID = 1024  # blob coordinates, so that one image looks alike at every size
_CENTRES = np.array([(300, 512), (680, 330), (680, 694)])  # row, column
_JITTER = 260
_WIDTH = 160


def locate_digits(name: str, request: Request) -> Source:
    """Return the digits; `data_dir` is ignored."""
    identity = {"scikit-learn": version("scikit-learn"), "split": "by SHA-256 of the index, 60 of each class"}
    return Source(name, "digits", identity, _read_digits)


def _read_digits() -> Contents:
    from sklearn.datasets import load_digits  # slow to import, and not needed once the images are decoded

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # ink is counted from 0 to 16
    labels = digits.target.tolist()

    def part(rows: list[int]) -> Part:
        names = tuple(f"digits/{row:04d}" for row in rows)
        return Part(names, tuple(labels[row] for row in rows), list(pixels[rows]))

    of_class = rows_by_hash([f"digits/{row}" for row in range(len(labels))], labels, salt=b"")
    train = sorted(row for rows in of_class.values() for row in rows[:DIGITS_PER_CLASS])
    return Contents(
        classes=tuple(str(name) for name in digits.target_names),
        train=part(train),
        valid=part(sorted(set(range(len(labels))) - set(train))),
        remedy="Reinstall scikit-learn, whose package holds these images.",
    )


def locate_synthetic(name: str, request: Request) -> Source:
    """Return the synthetic images, drawn square at the requested size; `data_dir` and `resize` do nothing."""
    return Source(name, "synthetic", {"version": 1}, partial(_draw_synthetic, request.image_size))


def _draw_synthetic(image_size: int) -> Contents:
    labels = tuple(row % len(_CLASSES) for row in range(64))

    def part(split: str, seed: int) -> Part:
        rng = np.random.RandomState(seed)
        names = tuple(f"{split}/{row:02d}" for row in range(len(labels)))
        return Part(names, labels, [_draw(rng, label, image_size) for label in labels])

    return Contents(_CLASSES, part("train", 20190401), part("valid", 20190402))


def _draw(rng: np.random.RandomState, label: int, image_size: int) -> Images:
    """Draw uint8 [image_size, image_size, 3]: a blob near its class's place, in about its class's colour."""
    centre = _CENTRES[label] + rng.randint(-_JITTER, _JITTER + 1, size=2)
    tint = rng.randint(60, 141, size=3) + 45 * (np.arange(3) == label)
    grid = (2 * np.arange(image_size) + 1) * _GRID // (2 * image_size)  # pixel centres
    squared = (grid[:, None] - centre[0]) ** 2 + (grid[None, :] - centre[1]) ** 2
    blob = tint * _WIDTH**2 // (_WIDTH**2 + squared)[..., None]  # falls off as 1 / (1 + r²)
    noise = rng.randint(0, 32, size=(3, image_size, image_size, 3)).sum(axis=0)  # 0..93, nearly Gaussian
    return np.asarray(np.clip(blob + noise, 0, 255), dtype=np.uint8)
