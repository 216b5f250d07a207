"""Suite: one training step of ours beside a plain torch one, on the same network, images and optimiser.

The plain step is what a short script has: the network, torch's cross-entropy, SGD. Ours also counts correct
images and carries ε as a tensor. The reductions are matched, so that all of them train alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ablate.bench.measure import DEVICES, measure, measured_as
from ablate.fields import resolve
from ablate.inputs import resolve_numerics
from ablate.losses import build_loss
from ablate.models import build_model
from ablate.run import build_settings
from ablate.train import keep_freed_memory
from ablate.train.device import set_numerics
from ablate.train.settings import Settings
from ablate.train.step import Step
from ablate.trials import build_trial

IMAGE_SIZE, BATCH, NUM_CLASSES = 64, 128, 10
ROUNDS = {
    ("cpu", "seed_cnn"): 5,
    ("cpu", "xresnet18"): 3,
    ("cuda", "seed_cnn"): 50,
    ("cuda", "xresnet18"): 50,
}
TORCH = "torch"


def _cases() -> Iterator[tuple[str, str, float, str]]:
    """Device, architecture, ε, and the reduction of our step; "torch" is the plain one."""
    for device, arch in ROUNDS:
        for epsilon in (0.0, 0.1):
            # A step of the larger network takes a CPU thread seconds, and no ε changes what it computes.
            all_of_them = epsilon > 0 or (device, arch) != ("cpu", "xresnet18")
            for reduction in (TORCH, "mean", "sum", "none") if all_of_them else (TORCH, "mean"):
                if device in DEVICES:
                    yield device, arch, epsilon, reduction


@pytest.fixture(autouse=True)
def _like_a_trial() -> Iterator[None]:
    """One thread on the CPU, memory kept, no TF32: as a worker has it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    set_numerics(deterministic=False)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("device", "arch", "epsilon", "reduction"), list(_cases()))
def test_step(benchmark: Any, device: str, arch: str, epsilon: float, reduction: str) -> None:
    """Forward, loss, backward and update of one batch that is on the device already."""
    where = torch.device(device)
    settings = _settings(device, arch, epsilon, "mean" if reduction == TORCH else reduction)
    group = f"step, {device}, {arch}, {IMAGE_SIZE} px, batch {BATCH}, {settings.precision}, ε={epsilon}"
    measured_as(benchmark, group, TORCH if reduction == TORCH else f"ablate, {reduction}")
    images, labels = _batch(where)
    torch.manual_seed(0)
    model = build_model(arch, num_classes=NUM_CLASSES, image_size=IMAGE_SIZE)
    model = model.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    make = _plain_step if reduction == TORCH else _our_step
    step = make(model, settings, where)
    measure(benchmark, lambda: step(images, labels), where, rounds=ROUNDS[device, arch])


def _settings(device: str, arch: str, epsilon: float, reduction: str) -> Settings:
    fields = resolve(
        {"data": "synthetic", "image_size": IMAGE_SIZE, "batch_size": BATCH, "arch": arch, "lr": 0.01},
        {"epsilon": epsilon, "reduction": reduction, "lr_rule": "matched"},
    )
    numerics = resolve_numerics(fields, device)
    return build_settings(build_trial({}, fields, seed=0, numerics=numerics, fingerprint=""))


def _batch(device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    labels = torch.randint(NUM_CLASSES, (BATCH,), generator=generator)
    return images.to(device, memory_format=torch.channels_last), labels.to(device)


def _our_step(
    model: nn.Module, settings: Settings, device: torch.device
) -> Callable[[Tensor, Tensor], object]:
    return Step(model, build_loss("label_smoothing"), settings, device, steps_per_epoch=1)


def _plain_step(
    model: nn.Module, settings: Settings, device: torch.device
) -> Callable[[Tensor, Tensor], object]:
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.lr)
    half = settings.precision == "bfloat16"

    def step(images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits = model(images)
        loss = cross_entropy(logits.float(), labels, label_smoothing=settings.epsilon)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step
