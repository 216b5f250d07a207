"""Networks named by import path: what the door lets in, what it refuses, and with which words."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import Tensor, nn

from ablate.errors import StudyError
from ablate.models import build_model

WriteModule = Callable[[str], str]


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Writes source text to a module in a folder on the import path; gives the module's name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source: str) -> str:
        header = "import torch\nfrom torch import nn\n"
        (tmp_path / "foreign_networks.py").write_text(header + dedent(source))
        return "foreign_networks"

    yield write
    sys.modules.pop("foreign_networks", None)


def build(name: str, *, num_classes: int = 4, image_size: int = 8) -> nn.Module:
    return build_model(name, num_classes=num_classes, image_size=image_size)


def load_factory(name: str) -> Callable[..., nn.Module]:
    module, _, attribute = name.partition(":")
    factory: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    return factory


def refusal(name: str, *, image_size: int = 8) -> str:
    with pytest.raises(StudyError) as caught:
        build(name, image_size=image_size)
    return str(caught.value)


FLAT = """
def network(num_classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))
"""


def test_a_foreign_factory_builds_from_the_global_generator(write_module: WriteModule) -> None:
    name = write_module(FLAT) + ":network"
    torch.manual_seed(5)
    model = build(name)
    torch.manual_seed(5)
    expected = nn.Linear(192, 4)
    assert torch.equal(model.state_dict()["1.weight"], expected.weight)
    assert list(model.state_dict()) == ["1.weight", "1.bias"]


def test_a_class_is_a_factory(write_module: WriteModule) -> None:
    name = write_module(
        """
        class Network(nn.Module):
            def __init__(self, num_classes, image_size):
                super().__init__()
                self.head = nn.Linear(3, num_classes)
            def forward(self, images):
                return self.head(images.mean((2, 3)))
        """
    )
    assert build(name + ":Network")(torch.zeros(5, 3, 8, 8)).shape == (5, 4)


@pytest.mark.parametrize(("typed", "meant"), [("seed_cn", "seed_cnn"), ("xresnet_18", "xresnet18")])
def test_an_unknown_name_lists_the_known_and_the_nearest(typed: str, meant: str) -> None:
    message = refusal(typed)
    assert f"network {typed!r}: " in message
    assert f"Did you mean {meant!r}?" in message
    assert "seed_cnn, seed_cnn_bn_relu, xresnet18" in message
    assert "package.module:factory" in message


def test_a_name_near_nothing_gets_no_guess() -> None:
    assert "Did you mean" not in refusal("zzz")


@pytest.mark.parametrize("module", ["no_such_package.networks", ".relative"])
def test_a_module_that_is_not_there(module: str) -> None:
    message = refusal(f"{module}:network")
    assert f"importing {module!r} raised" in message
    assert "beside the study file" in message


@pytest.mark.parametrize("path", [":network", "module:", ":"])
def test_half_an_import_path_is_refused(path: str) -> None:
    assert "expected an import path package.module:name" in refusal(path)


def test_a_module_that_fails_to_import_keeps_its_cause(write_module: WriteModule) -> None:
    name = write_module("raise OSError('weights are on another disk')") + ":network"
    with pytest.raises(StudyError, match="raised OSError: weights are on another disk") as caught:
        build(name)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_missing_attribute_names_the_nearest(write_module: WriteModule) -> None:
    message = refusal(write_module(FLAT) + ":netwrk")
    assert "it has no such name. Check its spelling. Did you mean 'network'?" in message


def test_an_attribute_that_cannot_be_called(write_module: WriteModule) -> None:
    assert "but a int came" in refusal(write_module("network = 3") + ":network")


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ("num_classes", "'image_size'"),
        ("num_classes, image_size, depth", "'depth'"),
        ("classes, size", "argument"),
    ],
)
def test_another_signature(write_module: WriteModule, parameters: str, complaint: str) -> None:
    message = refusal(write_module(f"def network({parameters}): raise AssertionError") + ":network")
    assert "raised TypeError" in message
    assert complaint in message
    assert f"Its signature is ({parameters})" in message
    assert "wrap it" in message


def test_torchvisions_own_factories_want_a_wrapper(write_module: WriteModule) -> None:
    assert "image_size" in refusal("torchvision.models:squeezenet1_1")
    name = write_module(
        """
        from torchvision.models import squeezenet1_1
        def network(num_classes, image_size):
            return squeezenet1_1(num_classes=num_classes)
        """
    )
    assert build(name + ":network", image_size=32)(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


def test_a_factory_that_raises_keeps_its_cause(write_module: WriteModule) -> None:
    source = "def network(num_classes, image_size): raise ValueError(f'{image_size} is not a multiple of 16')"
    message = refusal(write_module(source) + ":network")
    assert "raised ValueError: 8 is not a multiple of 16" in message


def test_a_factory_that_returns_no_module(write_module: WriteModule) -> None:
    assert "returned a dict" in refusal(
        write_module("def network(num_classes, image_size): return {}") + ":network"
    )


def test_images_too_small_for_the_network(write_module: WriteModule) -> None:
    source = """
    def network(num_classes, image_size):
        pools = [nn.MaxPool2d(2) for _ in range(4)]
        return nn.Sequential(*pools, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
    """
    name = write_module(source) + ":network"
    message = refusal(name, image_size=8)
    assert "raised RuntimeError" in message
    assert "raise the study's image size" in message
    assert build(name, image_size=16)(torch.zeros(1, 3, 16, 16)).shape == (1, 4)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("torch.zeros(2, 5)", "the shape was [2, 5]"),
        ("torch.zeros(4)", "the shape was [4]"),
        ("torch.zeros(2, 4, 1, 1)", "the shape was [2, 4, 1, 1]"),
        ("(torch.zeros(2, 4), None)", "returned a tuple"),
        ("torch.full((2, 4), torch.nan)", "not finite"),
        ("torch.tensor([[0.0] * 4, [0.0] * 3 + [-torch.inf]])", "not finite"),
        ("torch.zeros(2, 4, dtype=torch.int64)", "torch.int64"),
    ],
)
def test_an_output_that_is_not_logits(write_module: WriteModule, expression: str, complaint: str) -> None:
    name = write_module(
        f"""
        class Network(nn.Module):
            def forward(self, images):
                return {expression}
        def network(num_classes, image_size):
            return Network()
        """
    )
    message = refusal(name + ":network")
    assert complaint in message
    assert "[2, 3, 8, 8]" in message
    assert "logits [2, 4]" in message
    assert re.search(r"(Return|Give|Check) ", message)


IN_TRAINING = """
class Network(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, num_classes)
    def forward(self, images):
        features = self.norm(self.conv(images))
        logits = self.head(features.mean((2, 3)))
        {}
        return logits
def network(num_classes, image_size):
    return Network(num_classes)
"""


@pytest.mark.parametrize(
    ("line", "complaints"),
    [
        ("if self.training: return logits, features", ["it returned a tuple", "Return one tensor"]),
        ("if self.training: return logits[:1]", ["the shape was [1, 4]"]),
        ("if self.training: logits = logits.log() * float('nan')", ["some were not finite"]),
        ("if self.training: raise KeyError('teacher')", ["forward pass raised KeyError: 'teacher'", "only"]),
        ("logits = logits.detach()", ["backward pass raised RuntimeError", "differentiable"]),
        (
            "logits = logits.sigmoid(); logits.mul_(2)",
            ["backward pass raised RuntimeError", "modified by an inplace operation"],
        ),
    ],
)
def test_what_fails_only_in_training_is_found(
    write_module: WriteModule, line: str, complaints: list[str]
) -> None:
    message = refusal(write_module(IN_TRAINING.format(line)) + ":network")
    assert "to finite logits [2, 4] in training mode too, but" in message
    for complaint in complaints:
        assert complaint in message


@pytest.mark.parametrize("mode", ["self.training", "not self.training"])
def test_a_view_of_channels_last_maps_is_told_apart(write_module: WriteModule, mode: str) -> None:
    line = f"if {mode}: features.view(len(images), -1)"
    message = refusal(write_module(IN_TRAINING.format(line)) + ":network")
    assert "view size is not compatible" in message
    assert message.endswith("write .reshape instead of .view, or .flatten(1).")
    assert "too small" not in message
    reshaped = write_module(IN_TRAINING.format(line.replace(".view", ".reshape")))
    sys.modules.pop(reshaped)
    build(reshaped + ":network")


def test_a_weight_that_only_channels_last_breaks(write_module: WriteModule) -> None:
    line = "self.conv.weight.view(5, -1)"  # of the network itself; the copy alone has channels_last weights
    assert "write .reshape" in refusal(write_module(IN_TRAINING.format(line)) + ":network")


def test_batch_normalisation_of_single_pixels_can_be_tried(write_module: WriteModule) -> None:
    source = """
    def network(num_classes, image_size):
        return nn.Sequential(nn.Conv2d(3, 5, image_size), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 4))
    """
    assert build(write_module(source) + ":network")(torch.zeros(3, 3, 8, 8)).shape == (3, 4)


NOISY = """
class Network(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(3).eval()
        self.free = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, num_classes)
    def forward(self, images):
        features = self.free(self.norm(images)).mean((2, 3))
        return self.head(features + torch.randn_like(features))
