"""Every loss of the package is registered, and a loss from outside is held to the contract at the door."""

import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

import ablate.losses
from ablate.errors import StudyError
from ablate.losses import LOSSES, build_loss
from ablate.losses.contract import check_contract

HERE = "test_loss_registry:"


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("label_smothing", r"one of label_smoothing, cross_entropy, .*Did you mean 'label_smoothing'"),
        ("math:pi", r"expected a function or a class 'pi' .*got 3.14"),
        ("torch.nn.functional.mse_loss", r"expected loss\(logits, tar.* to work .*raised (RuntimeE|UserW)"),
    ],
)
def test_what_is_no_loss_is_refused(name: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        build_loss(name)


def focal(logits: Tensor, target: Tensor, *, epsilon: float | Tensor, reduction: str) -> Any:
    torch.rand(3)
    if target.ndim == 1:
        target = one_hot(target, logits.shape[1])
    target = (1 - epsilon) * target + epsilon / logits.shape[1]
    log_probs = logits.log_softmax(1)
    losses = -(target * (1 - log_probs.exp()) ** 2 * log_probs).sum(1)
    return losses.clone() if reduction == "none" else getattr(losses, reduction)()


def without_epsilon(logits: Tensor, target: Tensor, *, epsilon: float | Tensor, reduction: str) -> Tensor:
    if float(epsilon) != 0.0:
        raise ValueError("no epsilon here")
    return cross_entropy(logits, target, reduction=reduction)


def branching(logits: Tensor, target: Tensor, *, epsilon: float | Tensor, reduction: str) -> Tensor:
    smoothing = float(epsilon) if epsilon > 0.05 else 0.0
    return cross_entropy(logits, target, label_smoothing=smoothing, reduction=reduction)


instance = functools.partial(focal)


@pytest.mark.parametrize("function", ["focal", "without_epsilon", "branching", "instance"])
def test_a_good_foreign_loss_is_taken_and_the_random_streams_left_alone(function: str) -> None:
    before = torch.get_rng_state()
    loss = build_loss(HERE + function)
    assert torch.equal(torch.get_rng_state(), before)
    assert loss(torch.randn(6, 4), torch.zeros(6).long(), epsilon=0.0, reduction="none").shape == (6,)


FAULTS = [
    ("return plain(label_smoothing=float(epsilon), reduction='mean')",
     r"5 finite losses of shape \(5,\) where reduction='none', for epsilon=0.0; got shape \(\)"),
    ("return plain() / 0", r"5 finite losses.* inf"),
    ("return plain(reduction=reduction.replace('sum', 'mean'))", r"the sum of the per-ex.*\.sum\(\)"),
    ("return plain().reshape(-1)", r"the mean of the per-example.* got shape \(1,\).* \.mean\(\)"),
    ("return plain(label_smoothing=epsilon if isinstance(epsilon, float) else 0.0)",
     r"the same losses when epsilon is a tensor.* for epsilon=0.1"),
    ("assert isinstance(epsilon, float), 'a float, please'; return plain()",
     r"epsilon=0.0, .*raised AssertionError: a float, please"),
    ("return plain(logits.detach())", r"a finite gradient of the logits.* got None"),
    ("return plain() * 0", r"a finite gradient of the logits, not zero everywhere.* values \[0, 0, -0, "),
    ("return plain() + (0 * logits).sum().sqrt()", r"a finite gradient of the logits.* values \[nan, "),
    ("logits.data.sub_(1.0); return plain()", r"to leave the logits as they are.* logits.clone\(\)"),
    ("return target", r"to return a floating tensor, .*got shape"),
]  # fmt: skip
BROKEN = """
from torch.nn.functional import cross_entropy
def broken(logits, target, *, epsilon, reduction):
    def plain(logits=logits, **options):
        return cross_entropy(logits, target, **{{"reduction": reduction, **options}})
    {}
"""


@pytest.mark.parametrize(("body", "message"), FAULTS)
def test_a_broken_foreign_loss_is_refused(monkeypatch: pytest.MonkeyPatch, body: str, message: str) -> None:
    monkeypatch.setitem(sys.modules, "foreign", foreign := ModuleType("foreign"))
    exec(BROKEN.format(body), vars(foreign))
    with pytest.raises(StudyError, match=rf"(?s)^loss 'foreign:broken': expected .*{message}"):
        build_loss("foreign:broken")


class Squared(nn.Module):
    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return (1 - logits.softmax(1).gather(1, target[:, None])[:, 0]) ** self.power


def poly(logits: Tensor, target: Tensor, weight: float = 1.0) -> Tensor:
    ce = cross_entropy(logits, target, reduction="none")
    return (ce + weight * (1 - (-ce).exp())).mean()


@pytest.mark.parametrize(
    ("name", "arguments", "by_hand"),
    [
        (f"{HERE}Squared", {"power": 3.0}, lambda p: (1 - p) ** 3),
        (f"{HERE}poly", {"weight": 0.5}, lambda p: 0.5 - 0.5 * p - p.log()),
        ("torch.nn.functional.cross_entropy", {"label_smoothing": 0.0}, lambda p: -p.log()),
        ("torch.nn.CrossEntropyLoss", {}, lambda p: -p.log()),
        ("label_smoothing", {"ignore_index": 9}, lambda p: -p.log()),
    ],
)
def test_a_loss_takes_arguments_of_its_own_and_of_ours_only_what_it_names(
    name: str, arguments: dict[str, float], by_hand: Callable[[Tensor], Tensor]
) -> None:
    """Against the formula by hand, of each image's probability of its class."""
    loss, logits, target = build_loss(name, arguments), torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    values = by_hand(logits.softmax(1)[range(6), target])
    assert torch.allclose(loss(logits, target, epsilon=0.0, reduction="mean"), values.mean())
    assert torch.allclose(loss(logits, target, epsilon=0.0, reduction="sum"), values.sum())
    wanted = values.mean().expand(6) if name.endswith("poly") else values
    assert torch.allclose(loss(logits, target, epsilon=0.0, reduction="none"), wanted)
    with pytest.raises(StudyError, match=r"^loss\.lavel_smoothing: .* takes no such argument; it takes"):
        build_loss(name, {"lavel_smoothing": 0.1})
