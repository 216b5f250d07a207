"""Label noise: a stated fraction of the training labels is wrong, the same ones on every machine."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ablate.errors import DataError

_SALT = b"label noise 1\n"  # another draw for every dataset would be another number here


def symmetric_noise(
    labels: NDArray[np.int64], names: Sequence[str], num_classes: int, fraction: float
) -> NDArray[np.int64]:
    """Mislabel the `round(fraction · N)` images whose names have the smallest hashes.

    Each gets one of the other classes, evenly, by another part of its hash. The wrong labels of a smaller
    fraction are therefore among those of a larger one.

    Args:
        labels: int64 [N], true class ids.
        names: N names, all different; neither their order nor what they share matters.
        num_classes: K, at least 2.
        fraction: 0 to 1, both included.

    Returns:
        int64 [N], a new array.
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


def checked_fraction(fraction: float) -> None:
    """Refuse what is not a fraction of labels that can be wrong.

    Raises:
        DataError: It is not a number in [0, 1).
    """
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not number or not 0 <= fraction < 1:  # NaN fails the comparison
        raise DataError(
            f"expected 0 up to, and not including, 1 (the part of the training labels that are wrong), but "
            f"{fraction!r} came"
        )


@dataclass(frozen=True)
class ListedNoise:
    """Noisy labels that come with a dataset, for a few fractions.

    Attributes:
        labels: N class ids of each fraction; no entry for 0. Empty when there is no list.
        fault: why there is none, and what to do; "" when there is one.
    """

    labels: Mapping[float, Sequence[int]]
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
        if fraction not in self.labels:
            *known, last = (f"{known:g}" for known in sorted({0, *self.labels}))
            raise DataError(
                f"expected {', '.join(known)} or {last}, the parts of wrong labels that it has lists of, but "
                f"{fraction!r} came; take one of these"
            )
        return np.array(self.labels[fraction], dtype=np.int64)

    def take(self, rows: Sequence[int]) -> Self:
        """Return the list of some of the images, by their rows; a fault stays one."""
        chosen = {fraction: [ids[row] for row in rows] for fraction, ids in self.labels.items()}
        return type(self)(chosen, self.fault)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {
            "fault": self.fault,
            "fractions": list(self.labels),
            "labels": [list(ids) for ids in self.labels.values()],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """Return what `to_json` wrote; None stays None."""
        if stored is None:
            return None
        return cls(dict(zip(stored["fractions"], stored["labels"], strict=True)), stored["fault"])
