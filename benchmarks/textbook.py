"""Training as a textbook has it, with ablate's network and nothing else of ablate's.

Run as a script it trains the sweep of `test_sweep.py`: `python -m benchmarks.textbook DATA THREADS`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ablate.models import build_model

BATCH, RATE, EPSILON, SIDE = 128, 0.4, 0.1, 128
SWEEP_EPSILONS, SWEEP_SEEDS, SWEEP_EPOCHS, SWEEP_BATCH, SWEEP_RATE = (0.0, 0.1), (0, 1), 5, 32, 0.03


def image_folder(folder: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageFolder:
    """Images of class folders, squashed to a square and normalised."""
    squash = [transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), transforms.Normalize(mean, std)]
    return ImageFolder(folder, transforms.Compose(squash))


@functools.cache
def epoch_of(
    folder: Path, places: range, mean: tuple[float, ...], std: tuple[float, ...], threads: int
) -> Callable[[], int]:
    """A training loop in float32 over JPEG files, which two processes decode; this process keeps it.

    Args:
        folder: of the training images' class folders.
        places: images that an epoch has.
        mean: of pixels in 0 to 1, a value per channel.
        std: likewise.
        threads: that torch computes with.

    Returns:
        What trains on every image once, and says how many there were.
    """
    torch.set_num_threads(threads)
    data = image_folder(folder, mean, std)
    part = Subset(data, places)
    loader = DataLoader(part, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    model = build_model("seed_cnn", num_classes=len(data.classes), image_size=SIDE)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    return lambda: train_epoch(model, optimizer, loader, EPSILON)


def epoch(*loop: Any) -> int:
    """An epoch of the loop that has these arguments of `epoch_of`."""
    return epoch_of(*loop)()


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[tuple[Tensor, ...]], epsilon: float
) -> int:
    """Train on every image of a loader, and say how many there were."""
    model.train()
    seen = 0
    for images, labels in loader:
        loss = cross_entropy(model(images), labels, label_smoothing=epsilon)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen += len(labels)
    return seen


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    """Part of a loader's images that the network is right about."""
    model.eval()
    right = [(model(images).argmax(dim=1) == labels) for images, labels in loader]
    return float(torch.cat(right).float().mean())


def sweep(train: Dataset[tuple[Tensor, ...]], valid: Dataset[tuple[Tensor, ...]]) -> list[float]:
    """Train every ε with every seed, one after the other, and give their last accuracies."""
    found = []
    for epsilon in SWEEP_EPSILONS:
        for seed in SWEEP_SEEDS:
            torch.manual_seed(seed)
            model = build_model("seed_cnn", num_classes=10, image_size=8)
            optimizer = torch.optim.SGD(model.parameters(), lr=SWEEP_RATE)
            loader = DataLoader(train, SWEEP_BATCH, shuffle=True)
            for _ in range(SWEEP_EPOCHS):
                train_epoch(model, optimizer, loader, epsilon)
                last = accuracy(model, DataLoader(valid, 128))
            found.append(last)
    return found


def main() -> None:
    """Train the sweep on a file of tensors, and print the accuracies."""
    torch.set_num_threads(int(sys.argv[2]))
    images, labels, valid_images, valid_labels = torch.load(sys.argv[1], weights_only=True)
    print(*sweep(TensorDataset(images, labels), TensorDataset(valid_images, valid_labels)))


if __name__ == "__main__":
    main()
