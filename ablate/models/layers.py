"""Layers that torch does not have, or not in this form, of which the networks here are built."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, *, groups: int = 1, gamma: float = 1.0
) -> nn.Sequential:
    """A 1×1 or padded 3×3 convolution without bias, Kaiming normal; and a BatchNorm of weight `gamma`."""
    if kernel_size == 3 and groups == 1:
        conv: nn.Conv2d = Conv3x3(in_channels, out_channels, stride=stride)
    else:
        padding = kernel_size // 2
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    norm = nn.BatchNorm2d(out_channels)
    nn.init.constant_(norm.weight, gamma)
    return nn.Sequential(conv, norm)


class Conv3x3(nn.Conv2d):
    """A 3×3 convolution with padding 1 and no bias, equal to `nn.Conv2d` up to rounding.

    Where the output is a single position, most taps of the kernel meet only padding. On a CPU, in training
    and in inference mode, the layer then multiplies just those that meet a pixel, as one matrix product; the
    others' gradient is exactly zero. Everywhere else, where its cost is counted too, it is the plain one.
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
    """The product of small maps [N, I, h, w], h and w at most 2, with the taps that meet them: [N, O]."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor) -> Tensor:
        flat, taps = maps.movedim(1, -1).flatten(1), _met(weight, maps.shape).flatten(1)
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
        of_weight = torch.zeros_like(weight)  # written once: autograd would copy the whole several times
        met = _met(of_weight, ctx.shape)
        met.copy_((gradient.t() @ flat).view(met.shape))
        return of_maps, of_weight


def _met(weight: Tensor, maps: torch.Size) -> Tensor:
    """The taps that meet a pixel, [O, h, w, I]: centred on pixel (0, 0), tap (1 + i, 1 + j) meets (i, j)."""
    return weight.movedim(1, -1)[:, 1 : 1 + maps[2], 1 : 1 + maps[3]]


class MaxBlurPool2d(nn.Module):
    """Halves the resolution: the maximum of every 3×3 window, blurred by a fixed kernel, at stride 2.

    This is `kornia.contrib.MaxBlurPool2d(3, True)` of kornia 0.1 to 0.4: the maximum at stride 1, padding 1;
    a binomial blur (1 4 6 4 1)/16 in each direction over mirrored borders (the edge itself is not repeated);
    and the mean of each 2×2 block. Blur and mean are one kernel (1 5 10 10 5 1)/32 at stride 2. Where that
    says nothing, an odd side is mirrored one position further and rounded up, and a mirrored position beyond
    a map smaller than 4×4 is the map's last.

    Source: https://github.com/kornia/kornia/blob/v0.2.0/kornia/contrib/max_blur_pool.py, after Zhang 2019,
    https://arxiv.org/abs/1904.11486, whose blur is (1 2 1)/4
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 5.0, 10.0, 10.0, 5.0, 1.0]) / 32  # the coefficients of (1/2 + x/2)⁵
        kernel = torch.outer(row, row).expand(channels, 1, -1, -1).clone()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, C, ⌈H/2⌉, ⌈W/2⌉]."""
        maxima = functional.max_pool2d(maps, 3, stride=1, padding=1)
        padded = _mirror(_mirror(maxima, 2), 3)
        return functional.conv2d(padded, self.kernel, stride=2, groups=len(self.kernel))


def _mirror(maps: Tensor, dim: int) -> Tensor:
    # Not functional.pad: its backward on CUDA is not deterministic, and it gives up channels_last.
    last = maps.shape[dim] - 1
    before = [maps.narrow(dim, min(offset, last), 1) for offset in (2, 1)]
    after = [maps.narrow(dim, max(last - offset, 0), 1) for offset in (1, 2, 3)[: 3 - last % 2]]
    return torch.cat([*before, maps, *after], dim)


class SimpleSelfAttention(nn.Module):
    """Adds γ · (x xᵀ)(W x) to the features x, a matrix of C channels by P = H·W positions.

    W is divided by its largest singular value (spectral normalisation), estimated by one step of power
    iteration in each training forward. γ starts at zero, and the layer as the identity.

    Source: fastai's, with ks=1 and sym=False, https://github.com/fastai/fastai/blob/2.8.1/fastai/layers.py;
    Miyato et al. 2018, algorithm 1, https://arxiv.org/abs/1802.05957
    """

    left: Tensor
    right: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # A scalar, not a vector of one: it then leaves the features' dtype alone under autocast.
        self.gamma = nn.Parameter(torch.zeros(()))
        self.weight = nn.Parameter(torch.empty(channels, channels))
        nn.init.kaiming_normal_(self.weight)
        for side in ("left", "right"):
            self.register_buffer(side, functional.normalize(torch.randn(channels), dim=0))

    def forward(self, features: Tensor) -> Tensor:
        """Maps [N, C, H, W] to the same shape."""
        # [N, P, C], which is how a channels_last tensor lies in memory.
        rows = features.flatten(2).transpose(1, 2)
        products = rows.transpose(1, 2) @ rows
        mixed = functional.linear(rows, self.normalised_weight()) @ products
        return features + self.gamma * mixed.transpose(1, 2).view(features.shape)

    def normalised_weight(self) -> Tensor:
        """W / σ [C, C] in the weight's dtype; in training, after one step of power iteration."""
        # Not torch's own `spectral_norm`, with which a network can either not be copied or not be pickled.
        if self.training:
            with torch.no_grad():
                self.right.copy_(functional.normalize(_times(self.weight.t(), self.left), dim=0))
                self.left.copy_(functional.normalize(_times(self.weight, self.right), dim=0))
        # Copies, since the next forward may overwrite the buffers before this one's backward.
        left, right = self.left.clone(), self.right.clone()
        return self.weight / (left * _times(self.weight, right)).sum()


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    # As a sum of products, since autocast would run torch.mv in half precision.
    return (matrix * vector).sum(1)
