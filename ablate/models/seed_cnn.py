"""The small convolutional network of the label-smoothing lesson that this project starts from.

Eight 3×3 convolutions, each followed by ReLU and then BatchNorm, the first with stride 1 and all others with
stride 2, then a global average pool and a linear layer. 128×128 pixels become 1×1 before the pool.

Source: fast.ai's notebooks 06 to 11 define the layers, their order, their widths and their initialisation,
https://github.com/fastai/course-v3/tree/master/nbs/dl2
"""

from functools import partial
from itertools import pairwise

from torch import nn

from ablate.models.layers import Conv3x3

CHANNELS = (3, 16, 32, 64, 32, 64, 128, 256, 512)


def _network(relu_first: bool, /, *, num_classes: int, image_size: int) -> nn.Sequential:
    """Builds the network, for images of any size."""
    blocks = []
    for before, after in pairwise(CHANNELS):
        conv = Conv3x3(before, after, stride=1 if before == 3 else 2)
        # The lesson initialises for a leaky ReLU of slope 0.1 although the activation is a plain ReLU.
        nn.init.kaiming_normal_(conv.weight, a=0.1)
        norm, relu = nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        blocks.append(nn.Sequential(conv, relu, norm) if relu_first else nn.Sequential(conv, norm, relu))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS[-1], num_classes))


seed_cnn = partial(_network, True)
"""The lesson's."""
seed_cnn_bn_relu = partial(_network, False)
"""With BatchNorm before ReLU, as most networks have it."""
