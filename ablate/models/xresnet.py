"""XResNet: the residual networks of the fast.ai course, after the tweaks of "Bag of Tricks".

Against the original ResNet (He et al., 2015) three things differ: the 7×7 stem is three 3×3
convolutions (3 → 32 → 64 → 64, the first with stride 2); a shortcut that changes resolution is a 2×2
average pool followed by a 1×1 convolution (ResNet-D); and the last BatchNorm of each block starts with
weight zero, so that every block starts as its shortcut. A bottleneck has its stride in the 3×3
convolution (ResNet-B).

This is the form of the course's notebook 11. timm's `resnet18d` has the same trunk and a thinner stem
(3 → 32 → 32 → 64), and so had fastai's first library version.

With ten classes, multiply-adds at 128×128:

=========  ==========  =====
network    parameters   MMAC
=========  ==========  =====
xresnet18  11,228,586    784
xresnet34  21,336,746  1,388
xresnet50  23,575,466  1,526
=========  ==========  =====

References:
    He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", 2019,
    section 4 and section 3.1 (zero γ). https://arxiv.org/abs/1812.01187
    fast.ai, "Deep Learning from the Foundations", 2019, notebook 11.
    https://github.com/fastai/course-v3/blob/master/nbs/dl2/11_train_imagenette.ipynb
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ablate.models.convolution import Conv3x3

STEM = (3, 32, 64, 64)
WIDTHS = (64, 128, 256, 512)


def xresnet18(*, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds XResNet-18 (two basic blocks in each of four stages) with fresh weights.

    Args:
        num_classes: Width K of the output.
        image_size: Height and width S of an image in pixels. Any S ≥ 1 works, though below 32 the last
            stage sees a single pixel; no weight depends on S.

    Returns:
        A network from images [N, 3, S, S] to logits [N, K].
    """
    del image_size
    return _xresnet(num_classes, blocks=(2, 2, 2, 2), expansion=1)


def xresnet34(*, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds XResNet-34 (3, 4, 6 and 3 basic blocks); arguments and result as in `xresnet18`."""
    del image_size
    return _xresnet(num_classes, blocks=(3, 4, 6, 3), expansion=1)


def xresnet50(*, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds XResNet-50 (3, 4, 6 and 3 bottlenecks); arguments and result as in `xresnet18`."""
    del image_size
    return _xresnet(num_classes, blocks=(3, 4, 6, 3), expansion=4)


class ResidualBlock(nn.Module):
    """A basic block (`expansion` 1: 3×3, 3×3) or a bottleneck (4: 1×1, 3×3, 1×1), and its shortcut.

    Args:
        in_channels: Channels that come in.
        width: Channels inside the block; `width * expansion` go out.
        stride: 1, or 2 to halve the resolution (rounding up).
        expansion: 1 or 4.
    """

    def __init__(self, in_channels: int, width: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        out_channels = width * expansion
        if expansion == 1:
            inner = [conv_norm(in_channels, width, 3, stride), nn.ReLU(inplace=True)]
        else:
            inner = [
                *(conv_norm(in_channels, width, 1, 1), nn.ReLU(inplace=True)),
                *(conv_norm(width, width, 3, stride), nn.ReLU(inplace=True)),
            ]
        last = conv_norm(width, out_channels, 3 if expansion == 1 else 1, 1, gamma=0.0)
        self.convs = nn.Sequential(*inner, last)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [N, in_channels, H, W] to [N, width * expansion, ⌈H/stride⌉, ⌈W/stride⌉]."""
        activated: Tensor = self.activation(self.convs(inputs) + self.shortcut(inputs))
        return activated


def _xresnet(num_classes: int, *, blocks: Sequence[int], expansion: int) -> nn.Sequential:
    stem: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(STEM)):
        stem += [conv_norm(before, after, 3, 2 if index == 0 else 1), nn.ReLU(inplace=True)]
    stages, channels = [], STEM[-1]
    for index, (width, depth) in enumerate(zip(WIDTHS, blocks, strict=True)):
        stages.append(_stage(channels, width, depth, stride=1 if index == 0 else 2, expansion=expansion))
        channels = width * expansion
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), kaiming_linear(channels, num_classes)]
    return nn.Sequential(*stem, nn.MaxPool2d(3, stride=2, padding=1), *stages, *head)


def _stage(in_channels: int, width: int, depth: int, *, stride: int, expansion: int) -> nn.Sequential:
    first = ResidualBlock(in_channels, width, stride=stride, expansion=expansion)
    out_channels = width * expansion
    rest = [ResidualBlock(out_channels, width, stride=1, expansion=expansion) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    layers: list[nn.Module] = []
    if stride != 1:
        # Rounding up, as a padded 3×3 convolution with stride 2 does, keeps odd sizes in step.
        layers.append(nn.AvgPool2d(2, ceil_mode=True))
    if in_channels != out_channels:
        layers.append(conv_norm(in_channels, out_channels, 1, 1))
    return nn.Sequential(*layers)


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, *, groups: int = 1, gamma: float = 1.0
) -> nn.Sequential:
    """Gives a convolution without bias, Kaiming normal for a ReLU, and its BatchNorm.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        kernel_size: 1 or 3; padded to keep the size at stride 1.
        stride: 1, or 2 to halve the resolution (rounding up).
        groups: Groups of channels that are convolved apart from each other.
        gamma: Initial weight of the BatchNorm.
    """
    if kernel_size == 3 and groups == 1:
        conv: nn.Conv2d = Conv3x3(in_channels, out_channels, stride=stride)
    else:
        padding = kernel_size // 2
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, groups=groups, bias=False
        )
    nn.init.kaiming_normal_(conv.weight)
    norm = nn.BatchNorm2d(out_channels)
    nn.init.constant_(norm.weight, gamma)
    return nn.Sequential(conv, norm)


def kaiming_linear(in_features: int, out_features: int) -> nn.Linear:
    """Gives a linear layer with Kaiming normal weights and bias zero."""
    linear = nn.Linear(in_features, out_features)
    nn.init.kaiming_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
