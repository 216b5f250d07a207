"""The loss in compiled code, under function transforms and on CUDA: one program for every ε, no waiting."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy

from ablate.losses import LabelSmoothingCrossEntropy, label_smoothing_cross_entropy

EPSILONS = (0.0, 1e-3, 0.1, 0.5, 1.0)


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("kind", ["ids", "weighted ids", "distributions"])
def test_one_graph_serves_every_epsilon(kind: str) -> None:
    logits = torch.randn(6, 4, requires_grad=True)
    target = torch.rand(6, 4) if kind == "distributions" else torch.tensor([0, 1, 2, 3, 1, 0])
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0]) if kind == "weighted ids" else None

    @torch.compile(backend="eager", fullgraph=True)
    def step(logits: Tensor, epsilon: Tensor) -> Tensor:
        return label_smoothing_cross_entropy(logits, target, epsilon=epsilon, weight=weight)

    for epsilon in EPSILONS:
        value = step(logits, torch.tensor(epsilon))
        expected = cross_entropy(logits, target, weight=weight, label_smoothing=epsilon)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, logits), torch.autograd.grad(expected, logits))
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("_fresh_compiler")
def test_one_graph_serves_every_epsilon_of_a_module() -> None:
    module = LabelSmoothingCrossEntropy(torch.tensor(0.1))
    step = torch.compile(module, backend="eager", fullgraph=True)
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    for epsilon in EPSILONS:
        module.ε = torch.tensor(epsilon)
        torch.testing.assert_close(
            step(logits, labels), cross_entropy(logits, labels, label_smoothing=epsilon)
        )
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1])
def test_a_number_compiles_whole_too(epsilon: float) -> None:
    step = torch.compile(label_smoothing_cross_entropy, backend="eager", fullgraph=True)
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    value = step(logits, labels, epsilon=epsilon)
    torch.testing.assert_close(value, cross_entropy(logits, labels, label_smoothing=epsilon))


def test_vmap_over_epsilon() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    values = torch.func.vmap(lambda e: label_smoothing_cross_entropy(logits, labels, epsilon=e))(
        torch.tensor(EPSILONS)
    )
    expected = [cross_entropy(logits, labels, label_smoothing=e) for e in EPSILONS]
    torch.testing.assert_close(values, torch.stack(expected))


def test_vmap_over_stacked_models_with_gradient() -> None:
    logits, labels = torch.randn(3, 6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    epsilons = torch.tensor([0.0, 0.1, 1.0])

    def loss(logits: Tensor, epsilon: Tensor) -> Tensor:
        return label_smoothing_cross_entropy(logits, labels, epsilon=epsilon)

    gradients = torch.func.vmap(torch.func.grad(loss))(logits, epsilons)
    for row, epsilon, gradient in zip(logits, epsilons.tolist(), gradients, strict=True):
        leaf = row.clone().requires_grad_()
        expected = torch.autograd.grad(cross_entropy(leaf, labels, label_smoothing=epsilon), leaf)
        torch.testing.assert_close((gradient,), expected)


def test_shapes_alone_suffice() -> None:
    # On the meta device there are no values to look at, only shapes.
    value = label_smoothing_cross_entropy(
        torch.empty(6, 4, device="meta"),
        torch.empty(6, dtype=torch.long, device="meta"),
        epsilon=torch.empty((), device="meta"),
        reduction="none",
    )
    assert value.shape == (6,)


def test_fake_tensors_suffice() -> None:
    with torch._subclasses.FakeTensorMode():
        value = label_smoothing_cross_entropy(
            torch.empty(6, 4), torch.empty(6, dtype=torch.long), epsilon=torch.empty(())
        )
    assert value.shape == ()


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_host_never_waits_for_the_device(dtype: torch.dtype) -> None:
    logits = torch.randn(6, 4, device="cuda", dtype=dtype, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, -100, 0], device="cuda")
    targets = torch.rand(6, 4, device="cuda")
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0], device="cuda")
    epsilons = (0.0, 0.1, torch.tensor(0.1), torch.tensor(0.1, device="cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for epsilon in epsilons:
            for reduction in ("mean", "sum", "none"):
                for target in (labels, targets):
                    for weights in (None, weight):
                        value = label_smoothing_cross_entropy(
                            logits, target, epsilon=epsilon, weight=weights, reduction=reduction
                        )
                        torch.autograd.grad(value.sum(), logits)
    finally:
        torch.cuda.set_sync_debug_mode("default")
