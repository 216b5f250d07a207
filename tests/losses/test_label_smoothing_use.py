"""Refusals that say what to do, the module, and the loss in compiled code, under transforms and on CUDA."""

import copy
import inspect
import io
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy

from ablate.losses import REDUCTIONS, LabelSmoothingCrossEntropy, label_smoothing_cross_entropy
from ablate.losses import cross_entropy as plain_loss

LOGITS = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0], [0.5, 0.5, 0.0], [2.0, 1.0, 0.0]])
LABELS = torch.tensor([0, 2, 1, 2])
WEIGHT = torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -0.1}, r"^epsilon: expected a number in \[0, 1\], got -0.1"),
        ({"epsilon": 1.0001}, r"^epsilon: .*got 1.0001"),
        ({"epsilon": math.nan}, r"^epsilon: .*got nan"),
        ({"epsilon": torch.tensor(1.5)}, r"^epsilon: .*got 1.5"),
        ({"epsilon": torch.tensor(math.nan)}, r"^epsilon: .*got nan"),
        ({"epsilon": torch.tensor([0.1])}, r"^epsilon: .*0-dim tensor, got a tensor of shape \(1,\)"),
        ({"epsilon": torch.full((4,), 0.1)}, r"^epsilon: .*got a tensor of shape \(4,\)"),
        ({"reduction": "average"}, "^reduction: expected one of 'mean', 'sum', 'none', got 'average'"),
        ({"reduction": None}, "^reduction: expected one of 'mean', 'sum', 'none', got None"),
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
    with pytest.raises(ValueError, match=r"^epsilon: expected 0 for the loss 'cross_entropy'"):
        plain_loss(LOGITS, LABELS, epsilon=epsilon)
    message = r"^ignore_index: expected none for a target of distributions, got 1"
    with pytest.raises(ValueError, match=message):
        label_smoothing_cross_entropy(LOGITS, LOGITS.softmax(1), epsilon=epsilon, ignore_index=1)


@pytest.mark.parametrize("epsilon", [0, 1, np.float32(0.25), Fraction(1, 4), torch.tensor(0.25).double()])
def test_numbers_of_any_kind_are_taken(epsilon: Any) -> None:
    value = label_smoothing_cross_entropy(LOGITS, LABELS, epsilon=epsilon)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, cross_entropy(LOGITS, LABELS, label_smoothing=float(epsilon)))


