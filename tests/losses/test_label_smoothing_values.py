"""Values and gradients against implementations that are not ours: the course's, torch's, timm's, by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy as TimmLabelSmoothingCrossEntropy
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

from ablate.losses import REDUCTIONS, label_smoothing_cross_entropy
from ablate.losses import cross_entropy as plain_loss

EPSILONS = (0.0, 1e-3, 0.1, 1.0)
# The loss is computed in float32 for every narrower dtype; the gradient comes back in the logits' dtype.
LOSS_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6}
GRADIENT_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}


def course_loss(output: Tensor, target: Tensor, epsilon: float, reduction: str) -> Tensor:
    """The course's forward, its `reduce_loss` and `lin_comb` written out."""
    log_preds = log_softmax(output, dim=-1)
    uniform = -log_preds.sum(dim=-1)
    if reduction != "none":
        uniform = uniform.mean() if reduction == "mean" else uniform.sum()
    nll = nll_loss(log_preds, target, reduction=reduction)
    return epsilon * uniform / output.size(-1) + (1 - epsilon) * nll


def torch_loss(output: Tensor, target: Tensor, epsilon: float, reduction: str) -> Tensor:
    return cross_entropy(output, target, label_smoothing=epsilon, reduction=reduction)


def timm_loss(output: Tensor, target: Tensor, epsilon: float, reduction: str) -> Tensor:
    loss: Callable[..., Tensor] = TimmLabelSmoothingCrossEntropy(smoothing=epsilon)  # type: ignore[no-untyped-call]
    assert reduction == "mean"
    return loss(output, target)


def with_gradient(
    loss: Callable[..., Tensor], logits: Tensor, *args: object, **options: object
) -> list[Tensor]:
    """The loss and its gradient, each entry of an unreduced loss pulled by a different amount."""
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, *args, **options)
    pull = torch.linspace(1.0, 2.0, value.numel(), dtype=value.dtype, device=value.device)
    (gradient,) = torch.autograd.grad(value, leaf, pull.reshape(value.shape))
    return [value.detach(), gradient]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", LOSS_TOLERANCE, ids=str)
