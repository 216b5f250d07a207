"""The lesson's network against a network written out by hand, hand counts, and its initialisation."""

import math

import pytest
import torch
from torch import Tensor, nn

from ablate.models import Factory, count_macs, count_parameters
from ablate.models.convolution import Conv3x3
from ablate.models.seed_cnn import seed_cnn, seed_cnn_bn_relu

# (channels in, channels out, stride), read off the published recipe, not off the code.
LAYERS = [
    (3, 16, 1),
    (16, 32, 2),
    (32, 64, 2),
    (64, 32, 2),
    (32, 64, 2),
    (64, 128, 2),
    (128, 256, 2),
    (256, 512, 2),
]


def network_by_hand(*, relu_first: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, stride in LAYERS:
        conv, norm = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        layers += [conv, nn.ReLU(), norm] if relu_first else [conv, norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def step(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Gives logits, gradients and buffers of one training step."""
    logits = model(images)
    torch.autograd.backward(nn.functional.cross_entropy(logits, labels))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [logits, *gradients, *model.buffers()]


@pytest.mark.parametrize(("factory", "relu_first"), [(seed_cnn, True), (seed_cnn_bn_relu, False)])
def test_forward_gradients_and_statistics_equal_a_network_written_by_hand(
    factory: Factory, relu_first: bool
) -> None:
    torch.manual_seed(0)
    ours = factory(num_classes=10, image_size=32).double()
    theirs = network_by_hand(relu_first=relu_first).double()
    values = list(ours.state_dict().values())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    images, labels = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.arange(4)
    assert sum(isinstance(module, Conv3x3) for module in ours.modules()) == len(LAYERS)
    mine, reference = step(ours, images, labels), step(theirs, images, labels)
    assert len(mine) == len(reference) == 1 + 26 + 24
    torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


def test_parameters_and_multiply_adds_equal_a_count_by_hand() -> None:
    parameters, macs, size = 512 * 10 + 10, 512 * 10, 128
    for before, after, stride in LAYERS:
        size //= stride
        parameters += 9 * before * after + 2 * after
        macs += 9 * before * after * size * size
    model = seed_cnn(num_classes=10, image_size=128)
    assert size == 1
    assert count_parameters(model) == parameters
    assert count_macs(model, 128) == macs
    assert (round(parameters / 1e6, 1), round(macs / 1e6)) == (1.6, 54)


def test_128_pixels_become_one_before_the_pool() -> None:
    model = seed_cnn(num_classes=10, image_size=128).eval()
    pooled: list[tuple[int, ...]] = []
    pool = next(module for module in model.modules() if isinstance(module, nn.AdaptiveAvgPool2d))
    pool.register_forward_pre_hook(lambda _module, inputs: pooled.append(tuple(inputs[0].shape)))
    model(torch.zeros(1, 3, 128, 128))
    assert pooled == [(1, 512, 1, 1)]


@pytest.mark.parametrize("image_size", [1, 7, 8, 16, 64])
def test_small_images_train(image_size: int) -> None:
    model = seed_cnn(num_classes=3, image_size=image_size)
    logits = model(torch.randn(4, 3, image_size, image_size))
    logits.sum().backward()
    assert logits.shape == (4, 3)


def test_convolutions_start_kaiming_normal_for_a_slope_of_a_tenth() -> None:
    torch.manual_seed(0)
    for conv, (before, _, _) in zip(
        convolutions(seed_cnn(num_classes=10, image_size=128)), LAYERS, strict=True
    ):
        std = math.sqrt(2 / (1 + 0.1**2) / (9 * before))
        count = conv.weight.numel()
        assert abs(conv.weight.mean().item()) < 4 * std / math.sqrt(count)
        assert conv.weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * count))
        assert conv.weight.abs().max().item() > 2.5 * std  # a uniform draw ends at 1.73 std


def test_the_last_layers_spread_tells_a_slope_of_a_tenth_from_zero() -> None:
    torch.manual_seed(0)
    weight = convolutions(seed_cnn(num_classes=10, image_size=128))[-1].weight
    ratio = weight.std().item() / math.sqrt(2 / (9 * 256))
    assert ratio == pytest.approx(1 / math.sqrt(1.01), rel=0.0025)
    assert ratio != pytest.approx(1, rel=0.0025)


def test_norms_and_the_linear_layer_start_as_torch_starts_them() -> None:
    torch.manual_seed(0)
    model = seed_cnn(num_classes=10, image_size=128)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [(norm.eps, norm.momentum) for norm in norms] == [(1e-5, 0.1)] * len(LAYERS)
    assert all(bool((norm.weight == 1).all()) and bool((norm.bias == 0).all()) for norm in norms)
    linear = model[-1]
    assert isinstance(linear, nn.Linear)
    bound = 1 / math.sqrt(512)  # torch draws weight and bias uniformly within ±1/√fan_in
    assert 0.95 * bound < linear.weight.abs().max().item() <= bound
    assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert 0 < linear.bias.abs().max().item() <= bound
