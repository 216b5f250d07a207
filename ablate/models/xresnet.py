"""XResNet: the residual networks of the fast.ai course, after the tweaks of "Bag of Tricks".

Against the original ResNet (He et al., 2015) three things differ: the 7×7 stem is three 3×3
convolutions (3 → 32 → 64 → 64, the first with stride 2); a shortcut that changes resolution is a 2×2
average pool followed by a 1×1 convolution (ResNet-D); and the last BatchNorm of each block starts with
weight zero, so that every block starts as its shortcut. A bottleneck has its stride in the 3×3
convolution (ResNet-B).

This is the form of the course's notebook 11. timm's `resnet18d` has the same trunk and a thinner stem
(3 → 32 → 32 → 64), and so had fastai's first library version.

References:
    He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", 2019,
    section 4 and section 3.1 (zero γ). https://arxiv.org/abs/1812.01187
    fast.ai, "Deep Learning from the Foundations", 2019, notebook 11.
    https://github.com/fastai/course-v3/blob/master/nbs/dl2/11_train_imagenette.ipynb
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from ablate.models.layers import conv_norm, kaiming_linear

WIDTHS = (64, 128, 256, 512)


def xresnet18(*, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds XResNet-18 (two basic blocks in each of four stages).

    Any image size works, though below 32 the last stage sees a single pixel; no weight depends on it.
    """
    del image_size
    return _xresnet(num_classes, depths=(2, 2, 2, 2), expansion=1)


def xresnet34(*, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds XResNet-34 (3, 4, 6 and 3 basic blocks), for images as `xresnet18`."""
    del image_size
    return _xresnet(num_classes, depths=(3, 4, 6, 3), expansion=1)


def xresnet50(*, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds XResNet-50 (3, 4, 6 and 3 bottlenecks), for images as `xresnet18`."""
    del image_size
    return _xresnet(num_classes, depths=(3, 4, 6, 3), expansion=4)


def _xresnet(num_classes: int, *, depths: Sequence[int], expansion: int) -> nn.Sequential:
    def block(in_channels: int, width: int, stride: int, _ends_first_stage: bool) -> ResidualBlock:
        return ResidualBlock(in_channels, width, stride=stride, expansion=expansion)

    return assemble(
        num_classes,
        stem=(3, 32, 64, 64),
        activation=partial(nn.ReLU, inplace=True),
        pool=nn.MaxPool2d(3, stride=2, padding=1),
        depths=depths,
        expansion=expansion,
        block=block,
    )


def assemble(
    num_classes: int,
    *,
    stem: Sequence[int],
    activation: Callable[[], nn.Module],
    pool: nn.Module,
    depths: Sequence[int],
    expansion: int,
    block: Callable[[int, int, int, bool], nn.Module],
) -> nn.Sequential:
    """Puts a residual network together: stem, pooling, four stages of blocks, mean over positions, logits.

    The stem is a 3×3 convolution between each two of its numbers of channels, the first with stride 2.
    `depths` counts the blocks of each stage, and `expansion` times its width goes out. `block` is given the
    channels that come in, the width, the stride, and whether the block is the last of the first stage.
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
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), kaiming_linear(channels, num_classes)]
    return nn.Sequential(*layers, *head)


class ResidualBlock(nn.Module):
    """A basic block (`expansion` 1: 3×3, 3×3) or a bottleneck (4: 1×1, 3×3, 1×1), and its shortcut.

    Inside it has `width` channels, and `width * expansion` go out.
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
        self.shortcut = nn.Sequential(
            # Rounding up, as a padded 3×3 convolution with stride 2 does, keeps odd sizes in step.
            *([nn.AvgPool2d(2, ceil_mode=True)] if stride != 1 else []),
            *([conv_norm(in_channels, out_channels, 1, 1)] if in_channels != out_channels else []),
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [N, in_channels, H, W] to [N, width * expansion, ⌈H/stride⌉, ⌈W/stride⌉]."""
        activated: Tensor = self.activation(self.convs(inputs) + self.shortcut(inputs))
        return activated
