"""Simplified self-attention against loops over positions and torch's spectral normalisation."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ablate.models.attention import SimpleSelfAttention


def attention(channels: int, gamma: float) -> SimpleSelfAttention:
    torch.manual_seed(0)
    layer = SimpleSelfAttention(channels).double()
    nn.init.constant_(layer.gamma, gamma)
    return layer


def by_hand(features: Tensor, weight: Tensor, gamma: Tensor) -> Tensor:
    """Adds γ Σ_q (W x_q)_p-weighted sums, one image and one position at a time."""
    images = []
    for image in features:
        positions = [image[:, i, j] for i in range(image.shape[1]) for j in range(image.shape[2])]
        products = torch.stack([torch.outer(position, position) for position in positions]).sum(0)
        mixed = [position + gamma * (products @ (weight @ position)) for position in positions]
        images.append(torch.stack(mixed, dim=1).reshape(image.shape))
    return torch.stack(images)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_features_are_mixed_as_the_loops_mix_them(memory_format: torch.memory_format) -> None:
    layer = attention(6, gamma=0.7).eval()
    features = torch.randn(2, 6, 3, 4, dtype=torch.float64).contiguous(memory_format=memory_format)
    expected = by_hand(features, layer.normalised_weight(), layer.gamma)
    mixed = layer(features)
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-12)
    assert mixed.is_contiguous(memory_format=torch.channels_last) or memory_format is torch.contiguous_format


def library_twin(layer: SimpleSelfAttention) -> nn.Linear:
    linear = nn.Linear(len(layer.weight), len(layer.weight), bias=False, dtype=torch.float64)
    twin = torch.nn.utils.spectral_norm(linear, n_power_iterations=1, eps=1e-12)
    values = {"weight_orig": layer.weight, "weight_u": layer.left, "weight_v": layer.right}
    twin.load_state_dict({key: value.detach().clone() for key, value in values.items()})
    return twin


def test_the_weight_is_normalised_as_torch_normalises_it() -> None:
    layer = attention(5, gamma=1.0)
    twin, rows = library_twin(layer), torch.randn(3, 5, dtype=torch.float64)
    for training in (True, True, False, True):
        layer.train(training)
        twin.train(training)
        for weight_leaf, output in (
            (layer.weight, rows @ layer.normalised_weight().t()),
            (twin.weight_orig, twin(rows)),
        ):
            weight_leaf.grad = None
            output.square().sum().backward()
        torch.testing.assert_close(layer.weight.grad, twin.weight_orig.grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(layer.left, twin.weight_u, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer.right, twin.weight_v, rtol=1e-12, atol=1e-12)


def test_training_forwards_bring_the_largest_singular_value_to_one() -> None:
    layer, features = attention(8, gamma=0.0), torch.zeros(1, 8, 1, 1, dtype=torch.float64)
    for _ in range(500):
        layer(features)
    singular = torch.linalg.matrix_norm(layer.eval().normalised_weight(), ord=2)
    assert singular.item() == pytest.approx(1.0, abs=1e-6)


def test_evaluation_moves_no_buffer_and_two_forwards_share_a_backward() -> None:
    layer = attention(4, gamma=0.5)
    features = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    (layer(features) + layer(features)).sum().backward()  # the second power step must not undo the first
    before = copy.deepcopy(layer.state_dict())
    layer.eval()(features)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


def test_it_starts_as_the_identity_and_keeps_the_dtype_under_autocast() -> None:
    torch.manual_seed(0)
    layer, features = SimpleSelfAttention(8), torch.randn(2, 8, 3, 3)
    assert torch.equal(layer(features), features)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(features.bfloat16()).dtype == torch.bfloat16
        assert layer.normalised_weight().dtype == torch.float32
    std = (2 / 256) ** 0.5
    assert SimpleSelfAttention(256).weight.std().item() == pytest.approx(std, rel=0.02)
