"""`synthetic`: a small dataset for tests of everything that comes after the data.

Three classes, 64 training and 64 reported images. An image holds one bright blob on noise; its place and its
colour lean to its class and overlap with the others', so that a classifier learns something and is not always
right, one without a sense of place too. Pixels come from integer arithmetic on numpy's frozen `RandomState`
stream, so they are the same everywhere.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ablate.data.dataset import Images
from ablate.data.source import Contents, Part, Request, Source

CLASSES = ("red", "green", "blue")
IMAGES = 64

_VERSION = 1
_SEEDS = {"train": 20190401, "valid": 20190402}
_GRID = 1024  # blob coordinates, so that one image looks alike at every size
_CENTRES = np.array([(300, 512), (680, 330), (680, 694)])  # row, column
_JITTER = 260
_WIDTH = 160
_TINT = 45


def locate(name: str, request: Request) -> Source:
    """Return the synthetic images, drawn square at the requested size; `data_dir` and `resize` do nothing."""
    return Source(name, "synthetic", {"version": _VERSION}, read=lambda: _contents(request))


def _contents(request: Request) -> Contents:
    return Contents(
        classes=CLASSES,
        train=_part("train", request),
        valid=_part("valid", request),
        normalisation=None,
        remedy="",
    )


def _part(split: str, request: Request) -> Part:
    labels = np.arange(IMAGES) % len(CLASSES)
    return Part(
        names=tuple(f"{split}/{index:02d}" for index in range(IMAGES)),
        labels=tuple(int(label) for label in labels),
        write=partial(_write, split, labels, request),
    )


def _write(split: str, labels: NDArray[np.int64], request: Request, out: Images) -> list[str]:
    rng = np.random.RandomState(_SEEDS[split])
    for row, label in enumerate(labels):
        out[row] = _draw(rng, int(label), request.image_size)
    request.progress("drawing synthetic images", len(labels), len(labels))
    return []


def _draw(rng: np.random.RandomState, label: int, image_size: int) -> Images:
    """Draw uint8 [image_size, image_size, 3]: a blob near its class's place, in about its class's colour."""
    centre = _CENTRES[label] + rng.randint(-_JITTER, _JITTER + 1, size=2)
    tint = rng.randint(60, 141, size=3) + _TINT * (np.arange(3) == label)
    grid = (2 * np.arange(image_size) + 1) * _GRID // (2 * image_size)  # pixel centres
    squared = (grid[:, None] - centre[0]) ** 2 + (grid[None, :] - centre[1]) ** 2
    blob = tint * _WIDTH**2 // (_WIDTH**2 + squared)[..., None]  # falls off as 1 / (1 + r²)
    noise = rng.randint(0, 32, size=(3, image_size, image_size, 3)).sum(axis=0)  # 0..93, nearly Gaussian
    return np.asarray(np.clip(blob + noise, 0, 255), dtype=np.uint8)
