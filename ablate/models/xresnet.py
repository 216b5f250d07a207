"""XResNet, the residual networks of the fast.ai course, and XSE-ResNeXt-50.

Against the original ResNet three tweaks of "Bag of Tricks" differ: the 7×7 stem is three 3×3 convolutions
(3 → 32 → 64 → 64, the first with stride 2); a shortcut that changes resolution is a 2×2 average pool followed
by a 1×1 convolution (ResNet-D); and the last BatchNorm of each block starts with weight zero, so that every
block starts as its shortcut. A bottleneck has its stride in the 3×3 convolution (ResNet-B).

XSE-ResNeXt-50, as the entries of the public Imagenette board use it, is an XResNet-50 with five changes: the
3×3 convolution of a bottleneck has 32 groups, at twice the channels (ResNeXt, 32×4d); each block ends in a
squeeze-and-excitation gate; the activation is Mish; the last block of the first stage ends in self-attention;
and every pooling is a `MaxBlurPool2d`. The stem is fastai's, 3 → 32 → 32 → 64.

References:
    He et al. 2019, "Bag of Tricks", sections 4 and 3.1 (zero γ), https://arxiv.org/abs/1812.01187;
    fast.ai, https://github.com/fastai/course-v3/blob/master/nbs/dl2/11_train_imagenette.ipynb;
    fastai's `xse_resnext50(n_out=10, act_cls=Mish, sa=1, sym=0, pool=MaxPool)`, with its max poolings
    replaced, https://github.com/fastai/fastai/blob/2.8.1/fastai/vision/models/xresnet.py, as the board's
    https://github.com/ducha-aiki/imagewoofv2-fastv2-maxpoolblur; ResNeXt https://arxiv.org/abs/1611.05431,
    squeeze-and-excitation https://arxiv.org/abs/1709.01507, Mish https://arxiv.org/abs/1908.08681
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from ablate.models.layers import MaxBlurPool2d, SimpleSelfAttention, conv_norm

WIDTHS = (64, 128, 256, 512)
"""Channels inside a block of XResNet, by stage; `EXPANSION` times as many go out of a bottleneck."""
EXPANSION, GROUPS, REDUCTION = 4, 32, 16


def _xresnet(depths: Sequence[int], expansion: int, /, *, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds an XResNet of so many blocks in each of four stages, for images of any size."""
    relu, pool = partial(nn.ReLU, inplace=True), nn.MaxPool2d(3, stride=2, padding=1)
    block = partial(residual_block, expansion=expansion)
    return _assemble(num_classes, (3, 32, 64, 64), relu, pool, depths, expansion, block)


xresnet18 = partial(_xresnet, (2, 2, 2, 2), 1)
"""Of basic blocks, as `xresnet34`."""
xresnet34 = partial(_xresnet, (3, 4, 6, 3), 1)
xresnet50 = partial(_xresnet, (3, 4, 6, 3), EXPANSION)
"""Of bottlenecks."""


def xse_resnext50(*, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds XSE-ResNeXt-50."""
    stem, pool = (3, 32, 32, 64), MaxBlurPool2d(64)
    return _assemble(num_classes, stem, nn.Mish, pool, (3, 4, 6, 3), EXPANSION, resnext_block)


def _assemble(
    num_classes: int,
    stem: Sequence[int],
    activation: Callable[[], nn.Module],
    pool: nn.Module,
    depths: Sequence[int],
    expansion: int,
    block: Callable[[int, int, int, bool], "ResidualBlock"],
) -> nn.Sequential:
    """Stem (a 3×3 convolution between each two of its widths), pooling, four stages, mean, logits.

    A block is made by its channels that come in, width, stride, and whether it ends the first stage.
    """
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(stem)):
        layers += [conv_norm(before, after, 3, 2 if index == 0 else 1), activation()]
    layers.append(pool)
    channels = stem[-1]
    for index, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
        blocks = []
        for position in range(depth):
            stride = 2 if index > 0 and position == 0 else 1
            blocks.append(block(channels, width, stride, index == 0 and position == depth - 1))
            channels = width * expansion
        layers.append(nn.Sequential(*blocks))
    linear = nn.Linear(channels, num_classes)
    nn.init.kaiming_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


class ResidualBlock(nn.Module):
    """Convolutions and, beside them, a shortcut: of their sum the activation."""

    def __init__(self, convs: list[nn.Module], shortcut: list[nn.Module], activation: nn.Module) -> None:
        super().__init__()
        self.convs, self.shortcut = nn.Sequential(*convs), nn.Sequential(*shortcut)
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [N, channels in, H, W] to [N, channels out, ⌈H/stride⌉, ⌈W/stride⌉]."""
        activated: Tensor = self.activation(self.convs(inputs) + self.shortcut(inputs))
        return activated


def residual_block(
    in_channels: int, width: int, stride: int, _ends_first_stage: bool, *, expansion: int
) -> ResidualBlock:
    """Builds a basic block (`expansion` 1: 3×3, 3×3) or a bottleneck (4: 1×1, 3×3, 1×1)."""
    out_channels, relu = width * expansion, partial(nn.ReLU, inplace=True)
    if expansion == 1:
        convs = [conv_norm(in_channels, width, 3, stride), relu(), conv_norm(width, width, 3, 1, gamma=0.0)]
    else:
        convs = [conv_norm(in_channels, width, 1, 1), relu(), conv_norm(width, width, 3, stride), relu()]
        convs.append(conv_norm(width, out_channels, 1, 1, gamma=0.0))
    # Rounding up, as a padded 3×3 convolution with stride 2 does, keeps odd sizes in step.
    pool = nn.AvgPool2d(2, ceil_mode=True)
    return ResidualBlock(convs, _shortcut(in_channels, out_channels, stride, pool), relu())


def resnext_block(in_channels: int, width: int, stride: int, attention: bool) -> ResidualBlock:
    """Builds a bottleneck 1×1, grouped 3×3, 1×1 of twice the width, with a gate and, at times, attention."""
    inside, out_channels = 2 * width, width * EXPANSION
    convs = [conv_norm(in_channels, inside, 1, 1), nn.Mish()]
    convs += [conv_norm(inside, inside, 3, stride, groups=GROUPS), nn.Mish()]
    convs += [conv_norm(inside, out_channels, 1, 1, gamma=0.0), SqueezeExcitation(out_channels)]
    convs += [SimpleSelfAttention(out_channels)] if attention else []
    shortcut = _shortcut(in_channels, out_channels, stride, MaxBlurPool2d(in_channels))
    return ResidualBlock(convs, shortcut, nn.Mish())


def _shortcut(in_channels: int, out_channels: int, stride: int, pool: nn.Module) -> list[nn.Module]:
    matched = [conv_norm(in_channels, out_channels, 1, 1)] if in_channels != out_channels else []
    return [*([pool] if stride != 1 else []), *matched]


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in (0, 1) that two linear layers compute from all channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = -(-(channels // REDUCTION) // 8) * 8  # a sixteenth, rounded up to a multiple of 8
        self.reduce, self.expand = nn.Conv2d(channels, narrow, 1), nn.Conv2d(narrow, channels, 1)
        self.activation = nn.Mish()
        for conv in (self.reduce, self.expand):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Maps [N, C, H, W] to the same shape."""
        means = features.mean((2, 3), keepdim=True)
        return features * torch.sigmoid(self.expand(self.activation(self.reduce(means))))
