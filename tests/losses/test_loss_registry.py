"""Every registered loss keeps the contract, and a loss from outside is held to it at the door."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import ablate.losses
from ablate.errors import StudyError
from ablate.losses import LOSSES, REDUCTIONS, Loss, build_loss
from ablate.losses.contract import check_contract


@pytest.fixture(params=sorted(LOSSES))
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


def _batch(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(6, 4, generator=generator).to(device, dtype).requires_grad_()
    return logits, torch.randint(4, (6,), generator=generator).to(device)


def test_every_loss_of_the_package_is_registered_and_keeps_the_contract() -> None:
    losses = set()
    for info in pkgutil.iter_modules(ablate.losses.__path__, "ablate.losses."):
        for name, function in inspect.getmembers(importlib.import_module(info.name), inspect.isfunction):
            parameters = set(inspect.signature(function).parameters)
            if not name.startswith("_") and {"epsilon", "reduction"} <= parameters:
                losses.add(function)
    assert losses == set(LOSSES.values())
    for name, loss in LOSSES.items():
        assert build_loss(name) is loss
        check_contract(loss, name)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_null_epsilon_is_cross_entropy(loss: Loss, reduction: str, device: torch.device) -> None:
    logits, labels = _batch(device)
    expected = cross_entropy(logits, labels, reduction=reduction)
    for epsilon in (0.0, 0, torch.tensor(0.0, device=device)):
        value = loss(logits, labels, epsilon=epsilon, reduction=reduction)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(
            torch.autograd.grad(value.sum(), logits),
            torch.autograd.grad(expected.sum(), logits, retain_graph=True),
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_narrow_logits_give_a_float32_loss(loss: Loss, dtype: torch.dtype, device: torch.device) -> None:
    logits, labels = _batch(device, dtype)
    value = loss(logits, labels, epsilon=0.0, reduction="mean")
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.dtype == dtype
    expected = cross_entropy(logits.double(), labels)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0.0)


def test_large_logits_stay_finite(loss: Loss, device: torch.device) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]] * 3, device=device, requires_grad=True)
    value = loss(logits, torch.arange(3, device=device), epsilon=0.0, reduction="none")
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_compiles_whole_with_epsilon_a_tensor(loss: Loss) -> None:
    torch._dynamo.reset()
    logits, labels = _batch(torch.device("cpu"))
    step = torch.compile(
        lambda z, e: loss(z, labels, epsilon=e, reduction="mean"), backend="eager", fullgraph=True
    )
    torch.testing.assert_close(step(logits, torch.tensor(0.0)), cross_entropy(logits, labels))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("label_smothing", r"one of label_smoothing, cross_entropy, .*Did you mean 'label_smoothing'"),
        ("focal", r"^loss 'focal': expected one of label_smoothing, cross_entropy, or an import path .*n\.$"),
        ("", "^loss '': expected one of"),
        (":focal", "got ':focal'"),
        ("my_losses:", "got 'my_losses:'"),
        ("no_such_package.losses:focal", r"'no_such_package.losses' raised ModuleNotFoundError.*PYTHONPATH"),
    ],
)
def test_names_that_lead_nowhere_list_the_known_and_the_nearest(name: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        build_loss(name)


GOOD = """
import torch
from torch.nn.functional import cross_entropy, one_hot

def focal(logits, target, *, epsilon, reduction):
    if target.ndim == 1:
        target = one_hot(target, logits.shape[1])
    target = (1 - epsilon) * target + epsilon / logits.shape[1]
    log_probs = logits.log_softmax(1)
    losses = -(target * (1 - log_probs.exp()) ** 2 * log_probs).sum(1)
    return {"mean": losses.mean, "sum": losses.sum, "none": losses.clone}[reduction]()

def without_epsilon(logits, target, *, epsilon, reduction):
    if float(epsilon) != 0.0:
        raise ValueError("no epsilon here")
    return cross_entropy(logits, target, reduction=reduction)

def noisy(logits, target, *, epsilon, reduction):
    torch.rand(3)
    return cross_entropy(logits, target, reduction=reduction)

def branching(logits, target, *, epsilon, reduction):
    if epsilon > 0.05:
        return cross_entropy(logits, target, label_smoothing=float(epsilon), reduction=reduction)
    return cross_entropy(logits, target, reduction=reduction)

class Focal:
    def __call__(self, logits, target, *, epsilon, reduction):
        return focal(logits, target, epsilon=epsilon, reduction=reduction)

