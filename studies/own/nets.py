"""A network and a loss from outside ablate; their arguments are the knobs of the studies beside them."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class SmallNet(nn.Sequential):
    """Two convolutions, the mean over places, and a linear layer."""

    def __init__(self, num_classes: int, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, num_classes),
        )


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Lin et al. 2017, https://arxiv.org/abs/1708.02002; gamma = 0 is cross-entropy."""
    losses = cross_entropy(logits, target, reduction="none")
    return (1 - (-losses).exp()) ** gamma * losses
