"""The door of the metrics: what is refused, and with which words."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ablate.metrics import METRICS, Predictions, validate

LOGITS = np.zeros((4, 3), dtype=np.float32)
LABELS = np.array([0, 1, 2, 0])


def _with(value: float) -> NDArray[np.float32]:
    logits = LOGITS.copy()
    logits[1, 2] = value
    return logits


REFUSED = {
    "one row": (LOGITS[0], LABELS, r"shape \[N, K\], got shape \(3,\)"),
    "extra dimension": (LOGITS[None], LABELS, r"got shape \(1, 4, 3\)"),
    "integer logits": (LOGITS.astype(int), LABELS, "got shape .* of int64"),
    "no image": (LOGITS[:0], LABELS[:0], "at least one image"),
    "one label too few": (LOGITS, LABELS[:3], r"labels of shape \(4,\).* got shape \(3,\)"),
    "one-hot labels": (LOGITS, np.eye(3, dtype=int)[LABELS], r"got shape \(4, 3\).*not one-hot"),
    "float labels": (LOGITS, LABELS.astype(float), "of float64"),
    "boolean labels": (LOGITS, LABELS == 0, "of bool"),
    "label K": (LOGITS, np.array([0, 1, 3, 0]), r"labels in \[0, 3\), got 0 to 3"),
    "ignored label": (LOGITS, np.array([0, -100, 2, 0]), "got -100 to 2; leave out ignored images"),
    "NaN": (_with(np.nan), LABELS, "NaN or infinity for 1 of 4 images; a diverged"),
    "infinity": (_with(-np.inf), LABELS, "1 of 4 images"),
    "lists": ([[0.0, 1.0]], [0], "numpy arrays, got list and list"),
}


@pytest.mark.parametrize(("logits", "labels", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(logits: NDArray[np.float32], labels: NDArray[np.int64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(logits, labels)


@pytest.mark.parametrize("entry", [Predictions.of, *METRICS.values()])
def test_every_entry_has_the_door(entry: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="a diverged"):
        entry(_with(np.nan), LABELS)


def test_accepted() -> None:
    validate(LOGITS, LABELS)
    validate(LOGITS[:1].astype(np.float16), LABELS[:1].astype(np.uint8))
