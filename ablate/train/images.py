"""Decoded images handed to the network: gathered, normalised, cropped, mirrored and mixed on the device.

What is drawn for an image is a function of the seed, the epoch and the image, and of nothing else.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ablate.plugins import bind, explained, load_foreign, ready
from ablate.study.fields import Fields
from ablate.study.trials import stream_seed
from ablate.train.device import seed_generators

LOG_RATIO = math.log(4 / 3)
"""Crops have sides in a ratio between 3:4 and 4:3."""
DRAWS = 16
"""How many uniform numbers an augmentation that takes `draws` gets for each image."""


@dataclass(frozen=True)
class Images:
    """One split, where batches are taken from: pixels [N, H, W, C] uint8, and labels [N] int64.

    On a GPU all of it is resident; on a CPU the pixels may be a memory map. `scale` is 1 / (255 std) and
    `shift` -mean / std, both [C, 1, 1] float32.
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
    ) -> Self:
        """A split on a device, with the mean and std (of pixels in 0 to 1) that normalise it."""
        none = torch.empty(0)
        images = cls(torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device), none, none)
        return images.normalised_by(mean, std)

    def normalised_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Self:
        """The same images, with another mean and std."""
        center, spread = torch.tensor(mean), torch.tensor(std)
        scale, shift = (1 / (255 * spread)).view(-1, 1, 1), (-center / spread).view(-1, 1, 1)
        device = self.labels.device
        return replace(self, scale=scale.to(device), shift=shift.to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalised images [B, C, H, W] float32 in channels-last order, and their labels [B]."""
        images = self.pixels[index].permute(0, 3, 1, 2).to(torch.float32)
        return images.mul_(self.scale).add_(self.shift), self.labels[index]


def epoch_order(length: int, seed: int, epoch: int) -> Tensor:
    """The order of training images in one epoch, [length] int64."""
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


class ForeignAugmentation:
    """Code from outside over images of 0 to 1; what it draws follows from each image's own seed or draws.

    What takes `draws` gets a batch [B, 3, S, S] float32, with [B, 16] numbers in [0, 1). Anything else gets
    one image at a time, [1, 3, S, S], with the global generators seeded for this image.
    """

    def __init__(self, fields: Fields) -> None:
        name, own = fields.augmentation, fields.arguments("augmentation")
        code = load_foreign("augmentation", name)
        self._code, self._given = ready("augmentation", name, code, own, {"draws": None})

    def draw(self, count: int, seed: int) -> Tensor:
        """What an epoch's seed gives to each of so many images: draws [N, 16], or seeds [N]."""
        generator = torch.Generator().manual_seed(seed)
        if "draws" in self._given:
            return torch.rand(count, DRAWS, generator=generator)
        return torch.randint(2**63 - 1, (count,), generator=generator)

    @torch.no_grad()
    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """A batch augmented, by what was drawn for its images."""
        if isinstance(self._code, nn.Module):
            self._code.to(images.device)
        if "draws" in self._given:
            result: Tensor = self._code(images, **{**self._given, "draws": drawn})
            return result
        made = []
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            for image, seed in zip(torch.split(images, 1), drawn.tolist(), strict=True):
                seed_generators(seed)
                made.append(self._code(image, **self._given))
        return torch.cat(made)


def build_augmentation(fields: Fields) -> ForeignAugmentation | None:
    """The augmentation that a trial names, if any."""
    if fields.augmentation != "none":
        return ForeignAugmentation(fields)
    bind("augmentation", fields.augmentation, lambda images: images, fields.arguments("augmentation"), {}, 1)
    return None


class Augmentation:
    """One epoch's random draws for each of `count` training images, and what they do to a batch.

    A new epoch's draws fill the tensors of the last one's, where a captured step reads them.
    """

    _weights: Tensor | None = None

    def __init__(self, fields: Fields, seed: int, count: int, epoch: int, device: torch.device) -> None:
        self.fields, self.seed = fields, seed
        self._draws = torch.empty(count, 7, device=device)
        self._foreign = build_augmentation(fields)
        if self._foreign is not None:
            self._drawn = self._foreign.draw(count, 0).to(device)
        if fields.mixup:
            self._weights = torch.empty(count, device=device)
        self.draw(epoch)

    def draw(self, epoch: int) -> None:
        """Draw what an epoch does to every image."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, "augmentation", epoch))
        # One row per image, drawn whether used or not, so that no setting changes another's draws.
        draws = torch.rand(len(self._draws), 7, generator=generator)
        self._draws.copy_(draws)
        if self._foreign is not None:
            seed = epoch_seed(self.seed, "foreign_augmentation", epoch)
            self._drawn.copy_(self._foreign.draw(len(draws), seed))
        if self._weights is not None:
            from scipy.special import betaincinv  # a worker without mixup starts sooner without it

            # By inverting the distribution: an image's weights at two alphas then come from one draw, and
            # grow or fall together.
            alpha = self.fields.mixup
            weights = torch.from_numpy(betaincinv(alpha, alpha, draws[:, 5].double().numpy()))
            self._weights.copy_(torch.maximum(weights, 1 - weights))

    def batch(self, images: Images, index: Tensor) -> Tensor:
        """The images of index [B] as the network sees them, normalised, [B, C, S, S] float32."""
        if self._foreign is None:
            return self.images(images.batch(index)[0], index)
        plain = self.images(images.pixels[index].permute(0, 3, 1, 2) / 255, index)
        augmented = self._foreign(plain, self._drawn[index]) * (255 * images.scale) + images.shift
        return augmented.contiguous(memory_format=torch.channels_last)

    def images(self, images: Tensor, index: Tensor) -> Tensor:
        """A batch [B, C, H, H] float32, of the images of index [B], as the network sees it, [B, C, S, S]."""
        size = self.fields.image_size
        mirrored = self._draws[index, 4] < 0.5 if self.fields.flip else None
        if self.fields.crop_area < 1:
            return random_resized_crop(images, self._draws[index, :4], mirrored, size, self.fields.crop_area)
        images = shrink(images, size)
        if mirrored is None:
            return images
        return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)

    def mixture(self, index: Tensor) -> tuple[Tensor, Tensor] | None:
        """How to mix a batch, if at all: each image's weight [B], in [0.5, 1], and partner [B] in it."""
        if self._weights is None:
            return None
        # The order of the images' draws is a random permutation that needs nothing from the host.
        return self._weights[index], self._draws[index, 6].argsort(stable=True)


def random_resized_crop(
    images: Tensor, draws: Tensor, mirrored: Tensor | None, size: int, least_area: float
) -> Tensor:
    """Cut a random rectangle out of each image [B, C, H, W] and stretch it to a square [B, C, size, size].

    Uniform are its area, from `least_area` in (0, 1] to 1 of the image, the logarithm of its sides' ratio,
    and its place, by `draws` [B, 4] in [0, 1) of area, ratio, horizontal and vertical place; no side is above
    the image's. Bilinear without a low-pass filter, right for scales down to about a half.
    """
    area = least_area + (1 - least_area) * draws[:, 0]
    ratio = torch.exp(LOG_RATIO * (2 * draws[:, 1] - 1))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    # Affine maps in the convention of grid_sample: the image spans -1 to 1.
    center_x, center_y = (1 - width) * (2 * draws[:, 2] - 1), (1 - height) * (2 * draws[:, 3] - 1)
    direction = torch.where(mirrored, -width, width) if mirrored is not None else width
    zero = torch.zeros_like(width)
    rows = [torch.stack([direction, zero, center_x], 1), torch.stack([zero, height, center_y], 1)]
    shape = [len(images), images.shape[1], size, size]
    grid = functional.affine_grid(torch.stack(rows, 1), shape, align_corners=False)
    cropped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return cropped.contiguous(memory_format=torch.channels_last)


def shrink(images: Tensor, size: int) -> Tensor:
    """Images [B, C, H, H] brought to [B, C, size, size], low-pass filtered; as they are where that is H."""
    if images.shape[-1] == size:
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True).contiguous(
        memory_format=torch.channels_last
    )


def check_augmentation(fields: Fields) -> None:
    """Try an augmentation from outside on three random images; what first fails is a StudyError."""
    augmentation = build_augmentation(fields)
    if augmentation is None:
        return
    drawn, size = augmentation.draw(3, seed=0), fields.image_size
    images = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    wanted = f"float32 {list(images.shape)} of 0 to 1 to give finite ones of that shape, alike in any batch"
    with explained("augmentation", fields.augmentation, wanted):
        made, again = augmentation(images.clone(), drawn), augmentation(images[1:].clone(), drawn[1:])
        if made.shape != images.shape or made.dtype != images.dtype or not made.isfinite().all():
            raise ValueError(f"{made.dtype} {list(made.shape)} came, {made.flatten()[:3].tolist()}")
        if not torch.allclose(made[1:], again, atol=1e-6):
            raise ValueError(
                "an image became another in another batch; draw from the global generators of torch, NumPy "
                "or random, or `draws`"
            )
