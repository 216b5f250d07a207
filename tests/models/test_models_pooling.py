"""Blurred max pooling against the definition it folds into one kernel, in timm's and torch's pieces."""

import pytest
import torch
from timm.layers.blur_pool import BlurPool2d
from torch import Tensor
from torch.nn import functional

from ablate.models.pooling import MaxBlurPool2d


def step_by_step(maps: Tensor) -> Tensor:
    """Maximum, 5×5 binomial blur over mirrored borders, bilinear interpolation to half the size."""
    blur = BlurPool2d(maps.shape[1], filt_size=5, stride=1, pad_mode="reflect").to(maps)
    blurred = blur(functional.max_pool2d(maps, 3, stride=1, padding=1))
    return functional.interpolate(blurred, scale_factor=0.5, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (6, 10), (32, 32)])
def test_one_kernel_equals_the_three_steps_and_their_gradient(height: int, width: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    ours, theirs = MaxBlurPool2d(3).double()(maps), step_by_step(maps)
    assert ours.shape == (2, 3, height // 2, width // 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(ours)
    gradients = [torch.autograd.grad(output, maps, upstream)[0] for output in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [5, 7, 33])
def test_an_odd_side_rounds_up_and_agrees_with_the_definition_elsewhere(size: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, size, size, dtype=torch.float64)
    ours, theirs = MaxBlurPool2d(3).double()(maps), step_by_step(maps)
    half = size // 2
    assert ours.shape[2:] == (half + 1, half + 1)
    torch.testing.assert_close(ours[..., :half, :half], theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", range(1, 9))
def test_a_constant_map_stays_constant(size: int) -> None:
    pooled = MaxBlurPool2d(2)(torch.full((1, 2, size, size), -3.0))
    assert torch.equal(pooled, torch.full((1, 2, -(-size // 2), -(-size // 2)), -3.0))


def test_the_kernel_is_exact_in_bfloat16_and_holds_no_state() -> None:
    pool = MaxBlurPool2d(4)
    assert torch.equal(pool.kernel.bfloat16().float(), pool.kernel)
    assert not pool.state_dict()
    assert not list(pool.parameters())


def test_channels_last_comes_out_as_it_goes_in() -> None:
    maps = torch.randn(2, 8, 16, 16).to(memory_format=torch.channels_last)
    pool = MaxBlurPool2d(8).to(memory_format=torch.channels_last)
    assert pool(maps).is_contiguous(memory_format=torch.channels_last)
