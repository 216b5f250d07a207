"""Layers and families against what is not ours: torch, timm, and loops, counts and draws by hand."""

import functools
import math
from itertools import pairwise
from typing import Any, TypeVar

import pytest
import timm
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from timm.layers.blur_pool import BlurPool2d
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ablate.models import MODELS, count_macs, count_parameters
from ablate.models.layers import Conv3x3, MaxBlurPool2d, SimpleSelfAttention
from ablate.models.xresnet import ResidualBlock, SqueezeExcitation, resnext_block

LAYOUTS = [torch.contiguous_format, torch.channels_last]
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
    """Gives the output, the gradients of inputs and parameters, and the buffers of one training step."""
    inputs = inputs.clone().requires_grad_()
    output = model(inputs)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)
    gradients = torch.autograd.grad((output * weights).sum(), [inputs, *model.parameters()])
    return [output, *gradients, *model.buffers()]


def take_weights(target: nn.Module, source: nn.Module) -> None:
    target.load_state_dict(dict(zip(target.state_dict(), source.state_dict().values(), strict=True)))


def randomise(model: nn.Module) -> None:
    """Draws every BatchNorm's weight and bias: zero weights would hide what is inside the blocks."""
    for norm in parts(model, nn.BatchNorm2d):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)


@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.sampled_from([1, 2]),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    layout=st.sampled_from(LAYOUTS),
)
@example(size=(1, 1), stride=1, channels=(2, 3), layout=torch.channels_last)
@example(size=(2, 1), stride=2, channels=(2, 3), layout=torch.contiguous_format)
@example(size=(2, 2), stride=2, channels=(2, 3), layout=torch.channels_last)
def test_output_and_gradients_equal_torchs_convolution(
    size: tuple[int, int], stride: int, channels: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    ours = Conv3x3(*channels, stride=stride).double().to(memory_format=layout)
    theirs = nn.Conv2d(*channels, 3, stride=stride, padding=1, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, channels[0], *size, dtype=torch.float64).contiguous(memory_format=layout)
    torch.testing.assert_close(step(ours, images), step(theirs, images), rtol=1e-12, atol=1e-12)
    expected = functional.conv2d(images, ours.weight, stride=stride, padding=1)
    assert torch.equal(ours.eval()(images), expected)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-12, atol=1e-12)


def test_under_autocast_the_gradients_are_those_of_the_convolution_in_its_arithmetic() -> None:
    layer, plain = (Conv3x3(64, 32, stride=2) for _ in range(2))
    plain.load_state_dict(layer.state_dict())
    plain.forward = functools.partial(nn.Conv2d.forward, plain)  # type: ignore[method-assign]
    images = torch.randn(16, 64, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = step(layer, images), step(plain, images)
    assert ours[0].dtype == torch.bfloat16
    assert [value.dtype for value in ours] == [value.dtype for value in theirs]
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine - reference).norm() < 0.01 * reference.norm()  # 2**-8 of each rounding


def test_training_a_single_pixel_multiplies_no_padding() -> None:
    layer, images = Conv3x3(8, 16, stride=2), torch.randn(5, 8, 1, 1)
    counter = FlopCounterMode(display=False)
    for training, taps in ((True, 1), (False, 9)):
        with counter:
            layer.train(training)(images)
        assert counter.get_total_flops() == 2 * 5 * 8 * 16 * taps


def blurred_in_steps(maps: Tensor) -> Tensor:
    """Maximum, 5×5 binomial blur over mirrored borders, bilinear interpolation to half the size."""
    blur = BlurPool2d(maps.shape[1], filt_size=5, stride=1, pad_mode="reflect").to(maps)
    blurred = blur(functional.max_pool2d(maps, 3, stride=1, padding=1))
    return functional.interpolate(blurred, scale_factor=0.5, mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (6, 10), (32, 32), (5, 5), (7, 33)])
