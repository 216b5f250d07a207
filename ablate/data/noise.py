"""Label noise: a stated fraction of the training labels is wrong, the same ones on every machine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ablate.errors import DataError

_SALT = b"label noise 1\n"  # another draw for every dataset would be another number here


def symmetric_noise(
    labels: NDArray[np.int64], names: Sequence[str], num_classes: int, fraction: float
) -> NDArray[np.int64]:
    """Mislabel the `round(fraction · N)` images whose names have the smallest hashes.

    Each gets one of the other classes, evenly, by another part of its hash. The wrong labels of a smaller
    fraction are therefore among those of a larger one. The names of the N images are all different; their
    order does not matter. `labels` stay as they are.
    """
    if num_classes < 2 or not 0 <= fraction <= 1:
        raise ValueError(
            f"expected 2 or more classes and a fraction in [0, 1], got {num_classes}, {fraction}"
        )
    noisy = np.array(labels, dtype=np.int64)
    hashes = [hashlib.sha256(_SALT + name.encode(errors="surrogateescape")).digest() for name in names]
    for row in sorted(range(len(names)), key=hashes.__getitem__)[: round(fraction * len(names))]:
        step = 1 + int.from_bytes(hashes[row][16:], "big") % (num_classes - 1)
        noisy[row] = (noisy[row] + step) % num_classes
    return noisy


def is_fraction(value: object) -> bool:
    """Tell whether a value is a number in [0, 1); True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1  # NaN is not


@dataclass(frozen=True)
class ListedNoise:
    """Noisy labels that come with a dataset, for a few fractions.

    Attributes:
        fractions: of wrong labels, above 0. None when there is no list.
        labels: N class ids of each fraction.
        fault: why there is no list, and what to do; "" when there is one.
    """

    fractions: Sequence[float] = ()
    labels: Sequence[Sequence[int]] = ()
    fault: str = ""

    def labels_at(self, fraction: float, true: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64 [N], a new array: the listed labels, or the true ones where `fraction` is 0.

        Raises:
            DataError: There is no list, or none for this fraction.
        """
        if fraction == 0 and not isinstance(fraction, bool):
            return np.array(true, dtype=np.int64)
        if self.fault:
            raise DataError(self.fault)
        if fraction not in self.fractions:
            *known, last = (f"{known:g}" for known in sorted({0, *self.fractions}))
            raise DataError(
                f"expected {', '.join(known)} or {last}, the parts of wrong labels that it has lists of, but "
                f"{fraction!r} came; take one of these"
            )
        return np.array(self.labels[self.fractions.index(fraction)], dtype=np.int64)

    def take(self, rows: Sequence[int]) -> Self:
        """Return the list of some of the images, by their rows; a fault stays one."""
        return replace(self, labels=[[ids[row] for row in rows] for ids in self.labels])
