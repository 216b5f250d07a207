"""What the metrics take: logits [N, K] and labels [N] as numpy arrays, and the check of them."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.integer]


def validate(logits: FloatArray, labels: IntArray) -> None:
    """Check the arrays every metric takes.

    Args:
        logits: [N, K], any floating dtype, finite; N >= 1.
        labels: [N], any integer dtype; class ids in [0, K).

    Raises:
        ValueError: If one of these does not hold.
    """
    if not isinstance(logits, np.ndarray) or not isinstance(labels, np.ndarray):
        kinds = f"{type(logits).__name__} and {type(labels).__name__}"
        raise ValueError(f"Expected logits and labels as numpy arrays, got {kinds}; convert them first.")
    if logits.ndim != 2 or not np.issubdtype(logits.dtype, np.floating):
        raise ValueError(
            f"Expected floating-point logits of shape [N, K], got shape {logits.shape} of {logits.dtype}; "
            "pass one row of K logits for each image."
        )
    if labels.shape != logits.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"Expected integer labels of shape {logits.shape[:1]}, one for each row of logits, "
            f"got shape {labels.shape} of {labels.dtype}; pass class ids, not one-hot rows."
        )
    _validate_values(logits, labels)


def _validate_values(logits: FloatArray, labels: IntArray) -> None:
    num_images, num_classes = logits.shape
    if num_images == 0:
        raise ValueError("Expected at least one image, got none; a metric of no images is undefined.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Expected labels in [0, {num_classes}), got {labels.min()} to {labels.max()}; "
            "leave out ignored images and check that labels and logits are of the same data set."
        )
    broken = num_images - int(np.isfinite(logits).all(axis=1).sum())
    if broken:
        raise ValueError(
            f"Expected finite logits, got NaN or infinity for {broken} of {num_images} images; "
            "a diverged training run has no metrics, record it as diverged."
        )