def test_one_kernel_equals_the_three_steps_and_their_gradient(height: int, width: int) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    ours, theirs = MaxBlurPool2d(3).double()(maps), blurred_in_steps(maps)
    assert ours.shape == (2, 3, -(-height // 2), -(-width // 2))
    inside = ours[..., : height // 2, : width // 2]  # of an odd side the definition drops the last position
    torch.testing.assert_close(inside, theirs, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(theirs)
    gradients = [torch.autograd.grad(output, maps, upstream)[0] for output in (inside, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_the_kernel_keeps_a_constant_is_exact_in_bfloat16_without_state_and_keeps_channels_last() -> None:
    for size in range(1, 9):
        pooled = MaxBlurPool2d(2)(torch.full((1, 2, size, size), -3.0))
        assert torch.equal(pooled, torch.full((1, 2, -(-size // 2), -(-size // 2)), -3.0))
    pool = MaxBlurPool2d(8).to(memory_format=torch.channels_last)
    assert torch.equal(pool.kernel.bfloat16().float(), pool.kernel)
    assert not pool.state_dict()
    maps = torch.randn(2, 8, 16, 16).to(memory_format=torch.channels_last)
    assert pool(maps).is_contiguous(memory_format=torch.channels_last)


def attention(channels: int, gamma: float) -> SimpleSelfAttention:
    torch.manual_seed(0)
    layer = SimpleSelfAttention(channels).double()
    nn.init.constant_(layer.gamma, gamma)
    return layer


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_mixed_position_by_position(layout: torch.memory_format) -> None:
    layer = attention(6, gamma=0.7).eval()
    features = torch.randn(2, 6, 3, 4, dtype=torch.float64).contiguous(memory_format=layout)
    mixed, weight = layer(features), layer.normalised_weight()
    for image, of_image in zip(features.flatten(2), mixed.flatten(2), strict=True):
        products = torch.stack([torch.outer(position, position) for position in image.t()]).sum(0)
        expected = [position + 0.7 * (products @ (weight @ position)) for position in image.t()]
        torch.testing.assert_close(of_image, torch.stack(expected, 1), rtol=1e-12, atol=1e-12)
    assert mixed.is_contiguous(memory_format=layout)


def test_the_weight_is_normalised_as_torch_normalises_it() -> None:
    layer, rows = attention(5, gamma=1.0), torch.randn(3, 5, dtype=torch.float64)
    linear = nn.Linear(5, 5, bias=False, dtype=torch.float64)
    twin: Any = torch.nn.utils.spectral_norm(linear, n_power_iterations=1, eps=1e-12)
    values = {"weight_orig": layer.weight, "weight_u": layer.left, "weight_v": layer.right}
    twin.load_state_dict({key: value.detach().clone() for key, value in values.items()})
    for training in (True, True, False, True):
        ours = rows @ layer.train(training).normalised_weight().t()
        theirs = twin.train(training)(rows)
        gradients = (
            torch.autograd.grad(output.square().sum(), leaf)[0]
            for output, leaf in ((ours, layer.weight), (theirs, twin.weight_orig))
        )
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
        buffers = (layer.left, layer.right), (twin.weight_u, twin.weight_v)
        torch.testing.assert_close(*buffers, rtol=1e-12, atol=1e-12)


def test_it_starts_as_the_identity_keeps_the_dtype_under_autocast_and_two_forwards_share_a_backward() -> None:
    layer, features = SimpleSelfAttention(256), torch.randn(2, 256, 3, 3)
    assert torch.equal(layer(features), features)
    (layer(features) + layer(features)).sum().backward()  # the second power step must not undo the first
    assert layer.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(features.bfloat16()).dtype == torch.bfloat16
        assert layer.normalised_weight().dtype == torch.float32


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
    assert len(mine) == 2 + 26 + 24
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


def test_resnexts_costs_pooling_activations_attention_and_first_weights() -> None:
    resnext = fresh("xse_resnext50", image_size=128)
    # As torch counts fastai's xse_resnext50(c_out=10, act_cls=Mish, sa=1, sym=0, pool=MaxPool) of January
    # 2020, to which the blurs are added.
    assert count_parameters(resnext) == 25_616_155
    blurs = 36 * (64 * 32**2 + 256 * 16**2 + 512 * 8**2 + 1024 * 4**2)
    assert count_macs(resnext, 128) == 1_662_824_448 + blurs
    kinds = [type(module) for module in resnext.modules()]
    assert not {nn.MaxPool2d, nn.AvgPool2d, nn.ReLU} & set(kinds)
    third = parts(resnext, ResidualBlock)[2]
    assert [type(module) for module in third.convs][-2:] == [SqueezeExcitation, SimpleSelfAttention]
    layers: list[nn.Conv2d | nn.Linear] = [*parts(resnext, nn.Conv2d), *parts(resnext, nn.Linear)]
    for module in layers:
        std, count = math.sqrt(2 / module.weight[0].numel()), module.weight.numel()
        assert module.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count))
        assert module.bias is None or not module.bias.any()


def test_a_resnext_block_computes_what_torchs_functions_and_timms_parts_compute() -> None:
    """With the stride and channels of a first block."""
    torch.manual_seed(0)
    block = resnext_block(64, 32, 2, attention=False).double()
    randomise(block)
    features = torch.randn(3, 64, 8, 8, dtype=torch.float64)
    first, grouped, last, _, _, shortcut = parts(block, nn.Conv2d)
    norms, (gate,) = parts(block, nn.BatchNorm2d), parts(block, SqueezeExcitation)
    timms_gate = SEModule(last.out_channels, rd_channels=gate.reduce.out_channels, act_layer=nn.Mish).double()
    take_weights(timms_gate, gate)
    conv, mish = functional.conv2d, functional.mish
    branch = mish(norms[0](conv(features, first.weight)))
    branch = mish(norms[1](conv(branch, grouped.weight, stride=2, padding=1, groups=32)))
    branch = timms_gate(norms[2](conv(branch, last.weight)))
    expected = mish(branch + norms[3](conv(blurred_in_steps(features), shortcut.weight)))
    torch.testing.assert_close(block(features), expected, rtol=1e-10, atol=1e-12)
    widths = [SqueezeExcitation(channels).reduce.out_channels for channels in (64, 256, 320, 2048)]
    assert widths == [8, 16, 24, 128]  # a sixteenth, in multiples of eight


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
