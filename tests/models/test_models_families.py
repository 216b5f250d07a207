"""Each family against what is not ours: timm's networks and parts, networks, counts and draws by hand."""

import math
from itertools import pairwise
from typing import TypeVar

import pytest
import timm
import torch
from timm.layers.blur_pool import BlurPool2d
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ablate.models import MODELS, count_macs, count_parameters
from ablate.models.layers import Conv3x3, MaxBlurPool2d, SimpleSelfAttention
from ablate.models.xresnet import ResidualBlock, SqueezeExcitation, resnext_block

XRESNETS = [("xresnet18", "resnet18d"), ("xresnet34", "resnet34d"), ("xresnet50", "resnet50d")]
# Channels of the lesson's network, read off the published recipe, not off the code.
LESSON = [3, 16, 32, 64, 32, 64, 128, 256, 512]
Part = TypeVar("Part", bound=nn.Module)


def fresh(name: str, num_classes: int = 10, image_size: int = 32, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name](num_classes=num_classes, image_size=image_size)


def parts(model: nn.Module, kind: type[Part]) -> list[Part]:
    return [module for module in model.modules() if isinstance(module, kind)]


def step(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Gives logits, gradients and buffers of one training step."""
    logits = model(inputs)
    torch.autograd.backward(functional.cross_entropy(logits, torch.arange(len(inputs))))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [logits, *gradients, *model.buffers()]


def take_weights(target: nn.Module, source: nn.Module) -> None:
    target.load_state_dict(dict(zip(target.state_dict(), source.state_dict().values(), strict=True)))


def randomise(model: nn.Module) -> None:
    """Draws every BatchNorm's weight and bias: zero weights would hide what is inside the blocks."""
    for norm in parts(model, nn.BatchNorm2d):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)


@pytest.mark.parametrize(("name", "relu_first"), [("seed_cnn", True), ("seed_cnn_bn_relu", False)])
def test_the_lessons_network_equals_one_written_by_hand(name: str, relu_first: bool) -> None:
    ours, layers = fresh(name).double(), []
    for before, after in pairwise(LESSON):
        conv = nn.Conv2d(before, after, 3, 1 if before == 3 else 2, 1, bias=False)
        norm = nn.BatchNorm2d(after)
        layers += [conv, nn.ReLU(), norm] if relu_first else [conv, norm, nn.ReLU()]
    theirs = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)).double()
    take_weights(theirs, ours)
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    assert len(parts(ours, Conv3x3)) == 8
    mine, reference = step(ours, images), step(theirs, images)
    assert len(mine) == 1 + 26 + 24
    torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "reference"), [XRESNETS[0], XRESNETS[2]])
def test_the_trunk_computes_what_timms_computes(name: str, reference: str) -> None:
    whole = fresh(name).double()
    randomise(whole)
    model = timm.create_model(reference, num_classes=10)
    names = ["layer1", "layer2", "layer3", "layer4", "global_pool", "fc"]
    ours = nn.Sequential(*list(whole.children())[7:])
    theirs = nn.Sequential(*(model.get_submodule(part) for part in names)).double()
    take_weights(theirs, ours)
    features = torch.randn(3, 64, 13, 13, dtype=torch.float64)
    torch.testing.assert_close(step(ours, features), step(theirs, features), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("name", "reference"), XRESNETS)
def test_costs_differ_from_timms_by_the_stem(name: str, reference: str) -> None:
    with torch.device("meta"):
        ours, theirs = fresh(name), timm.create_model(reference, num_classes=10).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            theirs(torch.zeros(1, 3, 128, 128))
    # Ours has 3 → 32 → 64 → 64 channels, timm's 3 → 32 → 32 → 64, all at 64×64.
    products = 9 * (32 * 64 + 64 * 64 - 32 * 32 - 32 * 64)
    parameters = sum(parameter.numel() for parameter in theirs.parameters())
    assert count_parameters(ours) - parameters == products + 2 * (64 - 32)
    assert count_macs(ours, 128) - counter.get_total_flops() // 2 == products * 64**2


@pytest.mark.parametrize("name", ["xresnet18", "xresnet50", "xse_resnext50"])
def test_a_fresh_block_is_its_shortcut_and_all_but_its_last_norm_start_at_one(name: str) -> None:
    model, activation = fresh(name), functional.mish if name == "xse_resnext50" else torch.relu
    blocks = parts(model, ResidualBlock)
    for block in blocks:
        features = torch.randn(2, parts(block, nn.Conv2d)[0].in_channels, 6, 6)
        torch.testing.assert_close(block(features), activation(block.shortcut(features)))
    norms = parts(model, nn.BatchNorm2d)
    zero = [norm for norm in norms if not norm.weight.any()]
    assert zero == [parts(block.convs, nn.BatchNorm2d)[-1] for block in blocks]
    assert all(bool((norm.weight == 1).all()) for norm in norms if norm not in zero)
    assert not any(norm.bias.any() for norm in norms)


