"""Cross-entropy, plain and label-smoothed, where the target is mixed with the uniform distribution.

Two conventions share the name of smoothing. Here, as in torch, timm and the code of the course this project
starts from, the mass ε is spread over all K classes, the true one included, which keeps 1 - ε + ε/K. In the
other, which the course's prose describes, the true class keeps 1 - ε and each other one gets ε/(K-1): ε
there is ε·K/(K-1) here, for ten classes 0.09 there 0.1 here.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import nll_loss

REDUCTIONS = ("mean", "sum", "none")
DEFAULT_EPSILON = 0.1
Epsilon = float | Tensor
"""A tensor is 0-dim."""


def cross_entropy(
    input: Tensor, target: Tensor, *, epsilon: Epsilon = 0.0, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy as torch computes it: the level of `loss` that smoothing is compared with.

    Otherwise as `label_smoothing_cross_entropy`; an ε that is not 0 would be ignored, and is a `ValueError`.
    """
    if value := _read(_checked(epsilon, reduction)):
        raise ValueError(
            f"epsilon: expected 0 for 'cross_entropy', got {value}; set it to 0, or loss to 'label_smoothing'"
        )
    logits, target, _ = _prepare(input, target)
    return functional.cross_entropy(logits, target, reduction=reduction)


def label_smoothing_cross_entropy(
    input: Tensor,
    target: Tensor,
    *,
    epsilon: Epsilon = DEFAULT_EPSILON,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy against the smoothed target (1 - ε)·target + ε/K.

    A row with class id y and log-probabilities log p has the loss (1 - ε)·(-log p_y) + (ε/K)·Σ_j(-log p_j).
    Values and gradients are those of `torch.nn.functional.cross_entropy(label_smoothing=ε)`.

    Args:
        input: logits, (N, K), (N, K, d1, ...) or (K,), floating.
        target: class ids in [0, K), integers of the shape of `input` without its classes; or distributions
            over the classes, floating, of the shape of `input`.
        epsilon: in [0, 1]; 1 ignores the target. A 0-dim tensor serves every ε from one compiled step, may
            require a gradient, and is never waited for: it is checked on the CPU only, in eager code.
        weight: (K,), per class. As in torch it multiplies every term -log p_j.
        ignore_index: class id whose rows give 0 and are left out of the mean. Class ids only.
        reduction: `"mean"` (of class ids divided by the summed weight of those that count), `"sum"`, or
            `"none"` (one loss per row, shaped like the class ids).

    The loss is float64 for float64 logits, float32 for all others, which are widened before the softmax. Over
    no row or weight the mean is NaN and the sum 0, as in torch. A logit of -inf makes it infinite for every
    ε > 0; for a tensor of 0 it is NaN (0·∞), because telling 0 apart would mean waiting. What does not fit is
    a ValueError; class ids outside [0, K) are torch's IndexError, on CUDA an assertion.

    Source: Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567
    """
    epsilon = _checked(epsilon, reduction)
    logits, target, dim = _prepare(input, target)
    scores = torch.log_softmax(logits, dim)
    num_classes = scores.shape[dim]
    if isinstance(epsilon, Tensor):
        epsilon = epsilon.to(scores.dtype)  # or a float64 ε would widen a loss that is reduced to a scalar
    if weight is not None:
        weight = weight.to(scores.dtype).reshape(num_classes, *[1] * (scores.ndim - 2))
        scores = scores * weight
    if target.is_floating_point():
        if ignore_index >= 0:
            raise ValueError(
                f"ignore_index: expected none for a target of distributions, got {ignore_index}; pass class "
                "ids, or leave the rows to be ignored out of the batch"
            )
        losses = -(scores * ((1.0 - epsilon) * target + epsilon / num_classes)).sum(dim)
        return losses if reduction == "none" else getattr(losses, reduction)()
    divisor = None
    if weight is not None and reduction == "mean":
        # The summed weight of the labels that count: what torch divides a weighted mean by.
        divisor = -nll_loss(weight.expand_as(scores), target, ignore_index=ignore_index, reduction="sum")
        divisor = divisor.masked_fill(divisor == 0, torch.nan)  # smoothed mass over -0.0 would be -inf
        reduction = "sum"
    if not isinstance(epsilon, Tensor) and epsilon == 0.0:
        loss = nll_loss(scores, target, ignore_index=ignore_index, reduction=reduction)
    else:
        # The row sums are reduced as a loss of one class, 0, so that nll_loss leaves out the ignored rows
        # here too: two passes over the scores in all, no copy of them kept, and no boolean mask to wait for.
        # Both terms have one sign, so nothing cancels, as it would between logsumexp and large logits.
        row_sums = scores.sum(dim, keepdim=True)
        zero_or_ignored = (target == ignore_index) * -1
        uniform_term = nll_loss(row_sums, zero_or_ignored, ignore_index=-1, reduction=reduction)
        # Last, so that the backward pass begins with it: its gradient is a full matrix, to which that of the
        # row sums is added in place; the other way round the sum would be a third one.
        label_term = nll_loss(scores, target, ignore_index=ignore_index, reduction=reduction)
        loss = (1.0 - epsilon) * label_term + (epsilon / num_classes) * uniform_term
    return loss if divisor is None else loss / divisor


class LabelSmoothingCrossEntropy(nn.Module):
    """Label-smoothed cross-entropy as a module; `label_smoothing_cross_entropy` says what it computes.

    `epsilon` is another spelling of ε, as argument and attribute; give one of the two. It and `reduction` are
    read at each call, so callbacks may set `"none"` for one batch. `weight` is a buffer, an ε tensor none.
    """

    ε: float | Tensor
    weight: Tensor | None

    def __init__(
        self,
        ε: float | Tensor = DEFAULT_EPSILON,
        reduction: str = "mean",
        *,
        epsilon: Epsilon | None = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        if epsilon is not None:
            if isinstance(ε, Tensor) or ε != DEFAULT_EPSILON:
                raise ValueError(f"epsilon: expected ε or epsilon, got both ({ε} and {epsilon}); give one")
            ε = epsilon
        self.ε = _checked(ε, reduction)
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.register_buffer("weight", weight)

    @property
    def epsilon(self) -> float | Tensor:
        """The smoothing coefficient, ε."""
        return self.ε

    @epsilon.setter
    def epsilon(self, value: float | Tensor) -> None:
        self.ε = value

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (N, K, ...) against class ids or distributions."""
        own: dict[str, Any] = {"weight": self.weight, "ignore_index": self.ignore_index}
        return label_smoothing_cross_entropy(input, target, epsilon=self.ε, reduction=self.reduction, **own)

    def extra_repr(self) -> str:
        """Show what a call would use."""
        return f"ε={self.ε}, reduction={self.reduction!r}, ignore_index={self.ignore_index}"


def _checked(epsilon: Epsilon, reduction: str) -> float | Tensor:
    """ε as a Python float, or as the 0-dim tensor it came as."""
    if not isinstance(epsilon, Tensor):
        epsilon = float(epsilon)
    elif epsilon.ndim != 0:
        raise ValueError(f"epsilon: expected a number or a 0-dim tensor, got shape {tuple(epsilon.shape)}")
    value = _read(epsilon)
    if value is not None and not 0.0 <= value <= 1.0:  # written so that NaN fails it
        raise ValueError(f"epsilon: expected 0 (no smoothing) to 1 (labels ignored), got {value}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(map(repr, REDUCTIONS))}, got {reduction!r}")
    return epsilon


def _read(epsilon: Epsilon) -> float | None:
    """The value; None where reading it would wait for a device, and where a tensor holds none."""
    if not isinstance(epsilon, Tensor):
        return epsilon
    if torch.compiler.is_compiling() or epsilon.device.type != "cpu":
        return None
    try:
        return float(epsilon.item())
    except RuntimeError:  # under torch.func.vmap or a fake-tensor mode
        return None


def _prepare(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, int]:
    """Logits in their softmax's dtype, class ids as int64 or distributions in it, the classes' dimension."""
    # What does not fit is refused before it is broadcast or cast in silence.
    dim, distributions = min(logits.ndim - 1, 1), target.is_floating_point()
    ids_shape = (*logits.shape[:dim], *logits.shape[dim + 1 :])
    fits = target.shape == (logits.shape if distributions else ids_shape)
    if not fits or not logits.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(
            f"target: expected class ids (integers of shape {ids_shape}) or distributions (floats of shape "
            f"{tuple(logits.shape)}), classes in dimension {dim}, and floating logits; got {target.dtype} of "
            f"shape {tuple(target.shape)}, logits of {logits.dtype}. Pass target.long() for class ids, "
            "target.float() for one-hot rows, logits.movedim(-1, 1) where the classes are last"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits, target.to(logits.dtype) if distributions else target.long(), dim
