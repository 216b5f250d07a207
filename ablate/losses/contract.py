"""What training asks of a loss, and the check of a loss from outside against it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ablate.errors import FOREIGN_FAULTS, StudyError
from ablate.losses.cross_entropy import REDUCTIONS, Epsilon
from ablate.plugins import bind, explained


class Loss(Protocol):
    """A loss of a batch of logits, which also does the smoothing of the target."""

    def __call__(self, logits: Tensor, target: Tensor, /, *, epsilon: Epsilon, reduction: str) -> Tensor:
        """The per-example losses (B,) for the reduction "none"; a scalar, their "mean" or "sum".

        Logits are (B, K), floating, and left as they are; targets (B,) class ids in [0, K), int64. ε is in
        [0, 1], a float or, in training, a 0-dim tensor, to read which is to wait for a GPU. A loss without
        smoothing refuses all but 0 by a `ValueError`.
        """
        ...


class ForeignLoss:
    """A loss from outside as training calls it, with ε and reduction only where its signature has them.

    One without a reduction may give a loss per image, which is reduced here, or the batch's mean.
    """

    per_image = True
    """Whether it gives a loss per image; known once it was called."""

    def __init__(self, name: str, code: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self._codes, reduces = dict.fromkeys(REDUCTIONS, code), False
        is_class: bool = inspect.isclass(code)
        if is_class:
            made, arguments = bind("loss", name, code, arguments, {"reduction": "mean"}), {}
            reduces = "reduction" in made
            own = {one: {**made, "reduction": one} if reduces else made for one in REDUCTIONS}
            with explained("loss", name, "it to be made with its arguments"):
                self._codes = {one: code(**given) for one, given in own.items()}
        ours = {"epsilon": 0.0, "reduction": "mean"}
        called = getattr(self._codes["mean"], "forward", self._codes["mean"])
        self._given = bind("loss", name, called, arguments, ours, skip=2)
        self.takes_epsilon = "epsilon" in self._given
        self._reduces = reduces or "reduction" in self._given

    def __call__(self, logits: Tensor, target: Tensor, /, *, epsilon: Epsilon, reduction: str) -> Tensor:
        """As `Loss`."""
        code = self._codes[reduction]
        if isinstance(code, nn.Module):
            code.to(logits.device)
        ours = {"epsilon": epsilon, "reduction": reduction}
        given = self._given | {key: value for key, value in ours.items() if key in self._given}
        value: Tensor = code(logits, target, **given)
        if self._reduces or not isinstance(value, Tensor):
            return value
        self.per_image = value.ndim > 0
        if self.per_image:
            return value if reduction == "none" else getattr(value, reduction)()
        return {"mean": value, "sum": value * len(logits), "none": value.expand(len(logits))}[reduction]


def check_contract(loss: Loss, name: str) -> None:
    """Try a loss from outside on a tiny random batch on the CPU; what first fails is a StudyError."""
    # A loss may draw random numbers; the streams of the run that follows must not notice this check.
    with torch.random.fork_rng(devices=[]):
        rows, num_classes = 5, 3  # unequal, so that a loss which swaps them gives another shape
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(rows, num_classes, generator=generator).requires_grad_()
        labels = torch.randint(num_classes, (rows,), generator=generator)
        _check_batch(loss, name, logits, labels, 0.0)
        try:
            loss(logits.clone(), labels, epsilon=0.1, reduction="mean")
        except ValueError:  # the contract's way of saying that this loss has no ε
            return
        except FOREIGN_FAULTS:
            pass  # not an answer; the check calls it again and reports what it raises
        _check_batch(loss, name, logits, labels, 0.1)


def _check_batch(loss: Loss, name: str, logits: Tensor, target: Tensor, epsilon: float) -> None:
    def require(holds: object, expected: str, got: object, remedy: str) -> None:
        if not holds:
            came = f"shape {tuple(got.shape)}, values {_shown(got)}" if isinstance(got, Tensor) else repr(got)
            raise StudyError(
                f"loss {name!r}: expected {expected}, for epsilon={epsilon}; got {came}. To mend it, {remedy}"
            )

    def call(given: float | Tensor, reduction: str) -> Tensor:
        passed = logits.clone()  # not a leaf, so that writing into it is possible and seen
        call = f"loss(logits, target, epsilon={given}, reduction={reduction!r})"
        remedy = "Take (logits, target), epsilon and reduction as ablate.losses.Loss describes them."
        with explained("loss", name, f"{call} to work for class ids {list(target.shape)}", remedy):
            value: Tensor = loss(passed, target, epsilon=given, reduction=reduction)
        floating = isinstance(value, Tensor) and value.is_floating_point()
        require(floating, f"{call} to return a floating tensor", value, "return the loss as a torch tensor")
        remedy = "work on logits.clone(): accuracy is computed from the logits after the loss"
        require(torch.equal(passed, logits), f"{call} to leave the logits as they are", passed, remedy)
        return value

    losses, count = call(epsilon, "none"), len(target)
    finite = losses.shape == (count,) and losses.isfinite().all()
    remedy = "return one loss per example, before any reduction"
    require(finite, f"{count} finite losses of shape ({count},) where reduction='none'", losses, remedy)
    for reduction, reduced in (("mean", losses.mean()), ("sum", losses.sum())):
        value, remedy = call(epsilon, reduction), f"reduce the per-example losses with .{reduction}()"
        expected = f"the {reduction} of the per-example losses, {reduced.item():.6g}"
        require(_close(value, reduced), expected, value, remedy)
    value, remedy = call(torch.tensor(epsilon), "none"), "compute with a tensor in the way of a float"
    expected = f"the same losses when epsilon is a tensor, {_shown(losses)}"
    require(_close(value, losses), expected, value, remedy)
    value = call(torch.tensor(epsilon), "mean")
    attached = value.requires_grad
    gradient = torch.autograd.grad(value, logits, allow_unused=True)[0] if attached else None
    useful = gradient is not None and gradient.isfinite().all() and gradient.any()
    remedy = "compute the loss from the logits with differentiable torch operations"
    require(useful, "a finite gradient of the logits, not zero everywhere", gradient, remedy)


def _close(value: Tensor, other: Tensor) -> bool:
    # Shapes first: allclose would broadcast a scalar over the batch.
    return value.shape == other.shape and torch.allclose(value.double(), other.double(), rtol=1e-4, atol=1e-6)


def _shown(tensor: Tensor) -> str:
    first = ", ".join(f"{value:.4g}" for value in tensor.flatten()[:5].tolist())
    return f"[{first}{', ...' if tensor.numel() > 5 else ''}]"