def network(num_classes, image_size):
    return Network(num_classes)
"""


def test_the_check_leaves_generator_statistics_and_modes_alone(write_module: WriteModule) -> None:
    torch.manual_seed(7)
    nn.Linear(3, 4)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    model = build(write_module(NOISY) + ":network")
    assert torch.equal(torch.get_rng_state(), state)
    buffers = dict(model.named_buffers())
    assert bool((buffers["free.running_mean"] == 0).all())
    assert buffers["free.num_batches_tracked"].item() == 0
    modes = {key: module.training for key, module in model.named_modules()}
    assert modes == {"": True, "norm": False, "free": True, "head": True}


REACHING = """
import threading
class Network(nn.Module):
    def __init__(self, num_classes, lock):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("seen", torch.zeros(()))
        self.head = nn.Linear(3, num_classes)
        self.conv = nn.Conv2d(3, 3, 2)
        self.normalise = lambda images: self.norm(images)  # a copy of the network calls this one's layer
        if lock:
            self.lock = threading.Lock()  # cannot be copied
    def forward(self, images):
        if self.training:
            self.seen = self.seen + 1
        return self.head(self.conv(self.normalise(images)).mean((2, 3)))
def copied(num_classes, image_size):
    return Network(num_classes, lock=False)
def locked(num_classes, image_size):
    return Network(num_classes, lock=True)
