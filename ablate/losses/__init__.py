"""The losses a study can name, and the contract training holds them to.

A loss is added by one function here and one line in `LOSSES`, or from outside by its import path.
"""

import functools
from collections.abc import Mapping
from typing import Any

from ablate.errors import StudyError, nearest
from ablate.losses.contract import ForeignLoss, Loss, check_contract
from ablate.losses.cross_entropy import (
    REDUCTIONS,
    LabelSmoothingCrossEntropy,
    cross_entropy,
    label_smoothing_cross_entropy,
)
from ablate.plugins import bind, is_foreign, load_foreign

__all__ = [
    "LOSSES", "REDUCTIONS", "ForeignLoss", "LabelSmoothingCrossEntropy", "Loss", "build_loss",
    "cross_entropy", "label_smoothing_cross_entropy",
]  # fmt: skip

LOSSES: dict[str, Loss] = {"label_smoothing": label_smoothing_cross_entropy, "cross_entropy": cross_entropy}


def build_loss(name: str, arguments: Mapping[str, Any] | None = None) -> Loss:
    """The loss that a study names, with keyword arguments of its own; what fails is a StudyError.

    One of `LOSSES`; or by import path a function of (logits, target), or a class of such, with `epsilon` and
    `reduction` where it takes them. The latter is tried on a tiny batch first.
    """
    arguments = arguments or {}
    if name in LOSSES:
        bind("loss", name, LOSSES[name], arguments, {"epsilon": 0.0, "reduction": "mean"}, skip=2)
        return functools.partial(LOSSES[name], **arguments) if arguments else LOSSES[name]
    if not is_foreign(name):
        raise StudyError(
            f"loss {name!r}: expected one of {', '.join(LOSSES)}, or an import path package.module:function."
            f"{nearest(name, LOSSES)}"
        )
    loss = ForeignLoss(name, load_foreign("loss", name), arguments)
    check_contract(loss, name)
    return loss
