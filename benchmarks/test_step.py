"""One training step of ours beside a plain torch one: same network, images, precision and optimiser.

The plain step is what a short script has: the network, torch's cross-entropy, SGD. Both gather and normalise
the batch from the same resident images. Ours also counts correct images and carries ε as a tensor. The
reductions are matched, so that all of them train alike; what a step changes in the weights is first compared.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ablate.execution.prepare import resolve_numerics
from ablate.execution.trial import resolved_fields
from ablate.losses import build_loss
from ablate.models import build_model
from ablate.study.fields import Fields, resolve
from ablate.study.trials import build_trial
from ablate.train.engine import TOLERANCE, relative_distance
from ablate.train.images import Images
from ablate.train.step import Step
from benchmarks.conftest import Compare
from benchmarks.interleaved import Peer

IMAGE_SIZE, BATCH, CLASSES, EPSILON = 64, 128, 10, 0.1
TORCH = "torch"
REDUCTIONS = {"seed_cnn": ("mean", "sum", "none"), "xresnet18": ("mean",)}
"""A step of the larger network takes a thread seconds, and no reduction changes that."""
CHECKED_RATE, TIMED_RATE = 0.01, 1e-9
"""One batch over and over would end in zeros or infinities, whose arithmetic can be slow."""

TakeStep = Callable[[], object]

pytestmark = pytest.mark.usefixtures("like_a_trial")


@pytest.mark.parametrize("arch", REDUCTIONS)
def test_step(compare: Compare, arch: str) -> None:
    """Gather, forward, loss, backward and update of one batch."""
    precision = _fields(arch, "mean", CHECKED_RATE).precision
    begun = _weights(_network(arch))
    moved = {}
    for name, (model, take_step) in _steps(arch, CHECKED_RATE).items():
        take_step()
        moved[name] = _weights(model) - begun
    for name, change in moved.items():
        apart = relative_distance(change, moved[TORCH])
        assert apart < TOLERANCE[precision], f"{name}: {apart:.2g} of the change apart"
    peers = {name: Peer(take_step) for name, (_, take_step) in _steps(arch, TIMED_RATE).items()}
    group = f"step, {arch}, {IMAGE_SIZE} px, batch {BATCH}, {precision}, ε={EPSILON}, 1 thread"
    compare(group, peers, [TORCH])


def _steps(arch: str, rate: float) -> dict[str, tuple[nn.Module, TakeStep]]:
    """Every peer's network, all with the same weights, and its step."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (BATCH, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    half = (0.5, 0.5, 0.5)
    images = Images.on(torch.device("cpu"), pixels, rng.integers(CLASSES, size=BATCH), half, half)
    steps = {TORCH: _plain_step(_network(arch), images, _fields(arch, "mean", rate))}
    for reduction in REDUCTIONS[arch]:
        fields = _fields(arch, reduction, rate)
        steps[f"ablate, {reduction}"] = _our_step(_network(arch), images, fields)
    return steps


def _fields(arch: str, reduction: str, rate: float) -> Fields:
    fields = resolve(
        {"data": "synthetic", "image_size": IMAGE_SIZE, "batch_size": BATCH, "arch": arch, "lr": rate},
        {"epsilon": EPSILON, "reduction": reduction, "lr_rule": "matched"},
    )
    numerics = resolve_numerics(fields, "cpu")
    return resolved_fields(build_trial({}, fields, seed=0, numerics=numerics, fingerprint=""))


def _network(arch: str) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(arch, num_classes=CLASSES, image_size=IMAGE_SIZE)
    return model.to(memory_format=torch.channels_last).train()


def _weights(model: nn.Module) -> Tensor:
    """All trained weights of a network in one row, a copy."""
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def _our_step(model: nn.Module, images: Images, fields: Fields) -> tuple[nn.Module, TakeStep]:
    step, index = Step(model, build_loss("label_smoothing"), images, fields, 0), torch.arange(BATCH)
    return model, lambda: step(index)


def _plain_step(model: nn.Module, images: Images, fields: Fields) -> tuple[nn.Module, TakeStep]:
    optimizer = torch.optim.SGD(model.parameters(), lr=fields.lr)
    index, half = torch.arange(BATCH), fields.precision == "bfloat16"

    def step() -> None:
        batch, labels = images.batch(index)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            logits = model(batch)
        loss = cross_entropy(logits.float(), labels, label_smoothing=fields.epsilon)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return model, step
