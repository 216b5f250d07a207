"""The pretended card refuses waits and keeps devices apart.

That it replays what it records, and shows the mistakes of captured code, tests/train/test_engine.py proves.
"""

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif("pretend" not in sys.modules, reason="the card is real, or there is none"),
]


def test_a_wait_inside_a_capture_is_an_error() -> None:
    value, stream = torch.ones((), device="cuda"), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with (
        pytest.raises(RuntimeError, match="not permitted when stream is capturing"),
        torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream),
    ):
        value.item()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize("wait", [lambda value: value.sum().item(), lambda value: value.cpu()])
def test_waits_are_refused_when_asked(wait: Callable[[Tensor], object]) -> None:
    value = torch.ones(2, device="cuda")
    wait(value)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            wait(value)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_tensors_of_two_devices_do_not_mix_and_autocast_needs_no_cache() -> None:
    value = torch.ones(2, 2, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        value + torch.ones(2, 2)
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        assert (value @ value).dtype == torch.bfloat16
    assert issubclass(torch.cuda.OutOfMemoryError, RuntimeError)
