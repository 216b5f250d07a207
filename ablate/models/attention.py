"""Self-attention between the positions of a feature map, in the simplified form of fastai's networks."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class SimpleSelfAttention(nn.Module):
    """Adds γ · (x xᵀ)(W x) to the features x, a matrix of C channels by P = H·W positions.

    There are no queries, keys or softmax: the C×C matrix x xᵀ of the channels' products mixes the
    projection W x. W is divided by its largest singular value (spectral normalisation), estimated by
    one step of power iteration in each training forward. γ starts at zero, and the layer as the identity.

    W starts Kaiming normal for a ReLU. It has C² + 1 parameters; the multiply-adds are 3·C²·P.

    Args:
        channels: Channels C of the features.

    References:
        fastai, `SimpleSelfAttention` with ks=1 and sym=False.
        https://github.com/fastai/fastai/blob/2.8.1/fastai/layers.py
        Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018, algorithm 1.
        https://arxiv.org/abs/1802.05957
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
        """Gives W / σ [C, C] in the weight's dtype; in training, after one step of power iteration.

        torch's own `spectral_norm` computes the same, but a network that carries it can either not be
        copied after a training step or not be pickled.
        """
        if self.training:
            self._iterate()
        # Copies, since the next forward may overwrite the buffers before this one's backward.
        left, right = self.left.clone(), self.right.clone()
        return self.weight / (left * _times(self.weight, right)).sum()

    @torch.no_grad()
    def _iterate(self) -> None:
        self.right.copy_(functional.normalize(_times(self.weight.t(), self.left), dim=0))
        self.left.copy_(functional.normalize(_times(self.weight, self.right), dim=0))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    # As a sum of products, since autocast would run torch.mv in half precision.
    return (matrix * vector).sum(1)
