"""XSE-ResNeXt-50 as the entries of the public Imagenette board use it.

An XResNet-50 (see `ablate.models.xresnet`) with five changes: the 3×3 convolution of a bottleneck has 32
groups, at twice the channels (ResNeXt, 32×4d); each block ends in a squeeze-and-excitation gate that
narrows to a sixteenth; the activation is Mish; the last block of the first stage ends in self-attention;
and every pooling, in the stem and in the three shortcuts that halve the resolution, is a
`MaxBlurPool2d`. The stem is fastai's, 3 → 32 → 32 → 64.

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

import torch
from torch import Tensor, nn

from ablate.models.layers import MaxBlurPool2d, SimpleSelfAttention, conv_norm
from ablate.models.xresnet import assemble

GROUPS = 32
EXPANSION = 4
REDUCTION = 16


def xse_resnext50(*, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds the network, for images of any size, as `xresnet18`."""
    del image_size

    def block(in_channels: int, width: int, stride: int, ends_first_stage: bool) -> SEResNeXtBlock:
        return SEResNeXtBlock(in_channels, width, stride=stride, attention=ends_first_stage)

    return assemble(
        num_classes,
        stem=(3, 32, 32, 64),
        activation=nn.Mish,
        pool=MaxBlurPool2d(64),
        depths=(3, 4, 6, 3),
        expansion=EXPANSION,
        block=block,
    )


class SEResNeXtBlock(nn.Module):
    """A bottleneck 1×1, grouped 3×3, 1×1 with a squeeze-and-excitation gate, and its shortcut.

    Inside it has 2·w channels, where w is its stage's width, and 4·w go out. The last BatchNorm starts with
    weight zero, so the block starts as its shortcut.
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

    Between them are C/16 channels, rounded up to a multiple of 8.
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
