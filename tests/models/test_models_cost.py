"""Counts of parameters and multiply-adds against counts made by hand."""

import pytest
import torch
from torch import Tensor, nn

from ablate.models import count_macs, count_parameters


def small_network() -> nn.Sequential:
    conv, linear = nn.Conv2d(3, 5, 3, padding=1, stride=2), nn.Linear(5 * 4 * 4, 7)
    return nn.Sequential(conv, nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), linear)


def test_counts_by_hand() -> None:
    model = small_network()
    assert count_parameters(model) == (3 * 5 * 9 + 5) + 2 * 5 + (80 * 7 + 7)
    assert count_macs(model, 8) == 3 * 5 * 9 * 4 * 4 + 80 * 7


def test_frozen_weights_are_not_counted_and_tied_ones_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    tied, frozen = model[1], model[2]
    assert isinstance(tied, nn.Linear)
    assert isinstance(frozen, nn.Linear)
    tied.weight = model[0].weight  # type: ignore[assignment]
    frozen.weight.requires_grad_(False)
    assert count_parameters(model) == 16 + 3 * 4


def test_counting_changes_nothing() -> None:
    model = small_network()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    count_macs(model, 8)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]


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


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 8), nn.Linear(5, 7)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images).squeeze()  # of one image it takes the batch dimension too
        return self.head(features.flatten(1))  # type: ignore[no-any-return]


def test_a_network_that_squeezes_is_counted_as_in_a_batch() -> None:
    assert count_macs(Squeezed(), 8) == 3 * 5 * 64 + 5 * 7


def test_what_cannot_be_counted_is_a_runtime_error_with_its_cause() -> None:
    with pytest.raises(RuntimeError, match=r"multiply-adds cannot be counted: .*IndexError") as caught:
        count_macs(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(5)), 8)
    assert isinstance(caught.value.__cause__, IndexError)


class Transposed(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.transpose(1, 2)
