"""Random crops, mirrors and mixtures of training images, on the device.

What is drawn for an image is a function of the seed, the epoch and the image, so that neither the order of
images nor the batch size, nor any factor's level, changes it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ablate.study.fields import Fields
from ablate.train.images import epoch_seed

LOG_RATIO = math.log(4 / 3)
"""Crops have sides in a ratio between 3:4 and 4:3."""


class Augmentation:
    """One epoch's random draws for every training image, and what they do to a batch.

    A new epoch's draws fill the tensors of the last one's, where a captured step reads them. Of the fields
    image_size, crop_area, flip and mixup matter; `count` is the number of training images.
    """

    _weights: Tensor | None = None

    def __init__(self, fields: Fields, seed: int, count: int, epoch: int, device: torch.device) -> None:
        self.fields, self.seed = fields, seed
        self._draws = torch.empty(count, 7, device=device)
        if fields.mixup:
            self._weights = torch.empty(count, device=device)
        self.draw(epoch)

    def draw(self, epoch: int) -> None:
        """Draw what an epoch does to every image."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, "augmentation", epoch))
        # One row per image, drawn whether used or not, so that no setting changes another's draws.
        draws = torch.rand(len(self._draws), 7, generator=generator)
        self._draws.copy_(draws)
        if self._weights is not None:
            self._weights.copy_(_mixture_weights(draws[:, 5], self.fields.mixup))

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
        """How to mix a batch, if it is to be mixed: each image's weight [B], in [0.5, 1], and partner [B].

        Partners are indices in the batch: the order of its images' draws is a random permutation that needs
        nothing from the host.
        """
        if self._weights is None:
            return None
        return self._weights[index], self._draws[index, 6].argsort(stable=True)


def random_resized_crop(
    images: Tensor, draws: Tensor, mirrored: Tensor | None, size: int, least_area: float
) -> Tensor:
    """Cut a random rectangle out of each image and stretch it to a square.

    The area is uniform from `least_area` to 1 of the image, the logarithm of the sides' ratio uniform between
    3:4 and 4:3, the place uniform; a side that would be longer than the image is the image's. Sampled
    bilinearly without a low-pass filter, which is right for scales down to about a half.

    Args:
        images: [B, C, H, W] floating.
        draws: [B, 4] uniform in [0, 1): area, ratio, horizontal and vertical place.
        mirrored: [B] which ones to mirror as well; None is none.
        size: pixels S a side of the result [B, C, S, S], which is channels last.
        least_area: in (0, 1].
    """
    area = least_area + (1 - least_area) * draws[:, 0]
    ratio = torch.exp(LOG_RATIO * (2 * draws[:, 1] - 1))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    # Affine maps in the convention of grid_sample: the image spans -1 to 1.
    center_x, center_y = (1 - width) * (2 * draws[:, 2] - 1), (1 - height) * (2 * draws[:, 3] - 1)
    direction = torch.where(mirrored, -width, width) if mirrored is not None else width
    zero = torch.zeros_like(width)
    rows = [torch.stack([direction, zero, center_x], 1), torch.stack([zero, height, center_y], 1)]
    grid = functional.affine_grid(
        torch.stack(rows, 1), [len(images), images.shape[1], size, size], align_corners=False
    )
    cropped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return cropped.contiguous(memory_format=torch.channels_last)


def shrink(images: Tensor, size: int) -> Tensor:
    """Images [B, C, H, H] brought to [B, C, S, S], low-pass filtered; as they are where H is S."""
    if images.shape[-1] == size:
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True).contiguous(
        memory_format=torch.channels_last
    )


def _mixture_weights(uniform: Tensor, alpha: float) -> Tensor:
    """Weights in [0.5, 1] that are Beta(alpha, alpha) folded at a half, by inverting its distribution.

    So one image's weights at two alphas come from one draw, and grow or fall together.
    """
    from scipy.special import betaincinv  # a worker without mixup starts sooner without it

    weights = torch.from_numpy(betaincinv(alpha, alpha, uniform.double().numpy()))
    return torch.maximum(weights, 1 - weights).float()
