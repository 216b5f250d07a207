"""The pretended card notices the classic mistakes of CUDA code, in graphs above all."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        torch.cuda.is_available() and "pretend" not in sys.modules, reason="this machine has a real card"
    ),
]


def card() -> Any:
    return sys.modules["pretend"].card


def captured(step: Callable[[], object]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    pool = torch.cuda.graph_pool_handle()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        step()
    return graph


def trained(make: Callable[[Tensor], torch.optim.Optimizer], *, graph: bool, warm: int = 3) -> Tensor:
    """The weights after `warm` eager steps and three more, eager or replayed."""
    weight = torch.linspace(-1, 1, 4).cuda().requires_grad_()
    weight.grad = torch.zeros_like(weight)
    optimizer = make(weight)

    def step() -> None:
        assert weight.grad is not None
        weight.grad.copy_(2 * weight.detach())
        optimizer.step()

    for _ in range(warm):
        step()
    again = captured(step).replay if graph else step
    for _ in range(3):
        again()
    return weight.detach().cpu()


OPTIMIZERS: dict[str, Callable[[Tensor], torch.optim.Optimizer]] = {
    "SGD": lambda w: torch.optim.SGD([w], lr=torch.tensor(0.1).cuda(), momentum=0.9, fused=True),
    "AdamW": lambda w: torch.optim.AdamW([w], lr=torch.tensor(0.1).cuda(), fused=True, capturable=True),
    "RAdam": lambda w: torch.optim.RAdam([w], lr=torch.tensor(0.1).cuda(), capturable=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replayed_steps_are_the_eager_ones(name: str) -> None:
    captures, replays = card().captures, card().replays
    replayed = trained(OPTIMIZERS[name], graph=True)
    assert (card().captures, card().replays) == (captures + 1, replays + 3)
    assert torch.equal(replayed, trained(OPTIMIZERS[name], graph=False))


def test_a_rate_that_is_a_number_stays_as_captured() -> None:
    number, filled, value = 1.0, torch.ones((), device="cuda"), torch.zeros(2, device="cuda")
    baked = captured(lambda: value.add_(torch.ones_like(value), alpha=number))
    number = 5.0
    baked.replay()
    assert value.tolist() == [1.0, 1.0]
    read = captured(lambda: value.copy_(filled.expand(2)))
    filled.fill_(5.0)
    read.replay()
    assert value.tolist() == [5.0, 5.0]


def test_an_index_replaced_instead_of_filled_gives_the_same_batch_again() -> None:
    rows, index, batch = (torch.arange(4.0).cuda(), torch.tensor([0, 1]).cuda(), torch.zeros(2).cuda())
    held = index
    graph = captured(lambda: batch.copy_(rows[index]))
    index = torch.tensor([2, 3]).cuda()
    graph.replay()
    assert batch.tolist() == [0.0, 1.0]
    held.copy_(index)
    graph.replay()
    assert batch.tolist() == [2.0, 3.0]


def test_a_wait_inside_a_capture_is_an_error() -> None:
    value = torch.ones((), device="cuda")
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        captured(value.item)


def test_the_first_step_of_momentum_does_not_belong_into_a_capture() -> None:
    """It makes the momentum from the gradient, and every replay makes it anew."""
    wrong = trained(OPTIMIZERS["SGD"], graph=True, warm=0)
    assert not torch.allclose(wrong, trained(OPTIMIZERS["SGD"], graph=False, warm=0), atol=1e-3)


def test_state_of_nadam_set_to_zero_shows() -> None:
    """Its product of momenta begins at one."""

    def zeroed(weight: Tensor) -> torch.optim.Optimizer:
        optimizer = torch.optim.NAdam([weight], lr=0.1, capturable=True)
        optimizer.step()
        for value in optimizer.state[weight].values():
            value.zero_()
        return optimizer

    def fresh(weight: Tensor) -> torch.optim.Optimizer:
        optimizer = zeroed(weight)
        optimizer.state[weight]["mu_product"].fill_(1)
        return optimizer

    eager = trained(fresh, graph=False)
    assert torch.equal(trained(fresh, graph=True), eager)
    assert not torch.allclose(trained(zeroed, graph=True), eager, atol=1e-3)


def test_waits_are_counted_by_kind_and_refused_when_asked() -> None:
    value = torch.ones(2, device="cuda")
    before = card().waits.copy()
    value.sum().item()
    value.cpu()
    assert sorted((card().waits - before).items()) == [
        ("aten::_local_scalar_dense", 1),
        ("copy to the CPU", 1),
    ]
    with pytest.warns(UserWarning, match="prototype"):
        torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            value.cpu()
    finally:
        with pytest.warns(UserWarning, match="prototype"):
            torch.cuda.set_sync_debug_mode("default")


def test_tensors_of_two_devices_do_not_mix_and_autocast_needs_no_cache() -> None:
    value = torch.ones(2, 2, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        value + torch.ones(2, 2)
    before = card().operations["aten::mm"]
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        assert (value @ value).dtype == torch.bfloat16
    assert card().operations["aten::mm"] == before + 1
    assert issubclass(torch.cuda.OutOfMemoryError, RuntimeError)
