"""Crops, mirrors and mixtures against torchvision and by hand, and what their draws depend on."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from small_training import SEED, changed, images, pixels
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from ablate.train.images import Augmentation, random_resized_crop, shrink

CPU = torch.device("cpu")
NOISY, FADED = "small_training:noisy", "small_training:faded"
FIELDS = changed(image_size=12, crop_area=0.35, flip=True, mixup=0.4)


def pictures(count: int = 8, size: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, size, size, generator=generator).to(memory_format=torch.channels_last)


def mixture_of(augmentation: Augmentation, index: list[int]) -> tuple[Tensor, Tensor]:
    mixture = augmentation.mixture(torch.tensor(index))
    assert mixture is not None
    return mixture


@pytest.mark.parametrize(
    ("draws", "left", "top", "side"),
    [
        # A quarter of the area, square: 12 of 24 pixels a side.
        ([0.0, 0.5, 0.0, 0.0], 0, 0, 12),
        ([0.0, 0.5, 1.0, 0.0], 12, 0, 12),
        ([0.0, 0.5, 0.5, 1.0], 6, 12, 12),
        ([1.0, 0.5, 0.3, 0.9], 0, 0, 24),  # all of it
    ],
)
@pytest.mark.parametrize("size", [12, 24, 8])
@pytest.mark.parametrize("mirrored", [None, False, True])
def test_a_crop_is_torchvisions_resized_crop(
    draws: list[float], left: int, top: int, side: int, size: int, mirrored: bool | None
) -> None:
    picture, bilinear = pictures(1, 24), InterpolationMode.BILINEAR
    expected = vision.resized_crop(picture, top, left, side, side, [size, size], bilinear, antialias=False)
    expected = vision.hflip(expected) if mirrored else expected
    flags = None if mirrored is None else torch.tensor([mirrored])
    ours = random_resized_crop(picture, torch.tensor([draws]), flags, size, 0.25)
    edge = int(size > side)  # where torchvision does not look beside the box
    inner = slice(edge, size - edge)
    torch.testing.assert_close(ours[..., inner, inner], expected[..., inner, inner], rtol=1e-4, atol=1e-4)


@given(st.tuples(*[st.floats(0, 0.999)] * 4), st.floats(0.05, 1.0), st.booleans())
def test_a_crop_stays_inside_its_image(draws: tuple[float, ...], least: float, mirrored: bool) -> None:
    # A picture whose pixels are their own coordinates shows where a crop was taken.
    ramp = torch.linspace(-1 + 1 / 40, 1 - 1 / 40, 40)
    picture = torch.stack([ramp.expand(40, 40), ramp[:, None].expand(40, 40)])[None]
    cut = random_resized_crop(picture, torch.tensor([draws]), torch.tensor([mirrored]), 10, least)[0]
    width = (cut[0, 0].max() - cut[0, 0].min()).item() / 2 / 0.9
    height = (cut[1, :, 0].max() - cut[1, :, 0].min()).item() / 2 / 0.9
    assert cut.abs().max() <= 1
    assert width * height >= least * 0.85 - 1e-3  # a side cut at the image's loses some; the grid is coarse
    assert 0.70 <= width / height <= 1.43
    assert (cut[0, 0, 0] > cut[0, 0, -1]) == mirrored


def test_shrinking_is_torchvisions_antialiased_resize() -> None:
    images = pictures(2, 24)
    expected = vision.resize(images, [9, 9], InterpolationMode.BILINEAR, antialias=True)
    torch.testing.assert_close(shrink(images, 9), expected)
    assert shrink(images, 24) is images


def test_draws_are_a_function_of_seed_epoch_and_image() -> None:
    images, index = pictures(), torch.arange(8)
    augmentation = Augmentation(FIELDS, SEED, 50, 2, CPU)
    whole = augmentation.images(images, index)
    alone = Augmentation(FIELDS, SEED, 50, 2, CPU).images(images[[5, 2]], index[[5, 2]])
    assert torch.equal(alone, whole[[5, 2]])
    (three, _), (two, _) = (mixture_of(augmentation, of) for of in ([3, 7, 9], [9, 3]))
    assert two.tolist() == three[[2, 0]].tolist()
    for other in (Augmentation(FIELDS, SEED, 50, 3, CPU), Augmentation(FIELDS, 9, 50, 2, CPU)):
        assert not torch.equal(other.images(images, index), whole)


def test_one_setting_does_not_change_anothers_draws() -> None:
    images, index = pictures(2000), torch.arange(2000)
    both, flips_only, crops_only = (
        Augmentation(changed(FIELDS, **changes), SEED, 2000, 0, CPU).images(images, index)
        for changes in ({}, {"crop_area": 1.0, "mixup": 0.0}, {"flip": False})
    )
    mirrored = (flips_only != images).flatten(1).any(1)
    assert 0.47 < mirrored.float().mean() < 0.53
    expected = torch.where(mirrored.view(-1, 1, 1, 1), crops_only.flip(3), crops_only)
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-4)
    plain = Augmentation(changed(FIELDS, crop_area=1.0, flip=False, mixup=0.0), SEED, 2000, 0, CPU)
    assert plain.images(images, index) is images
    assert plain.mixture(index) is None


def augmented(index: Tensor, *, batch: int = 50, seed: int = SEED, epoch: int = 2, **changes: Any) -> Tensor:
    """Normalised images of an index, made in batches, and brought back to 0 to 1."""
    split = images(pixels(50, 0, side=12))
    augmentation = Augmentation(changed(image_size=12, **changes), seed, 50, epoch, CPU)
    made = torch.cat([augmentation.batch(split, part) for part in torch.split(index, batch)])
    return (made - split.shift) / (255 * split.scale)


@pytest.mark.parametrize("own", ["torchvision.transforms.v2.RandAugment", NOISY, FADED])
def test_own_augmentation_is_the_same_of_an_image_in_any_batch_and_another_elsewhere(own: str) -> None:
    index, state = torch.randperm(50), torch.get_rng_state()
    of = functools.partial(augmented, index, augmentation=own, crop_area=0.5, flip=True)
    torch.testing.assert_close(of(batch=7), of())
    same = (of() - of(epoch=3)).flatten(1).abs().amax(1) < 1e-3
    assert not same.any()
    assert not torch.equal(of(), of(seed=9))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("own", [NOISY, FADED])
def test_its_strength_grows_what_is_drawn_and_draws_nothing_else(own: str) -> None:
    settings: list[dict[str, Any]] = [{"augmentation.strength": of, "flip": True} for of in (0.1, 0.2, 0)]
    one, two, none = (augmented(torch.arange(50), augmentation=own, **of) for of in settings)
    torch.testing.assert_close(two - none, 2 * (one - none), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(none, augmented(torch.arange(50), flip=True), rtol=1e-4, atol=1e-6)
    amount = ((one - none).abs() / (none if own == FADED else 1)).flatten(1).mean(1)
    assert len({*amount.tolist()}) == 50  # each image has its own


def test_torchvisions_by_name_sees_images_of_0_to_1() -> None:
    plain, _ = pixels(50, 0, side=12)
    expected = vision.solarize(torch.from_numpy(plain).permute(0, 3, 1, 2) / 255, 0.4)
    own: dict[str, Any] = {"augmentation.threshold": 0.4, "augmentation.p": 1.0}
    ours = augmented(torch.arange(50), augmentation="torchvision.transforms.v2.RandomSolarize", **own)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_mixing_weights_follow_the_folded_beta_distribution(alpha: float) -> None:
    fields = changed(FIELDS, mixup=alpha)
    weights, partner = mixture_of(Augmentation(fields, SEED, 5000, 0, CPU), list(range(5000)))
    weight = weights.double().numpy()
    assert weight.min() >= 0.5
    for quantile in (0.25, 0.5, 0.75):  # P(max(b, 1 - b) <= w) = F(w) - F(1 - w)
        w = np.quantile(weight, quantile)
        assert beta.cdf(w, alpha, alpha) - beta.cdf(1 - w, alpha, alpha) == pytest.approx(quantile, abs=0.03)
    assert sorted(partner.tolist()) == list(range(5000))
