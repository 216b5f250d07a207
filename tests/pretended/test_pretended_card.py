"""The pretended card replays what it records, counts waits, and keeps devices apart.

That it shows the mistakes of captured code, the traps that tests/train/test_engine.py plants prove.
"""

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


def trained(make: Callable[[Tensor], torch.optim.Optimizer], *, graph: bool) -> Tensor:
    """The weights after three eager steps and three more, eager or replayed."""
    weight = torch.linspace(-1, 1, 4).cuda().requires_grad_()
    weight.grad = torch.zeros_like(weight)
    optimizer = make(weight)

    def step() -> None:
        assert weight.grad is not None
        weight.grad.copy_(2 * weight.detach())
        optimizer.step()

    for _ in range(3):
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


def test_a_wait_inside_a_capture_is_an_error() -> None:
    value = torch.ones((), device="cuda")
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        captured(value.item)


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
