"""The loss against the course's, torch's and timm's and by hand; refusals; compiled, mapped, on CUDA."""

import copy
import io
import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy as TimmLabelSmoothingCrossEntropy
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

from ablate.losses import REDUCTIONS, LabelSmoothingCrossEntropy, label_smoothing_cross_entropy
from ablate.losses import cross_entropy as plain_loss

EPSILONS = (0.0, 1e-3, 0.1, 1.0)
# The loss is computed in float32 for every narrower dtype; the gradient comes back in the logits' dtype.
LOSS_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6}
GRADIENT_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}
LOGITS = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0], [0.5, 0.5, 0.0], [2.0, 1.0, 0.0]])
LABELS = torch.tensor([0, 2, 1, 2])
WEIGHT = torch.tensor([1.0, 2.0, 3.0])


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


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
    loss: Any = TimmLabelSmoothingCrossEntropy(smoothing=epsilon)  # type: ignore[no-untyped-call]
    return loss(output, target)  # type: ignore[no-any-return]


def with_gradient(loss: Callable[..., Tensor], logits: Tensor, *args: Any, **options: Any) -> list[Tensor]:
    """The loss and its gradient, each entry of an unreduced loss pulled by a different amount."""
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, *args, **options)
    pull = torch.linspace(1.0, 2.0, value.numel(), dtype=value.dtype, device=value.device)
    (gradient,) = torch.autograd.grad(value, leaf, pull.reshape(value.shape))
    return [value.detach(), gradient]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    both = (actual.double(), expected.double())
    torch.testing.assert_close(*both, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", LOSS_TOLERANCE, ids=str)
def test_course_torch_timm(dtype: torch.dtype, reduction: str, epsilon: float, device: torch.device) -> None:
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
        weight = torch.rand(num_classes, generator=generator, dtype=torch.float64)
        options["weight"] = weight * (weight > draw(st.sampled_from([0.0, 0.5])))  # at times all are 0
    if draw(st.booleans()):
        target = torch.rand(shape, generator=generator, dtype=torch.float64)  # rows need not sum to 1
    else:
        target = torch.randint(num_classes, ids_shape, generator=generator)
        if draw(st.booleans()):
            options["ignore_index"] = draw(st.integers(0, num_classes - 1))  # at times, every row's
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64), target, options


@given(_problems(), st.sampled_from([0.0, 1.0]) | st.floats(0.0, 1.0), st.booleans())
def test_torchs_options(
    problem: tuple[Tensor, Tensor, dict[str, Any]], epsilon: float, as_tensor: bool
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
    labels = torch.tensor([0, 1, 2], device=device).repeat_interleave(4)
    options = {"epsilon": epsilon, "reduction": "none"}
    value, gradient = with_gradient(label_smoothing_cross_entropy, logits.repeat(3, 1), labels, **options)
    expected, expected_gradient = with_gradient(course_loss, logits.repeat(3, 1).double(), labels, **options)
    assert value.isfinite().all()
    assert_close(value, expected, 1e-6)
    assert_close(gradient, expected_gradient, GRADIENT_TOLERANCE[dtype])


def test_masked_class_costs_infinitely_unless_epsilon_is_zero() -> None:
    logits = torch.tensor([[1.0, -math.inf, 0.5], [0.0, 1.0, 2.0]])
    labels = torch.tensor([0, 1])
    for epsilon in (0.0, 0.1, 0.7, 1.0):
        ours = with_gradient(label_smoothing_cross_entropy, logits, labels, epsilon=epsilon, reduction="none")
        assert ours[0][0].isinf() == (epsilon > 0)
        theirs = with_gradient(torch_loss, logits, labels, epsilon, "none")
        torch.testing.assert_close(ours, theirs, equal_nan=True)
    value = label_smoothing_cross_entropy(logits, labels, epsilon=torch.tensor(0.0), reduction="none")
    # As documented: 0·∞, where a float 0 skips the term.
    assert value.isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
def test_labels_of_any_integer_dtype_and_the_void_label_of_uint8_masks(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(2, 3, 2, 2), torch.tensor([[[0, 2], [1, 2]], [[0, 0], [2, 1]]])
    whole = label_smoothing_cross_entropy(logits, labels, ignore_index=2)
    assert torch.equal(label_smoothing_cross_entropy(logits, labels.to(dtype), ignore_index=2), whole)
    if dtype == torch.uint8:
        void = torch.where(labels == 2, 255, labels).to(dtype)
        assert torch.equal(label_smoothing_cross_entropy(logits, void, ignore_index=255), whole)


@pytest.mark.parametrize("epsilon", [0, 1, np.float32(0.25), Fraction(1, 4), torch.tensor(0.25).double()])
@pytest.mark.parametrize("target", [LABELS, LOGITS.softmax(1).double()])
def test_numbers_of_any_kind_and_wider_inputs_leave_the_loss_in_float32(epsilon: Any, target: Tensor) -> None:
    for weight in (None, WEIGHT.double()):
        value = label_smoothing_cross_entropy(LOGITS, target, epsilon=epsilon, weight=weight)
        assert value.dtype == torch.float32
        expected = cross_entropy(LOGITS.double(), target, weight=weight, label_smoothing=float(epsilon))
        assert_close(value, expected, 2e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["ids", "weighted ids", "distributions"])
def test_first_and_second_derivatives(kind: str, reduction: str) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    epsilon = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([2, -100, 0])
    targets = torch.rand(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"reduction": reduction}
    if kind == "weighted ids":
        options["weight"] = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)

    def loss(logits: Tensor, epsilon: Tensor, *targets: Tensor) -> Tensor:
        return label_smoothing_cross_entropy(logits, *targets or [labels], epsilon=epsilon, **options)

    inputs = (logits, epsilon, *[targets] * (kind == "distributions"))
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -0.1}, r"^epsilon: expected 0 .* to 1 .*, got -0.1"),
        ({"epsilon": torch.tensor([0.1])}, r"^epsilon: .*0-dim tensor, got shape \(1,\)"),
        ({"reduction": "average"}, "^reduction: expected one of 'mean', 'sum', 'none', got 'average'"),
    ],
)
def test_epsilons_and_reductions_are_refused(options: dict[str, Any], message: str) -> None:
    for refuse in (
        lambda: label_smoothing_cross_entropy(LOGITS, LABELS, **options),
        lambda: plain_loss(LOGITS, LABELS, **options),
        lambda: LabelSmoothingCrossEntropy(**options),
    ):
        with pytest.raises(ValueError, match=message):
            refuse()


