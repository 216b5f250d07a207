"""XSE-ResNeXt-50 as the entries of the public Imagenette board use it.

An XResNet-50 (see `ablate.models.xresnet`) with five changes: the 3×3 convolution of a bottleneck has 32
groups, at twice the channels (ResNeXt, 32×4d); each block ends in a squeeze-and-excitation gate that
narrows to a sixteenth; the activation is Mish; the last block of the first stage ends in self-attention;
and every pooling, in the stem and in the three shortcuts that halve the resolution, is a
`MaxBlurPool2d`. The stem is fastai's, 3 → 32 → 32 → 64.

25,616,155 parameters with ten classes; 1,669 million multiply-adds for an image of 128×128, of which 6
are the fixed blurs.

References:
    fastai, `xse_resnext50(n_out=10, act_cls=Mish, sa=1, sym=0, pool=MaxPool)`, with its max poolings
    replaced. https://github.com/fastai/fastai/blob/2.8.1/fastai/vision/models/xresnet.py
    The board's entries at 128 pixels: 20 epochs,
    https://github.com/ducha-aiki/imagewoofv2-fastv2-maxpoolblur, and 5 epochs,
    https://github.com/radekosmulski/imagenette-LB-entry.
    Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", 2016.
    https://arxiv.org/abs/1611.05431
    Hu et al., "Squeeze-and-Excitation Networks", 2017. https://arxiv.org/abs/1709.01507
    Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019.
    https://arxiv.org/abs/1908.08681
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ablate.models.attention import SimpleSelfAttention
from ablate.models.pooling import MaxBlurPool2d
from ablate.models.xresnet import WIDTHS, conv_norm, kaiming_linear

STEM = (3, 32, 32, 64)
DEPTHS = (3, 4, 6, 3)
GROUPS = 32
EXPANSION = 4
REDUCTION = 16


def xse_resnext50(*, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds the network with fresh weights from torch's global generator.

    Args:
        num_classes: Width K of the output.
        image_size: Height and width S of an image in pixels. Any S ≥ 1 works, though below 32 the last
            stage sees a single pixel; no weight depends on S.

    Returns:
        A network from images [N, 3, S, S] to logits [N, K].
    """
    del image_size
    stem: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(STEM)):
        stem += [conv_norm(before, after, 3, 2 if index == 0 else 1), nn.Mish()]
    stages, channels = [], STEM[-1]
    for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        stages.append(_stage(channels, width, depth, first=index == 0))
        channels = width * EXPANSION
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), kaiming_linear(channels, num_classes)]
    return nn.Sequential(*stem, MaxBlurPool2d(STEM[-1]), *stages, *head)


class SEResNeXtBlock(nn.Module):
    """A bottleneck 1×1, grouped 3×3, 1×1 with a squeeze-and-excitation gate, and its shortcut.

    The last BatchNorm starts with weight zero, so the block starts as its shortcut.

    Args:
        in_channels: Channels that come in.
        width: The stage's width w; 2·w channels inside the block, 4·w go out.
        stride: 1, or 2 to halve the resolution (rounding up).
        attention: End the branch in self-attention.
    """

    def __init__(self, in_channels: int, width: int, *, stride: int, attention: bool) -> None:
        super().__init__()
        inside, out_channels = 2 * width, width * EXPANSION
        self.convs = nn.Sequential(
            *(conv_norm(in_channels, inside, 1, 1), nn.Mish()),
            *(conv_norm(inside, inside, 3, stride, groups=GROUPS), nn.Mish()),
            conv_norm(inside, out_channels, 1, 1, gamma=0.0),
            SqueezeExcitation(out_channels),
            *([SimpleSelfAttention(out_channels)] if attention else []),
        )
        self.shortcut = nn.Sequential(
            *([MaxBlurPool2d(in_channels)] if stride != 1 else []),
            *([conv_norm(in_channels, out_channels, 1, 1)] if in_channels != out_channels else []),
        )
        self.activation = nn.Mish()

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [N, in_channels, H, W] to [N, 4 * width, ⌈H/stride⌉, ⌈W/stride⌉]."""
        activated: Tensor = self.activation(self.convs(inputs) + self.shortcut(inputs))
        return activated


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in (0, 1) that two linear layers compute from all channels' means.

    Args:
        channels: Channels C of the features; C/16, rounded up to a multiple of 8, in between.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = -(-(channels // REDUCTION) // 8) * 8
        self.reduce, self.expand = nn.Conv2d(channels, narrow, 1), nn.Conv2d(narrow, channels, 1)
        self.activation = nn.Mish()
        for conv in (self.reduce, self.expand):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Maps [N, C, H, W] to the same shape."""
        means = features.mean((2, 3), keepdim=True)
        return features * torch.sigmoid(self.expand(self.activation(self.reduce(means))))


def _stage(in_channels: int, width: int, depth: int, *, first: bool) -> nn.Sequential:
    blocks = [SEResNeXtBlock(in_channels, width, stride=1 if first else 2, attention=False)]
    for index in range(1, depth):
        attention = first and index == depth - 1
        blocks.append(SEResNeXtBlock(width * EXPANSION, width, stride=1, attention=attention))
    return nn.Sequential(*blocks)
