"""Max pooling that blurs before it drops every other position, so that a shifted image changes less."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# Five ones convolved with (1, 1)/2: the coefficients of (1/2 + x/2)⁵, times 32.
BINOMIAL = (1.0, 5.0, 10.0, 10.0, 5.0, 1.0)


class MaxBlurPool2d(nn.Module):
    """Halves the resolution: the maximum of every 3×3 window, blurred by a fixed kernel, at stride 2.

    This is `kornia.contrib.MaxBlurPool2d(3, True)` as the entries of the Imagenette board ran it (kornia
    0.1 to 0.4, 2019 to 2021): the maximum at stride 1 with padding 1; a 5×5 binomial blur
    (1 4 6 4 1)/16 in each direction over mirrored borders (the edge itself is not repeated); and
    bilinear interpolation to half the size, which is the mean of each 2×2 block. Blur and mean are one
    binomial kernel (1 5 10 10 5 1)/32 in each direction at stride 2, and computed as that. Later kornia
    (from 0.5) pools 2×2 windows and blurs by 3×3 instead.

    Where that definition says nothing this one goes on: an odd side is mirrored one position further and
    rounded up, as a padded convolution with stride 2 rounds, and a mirrored position beyond a map smaller
    than 4×4 is the map's last one. It holds no parameters, and nothing in `state_dict`.

    Args:
        channels: Channels C of the maps.

    References:
        Zhang, "Making Convolutional Networks Shift-Invariant Again", 2019, whose blur is (1 2 1)/4.
        https://arxiv.org/abs/1904.11486
        https://github.com/kornia/kornia/blob/v0.2.0/kornia/contrib/max_blur_pool.py
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor(BINOMIAL) / 32
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