@pytest.mark.parametrize("epsilon", [0.1, 1, torch.tensor(0.1)])
def test_options_that_would_be_ignored_are_refused(epsilon: float | Tensor) -> None:
    with pytest.raises(ValueError, match=r"^epsilon: expected 0 for 'cross_entropy'"):
        plain_loss(LOGITS, LABELS, epsilon=epsilon)
    with pytest.raises(ValueError, match=r"^ignore_index: expected none for .* distributions, got 1"):
        label_smoothing_cross_entropy(LOGITS, LOGITS.softmax(1), epsilon=epsilon, ignore_index=1)


@pytest.mark.parametrize(
    ("logits", "target", "came"),
    [
        (LOGITS.long(), LABELS, r"logits of torch.int64"),
        (LOGITS, LABELS.float(), r"torch.float32 of shape \(4,\).*Pass target.long\(\) for class ids"),
        (torch.ones(3, 3), torch.ones(3), r"torch.float32 of shape \(3,\)"),  # would broadcast
        (LOGITS, torch.ones(4, 3).long(), r"torch.int64 of shape \(4, 3\).*target.float\(\) for one-hot"),
        (torch.zeros(2, 5, 3), torch.zeros(2, 5).long(), r"torch.int64 of shape \(2, 5\).*logits.movedim"),
    ],
)
def test_shapes_and_dtypes_are_refused(logits: Tensor, target: Tensor, came: str) -> None:
    for loss in (label_smoothing_cross_entropy, plain_loss):
        with pytest.raises(ValueError, match=rf"^target: expected class ids \(integers of .*; got .*{came}"):
            loss(logits, target)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_label_out_of_range_and_a_weight_of_another_length_are_torchs_errors(reduction: str) -> None:
    for label in (3, -1, 1000):
        labels = torch.tensor([0, 1, label, 2])
        for epsilon, weight in itertools.product((0.0, 0.1, torch.tensor(0.1)), (None, WEIGHT)):
            options: dict[str, Any] = {"epsilon": epsilon, "weight": weight, "reduction": reduction}
            with pytest.raises(IndexError, match=f"{label} is out of bounds"):
                label_smoothing_cross_entropy(LOGITS, labels, **options)
        with pytest.raises(IndexError, match=f"{label} is out of bounds"):
            plain_loss(LOGITS, labels, reduction=reduction)
    for weight in (torch.ones(4), torch.tensor(1.0)):
        with pytest.raises(RuntimeError, match="invalid for input of size"):
            label_smoothing_cross_entropy(LOGITS, LABELS, weight=weight, reduction=reduction)


def test_every_spelling_of_the_constructor_whose_attributes_are_read_at_each_call() -> None:
    spelled_out: dict[str, Any] = {"ε": 0.3, "reduction": "mean"}
    modules = [LabelSmoothingCrossEntropy(epsilon=0.3), LabelSmoothingCrossEntropy(0.3, "mean")]
    for module in (*modules, LabelSmoothingCrossEntropy(**spelled_out)):
        assert (module.ε, module.epsilon, module.reduction) == (0.3, 0.3, "mean")
        torch.testing.assert_close(module(LOGITS, LABELS), cross_entropy(LOGITS, LABELS, label_smoothing=0.3))
    assert LabelSmoothingCrossEntropy().ε == 0.1
    with pytest.raises(ValueError, match="got both"):
        LabelSmoothingCrossEntropy(0.2, epsilon=0.3)
    module.epsilon = torch.tensor(0.7)
    module.reduction = "none"  # as the course's mixup sets it for one batch
    torch.testing.assert_close(module(LOGITS, LABELS), torch_loss(LOGITS, LABELS, 0.7, "none"))
    module.ε = 2.0
    with pytest.raises(ValueError, match=r"got 2.0"):
        module(LOGITS, LABELS)