def test_course_torch_and_timm(
    dtype: torch.dtype, reduction: str, epsilon: float, device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (3 * torch.randn(9, 5, generator=generator)).to(dtype).to(device)
    labels = torch.randint(5, (9,), generator=generator).to(device)
    oracles = [course_loss, torch_loss]
    if reduction == "mean" and epsilon < 1:  # all that timm's takes
        oracles.append(timm_loss)
    for given_epsilon in (epsilon, torch.tensor(epsilon, dtype=torch.float64, device=device)):
        options = {"epsilon": given_epsilon, "reduction": reduction}
        value, gradient = with_gradient(label_smoothing_cross_entropy, logits, labels, **options)
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert gradient.dtype == dtype
        for oracle in oracles:
            expected, expected_gradient = with_gradient(oracle, logits.double(), labels, epsilon, reduction)
            assert_close(value, expected, LOSS_TOLERANCE[dtype])
            assert_close(gradient, expected_gradient, GRADIENT_TOLERANCE[dtype])
        if epsilon == 0:
            plain = with_gradient(plain_loss, logits, labels, **options)
            torch.testing.assert_close(plain, [value, gradient])


@st.composite
def _problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, dict[str, object]]:
    """Logits, targets and options as torch's function takes them, with every shape it takes."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    num_classes = draw(st.integers(1, 6))
    rows, extra = draw(st.integers(0, 5)), draw(st.lists(st.integers(0, 3), max_size=3))  # at times, no row
    shape = [num_classes] if draw(st.booleans()) else [rows, num_classes, *extra]
    ids_shape = shape[:0] if len(shape) == 1 else [rows, *extra]
    scale = draw(st.sampled_from([0.1, 1.0, 30.0]))
    options: dict[str, object] = {"reduction": draw(st.sampled_from(REDUCTIONS))}
    if draw(st.booleans()):
        options["weight"] = torch.rand(num_classes, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        target = torch.rand(shape, generator=generator, dtype=torch.float64)  # rows need not sum to 1
    else:
        target = torch.randint(num_classes, ids_shape, generator=generator)
        if draw(st.booleans()):
            options["ignore_index"] = draw(st.integers(0, num_classes - 1))  # at times, every row's
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64), target, options


@given(_problems(), st.sampled_from([0.0, 1.0]) | st.floats(0.0, 1.0), st.booleans())
def test_torch_for_every_shape_and_option(
    problem: tuple[Tensor, Tensor, dict[str, object]], epsilon: float, as_tensor: bool
) -> None:
    logits, target, options = problem
    given_epsilon = torch.tensor(epsilon, dtype=torch.float64) if as_tensor else epsilon
    ours = with_gradient(label_smoothing_cross_entropy, logits, target, epsilon=given_epsilon, **options)
    theirs = with_gradient(cross_entropy, logits, target, label_smoothing=epsilon, **options)
    assert ours[0].shape == theirs[0].shape
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10, equal_nan=True)
    if epsilon == 0 and list(options) == ["reduction"]:
        plain = with_gradient(plain_loss, logits, target, **options)
        torch.testing.assert_close(plain, ours, equal_nan=True)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_large_logits_stay_accurate(dtype: torch.dtype, epsilon: float, device: torch.device) -> None:
    rows = [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [1e4, 9984.0, -1e4]]
    logits = torch.tensor(rows, dtype=dtype, device=device)
    for label in range(3):
        labels = torch.full((4,), label, device=device)
        value, gradient = with_gradient(
            label_smoothing_cross_entropy, logits, labels, epsilon=epsilon, reduction="none"
        )
        expected, expected_gradient = with_gradient(course_loss, logits.double(), labels, epsilon, "none")
        assert value.isfinite().all()
        assert_close(value, expected, 1e-6)
        assert_close(gradient, expected_gradient, GRADIENT_TOLERANCE[dtype])


def test_masked_class_costs_infinitely_unless_epsilon_is_zero() -> None:
    logits = torch.tensor([[1.0, -math.inf, 0.5], [0.0, 1.0, 2.0]])
    labels = torch.tensor([0, 1])
    for epsilon in (0.0, 0.1, 0.7, 1.0):
        ours = with_gradient(label_smoothing_cross_entropy, logits, labels, epsilon=epsilon, reduction="none")
        assert ours[0][0].isinf() == (epsilon > 0)
        torch.testing.assert_close(
            ours, with_gradient(torch_loss, logits, labels, epsilon, "none"), equal_nan=True
        )
    value = label_smoothing_cross_entropy(logits, labels, epsilon=torch.tensor(0.0), reduction="none")
    assert value[0].isnan()  # as documented: 0·∞, where a float 0 skips the term
    assert value[1].isfinite()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
def test_labels_of_any_integer_dtype_and_the_void_label_of_uint8_masks(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(2, 3, 2, 2), torch.tensor([[[0, 2], [1, 2]], [[0, 0], [2, 1]]])
    whole = label_smoothing_cross_entropy(logits, labels, ignore_index=2)
    assert torch.equal(label_smoothing_cross_entropy(logits, labels.to(dtype), ignore_index=2), whole)
    if dtype == torch.uint8:
        void = torch.where(labels == 2, 255, labels).to(dtype)
        assert torch.equal(label_smoothing_cross_entropy(logits, void, ignore_index=255), whole)


def test_wider_distributions_and_weights_leave_the_loss_in_float32() -> None:
    logits, weight = torch.randn(4, 3), torch.rand(3, dtype=torch.float64)
    for target in (torch.rand(4, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 2])):
        value = label_smoothing_cross_entropy(logits, target, weight=weight)
        assert value.dtype == torch.float32
        expected = cross_entropy(logits.double(), target, weight=weight, label_smoothing=0.1)
        assert_close(value, expected, 2e-6)


def test_conversion_from_the_other_convention() -> None:
    logits, labels = 3 * torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0])
    for other_epsilon in (0.0, 0.09, 0.5):
        target = torch.full_like(logits, other_epsilon / 4)  # ε for all the other classes,
        target.scatter_(1, labels[:, None], 1 - other_epsilon)  # 1 - ε for the true one
        value = label_smoothing_cross_entropy(logits, labels, epsilon=other_epsilon * 5 / 4, reduction="none")
        assert_close(value, -(target * logits.log_softmax(1)).sum(1), 1e-11)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["ids", "weighted ids", "distributions"])
def test_first_and_second_derivatives(kind: str, reduction: str) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    epsilon = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, -100, 0])
    targets = torch.rand(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64) if kind == "weighted ids" else None

    def loss(logits: Tensor, epsilon: Tensor, targets: Tensor) -> Tensor:
        target = targets if kind == "distributions" else labels
        return label_smoothing_cross_entropy(
            logits, target, epsilon=epsilon, weight=weight, reduction=reduction
        )

    inputs = (logits, epsilon, targets if kind == "distributions" else targets.detach())
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)
