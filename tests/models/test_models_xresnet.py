"""XResNet against timm's ResNet-D, which has the same trunk behind a thinner stem."""

import math

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ablate.models import count_macs, count_parameters
from ablate.models.xresnet import ResidualBlock, xresnet18, xresnet34, xresnet50

NETWORKS = [(xresnet18, "resnet18d"), (xresnet34, "resnet34d"), (xresnet50, "resnet50d")]
# (channels in, channels out, outputs per side at 128 px)
OUR_STEM = [(3, 32, 64), (32, 64, 64), (64, 64, 64)]
TIMM_STEM = [(3, 32, 64), (32, 32, 64), (32, 64, 64)]


def reference(name: str) -> nn.Module:
    model: nn.Module = timm.create_model(name, num_classes=10)
    return model


def trunk(model: nn.Module) -> nn.Sequential:
    """Gives timm's stages, pool and linear layer."""
    parts = ["layer1", "layer2", "layer3", "layer4", "global_pool", "fc"]
    return nn.Sequential(*(model.get_submodule(part) for part in parts))


def blocks(model: nn.Module) -> list[ResidualBlock]:
    return [module for module in model.modules() if isinstance(module, ResidualBlock)]


def randomise(model: nn.Module) -> None:
    """Draws every BatchNorm's weight and bias: zero weights would hide what is inside the blocks."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)


def step(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    logits = model(inputs)
    torch.autograd.backward(nn.functional.cross_entropy(logits, torch.arange(len(inputs))))
    return [logits, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize(("factory", "name"), [NETWORKS[0], NETWORKS[2]])
def test_the_trunk_computes_what_timms_computes(factory: type, name: str) -> None:
    torch.manual_seed(0)
    whole = factory(num_classes=10, image_size=32).double()
    randomise(whole)
    ours, theirs = whole[7:], trunk(reference(name)).double()
    values = list(ours.state_dict().values())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    features = torch.randn(3, 64, 13, 13, dtype=torch.float64)
    torch.testing.assert_close(step(ours, features), step(theirs, features), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("factory", "name"), NETWORKS)
def test_parameters_and_multiply_adds_differ_from_timms_by_the_stem(factory: type, name: str) -> None:
    ours, theirs = factory(num_classes=10, image_size=128), reference(name).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        theirs(torch.zeros(1, 3, 128, 128))
    parameters = sum(parameter.numel() for parameter in theirs.parameters())
    assert count_parameters(ours) - parameters == stem_parameters(OUR_STEM) - stem_parameters(TIMM_STEM)
    assert count_macs(ours, 128) - counter.get_total_flops() // 2 == stem_macs(OUR_STEM) - stem_macs(
        TIMM_STEM
    )


def stem_parameters(stem: list[tuple[int, int, int]]) -> int:
    return sum(9 * before * after + 2 * after for before, after, _ in stem)


def stem_macs(stem: list[tuple[int, int, int]]) -> int:
    return sum(9 * before * after * size**2 for before, after, size in stem)


def test_xresnet18_has_the_noted_size() -> None:
    model = xresnet18(num_classes=10, image_size=128)
    assert round(count_parameters(model) / 1e6, 1) == 11.2
    assert round(count_macs(model, 128) / 1e6) == 784


def test_layer_shapes_at_128_pixels_are_the_published_ones() -> None:
    model = xresnet18(num_classes=10, image_size=128).eval()
    features, shapes = torch.zeros(2, 3, 128, 128), []
    for layer in model:
        features = layer(features)
        if not isinstance(layer, nn.ReLU):
            shapes.append(tuple(features.shape[1:]))
    # As printed by the course's notebook 11 for a batch of 128.
    stem = [(32, 64, 64), (64, 64, 64), (64, 64, 64), (64, 32, 32)]
    stages = [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert shapes == [*stem, *stages, (512, 1, 1), (512,), (10,)]


@pytest.mark.parametrize("factory", [xresnet18, xresnet50])
@pytest.mark.parametrize("image_size", [1, 8, 17, 33])
def test_any_size_passes(factory: type, image_size: int) -> None:
    model = factory(num_classes=3, image_size=image_size).eval()
    assert model(torch.zeros(2, 3, image_size, image_size)).shape == (2, 3)


@pytest.mark.parametrize("factory", [xresnet18, xresnet50])
def test_a_fresh_block_is_its_shortcut(factory: type) -> None:
    torch.manual_seed(0)
    for block in blocks(factory(num_classes=10, image_size=32)):
        features = torch.randn(2, first_conv(block).in_channels, 6, 6)
        assert torch.equal(block(features), torch.relu(block.shortcut(features)))


def first_conv(block: ResidualBlock) -> nn.Conv2d:
    return next(module for module in block.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.parametrize("factory", [xresnet18, xresnet50])
def test_only_the_last_norm_of_each_block_starts_at_zero(factory: type) -> None:
    model = factory(num_classes=10, image_size=32)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    zero = [norm for norm in norms if bool((norm.weight == 0).all())]
    assert len(zero) == len(blocks(model))
    assert all(bool((norm.weight == 1).all()) for norm in norms if norm not in zero)
    assert all(bool((norm.bias == 0).all()) for norm in norms)


def test_weights_start_kaiming_normal_for_a_relu() -> None:
    torch.manual_seed(0)
    model = xresnet18(num_classes=1000, image_size=128)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight
            std, count = math.sqrt(2 / weight[0].numel()), weight.numel()
            assert abs(weight.mean().item()) < 4.5 * std / math.sqrt(count)
            assert weight.std().item() == pytest.approx(std, rel=4.5 / math.sqrt(2 * count))
            assert weight.abs().max().item() > 2.5 * std
    linear = model[-1]
    assert isinstance(linear, nn.Linear)
    assert bool((linear.bias == 0).all())


@pytest.mark.parametrize("factory", [xresnet18, xresnet50])
def test_a_seed_gives_the_weights_it_always_gave(factory: type) -> None:
    """Each layer draws torch's default first and is then drawn anew, in the order of `state_dict`."""
    torch.manual_seed(4)
    weights = factory(num_classes=10, image_size=32).state_dict()
    torch.manual_seed(4)
    for key, weight in weights.items():
        if weight.ndim == 4:
            drawn: nn.Module = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=False)
        elif weight.ndim == 2:
            drawn = nn.Linear(weight.shape[1], weight.shape[0])
        else:
            continue
        assert torch.equal(nn.init.kaiming_normal_(drawn.get_parameter("weight")), weight), key
