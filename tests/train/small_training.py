"""What the tests of training train: small images of three classes, a network, its loss, the fields."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ablate.models.contract import Float32Linear
from ablate.study.fields import Fields, resolve
from ablate.train.fit import Fitted, fit
from ablate.train.images import Images
from ablate.train.step import Step

MEAN, STD = (0.47, 0.48, 0.45), (0.29, 0.28, 0.30)
SEED = 5
FIELDS = resolve(
    {"data": "none", "image_size": 6, "epochs": 3, "batch_size": 16, "eval_batch_size": 7, "lr": 0.1},
    {"precision": "float32", "deterministic": True},
)


def changed(base: Fields = FIELDS, /, **changes: Any) -> Fields:
    return resolve(base.model_dump(), changes)


def smoothed(logits: Tensor, target: Tensor, /, *, epsilon: float | Tensor, reduction: str) -> Tensor:
    return functional.cross_entropy(logits, target, label_smoothing=float(epsilon), reduction=reduction)


def pixels(count: int, seed: int, side: int = 6, classes: int = 3) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images that are the brighter the higher their class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    images = rng.integers(0, 120, (count, side, side, 3)) + 40 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


def images(split: tuple[NDArray[Any], NDArray[Any]], device: str = "cpu") -> Images:
    return Images.on(torch.device(device), *split, MEAN, STD)


TRAIN, VALID = pixels(50, 0), pixels(23, 1)


def network(dropout: float = 0.0, classes: int = 3, bias: bool = True, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    body = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), Float32Linear(8, classes, bias=bias)
    model = nn.Sequential(*body, *head)
    return model.to(memory_format=torch.channels_last)


def faded(images: Tensor, *, draws: Tensor, strength: float = 0.5) -> Tensor:
    """An augmentation of whole batches."""
    return images * (1 - strength * draws[:, 0].view(-1, 1, 1, 1))


def noisy(images: Tensor, strength: float = 0.1) -> Tensor:
    """An augmentation that draws from a global generator."""
    return images + strength * torch.randn_like(images)


class Counts(torch.optim.Adagrad):
    """An optimiser with a state from its beginning, and with one in its groups."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1
            group["lr"] /= group["steps"]
        return super().step(closure)


def power(progress: float, exponent: float = 1.0) -> float:
    """A schedule."""
    return float((1 - progress / 2) ** exponent)


class Made(nn.Module):
    """A network of some modules and a function of it and the images."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, images: Tensor) -> Tensor:
        return self._forward(self, images)


def history(fitted: Fitted) -> list[dict[str, Any]]:
    return [epoch.model_dump(exclude={"seconds"}) for epoch in fitted.history]


def run(model: nn.Module, fields: Fields = FIELDS, seed: int = SEED, **options: Any) -> Fitted:
    train, valid = (images(split, str(next(model.parameters()).device)) for split in (TRAIN, VALID))
    return fit(Step(model, smoothed, train, fields, seed), valid, **options)