def broken(num_classes, image_size):
    network = Network(num_classes, lock=True)
    network.register_forward_hook(lambda _module, _images, logits: (logits,) if network.training else logits)
    return network
"""


@pytest.mark.parametrize("factory", ["copied", "locked"])
def test_trying_to_train_leaves_no_trace_in_the_network(write_module: WriteModule, factory: str) -> None:
    name = f"{write_module(REACHING)}:{factory}"
    torch.manual_seed(3)
    fresh = load_factory(name)(num_classes=4, image_size=8)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    model = build(name)
    assert torch.equal(torch.get_rng_state(), state)
    for (key, value), expected in zip(model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, expected), key
        assert value.stride() == expected.stride(), key
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    model(torch.zeros(2, 3, 8, 8))
    assert model.state_dict()["seen"].item() == 1


def test_a_network_that_cannot_be_copied_is_tried_in_training_all_the_same(write_module: WriteModule) -> None:
    message = refusal(write_module(REACHING) + ":broken")
    assert "in training mode too, but it returned a tuple" in message


SCRIPTED = """
import warnings
def script(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have us compile
        return torch.jit.script(module)
def layers(num_classes):
    body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    return body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, num_classes)
def whole(num_classes, image_size):
    return script(nn.Sequential(*layers(num_classes)))
def part(num_classes, image_size):
    body, *others = layers(num_classes)
    return nn.Sequential(script(body), *others)
"""


def test_torchscript_is_refused_with_what_to_return_instead(write_module: WriteModule) -> None:
    message = refusal(write_module(SCRIPTED) + ":whole")
    assert "but it is TorchScript (RecursiveScriptModule)" in message
    assert "Return the module that was given to torch.jit.script" in message


def test_a_part_may_be_torchscript(write_module: WriteModule) -> None:
    model = build(write_module(SCRIPTED) + ":part")
    assert model.state_dict()["0.1.num_batches_tracked"].item() == 0
    assert bool((model.state_dict()["0.1.running_mean"] == 0).all())
    assert all(parameter.grad is None for parameter in model.parameters())
    logits = model(torch.zeros(2, 3, 8, 8))
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert [type(module).__name__ for module in model][-1] == "Float32Linear"  # type: ignore[attr-defined]


BRANCHING = """
class Network(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(num_classes, num_classes)  # registered first, runs last
        self.auxiliary = nn.Linear(num_classes, num_classes)  # never runs in evaluation
        self.body = nn.Linear(3, num_classes)
    def forward(self, images):
        return self.head(self.body(images.mean((2, 3)))) * 2
def network(num_classes, image_size):
    return Network(num_classes)
"""


def test_the_last_layer_to_run_computes_in_float32(write_module: WriteModule) -> None:
    torch.manual_seed(0)
    model = build(write_module(BRANCHING) + ":network")
    outputs: dict[str, Tensor] = {}
    for key in ["body", "head"]:
        module = model.get_submodule(key)
        module.register_forward_hook(lambda _m, _i, output, key=key: outputs.update({key: output}))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(2, 3, 8, 8))
    assert outputs["body"].dtype == torch.bfloat16
    head = nn.Linear(4, 4)
    head.load_state_dict(model.get_submodule("head").state_dict())
    assert torch.equal(outputs["head"], head(outputs["body"].float()))
    assert torch.equal(logits, outputs["head"] * 2)
    assert type(model.get_submodule("auxiliary")) is nn.Linear


def test_a_network_without_a_linear_end_has_its_logits_cast(write_module: WriteModule) -> None:
    name = write_module(
        """
        def network(num_classes, image_size):
            return nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        """
    )
    model = build(name + ":network")
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(2, 3, 8, 8))
    assert logits.dtype == torch.float32
    assert torch.equal(logits, logits.bfloat16().float())  # the convolution's rounding stays
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