@pytest.mark.parametrize(
    ("name", "slope"), [("seed_cnn", 0.1), ("seed_cnn_bn_relu", 0.1), ("xresnet18", 0), ("xresnet50", 0)]
)
def test_a_seed_gives_the_weights_it_always_gave(name: str, slope: float) -> None:
    """Each layer draws torch's default first and is then drawn anew, in the order of `state_dict`."""
    weights = fresh(name, seed=4).state_dict()
    torch.manual_seed(4)
    for key, weight in weights.items():
        if weight.ndim == 4:
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=False)
            assert torch.equal(nn.init.kaiming_normal_(conv.weight, a=slope), weight), key
        elif weight.ndim == 2:
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            if not name.startswith("seed_cnn"):  # which leaves it as torch starts it
                nn.init.kaiming_normal_(linear.weight)
                nn.init.zeros_(linear.bias)
            assert torch.equal(linear.weight, weight)
            assert torch.equal(linear.bias, weights[key.replace("weight", "bias")])


@pytest.fixture(scope="module")
def resnext() -> nn.Module:
    return fresh("xse_resnext50", image_size=128)


def test_resnexts_costs_are_the_public_implementations(resnext: nn.Module) -> None:
    # As torch counts fastai's xse_resnext50(c_out=10, act_cls=Mish, sa=1, sym=0, pool=MaxPool) of January
    # 2020, to which the blurs are added.
    assert count_parameters(resnext) == 25_616_155
    blurs = 36 * (64 * 32**2 + 256 * 16**2 + 512 * 8**2 + 1024 * 4**2)
    assert count_macs(resnext, 128) == 1_662_824_448 + blurs


def test_resnexts_pooling_activations_attention_and_first_weights(resnext: nn.Module) -> None:
    kinds = [type(module) for module in resnext.modules()]
    assert (kinds.count(MaxBlurPool2d), kinds.count(SimpleSelfAttention)) == (4, 1)
    assert not {nn.MaxPool2d, nn.AvgPool2d, nn.ReLU} & set(kinds)
    third = parts(resnext, ResidualBlock)[2]
    assert [type(module) for module in third.convs][-2:] == [SqueezeExcitation, SimpleSelfAttention]
    layers: list[nn.Conv2d | nn.Linear] = [*parts(resnext, nn.Conv2d), *parts(resnext, nn.Linear)]
    for module in layers:
        std, count = math.sqrt(2 / module.weight[0].numel()), module.weight.numel()
        assert module.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count))
        assert module.bias is None or not module.bias.any()


def test_the_gate_is_timms() -> None:
    ours = SqueezeExcitation(256).double()
    theirs = SEModule(256, rd_channels=16, act_layer=nn.Mish).double()
    take_weights(theirs, ours)
    features = torch.randn(2, 256, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(features), theirs(features), rtol=1e-12, atol=1e-12)
    widths = [SqueezeExcitation(channels).reduce.out_channels for channels in (64, 256, 320, 2048)]
    assert widths == [8, 16, 24, 128]  # a sixteenth, in multiples of eight


def test_a_resnext_block_computes_what_torchs_functions_compute() -> None:
    """With the stride and channels of a first block."""
    torch.manual_seed(0)
    block = resnext_block(64, 32, 2, attention=False).double()
    randomise(block)
    features = torch.randn(3, 64, 8, 8, dtype=torch.float64)
    first, grouped, last, reduce, expand, shortcut = parts(block, nn.Conv2d)
    norms = parts(block, nn.BatchNorm2d)
    conv, mish = functional.conv2d, functional.mish
    branch = mish(norms[0](conv(features, first.weight)))
    branch = mish(norms[1](conv(branch, grouped.weight, stride=2, padding=1, groups=32)))
    branch = norms[2](conv(branch, last.weight))
    gate = mish(conv(functional.adaptive_avg_pool2d(branch, 1), reduce.weight, reduce.bias))
    gate = conv(gate, expand.weight, expand.bias).sigmoid()
    blur = BlurPool2d(64, filt_size=5, stride=1, pad_mode="reflect").double()
    pooled = blur(functional.max_pool2d(features, 3, stride=1, padding=1))
    pooled = functional.interpolate(pooled, scale_factor=0.5, mode="bilinear")
    expected = mish(branch * gate + norms[3](conv(pooled, shortcut.weight)))
    torch.testing.assert_close(block(features), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("image_size", [8, 128])
def test_the_transformers_costs_equal_a_count_by_hand(image_size: int) -> None:
    width, layers, hidden, tokens, patch = 192, 12, 768, 65, 3 * (image_size // 8) ** 2
    attention, perceptron = 4 * (width + 1) * width, (width + 1) * hidden + (hidden + 1) * width
    parameters = layers * (attention + perceptron + 4 * width)
    parameters += (patch + 1) * width + (tokens + 1) * width + 2 * width + (width + 1) * 10
    macs = layers * (tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width)
    macs += 64 * patch * width + width * 10
    model = fresh("vit_tiny", image_size=image_size)
    assert (count_parameters(model), count_macs(model, image_size)) == (parameters, macs)
    assert {module.p for module in parts(model, nn.Dropout)} == {0.0}
    attending = parts(model, nn.MultiheadAttention)
    assert {(module.num_heads, module.dropout) for module in attending} == {(3, 0.0)}
