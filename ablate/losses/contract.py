"""What training asks of a loss, and the check of a loss from outside against it."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ablate.errors import FOREIGN_FAULTS, StudyError
from ablate.plugins import bind, explained

CHECK_SIZE = (5, 3)  # rows, classes: unequal, so that a loss which swaps them gives another shape


class Loss(Protocol):
    """A loss of a batch of logits, which also does the smoothing of the target."""

    def __call__(
        self, logits: Tensor, target: Tensor, /, *, epsilon: float | Tensor, reduction: str
    ) -> Tensor:
        """The per-example losses (B,) for the reduction "none"; a scalar, their "mean" or "sum".

        Args:
            logits: (B, K), floating. Left as they are: accuracy is computed from them afterwards.
            target: (B,) class ids in [0, K), int64.
            epsilon: smoothing coefficient in [0, 1], a float or a 0-dim tensor, with the same loss; training
                hands over a tensor. Reading its value is allowed, but on CUDA it waits for the device at
                every step. A loss without smoothing refuses any value but 0 with a `ValueError`.
            reduction: as above.
        """
        ...


class ForeignLoss:
    """A loss from outside as training calls it, with ε and reduction only where its signature has them.

    One without a reduction may give a loss per image, which is reduced here, or the batch's mean.
    """

    per_image = True
    """Whether it gives a loss per image; known once it was called."""

    def __init__(self, name: str, code: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        made: dict[str, Any] = {}
        self._code: Callable[[str], Callable[..., Any]] = lambda reduction: code
        if inspect.isclass(code):
            made, arguments = bind("loss", name, code, arguments, {"reduction": "mean"}), {}

            @functools.cache
            def instance(reduction: str) -> Any:
                return code(**made, **{"reduction": reduction} if reduces else {})

            self._code = instance
        reduces = made.pop("reduction", None) is not None
        with explained("loss", name, "it to be made with its arguments"):
            called = self._code("mean")
        ours = {"epsilon": 0.0, "reduction": "mean"}
        called = called.forward if isinstance(called, nn.Module) else called
        self._given = bind("loss", name, called, arguments, ours, skip=2)
        self.takes_epsilon = "epsilon" in self._given
        self._reduces = reduces or "reduction" in self._given

    def __call__(
        self, logits: Tensor, target: Tensor, /, *, epsilon: float | Tensor, reduction: str
    ) -> Tensor:
        """As `Loss`."""
        code = self._code(reduction)
        if isinstance(code, nn.Module):
            code.to(logits.device)
        ours = {"epsilon": epsilon, "reduction": reduction}
        value: Tensor = code(
            logits, target, **{**self._given, **{n: ours[n] for n in ours.keys() & self._given}}
        )
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
        rows, num_classes = CHECK_SIZE
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(rows, num_classes, generator=generator).requires_grad_()
        labels = torch.randint(num_classes, (rows,), generator=generator)
        epsilons = [0.0, 0.1]
        try:
            loss(logits.clone(), labels, epsilon=0.1, reduction="mean")
        except ValueError:  # the contract's way of saying that this loss has no ε
            epsilons = [0.0]
        except FOREIGN_FAULTS:
            pass  # not an answer; the check calls it again and reports what it raises
        for epsilon in epsilons:
            _check_batch(loss, name, logits, labels, epsilon)


def _check_batch(loss: Loss, name: str, logits: Tensor, target: Tensor, epsilon: float) -> None:
    case = f"for epsilon={epsilon}"
    losses = _call(loss, name, logits, target, epsilon, "none")
    if losses.shape != target.shape[:1] or not losses.isfinite().all():
        expected = f"{len(target)} finite losses of shape ({len(target)},) {case}, reduction='none'"
        raise _refusal(name, expected, losses, "return one loss per example, before any reduction")
    for reduction, reduced in (("mean", losses.mean()), ("sum", losses.sum())):
        value = _call(loss, name, logits, target, epsilon, reduction)
        if not _close(value, reduced):
            expected = f"the {reduction} of the per-example losses, {reduced.item():.6g}, {case}"
            raise _refusal(name, expected, value, f"reduce the per-example losses with .{reduction}()")
    from_tensor = _call(loss, name, logits, target, torch.tensor(epsilon), "none")
    if not _close(from_tensor, losses):
        expected = f"the same losses when epsilon is a tensor, {_shown(losses)}, {case}"
        raise _refusal(name, expected, from_tensor, "compute with epsilon as a tensor in the way of a float")
    value = _call(loss, name, logits, target, torch.tensor(epsilon), "mean")
    attached = value.requires_grad
    gradient = torch.autograd.grad(value, logits, allow_unused=True)[0] if attached else None
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        expected = f"a finite gradient of the logits, not zero everywhere, {case}"
        remedy = "compute the loss from the logits with differentiable torch operations"
        raise _refusal(name, expected, gradient, remedy)


def _call(
    loss: Loss, name: str, logits: Tensor, target: Tensor, epsilon: float | Tensor, reduction: str
) -> Tensor:
    passed = logits.clone()  # not a leaf, so that writing into it is possible and seen
    call = f"loss(logits, target, epsilon={epsilon}, reduction={reduction!r})"
    try:
        value: object = loss(passed, target, epsilon=epsilon, reduction=reduction)
    except FOREIGN_FAULTS as error:
        raise StudyError(
            f"loss {name!r}: expected {call} to work for logits of shape {tuple(logits.shape)} and "
            f"{target.dtype} targets of shape {tuple(target.shape)}; got {type(error).__name__}: {error}. "
            "To mend it, take (logits, target), epsilon and reduction as ablate.losses.Loss describes them"
        ) from error
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise StudyError(
            f"loss {name!r}: expected {call} to return a floating tensor; got {value!r}. To mend it, "
            "return the loss as a torch tensor"
        )
    if not torch.equal(passed, logits):
        expected = f"{call} to leave the logits as they are, {_shown(logits)}"
        remedy = "work on logits.clone(): accuracy is computed from the logits after the loss"
        raise _refusal(name, expected, passed, remedy)
    return value


def _close(value: Tensor, other: Tensor) -> bool:
    # Shapes first: allclose would broadcast a scalar over the batch.
    return value.shape == other.shape and torch.allclose(value.double(), other.double(), rtol=1e-4, atol=1e-6)


def _refusal(name: str, expected: str, got: Tensor | None, remedy: str) -> StudyError:
    came = "none" if got is None else f"shape {tuple(got.shape)}, values {_shown(got)}"
    return StudyError(f"loss {name!r}: expected {expected}; got {came}. To mend it, {remedy}")


def _shown(tensor: Tensor) -> str:
    first = ", ".join(f"{value:.4g}" for value in tensor.flatten()[:5].tolist())
    return f"[{first}{', ...' if tensor.numel() > 5 else ''}]"
