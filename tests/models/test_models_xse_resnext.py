"""XSE-ResNeXt-50 against timm's and torch's parts, and counts of the public implementation."""

import math

import pytest
import torch
from timm.layers.blur_pool import BlurPool2d
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional

from ablate.models import count_macs, count_parameters
from ablate.models.attention import SimpleSelfAttention
from ablate.models.pooling import MaxBlurPool2d
from ablate.models.xse_resnext import SEResNeXtBlock, SqueezeExcitation, xse_resnext50

DEPTHS, WIDTHS = [3, 4, 6, 3], [64, 128, 256, 512]


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return xse_resnext50(num_classes=10, image_size=128)


def last_norm(block: SEResNeXtBlock) -> nn.BatchNorm2d:
    return [module for module in block.convs.modules() if isinstance(module, nn.BatchNorm2d)][-1]


def blocks(network: nn.Module) -> list[SEResNeXtBlock]:
    return [module for module in network.modules() if isinstance(module, SEResNeXtBlock)]


def parameters_by_hand() -> int:
    total = sum(9 * before * after + 2 * after for before, after in [(3, 32), (32, 32), (32, 64)])
    channels = 64
    for width, depth in zip(WIDTHS, DEPTHS, strict=True):
        inside, out = 2 * width, 4 * width
        for _ in range(depth):
            convolutions = channels * inside + inside * (inside // 32) * 9 + inside * out
            gate = 2 * out * (out // 16) + out // 16 + out
            total += convolutions + 2 * (2 * inside + out) + gate
            total += (channels + 2) * out if channels != out else 0
            channels = out
    return total + (256 * 256 + 1) + (2048 + 1) * 10


def macs_by_hand() -> int:
    """At 128 pixels: 64 a side after the first convolution, 32 after the pool, then 32, 16, 8, 4."""
    blurs = 36 * (64 * 32**2 + 256 * 16**2 + 512 * 8**2 + 1024 * 4**2)
    total = 9 * (3 * 32 + 32 * 32 + 32 * 64) * 64**2 + blurs + 3 * 256**2 * 32**2 + 2048 * 10
    channels, side = 64, 32
    for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        inside, out = 2 * width, 4 * width
        for block in range(depth):
            total += channels * inside * side**2  # the first convolution, before the stride
            side = side // 2 if block == 0 and index > 0 else side
            total += (inside * (inside // 32) * 9 + inside * out) * side**2 + 2 * out * (out // 16)
            total += channels * out * side**2 if channels != out else 0
            channels = out
    return total


def test_parameters_are_the_public_implementations(network: nn.Module) -> None:
    # fastai's xse_resnext50(c_out=10, act_cls=Mish, sa=1, sym=0, pool=MaxPool) of January 2020.
    assert count_parameters(network) == parameters_by_hand() == 25_616_155


def test_multiply_adds_equal_a_count_by_hand(network: nn.Module) -> None:
    # Without the blurs, that implementation as torch counts it.
    assert count_macs(network, 128) == macs_by_hand() == 1_662_824_448 + 6_488_064


def test_layer_shapes_at_128_pixels(network: nn.Module) -> None:
    features, shapes = torch.zeros(1, 3, 128, 128), []
    with torch.no_grad():
        for layer in network.children():
            features = layer(features)
            if not isinstance(layer, nn.Mish):
                shapes.append(tuple(features.shape[1:]))
    stem = [(32, 64, 64), (32, 64, 64), (64, 64, 64), (64, 32, 32)]
    stages = [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)]
    assert shapes == [*stem, *stages, (2048, 1, 1), (2048,), (10,)]


def test_pooling_is_blurred_activations_are_mish_and_attention_ends_the_first_stage(
    network: nn.Module,
) -> None:
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(MaxBlurPool2d) == 4
    assert not {nn.MaxPool2d, nn.AvgPool2d, nn.ReLU} & set(kinds)
    attending = [block for block in blocks(network) if isinstance(block.convs[-1], SimpleSelfAttention)]
    assert attending == [blocks(network)[DEPTHS[0] - 1]]
    assert kinds.count(SimpleSelfAttention) == 1
    assert isinstance(attending[0].convs[-2], SqueezeExcitation)


def test_a_fresh_block_is_its_shortcut(network: nn.Module) -> None:
    torch.manual_seed(0)
    for block in blocks(network):
        conv = next(module for module in block.modules() if isinstance(module, nn.Conv2d))
        features = torch.randn(2, conv.in_channels, 4, 4)
        torch.testing.assert_close(block(features), functional.mish(block.shortcut(features)))


def test_the_gate_is_timms() -> None:
    torch.manual_seed(0)
    ours = SqueezeExcitation(256).double()
    theirs = SEModule(256, rd_channels=16, act_layer=nn.Mish).double()
    assert theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    features = torch.randn(2, 256, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(features), theirs(features), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("channels", "narrow"), [(64, 8), (256, 16), (320, 24), (2048, 128)])
def test_the_gates_width_is_a_sixteenth_in_multiples_of_eight(channels: int, narrow: int) -> None:
    assert SqueezeExcitation(channels).reduce.out_channels == narrow


class BlockByHand(nn.Module):
    """The block as a straight list of torch's layers, for the stride and channels of a first block."""

    def __init__(self) -> None:
        super().__init__()
        bottleneck = [nn.Conv2d(64, 64, 1, bias=False), nn.Conv2d(64, 64, 3, 2, 1, groups=32, bias=False)]
        gate = [nn.Conv2d(128, 8, 1), nn.Conv2d(8, 128, 1)]
        last, shortcut = nn.Conv2d(64, 128, 1, bias=False), nn.Conv2d(64, 128, 1, bias=False)
        self.convs = nn.ModuleList([*bottleneck, last, *gate, shortcut])
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in (64, 64, 128, 128))

    def forward(self, features: Tensor) -> Tensor:
        branch = functional.mish(self.norms[0](self.convs[0](features)))
        branch = functional.mish(self.norms[1](self.convs[1](branch)))
        branch = self.norms[2](self.convs[2](branch))
        gate = self.convs[4](functional.mish(self.convs[3](functional.adaptive_avg_pool2d(branch, 1))))
        pooled = functional.max_pool2d(features, 3, stride=1, padding=1)
        blur = BlurPool2d(64, filt_size=5, stride=1, pad_mode="reflect").double()
        pooled = functional.interpolate(blur(pooled), scale_factor=0.5, mode="bilinear")
        return functional.mish(branch * gate.sigmoid() + self.norms[3](self.convs[5](pooled)))


def test_a_block_computes_what_a_list_of_layers_computes() -> None:
    torch.manual_seed(0)
    ours = SEResNeXtBlock(64, 32, stride=2, attention=False).double()
    nn.init.uniform_(last_norm(ours).weight, 0.5, 1.5)
    theirs = BlockByHand().double()
    for kind in (nn.Conv2d, nn.BatchNorm2d):
        pairs = [[m for m in model.modules() if isinstance(m, kind)] for model in (ours, theirs)]
        for source, target in zip(*pairs, strict=True):
            target.load_state_dict(source.state_dict())
    features = torch.randn(3, 64, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(features), theirs(features), rtol=1e-10, atol=1e-12)


def test_weights_start_kaiming_normal_and_only_last_norms_at_zero(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight
            std, count = math.sqrt(2 / weight[0].numel()), weight.numel()
            assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * count))
            assert module.bias is None or not module.bias.any()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    zero = [norm for norm in norms if not norm.weight.any()]
    assert zero == [last_norm(block) for block in blocks(network)]
    assert all(bool((norm.weight == 1).all()) for norm in norms if norm not in zero)


@pytest.mark.parametrize("image_size", [1, 8, 33])
def test_any_size_passes(network: nn.Module, image_size: int) -> None:
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, 3, image_size, image_size)).shape == (2, 10)
