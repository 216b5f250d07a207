"""Augmentations from outside: what they are called with, and the check before training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate.plugins import bind, explained, load_foreign, ready
from ablate.study.fields import Fields
from ablate.train.device import seed_generators

DRAWS = 16
"""How many uniform numbers an augmentation that takes `draws` gets for each image."""


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
