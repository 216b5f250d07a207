"""Counts of parameters and multiply-adds against counts made by hand."""

import pytest
import torch
from torch import Tensor, nn

from ablate.models import count_macs, count_parameters


def test_counts_by_hand_change_nothing() -> None:
    conv, linear = nn.Conv2d(3, 5, 3, padding=1, stride=2), nn.Linear(5 * 4 * 4, 7)
    model = nn.Sequential(conv, nn.BatchNorm2d(5).eval(), nn.ReLU(), nn.Flatten(), linear)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert count_parameters(model) == (3 * 5 * 9 + 5) + 2 * 5 + (80 * 7 + 7)
    assert count_macs(model, 8) == 3 * 5 * 9 * 4 * 4 + 80 * 7
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]


def test_frozen_weights_are_not_counted_and_tied_ones_once() -> None:
    first, tied, frozen = (nn.Linear(4, 4) for _ in range(3))
    tied.weight = first.weight
    frozen.weight.requires_grad_(False)
    assert count_parameters(nn.Sequential(first, tied, frozen)) == 16 + 3 * 4


class Transposed(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.transpose(1, 2)


@pytest.mark.parametrize("fast", [True, False])
def test_attention_is_counted_whole_and_its_fast_path_left_as_it_was(fast: bool) -> None:
    width, tokens = 8, 16
    layer = nn.TransformerEncoderLayer(width, 2, 32, 0.0, batch_first=True)
    patches = nn.Sequential(nn.Conv2d(3, width, 2, stride=2), nn.Flatten(2), Transposed())
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        macs = count_macs(nn.Sequential(patches, layer), 8)
        assert torch.backends.mha.get_fastpath_enabled() is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    assert macs == tokens * 3 * 4 * width + attention + 2 * tokens * width * 32


def test_what_cannot_be_counted_is_a_runtime_error_with_its_cause() -> None:
    with pytest.raises(RuntimeError, match=r"multiply-adds cannot be counted: .*IndexError") as caught:
        count_macs(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(5)), 8)
    assert isinstance(caught.value.__cause__, IndexError)
