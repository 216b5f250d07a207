"""The pretended card refuses waits and keeps devices apart; the rest tests/train/test_engine.py proves."""

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif("pretend" not in sys.modules, reason="the card is real, or there is none"),
]


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
