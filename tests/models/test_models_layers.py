"""The layers of ablate's own against torch's convolution, timm's blur, loops, and torch's spectral norm."""

import copy
import functools
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from timm.layers.blur_pool import BlurPool2d
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ablate.models.layers import Conv3x3, MaxBlurPool2d, SimpleSelfAttention

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def step(layer: nn.Module, images: Tensor) -> list[Tensor]:
    """Gives the output and the gradients of the input and the weight."""
    images = images.clone().requires_grad_()
    output = layer(images)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    return [output, *torch.autograd.grad((output * weights).sum(), [images, *layer.parameters()])]


@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.sampled_from([1, 2]),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    layout=st.sampled_from(LAYOUTS),
)
@example(size=(1, 1), stride=1, channels=(2, 3), layout=torch.channels_last)
@example(size=(2, 1), stride=2, channels=(2, 3), layout=torch.contiguous_format)
@example(size=(2, 2), stride=2, channels=(2, 3), layout=torch.channels_last)
def test_output_and_gradients_equal_torchs_convolution(
    size: tuple[int, int], stride: int, channels: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    ours = Conv3x3(*channels, stride=stride).double().to(memory_format=layout)
    theirs = nn.Conv2d(*channels, 3, stride=stride, padding=1, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, channels[0], *size, dtype=torch.float64).contiguous(memory_format=layout)
    torch.testing.assert_close(step(ours, images), step(theirs, images), rtol=1e-12, atol=1e-12)
    expected = functional.conv2d(images, ours.weight, stride=stride, padding=1)
    assert torch.equal(ours.eval()(images), expected)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-12, atol=1e-12)


def test_under_autocast_the_gradients_are_those_of_the_convolution_in_its_arithmetic() -> None:
    layer, plain = (Conv3x3(64, 32, stride=2) for _ in range(2))
    plain.load_state_dict(layer.state_dict())
    plain.forward = functools.partial(nn.Conv2d.forward, plain)  # type: ignore[method-assign]
    images = torch.randn(16, 64, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = step(layer, images), step(plain, images)
    assert ours[0].dtype == torch.bfloat16
    assert [value.dtype for value in ours] == [value.dtype for value in theirs]
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine - reference).norm() < 0.01 * reference.norm()  # 2**-8 of each rounding


def test_training_a_single_pixel_multiplies_no_padding() -> None:
    layer, images = Conv3x3(8, 16, stride=2), torch.randn(5, 8, 1, 1)
    counter = FlopCounterMode(display=False)
    for training, taps in ((True, 1), (False, 9)):
        with counter:
            layer.train(training)(images)
        assert counter.get_total_flops() == 2 * 5 * 8 * 16 * taps


def blurred_in_steps(maps: Tensor) -> Tensor:
    """Maximum, 5×5 binomial blur over mirrored borders, bilinear interpolation to half the size."""
    blur = BlurPool2d(maps.shape[1], filt_size=5, stride=1, pad_mode="reflect").to(maps)
    blurred = blur(functional.max_pool2d(maps, 3, stride=1, padding=1))
    return functional.interpolate(blurred, scale_factor=0.5, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (6, 10), (32, 32), (5, 5), (7, 33)])
def test_one_kernel_equals_the_three_steps_and_their_gradient(height: int, width: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    ours, theirs = MaxBlurPool2d(3).double()(maps), blurred_in_steps(maps)
    assert ours.shape == (2, 3, -(-height // 2), -(-width // 2))
    inside = ours[..., : height // 2, : width // 2]  # of an odd side the definition drops the last position
    torch.testing.assert_close(inside, theirs, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(theirs)
    gradients = [torch.autograd.grad(output, maps, upstream)[0] for output in (inside, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_a_constant_map_stays_constant() -> None:
    for size in range(1, 9):
        pooled = MaxBlurPool2d(2)(torch.full((1, 2, size, size), -3.0))
        assert torch.equal(pooled, torch.full((1, 2, -(-size // 2), -(-size // 2)), -3.0))


def test_the_kernel_is_exact_in_bfloat16_holds_no_state_and_keeps_channels_last() -> None:
    pool = MaxBlurPool2d(8).to(memory_format=torch.channels_last)
    assert torch.equal(pool.kernel.bfloat16().float(), pool.kernel)
    assert not pool.state_dict()
    maps = torch.randn(2, 8, 16, 16).to(memory_format=torch.channels_last)
    assert pool(maps).is_contiguous(memory_format=torch.channels_last)


def attention(channels: int, gamma: float) -> SimpleSelfAttention:
    torch.manual_seed(0)
    layer = SimpleSelfAttention(channels).double()
    nn.init.constant_(layer.gamma, gamma)
    return layer


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_mixed_position_by_position(layout: torch.memory_format) -> None:
    layer = attention(6, gamma=0.7).eval()
    features = torch.randn(2, 6, 3, 4, dtype=torch.float64).contiguous(memory_format=layout)
    mixed, weight = layer(features), layer.normalised_weight()
    for image, of_image in zip(features.flatten(2), mixed.flatten(2), strict=True):
        products = torch.stack([torch.outer(position, position) for position in image.t()]).sum(0)
        expected = [position + 0.7 * (products @ (weight @ position)) for position in image.t()]
        torch.testing.assert_close(of_image, torch.stack(expected, 1), rtol=1e-12, atol=1e-12)
    assert mixed.is_contiguous(memory_format=layout)


def test_the_weight_is_normalised_as_torch_normalises_it() -> None:
    layer, rows = attention(5, gamma=1.0), torch.randn(3, 5, dtype=torch.float64)
    linear = nn.Linear(5, 5, bias=False, dtype=torch.float64)
    twin: Any = torch.nn.utils.spectral_norm(linear, n_power_iterations=1, eps=1e-12)
    values = {"weight_orig": layer.weight, "weight_u": layer.left, "weight_v": layer.right}
    twin.load_state_dict({key: value.detach().clone() for key, value in values.items()})
    for training in (True, True, False, True):
        ours = rows @ layer.train(training).normalised_weight().t()
        theirs = twin.train(training)(rows)
        gradients = (
            torch.autograd.grad(output.square().sum(), leaf)[0]
            for output, leaf in ((ours, layer.weight), (theirs, twin.weight_orig))
        )
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
        buffers = (layer.left, layer.right), (twin.weight_u, twin.weight_v)
        torch.testing.assert_close(*buffers, rtol=1e-12, atol=1e-12)


def test_evaluation_moves_no_buffer_and_two_forwards_share_a_backward() -> None:
    layer, features = attention(4, gamma=0.5), torch.randn(1, 4, 2, 2, dtype=torch.float64)
    (layer(features) + layer(features)).sum().backward()  # the second power step must not undo the first
    before = copy.deepcopy(layer.state_dict())
    layer.eval()(features)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_it_starts_as_the_identity_and_keeps_the_dtype_under_autocast() -> None:
    layer, features = SimpleSelfAttention(256), torch.randn(2, 256, 3, 3)
    assert torch.equal(layer(features), features)
    assert layer.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(features.bfloat16()).dtype == torch.bfloat16
        assert layer.normalised_weight().dtype == torch.float32
