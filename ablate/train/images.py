"""Decoded images handed to the network: gathered, moved and normalised batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablate.study.trials import stream_seed


@dataclass(frozen=True)
class Images:
    """One split, where batches are taken from.

    Attributes:
        pixels: [N, H, W, C] uint8. On a GPU all of it is resident; on a CPU it may be a memory map.
        labels: [N] int64 class ids, on the same device.
        scale: [C, 1, 1] float32, 1 / (255 std).
        shift: [C, 1, 1] float32, -mean / std.
    """

    pixels: Tensor
    labels: Tensor
    scale: Tensor
    shift: Tensor

    @classmethod
    def on(
        cls,
        device: torch.device,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> Images:
        """A split on a device, with the mean and std (of pixels in 0 to 1) that normalise it."""
        center, spread = torch.tensor(mean), torch.tensor(std)
        return cls(
            pixels=torch.from_numpy(pixels).to(device),
            labels=torch.from_numpy(labels).to(device),
            scale=(1 / (255 * spread)).view(-1, 1, 1).to(device),
            shift=(-center / spread).view(-1, 1, 1).to(device),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalised images [B, C, H, W] float32 in channels-last order, and their labels [B]."""
        images = self.pixels[index].permute(0, 3, 1, 2).to(torch.float32)
        return images.mul_(self.scale).add_(self.shift), self.labels[index]


def epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    """The order of training images in one epoch, [length] int64, a function of seed and epoch alone."""
    generator = torch.Generator().manual_seed(epoch_seed(seed, "order", epoch))
    return torch.randperm(length, generator=generator)


def epoch_seed(seed: int, stream: str, epoch: int) -> int:
    """The seed of a stream in one epoch, so that a resumed run draws what an uninterrupted one would."""
    sequence = np.random.SeedSequence([stream_seed(seed, stream), epoch])
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1


def batches(order: Tensor, batch_size: int, *, drop_last: bool) -> list[Tensor]:
    """An epoch's order cut into batches; the last may be smaller, and is left out by `drop_last`."""
    cut = list(torch.split(order, batch_size))
    return cut[:-1] if drop_last and len(cut[-1]) < batch_size and len(cut) > 1 else cut
