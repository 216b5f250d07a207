"""Suite: forward and backward of the smoothed cross-entropy, ours beside torch's and timm's.

On the CPU one thread is used, as by a trial among others. Before anything is timed, the gradient is checked
against torch's: a fast wrong answer is a fault of the case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ablate.bench.measure import DEVICES, measure, measured_as
from ablate.losses import label_smoothing_cross_entropy

SHAPES = ((128, 10), (1024, 1000), (256, 32_000))
EPSILON = 0.1

Loss = Callable[[Tensor, Tensor], Tensor]


def _torch(device: torch.device) -> Loss:
    return lambda logits, labels: cross_entropy(logits, labels, label_smoothing=EPSILON)


def _ablate(device: torch.device) -> Loss:
    epsilon = torch.tensor(EPSILON, device=device)  # a tensor, as training hands it over
    return lambda logits, labels: label_smoothing_cross_entropy(logits, labels, epsilon=epsilon)


def _timm(device: torch.device) -> Loss:
    timm = pytest.importorskip("timm.loss", reason="timm is not installed")
    loss: Loss = timm.LabelSmoothingCrossEntropy(EPSILON)
    return loss


IMPLEMENTATIONS = {"torch": _torch, "ablate": _ablate, "timm": _timm}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("device", DEVICES)
def test_loss(benchmark: Any, device: str, shape: tuple[int, int], implementation: str) -> None:
    """Loss of a float32 batch and the gradient of its logits."""
    where, (rows, classes) = torch.device(device), shape
    measured_as(benchmark, f"loss, {device}, {rows} x {classes}, ε={EPSILON}", implementation)
    logits, labels = _batch(rows, classes, where)
    loss = IMPLEMENTATIONS[implementation](where)
    torch.testing.assert_close(_gradient(loss, logits, labels), _gradient(_torch(where), logits, labels))
    measure(benchmark, lambda: _gradient(loss, logits, labels), where)


def _batch(rows: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, classes, generator=generator).to(device).requires_grad_()
    return logits, torch.randint(classes, (rows,), generator=generator).to(device)


def _gradient(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
    return gradient
