"""The losses a study can name, and the contract training holds them to.

A loss is added by one function here and one line in `LOSSES`, or from outside by its import path.
"""

import inspect

from ablate.errors import StudyError, nearest
from ablate.losses.contract import Loss, check_contract
from ablate.losses.cross_entropy import (
    REDUCTIONS,
    LabelSmoothingCrossEntropy,
    cross_entropy,
    label_smoothing_cross_entropy,
)
from ablate.plugins import load_foreign

__all__ = [
    "LOSSES", "REDUCTIONS", "LabelSmoothingCrossEntropy", "Loss", "build_loss", "cross_entropy",
    "label_smoothing_cross_entropy",
]  # fmt: skip

LOSSES: dict[str, Loss] = {"label_smoothing": label_smoothing_cross_entropy, "cross_entropy": cross_entropy}


def build_loss(name: str) -> Loss:
    """Return the loss a study names: a key of `LOSSES`, or the import path of a callable that meets `Loss`.

    One by import path, `package.module:function`, is tried on a tiny batch first. What fails is a StudyError.
    """
    if name in LOSSES:
        return LOSSES[name]
    if ":" not in name:
        raise StudyError(
            f"loss {name!r}: expected one of {', '.join(LOSSES)}, or an import path package.module:function."
            f"{nearest(name, LOSSES)}"
        )
    loss: Loss = load_foreign("loss", name)
    if inspect.isclass(loss) or not callable(loss):
        raise StudyError(
            f"loss {name!r}: expected a function or another callable; got {loss!r}. Name a function (for a "
            "class, an instance of it) that takes (logits, target, *, epsilon, reduction)"
        )
    check_contract(loss, name)
    return loss