@pytest.mark.parametrize(
    ("logits", "target", "came"),
    [
        (LABELS, LOGITS, r"torch.float32 of shape \(4, 3\), logits of torch.int64"),
        (LOGITS.long(), LABELS, r"logits of torch.int64"),
        (LOGITS.to(torch.complex64), LABELS, "logits of torch.complex64"),
        (LOGITS, LABELS[:3], r"torch.int64 of shape \(3,\)"),
        (LOGITS, LABELS[:, None], r"torch.int64 of shape \(4, 1\)"),
        (LOGITS, LABELS.float(), r"torch.float32 of shape \(4,\).*Pass target.long\(\) for class ids"),
        (torch.ones(3, 3), torch.ones(3), r"torch.float32 of shape \(3,\)"),  # would broadcast
        (LOGITS, torch.ones(4, 1), r"torch.float32 of shape \(4, 1\)"),  # would broadcast
        (LOGITS, LABELS > 0, r"torch.bool of shape \(4,\)"),
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


def test_every_spelling_of_the_constructor() -> None:
    spelled_out: dict[str, Any] = {"ε": 0.1, "reduction": "mean"}
    for module in (
        LabelSmoothingCrossEntropy(),
        LabelSmoothingCrossEntropy(epsilon=0.1),
        LabelSmoothingCrossEntropy(0.1, "mean"),
        LabelSmoothingCrossEntropy(**spelled_out),
    ):
        assert (module.ε, module.epsilon, module.reduction) == (0.1, 0.1, "mean")
        torch.testing.assert_close(module(LOGITS, LABELS), cross_entropy(LOGITS, LABELS, label_smoothing=0.1))
    assert LabelSmoothingCrossEntropy(epsilon=0.0).ε == 0.0
    assert list(inspect.signature(LabelSmoothingCrossEntropy).parameters)[:2] == ["ε", "reduction"]
    with pytest.raises(ValueError, match="got both"):
        LabelSmoothingCrossEntropy(0.2, epsilon=0.3)


def test_attributes_are_read_at_each_call() -> None:
    module = LabelSmoothingCrossEntropy()
    module.ε = 0.5
    assert module.epsilon == 0.5
    assert module(LOGITS, LABELS) == label_smoothing_cross_entropy(LOGITS, LABELS, epsilon=0.5)
    module.epsilon = torch.tensor(0.7)
    assert isinstance(module.ε, Tensor)
    torch.testing.assert_close(module(LOGITS, LABELS), cross_entropy(LOGITS, LABELS, label_smoothing=0.7))
    module.reduction = "none"  # as the course's mixup sets it for one batch
    assert module(LOGITS, LABELS).shape == (4,)
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


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("kind", ["ids", "weighted ids", "distributions", "module", "plain"])
def test_one_graph_serves_every_epsilon(kind: str) -> None:
    logits = LOGITS.clone().requires_grad_()
    target = LOGITS.softmax(1) if kind == "distributions" else LABELS
    weight = WEIGHT if kind == "weighted ids" else None
    module = LabelSmoothingCrossEntropy(torch.tensor(0.1))
    compiled = torch.compile(module, backend="eager", fullgraph=True)

    @torch.compile(backend="eager", fullgraph=True)
    def step(logits: Tensor, epsilon: Tensor) -> Tensor:
        if kind == "plain":
            return plain_loss(logits, target, epsilon=epsilon)
        return label_smoothing_cross_entropy(logits, target, epsilon=epsilon, weight=weight)

    for epsilon in (0.0, 1e-3, 0.1, 1.0) if kind != "plain" else (0.0, 0.0):
        module.ε = torch.tensor(epsilon)
        value = compiled(logits, target) if kind == "module" else step(logits, module.ε)
        expected = cross_entropy(logits, target, weight=weight, label_smoothing=epsilon)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, logits), torch.autograd.grad(expected, logits))
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1])
def test_a_number_compiles_whole_too(epsilon: float) -> None:
    step = torch.compile(label_smoothing_cross_entropy, backend="eager", fullgraph=True)
    value = step(LOGITS, LABELS, epsilon=epsilon)
    torch.testing.assert_close(value, cross_entropy(LOGITS, LABELS, label_smoothing=epsilon))


def test_vmap_over_stacked_models_and_epsilons_with_gradient() -> None:
    logits, epsilons = torch.randn(3, 4, 3), torch.tensor([0.0, 0.1, 1.0])

    def loss(logits: Tensor, epsilon: Tensor) -> Tensor:
        return label_smoothing_cross_entropy(logits, LABELS, epsilon=epsilon)

    gradients = torch.func.vmap(torch.func.grad(loss))(logits, epsilons)
    for row, epsilon, gradient in zip(logits, epsilons.tolist(), gradients, strict=True):
        leaf = row.clone().requires_grad_()
        expected = torch.autograd.grad(cross_entropy(leaf, LABELS, label_smoothing=epsilon), leaf)
        torch.testing.assert_close((gradient,), expected)


def test_shapes_alone_suffice() -> None:
    # On the meta device, and of fake tensors, there are no values to look at, only shapes.
    for device, mode in (("meta", torch.no_grad()), ("cpu", torch._subclasses.FakeTensorMode())):
        with mode:
            value = label_smoothing_cross_entropy(
                torch.empty(6, 4, device=device),
                torch.empty(6, dtype=torch.long, device=device),
                epsilon=torch.empty((), device=device),
                reduction="none",
            )
        assert value.shape == (6,)


def test_autocast_gives_the_same_float32_loss(device: torch.device) -> None:
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
    logits = torch.randn(6, 4, device="cuda", dtype=dtype, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, -100, 0], device="cuda")
    targets = torch.rand(6, 4, device="cuda")
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0], device="cuda")
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