instance = Focal()
"""


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write a module's text; its import name comes back. Each test has its own folder and name."""
    monkeypatch.syspath_prepend(tmp_path)
    name = tmp_path.name

    def write(text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    sys.modules.pop(name, None)


@pytest.mark.parametrize("function", ["focal", "without_epsilon", "branching", "instance", "noisy"])
def test_good_foreign_loss_is_taken(write_module: Callable[[str], str], function: str) -> None:
    before = torch.get_rng_state()
    loss = build_loss(f"{write_module(GOOD)}:{function}")
    assert torch.equal(torch.get_rng_state(), before)
    logits, labels = _batch(torch.device("cpu"))
    assert loss(logits, labels, epsilon=0.0, reduction="none").shape == (6,)


FAULTS = {
    "always reduced": (
        "return cross_entropy(logits, target, label_smoothing=float(epsilon))",
        r"5 finite losses of shape \(5,\) for class ids and epsilon=0.0, reduction='none'; "
        r"got shape \(\), .*before any reduction",
    ),
    "one loss per class": (
        "return -logits.log_softmax(1).mean(0)",
        r"5 finite losses of shape \(5,\).* got shape \(3,\)",
    ),
    "not finite": (
        "return cross_entropy(logits, target, reduction=reduction) / 0",
        r"5 finite losses.* inf",
    ),
    "sum is the mean": (
        "return cross_entropy(logits, target, reduction={'sum': 'mean'}.get(reduction, reduction))",
        r"the sum of the per-example losses.* \.sum\(\)",
    ),
    "mean is never taken": (
        "return cross_entropy(logits, target, reduction='none')",
        r"the mean of the per-example losses.* got shape \(5,\).* \.mean\(\)",
    ),
    "mean keeps a dimension": (
        "return cross_entropy(logits, target, reduction=reduction).reshape(-1)",
        r"the mean of the per-example losses.* got shape \(1,\)",
    ),
    "tensor gives another value": (
        "return cross_entropy(logits, target, reduction=reduction) + isinstance(epsilon, torch.Tensor)",
        r"the same losses when epsilon is a tensor",
    ),
    "tensor is refused": (
        "assert isinstance(epsilon, float), 'a float, please'\n"
        "    return cross_entropy(logits, target, reduction=reduction, label_smoothing=epsilon)",
        r"epsilon=0.0, .*got AssertionError: a float, please",
    ),
    "tensor is ignored beyond zero": (
        "smoothing = epsilon if isinstance(epsilon, float) else 0.0\n"
        "    return cross_entropy(logits, target, reduction=reduction, label_smoothing=smoothing)",
        r"the same losses when epsilon is a tensor.* for class ids and epsilon=0.1",
    ),
    "distributions are refused": (
        "return nll_loss(logits.log_softmax(1), target, reduction=reduction)",
        r"to work for logits of shape \(5, 3\) and torch.float32 targets of shape \(5, 3\); got RuntimeError",
    ),
    "no gradient": (
        "return cross_entropy(logits.detach(), target, reduction=reduction)",
        r"a finite gradient of the logits.* got none",
    ),
    "zero gradient": (
        "return cross_entropy(logits, target, reduction=reduction) * 0",
        r"a finite gradient of the logits, not zero everywhere.* values \[0, 0, -0, ",
    ),
    "gradient not finite": (
        "return cross_entropy(logits, target, reduction=reduction) + (0 * logits).sum().sqrt()",
        r"a finite gradient of the logits.* values \[nan, ",
    ),
    "writes into the logits": (
        "logits.data.sub_(1.0)\n    return cross_entropy(logits, target, reduction=reduction)",
        r"to leave the logits as they are.* logits.clone\(\)",
    ),
    "returns a number": (
        "return 1.0",
        r"to return a floating tensor; got 1.0",
    ),
    "returns integers": (
        "return target",
        r"to return a floating tensor; got tensor",
    ),
    "raises beyond zero": (
        "1 / (epsilon == 0)\n    return cross_entropy(logits, target, reduction=reduction)",
        r"epsilon=0.1, .*got ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_foreign_loss_is_refused(write_module: Callable[[str], str], fault: str) -> None:
    body, message = FAULTS[fault]
    name = write_module(
        "import torch\nfrom torch.nn.functional import cross_entropy, nll_loss\n\n"
        f"def broken(logits, target, *, epsilon, reduction):\n    {body}\n"
    )
    with pytest.raises(StudyError, match=rf"(?s)^loss '{name}:broken': expected .*{message}"):
        build_loss(f"{name}:broken")


@pytest.mark.parametrize(
    ("text", "function", "message"),
    [
        (GOOD, "focl", r"the name 'focl' in module .* no such name.* Did you mean 'focal'\?"),
        (GOOD, "Focal", r"expected a function or another callable; got <class"),
        ("focal = 3", "focal", r"expected a function or another callable; got 3"),
        ("def focal(logits, target): return logits", "focal", r"got TypeError: .*'epsilon'"),
        (
            "import no_such_dependency",
            "focal",
            r"that can be imported, .*raised ModuleNotFoundError: .*dependency",
        ),
        ("def focal(:", "focal", r"that can be imported, .*raised SyntaxError"),
    ],
)
def test_unusable_module_is_refused(
    write_module: Callable[[str], str], text: str, function: str, message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        build_loss(f"{write_module(text)}:{function}")