def test_the_module_passes_its_options_on_and_survives_copy_and_pickle() -> None:
    module = LabelSmoothingCrossEntropy(0.2, "sum", weight=WEIGHT, ignore_index=1)
    expected = cross_entropy(LOGITS, LABELS, WEIGHT, ignore_index=1, reduction="sum", label_smoothing=0.2)
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    for twin in (module, copy.deepcopy(module), torch.load(stream, weights_only=False)):
        torch.testing.assert_close(twin(LOGITS, LABELS), expected)
    assert repr(module) == "LabelSmoothingCrossEntropy(ε=0.2, reduction='sum', ignore_index=1)"
    assert dict(module.double().named_buffers())["weight"].dtype == torch.float64  # it follows the module


@pytest.mark.parametrize("kind", ["ids", "weighted ids", "distributions", "module", "plain", "number"])
def test_one_graph_serves_every_epsilon_that_is_a_tensor(kind: str) -> None:
    logits = LOGITS.clone().requires_grad_()
    target = LOGITS.softmax(1) if kind == "distributions" else LABELS
    weight = WEIGHT if kind == "weighted ids" else None
    module = LabelSmoothingCrossEntropy(torch.tensor(0.1), weight=weight)
    torch._dynamo.reset()
    counters.clear()

    @torch.compile(backend="eager", fullgraph=True)
    def step(logits: Tensor, epsilon: float | Tensor) -> Tensor:
        if kind == "module":
            return module(logits, target)  # type: ignore[no-any-return]
        if kind == "plain":
            return plain_loss(logits, target, epsilon=epsilon)
        return label_smoothing_cross_entropy(logits, target, epsilon=epsilon, weight=weight)

    for epsilon in EPSILONS if kind != "plain" else (0.0, 0.0):
        module.ε = torch.tensor(epsilon)
        value = step(logits, epsilon if kind == "number" else module.ε)
        expected = cross_entropy(logits, target, weight=weight, label_smoothing=epsilon)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, logits), torch.autograd.grad(expected, logits))
    assert counters["stats"]["unique_graphs"] == 1 or kind == "number"


def test_vmap_over_stacked_models_and_epsilons_with_gradient() -> None:
    logits, epsilons = torch.randn(3, 4, 3), torch.tensor([0.0, 0.1, 1.0])

    def loss(logits: Tensor, epsilon: Tensor) -> Tensor:
        return label_smoothing_cross_entropy(logits, LABELS, epsilon=epsilon)

    gradients = torch.func.vmap(torch.func.grad(loss))(logits, epsilons)
    for row, epsilon, gradient in zip(logits, epsilons.tolist(), gradients, strict=True):
        torch.testing.assert_close(gradient, with_gradient(torch_loss, row, LABELS, epsilon, "mean")[1])


def test_shapes_alone_suffice_and_autocast_leaves_the_loss_in_float32(device: torch.device) -> None:
    # On the meta device, and of fake tensors, there are no values to look at, only shapes.
    for place, mode in (("meta", torch.no_grad()), ("cpu", torch._subclasses.FakeTensorMode())):
        with mode, torch.device(place):
            logits, labels, epsilon = torch.zeros(6, 4), torch.zeros(6, dtype=torch.long), torch.zeros(())
            value = label_smoothing_cross_entropy(logits, labels, epsilon=epsilon, reduction="none")
        assert value.shape == (6,)
    logits, labels = LOGITS.to(device).bfloat16(), LABELS.to(device)
    outside = label_smoothing_cross_entropy(logits, labels)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = label_smoothing_cross_entropy(logits, labels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_host_never_waits_for_the_device(dtype: torch.dtype) -> None:
    logits = LOGITS.to("cuda", dtype).requires_grad_()
    labels, targets, weight = LABELS.cuda(), LOGITS.softmax(1).cuda(), WEIGHT.cuda()
    epsilons = (0.0, 0.1, torch.tensor(0.1), torch.tensor(0.1, device="cuda"))
    cases = itertools.product(epsilons, REDUCTIONS, (labels, targets), (None, weight))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for epsilon, reduction, target, by_class in cases:
            options: dict[str, Any] = {"epsilon": epsilon, "weight": by_class, "reduction": reduction}
            value = label_smoothing_cross_entropy(logits, target, **options)
            torch.autograd.grad(value.sum(), logits)
    finally:
        torch.cuda.set_sync_debug_mode("default")
