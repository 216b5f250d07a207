"""Optimisers and schedules against torch's and the papers'."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from small_training import changed
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from ablate.train.optimizer import Ranger, build_optimizer, learning_rate

FIELDS = changed(lr=0.01, momentum=0.9, weight_decay=0.1, optimizer="adamw", beta2=0.99, adam_epsilon=1e-6)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def take(optimizer: Any) -> None:
    optimizer.step()
    if isinstance(optimizer, Ranger):
        optimizer.look_ahead(max(int(state["step"]) for state in optimizer.state.values()))


def train(model: nn.Module, optimizer: Any, steps: int = 20, batches_seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(batches_seed)
    for _ in range(steps):
        x, y = torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        take(optimizer)
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_ranger_is_the_papers_look_ahead_around_torchs_radam() -> None:
    ours, theirs = network(), network()
    radam = torch.optim.RAdam(
        theirs.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1,
        decoupled_weight_decay=True,
    )  # fmt: skip
    slow = [parameter.detach().clone() for parameter in theirs.parameters()]
    steps = 0

    class LookAhead:
        zero_grad = radam.zero_grad

        def step(self) -> None:
            nonlocal steps
            radam.step()
            steps += 1
            if steps % 6 == 0:
                for behind, parameter in zip(slow, theirs.parameters(), strict=True):
                    behind += 0.5 * (parameter.detach() - behind)
                    parameter.data = behind.clone()

    expected = train(theirs, LookAhead())
    trained = train(ours, build_optimizer(ours, changed(FIELDS, optimizer="ranger")))
    for one, other in zip(trained, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_ranger_leaves_a_parameter_without_gradient_alone() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Ranger([{"params": [used, unused]}], lr=0.1, betas=(0.9, 0.99), eps=1e-6)
    for _ in range(7):
        optimizer.zero_grad()
        used.sum().backward()  # type: ignore[no-untyped-call]
        take(optimizer)
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


def test_adamw_is_torchs_with_decay_on_matrices_only() -> None:
    ours, theirs = network(), network()
    matrices = [p for name, p in theirs.named_parameters() if name in {"0.weight", "3.weight"}]
    rest = [p for name, p in theirs.named_parameters() if name not in {"0.weight", "3.weight"}]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    expected = train(theirs, torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99), eps=1e-6))
    trained = train(ours, build_optimizer(ours, changed(FIELDS, decay_norms=False)))
    for one, other in zip(trained, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "ranger"])
def test_decay_reaches_the_parameters_that_it_should(optimizer: Any) -> None:
    """Without a gradient's pull, decay alone moves a parameter."""
    for decay_norms in (True, False):
        model = network()
        built = build_optimizer(
            model, changed(FIELDS, optimizer=optimizer, decay_norms=decay_norms, momentum=0.0)
        )
        before = [parameter.detach().clone() for parameter in model.parameters()]
        total = torch.cat([parameter.flatten() for parameter in model.parameters()]).sum()
        (0 * total).backward()  # type: ignore[no-untyped-call]
        built.step()
        moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
        zero = [not bool(b.any()) for b in before]  # a bias of zero has nothing to decay
        wide = [p.ndim > 1 for p in model.parameters()]
        assert moved == [
            (decay_norms or matrix) and not nothing for matrix, nothing in zip(wide, zero, strict=True)
        ]


def test_a_frozen_parameter_is_left_out() -> None:
    model = network()
    next(model.parameters()).requires_grad_(False)
    groups = build_optimizer(model, FIELDS).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) - 1


@pytest.mark.parametrize("anneal_from", [0.1, 0.25, 0.5])
def test_one_cycle_is_torchs(anneal_from: float) -> None:
    steps = 101
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cycle = OneCycleLR(
        optimizer, max_lr=0.4, total_steps=steps, pct_start=(anneal_from * (steps - 1) + 1) / steps,
        div_factor=25, final_div_factor=4000,
    )  # fmt: skip
    for step in range(steps):
        ours = learning_rate("one_cycle", 0.4, step=step, steps=steps, anneal_from=anneal_from)
        assert ours == pytest.approx(cycle.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        if step + 1 < steps:
            cycle.step()


def test_flat_cosine_is_flat_and_then_falls() -> None:
    rates = [learning_rate("flat_cosine", 0.4, step=step, steps=101, anneal_from=0.75) for step in range(101)]
    assert rates[:76] == [0.4] * 76
    assert all(after < before for before, after in pairwise(rates[75:]))
    assert rates[88] == pytest.approx(0.4 * 0.46860, rel=1e-4)  # 13 of 25 steps down a half cosine
    assert rates[-1] == pytest.approx(0.4e-5)


@pytest.mark.parametrize("schedule", ["constant", "one_cycle", "flat_cosine"])
@pytest.mark.parametrize("anneal_from", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_rate_is_never_above_the_highest_nor_zero(schedule: str, anneal_from: float, steps: int) -> None:
    for step in range(steps):
        assert 0 < learning_rate(schedule, 0.4, step=step, steps=steps, anneal_from=anneal_from) <= 0.4
