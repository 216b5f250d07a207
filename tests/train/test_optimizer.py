"""Optimisers and schedules against torch's and the papers'."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from small_training import changed
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from ablate.study.fields import Fields
from ablate.train.optimizer import Ranger, build_optimizer, build_schedule

FIELDS = changed(lr=0.01, momentum=0.9, weight_decay=0.1, optimizer="adamw", beta2=0.99, adam_epsilon=1e-6)
RATE = changed(lr=0.4)


def rate(fields: Fields, step: int, steps: int) -> float:
    return fields.lr * build_schedule(fields)(step / max(steps - 1, 1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def train(
    model: nn.Module, optimizer: Any, after: Callable[[int], None] = lambda steps: None
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for number in range(20):
        x, y = torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        after(number + 1)
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_ranger_is_the_papers_look_ahead_around_torchs_radam() -> None:
    ours, theirs = network(), network()
    unused = nn.Parameter(torch.ones(2))  # which has no gradient, and is left alone
    ours.register_parameter("unused", unused)
    decay: dict[str, Any] = {"weight_decay": 0.1, "decoupled_weight_decay": True}
    radam = torch.optim.RAdam(theirs.parameters(), 0.01, (0.9, 0.99), 1e-6, **decay)
    slow = [parameter.detach().clone() for parameter in theirs.parameters()]

    def look_ahead(steps: int) -> None:
        if steps % 6 == 0:
            for behind, parameter in zip(slow, theirs.parameters(), strict=True):
                behind += 0.5 * (parameter.detach() - behind)
                parameter.data = behind.clone()

    expected = train(theirs, radam, look_ahead)
    ranger = build_optimizer(ours, changed(FIELDS, optimizer="ranger"))
    assert isinstance(ranger, Ranger)
    trained = train(ours, ranger, ranger.look_ahead)
    torch.testing.assert_close(trained, [torch.ones(2), *expected], rtol=1e-5, atol=1e-7)


def test_adamw_is_torchs_with_decay_on_matrices_only() -> None:
    ours, theirs = network(), network()
    weight, bias, scale, shift, last, last_bias = theirs.parameters()
    rest = {"params": [bias, scale, shift, last_bias], "weight_decay": 0.0}
    groups = [{"params": [weight, last], "weight_decay": 0.1}, rest]
    expected = train(theirs, torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99), eps=1e-6))
    trained = train(ours, build_optimizer(ours, changed(FIELDS, decay_norms=False)))
    torch.testing.assert_close(trained, expected, rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "ranger"])
@pytest.mark.parametrize("decay_norms", [True, False])
def test_decay_reaches_the_parameters_that_it_should(optimizer: Any, decay_norms: bool) -> None:
    """Without a gradient's pull, decay alone moves a parameter; a frozen one is left out."""
    model = network()
    frozen, *parameters = model.parameters()
    frozen.requires_grad_(False)
    fields = changed(FIELDS, optimizer=optimizer, decay_norms=decay_norms, momentum=0.0)
    built = build_optimizer(model, fields)
    assert sum(len(group["params"]) for group in built.param_groups) == len(parameters)
    before = [parameter.detach().clone() for parameter in parameters]
    (0 * torch.cat([parameter.flatten() for parameter in parameters]).sum()).backward()  # type: ignore[no-untyped-call]
    built.step()
    moved = [not torch.equal(p, b) for p, b in zip(parameters, before, strict=True)]
    # A bias of zero has nothing to decay.
    assert moved == [(decay_norms or b.ndim > 1) and bool(b.any()) for b in before]


@pytest.mark.parametrize("anneal_from", [0.1, 0.25, 0.5])
def test_one_cycle_is_torchs(anneal_from: float) -> None:
    steps, fields = 101, changed(RATE, schedule="one_cycle", anneal_from=anneal_from)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cycle = OneCycleLR(
        optimizer, max_lr=0.4, total_steps=steps, pct_start=(anneal_from * (steps - 1) + 1) / steps,
        div_factor=25, final_div_factor=4000,
    )  # fmt: skip
    for step in range(steps):
        assert rate(fields, step, steps) == pytest.approx(cycle.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        if step + 1 < steps:
            cycle.step()


def test_flat_cosine_is_flat_and_then_falls() -> None:
    fields = changed(RATE, schedule="flat_cosine", anneal_from=0.75)
    rates = [rate(fields, step, 101) for step in range(101)]
    assert rates[:76] == [0.4] * 76
    assert all(after < before for before, after in pairwise(rates[75:]))
    assert rates[88] == pytest.approx(0.4 * 0.46860, rel=1e-4)  # 13 of 25 steps down a half cosine
    assert rates[-1] == pytest.approx(0.4e-5)


@pytest.mark.parametrize("schedule", ["constant", "one_cycle", "flat_cosine"])
def test_a_rate_is_never_above_the_highest_nor_zero(schedule: str) -> None:
    for anneal_from in (0.0, 0.3, 0.99):
        fields = changed(RATE, schedule=schedule, anneal_from=anneal_from)
        rates = [rate(fields, step, steps) for steps in (1, 2, 7) for step in range(steps)]
        assert 0 < min(rates) <= max(rates) <= 0.4
        assert schedule != "constant" or set(rates) == {0.4}
