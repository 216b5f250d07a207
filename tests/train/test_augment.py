"""Crops, mirrors and mixtures against torchvision and by hand, and what their draws depend on."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from small_training import SEED, changed
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from ablate.train.augment import Augmentation, random_resized_crop, shrink

CPU = torch.device("cpu")
FIELDS = changed(image_size=12, crop_area=0.35, flip=True, mixup=0.4)


def pictures(count: int = 8, size: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, size, size, generator=generator).to(memory_format=torch.channels_last)


def crop(draws: list[float], size: int, *, least: float = 0.35, mirrored: bool | None = None) -> Tensor:
    flags = None if mirrored is None else torch.tensor([mirrored])
    return random_resized_crop(pictures(1, 24), torch.tensor([draws]), flags, size, least)


@pytest.mark.parametrize(
    ("draws", "box"),
    [
        # A quarter of the area, square: 12 of 24 pixels a side. left, top, width, height
        ([0.0, 0.5, 0.0, 0.0], (0, 0, 12, 12)),
        ([0.0, 0.5, 1.0, 0.0], (12, 0, 12, 12)),
        ([0.0, 0.5, 0.5, 1.0], (6, 12, 12, 12)),
    ],
)
@pytest.mark.parametrize("size", [12, 24, 8])
@pytest.mark.parametrize("mirrored", [None, False, True])
def test_a_crop_is_torchvisions_resized_crop(
    draws: list[float], box: tuple[int, int, int, int], size: int, mirrored: bool | None
) -> None:
    left, top, width, height = box
    # Cut with a margin, so that torchvision too may look one pixel beside the box where there is one.
    expected = vision.resized_crop(
        pictures(1, 24), top, left, height, width, [size, size], InterpolationMode.BILINEAR, antialias=False
    )
    if mirrored:
        expected = vision.hflip(expected)
    ours = crop(draws, size, least=0.25, mirrored=mirrored)
    inner = slice(1, -1) if size > 12 else slice(None)
    torch.testing.assert_close(ours[..., inner, inner], expected[..., inner, inner], rtol=1e-4, atol=1e-4)


def test_all_of_an_image_is_a_crop_that_changes_nothing() -> None:
    torch.testing.assert_close(crop([1.0, 0.5, 0.3, 0.9], 24), pictures(1, 24), rtol=1e-4, atol=1e-5)


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
    expected = vision.resize(pictures(2, 24), [9, 9], InterpolationMode.BILINEAR, antialias=True)
    torch.testing.assert_close(shrink(pictures(2, 24), 9), expected)
    same = pictures(2, 24)
    assert shrink(same, 24) is same


def test_draws_are_a_function_of_seed_epoch_and_image() -> None:
    images, index = pictures(), torch.arange(8)
    augmentation = Augmentation(FIELDS, SEED, 50, 2, CPU)
    whole = augmentation.images(images, index)
    alone = Augmentation(FIELDS, SEED, 50, 2, CPU).images(images[[5, 2]], index[[5, 2]])
    assert torch.equal(alone, whole[[5, 2]])
    weights, own = (augmentation.mixture(torch.tensor(i)) for i in ([3, 7, 9], [9, 3]))
    assert weights is not None
    assert own is not None
    assert own[0].tolist() == weights[0][[2, 0]].tolist()
    for other in (Augmentation(FIELDS, SEED, 50, 3, CPU), Augmentation(FIELDS, 9, 50, 2, CPU)):
        assert not torch.equal(other.images(images, index), whole)


def test_one_setting_does_not_change_anothers_draws() -> None:
    images, index = pictures(), torch.arange(8)
    both = Augmentation(FIELDS, SEED, 50, 0, CPU)
    flips_only = Augmentation(changed(FIELDS, crop_area=1.0, mixup=0.0), SEED, 50, 0, CPU)
    mirrored = (flips_only.images(images, index) != images).flatten(1).any(1)
    assert 0 < mirrored.sum() < 8
    crops_only = Augmentation(changed(FIELDS, flip=False), SEED, 50, 0, CPU).images(images, index)
    expected = torch.where(mirrored.view(-1, 1, 1, 1), crops_only.flip(3), crops_only)
    torch.testing.assert_close(both.images(images, index), expected, rtol=1e-4, atol=1e-4)


def test_without_augmentation_a_batch_is_as_it_was() -> None:
    plain = Augmentation(changed(FIELDS, crop_area=1.0, flip=False, mixup=0.0), SEED, 50, 0, CPU)
    images = pictures()
    assert plain.images(images, torch.arange(8)) is images
    assert plain.mixture(torch.arange(8)) is None


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.tensor([0.0, 1.0]).repeat(4000, 3, 4, 2)
    fields = changed(FIELDS, image_size=4, crop_area=1.0, flip=True)
    seen = Augmentation(fields, SEED, 4000, 0, CPU).images(images, torch.arange(4000))
    assert 0.47 < (seen[:, 0, 0, 0] == 1).float().mean() < 0.53


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_mixing_weights_follow_the_folded_beta_distribution(alpha: float) -> None:
    mixture = Augmentation(changed(FIELDS, mixup=alpha), SEED, 5000, 0, CPU).mixture(torch.arange(5000))
    assert mixture is not None
    weight, partner = mixture[0].double().numpy(), mixture[1]
    assert weight.min() >= 0.5
    for quantile in (0.25, 0.5, 0.75):  # P(max(b, 1 - b) <= w) = F(w) - F(1 - w)
        w = np.quantile(weight, quantile)
        assert beta.cdf(w, alpha, alpha) - beta.cdf(1 - w, alpha, alpha) == pytest.approx(quantile, abs=0.03)
    assert sorted(partner.tolist()) == list(range(5000))
