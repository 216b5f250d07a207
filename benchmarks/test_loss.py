"""Forward and backward of the smoothed cross-entropy: torch eager and compiled, timm, ours.

One thread, and memory kept as training keeps it, for all peers alike. Value and gradient of each are first
set beside torch's: a fast wrong answer is a fault of the case.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ablate.losses import label_smoothing_cross_entropy
from benchmarks.conftest import Compare
from benchmarks.interleaved import Peer

SHAPES = ((128, 10), (1024, 10), (1024, 1000), (256, 32_000), (1024, 128_256))
EPSILON = 0.1
TORCH = "torch eager"

Loss = Callable[[Tensor, Tensor], Tensor]

pytestmark = pytest.mark.usefixtures("like_a_trial")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_loss(compare: Compare, shape: tuple[int, int]) -> None:
    """Loss of a float32 batch and the gradient of its logits."""
    generator, (rows, classes) = torch.Generator().manual_seed(0), shape
    logits = torch.randn(rows, classes, generator=generator).requires_grad_()
    labels = torch.randint(classes, (rows,), generator=generator)
    losses = dict(_losses())
    expected = _computed(losses[TORCH], logits, labels)
    for loss in losses.values():
        torch.testing.assert_close(_computed(loss, logits, labels), expected)
    peers = {
        name: Peer(lambda loss=loss: _computed(loss, logits, labels))  # type: ignore[misc]
        for name, loss in losses.items()
    }
    compare(f"loss, {rows} x {classes}, float32, ε={EPSILON}, 1 thread", peers, [TORCH])


def _losses() -> Iterator[tuple[str, Loss]]:
    """What is there: timm where it is installed, compiled code where there is a compiler."""

    def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, label_smoothing=EPSILON)

    epsilon = torch.tensor(EPSILON)  # a tensor, as training hands it over
    yield TORCH, smoothed
    if shutil.which(os.environ.get("CXX", "g++")):
        torch.compiler.reset()
        yield "torch compiled", torch.compile(smoothed, dynamic=False)
    if find_spec("timm"):
        yield "timm", importlib.import_module("timm.loss").LabelSmoothingCrossEntropy(EPSILON)
    yield "ablate", lambda logits, labels: label_smoothing_cross_entropy(logits, labels, epsilon=epsilon)


def _computed(loss: Loss, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and the gradient of the logits."""
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient
