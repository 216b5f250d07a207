"""The layer that leaves padding out, against torch's own convolution."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ablate.models.convolution import Conv3x3


def step(layer: nn.Module, images: Tensor) -> list[Tensor]:
    """Gives the output and the gradients of the input and the weight."""
    images = images.clone().requires_grad_()
    output = layer(images)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    return [output, *torch.autograd.grad((output * weights).sum(), [images, *layer.parameters()])]


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.sampled_from([1, 2]),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_output_and_gradients_equal_torchs_convolution(
    size: tuple[int, int], stride: int, channels: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    ours = Conv3x3(*channels, stride=stride).double().to(memory_format=layout)
    theirs = nn.Conv2d(*channels, 3, stride=stride, padding=1, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, channels[0], *size, dtype=torch.float64).contiguous(memory_format=layout)
    torch.testing.assert_close(step(ours, images), step(theirs, images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "stride", "met"), [(1, 1, 1), (1, 2, 1), (2, 2, 4)])
def test_taps_that_meet_only_padding_get_a_gradient_of_exactly_zero(size: int, stride: int, met: int) -> None:
    layer = Conv3x3(2, 3, stride=stride)
    gradient = step(layer, torch.rand(4, 2, size, size) + 1)[2]
    assert gradient.shape == layer.weight.shape
    assert torch.count_nonzero(gradient) == met * 2 * 3


def test_it_starts_as_torchs_convolution_starts() -> None:
    torch.manual_seed(3)
    ours = Conv3x3(4, 5, stride=2)
    torch.manual_seed(3)
    theirs = nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=False)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 2, 6])
def test_inference_equals_the_plain_convolution(size: int, layout: torch.memory_format) -> None:
    layer = Conv3x3(3, 4, stride=2).double().eval().to(memory_format=layout)
    images = torch.randn(2, 3, size, size, dtype=torch.float64).contiguous(memory_format=layout)
    expected = nn.functional.conv2d(images, layer.weight, stride=2, padding=1)
    with torch.inference_mode():
        torch.testing.assert_close(layer(images), expected, rtol=1e-12, atol=1e-12)


def test_under_autocast_the_gradients_are_those_of_the_convolution_in_its_arithmetic() -> None:
    layer, plain = (Conv3x3(64, 32, stride=2) for _ in range(2))
    plain.load_state_dict(layer.state_dict())
    plain.forward = functools.partial(nn.Conv2d.forward, plain)  # type: ignore[method-assign]
    images = torch.randn(16, 64, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(images).dtype == torch.bfloat16
        ours, theirs = step(layer, images), step(plain, images)
    assert [value.dtype for value in ours] == [value.dtype for value in theirs]
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine - reference).norm() < 0.01 * reference.norm()  # 2**-8 of each rounding


@pytest.mark.parametrize("size", [1, 2, 6])
def test_evaluation_is_the_plain_convolution_bit_for_bit(size: int) -> None:
    layer = Conv3x3(3, 4, stride=2).eval()
    images = torch.randn(2, 3, size, size)
    expected = nn.functional.conv2d(images, layer.weight, stride=2, padding=1)
    assert torch.equal(layer(images), expected)


def test_training_a_single_pixel_multiplies_no_padding() -> None:
    layer, images = Conv3x3(8, 16, stride=2), torch.randn(5, 8, 1, 1)
    counter = FlopCounterMode(display=False)
    with counter:
        layer(images)
    assert counter.get_total_flops() == 2 * 5 * 8 * 16
    with counter:
        layer.eval()(images)
    assert counter.get_total_flops() == 2 * 5 * 8 * 16 * 9
