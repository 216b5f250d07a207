"""A 3×3 convolution that does not multiply padding where a feature map has shrunk to a pixel."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class Conv3x3(nn.Conv2d):
    """A 3×3 convolution with padding 1 and no bias, equal to `nn.Conv2d` up to rounding.

    Where the output is a single position, most taps of the kernel meet only padding: eight of nine on a
    map of 1×1, five of nine on 2×2 with stride 2. On a CPU, in training and in inference mode, the layer
    then multiplies just the taps that meet a pixel, as one matrix product; the other taps get their
    gradient of exactly zero. Everywhere else it is the plain convolution, by which its cost is counted.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        stride: 1, or 2 to halve the resolution (rounding up).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Maps [N, in_channels, H, W] to [N, out_channels, ⌈H/stride⌉, ⌈W/stride⌉]."""
        height, width = input.shape[-2:]
        single = height <= self.stride[0] and width <= self.stride[1]
        # Other devices have good kernels for this and pay for every launch.
        shortens = single and (self.training or torch.is_inference_mode_enabled())
        if not shortens or input.device.type != "cpu":
            return super().forward(input)
        product: Tensor = _MetTaps.apply(input, self.weight)
        return product[:, :, None, None]


class _MetTaps(torch.autograd.Function):
    """The product of small maps [N, I, h, w], h and w at most 2, with the taps that meet them: [N, O].

    One function, because autograd's own way through the slice of taps copies the whole weight several
    times: here its gradient is written once, where the weight lies.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor) -> Tensor:
        flat, taps = _channels_last(maps).flatten(1), _met(weight, maps.shape).flatten(1)
        product = functional.linear(flat, taps)
        # Under autocast in its arithmetic, as the product was made.
        ctx.save_for_backward(flat.to(product.dtype), taps.to(product.dtype), weight)
        ctx.shape = maps.shape
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        flat, taps, weight = ctx.saved_tensors
        images, channels, height, width = ctx.shape
        of_maps = (gradient @ taps).view(images, height, width, channels).permute(0, 3, 1, 2)
        of_weight = torch.zeros_like(weight)
        met = _met(of_weight, ctx.shape)
        met.copy_((gradient.t() @ flat).view(met.shape))
        return of_maps, of_weight


def _met(weight: Tensor, maps: torch.Size) -> Tensor:
    """The taps that meet a pixel, [O, h, w, I]: centred on pixel (0, 0), tap (1 + i, 1 + j) meets (i, j)."""
    return _channels_last(weight)[:, 1 : 1 + maps[2], 1 : 1 + maps[3]]


def _channels_last(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1)
