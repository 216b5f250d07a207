"""Networks named by import path: what the door lets in, what it refuses, and with which words."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import Tensor, nn

from ablate.errors import StudyError
from ablate.models import build_model

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes source text to a module on the import path; gives the path of its `network`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    header = "import threading\nimport warnings\nimport torch\nfrom torch import nn\n"

    def write(source: str) -> str:
        (tmp_path / "foreign_networks.py").write_text(header + dedent(source))
        sys.modules.pop("foreign_networks", None)
        return "foreign_networks:network"

    yield write
    sys.modules.pop("foreign_networks", None)


def build(name: str, image_size: int = 8) -> nn.Module:
    return build_model(name, num_classes=4, image_size=image_size)


def refusal(name: str, image_size: int = 8) -> str:
    with pytest.raises(StudyError) as caught:
        build(name, image_size)
    return str(caught.value)


# A convolution, a norm and a linear layer; a line goes into the constructor and one before the return.
NETWORK = """
class Network(nn.Module):
    def __init__(self, num_classes, image_size):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, num_classes)
        {}
    def features(self, images):
        return self.norm(self.conv(images))
    def forward(self, images):
        features = self.features(images)
        logits = self.head(features.mean((2, 3)))
        {}
        return logits
network = Network
"""


def network(*, line: str = "", attribute: str = "") -> str:
    return NETWORK.format(attribute, line)


@pytest.mark.parametrize(
    ("name", "complaints"),
    [
        ("seed_cn", ["network 'seed_cn': ", "'seed_cnn'?", "seed_cnn, seed_cnn_bn_relu", "module:factory"]),
        ("no_such_package.networks:network", ["importing 'no_such_package.networks'", "beside the study"]),
        (".relative:network", ["importing '.relative' raised"]),
        (":network", ["expected an import path package.module:name"]),
        ("module:", ["expected an import path package.module:name"]),
        ("torchvision.models:squeezenet1_1", ["raised TypeError", "'image_size'", "wrap it"]),
    ],
)
def test_a_name_that_leads_nowhere(name: str, complaints: list[str]) -> None:
    message = refusal(name)
    assert not [complaint for complaint in complaints if complaint not in message]
    assert "Did you mean" not in refusal("zzz")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("raise OSError('weights are on another disk')", "raised OSError: weights are on another disk"),
        ("def netwrk(): pass", "no such name. Check its spelling. Did you mean 'netwrk'?"),
        ("network = 3", "but a int came"),
        ("def network(num_classes, image_size): return {}", "returned a dict"),
        ("def network(num_classes): pass", "raised TypeError: network() got an unexpected keyword"),
        ("def network(num_classes, image_size, depth): pass", "'depth'"),
        ("def network(num_classes, image_size): raise ValueError('16 divides not')", "16 divides not. If it"),
    ],
)
def test_a_factory_that_cannot_be_used(write: Write, source: str, complaint: str) -> None:
    assert complaint in refusal(write(source))


def test_images_too_small_for_the_network(write: Write) -> None:
    name = write(network())
    message = refusal(name, 2)
    assert "raised RuntimeError" in message
    assert "raise the study's image size" in message
    build(name, 3)  # maps of one pixel, which BatchNorm takes of two images and not of one


@pytest.mark.parametrize("training_only", [False, True])
@pytest.mark.parametrize(
    ("returned", "complaints"),
    [
        ("logits[:, :3]", ["the shape was [2, 3]", "Give its last layer num_classes outputs"]),
        ("logits[0]", ["the shape was [4]"]),
        ("logits[:1]", ["the shape was [1, 4]", "one row per image"]),
        ("logits[..., None, None]", ["the shape was [2, 4, 1, 1]"]),
        ("(logits, features)", ["it returned a tuple", "Return one tensor"]),
        ("logits * float('nan')", ["some were not finite", "Check its initialisation"]),
        ("logits - torch.tensor([0, 0, 0, torch.inf])", ["some were not finite"]),
        ("logits.long()", ["torch.int64"]),
        ("{}['teacher']", ["forward pass raised KeyError: 'teacher'"]),
    ],
)
def test_an_output_that_is_not_logits(
    write: Write, returned: str, complaints: list[str], training_only: bool
) -> None:
    message = refusal(write(network(line=f"if self.training or {not training_only}: return {returned}")))
    assert "to map images [2, 3, 8, 8] to finite logits [2, 4]" in message
    assert (" in training mode too, but" in message) == training_only
    assert not [complaint for complaint in complaints if complaint not in message]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("logits = logits.detach()", "differentiable"), ("logits = logits.sigmoid().mul_(2)", "inplace")],
)
def test_a_backward_pass_that_fails_is_found(write: Write, line: str, complaint: str) -> None:
    message = refusal(write(network(line=line)))
    assert "backward pass raised RuntimeError" in message
    assert complaint in message


@pytest.mark.parametrize(
    "line", ["self.training and features.view(len(images), -1)", "self.conv.weight.view(5, -1)"]
)
def test_a_view_of_channels_last_maps_is_told_apart(write: Write, line: str) -> None:
    message = refusal(write(network(line=line)))
    assert "view size is not compatible" in message
    assert message.endswith("write .reshape instead of .view, or .flatten(1).")
    assert "too small" not in message
    build(write(network(line=line.replace(".view", ".reshape"))))


@pytest.mark.parametrize(
    ("attribute", "complaint"),
    [
        ("self.lock = threading.Lock()", "copy.deepcopy can copy, .*raised TypeError: cannot pickle"),
        ("warnings.simplefilter('ignore'); nn.utils.weight_norm(self.conv)", "nn.utils.parametrizations"),
        ("self.features = lambda images: self.norm(self.conv(images))", "make that a method"),
        ("self.head = nn.LazyLinear(num_classes)", "wait for a first batch"),
        ("warnings.simplefilter('ignore'); self.norm = torch.jit.script(self.norm)", "holds TorchScript"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_a_network_of_which_no_copy_can_be_tried(write: Write, attribute: str, complaint: str) -> None:
    with pytest.raises(StudyError, match=f"(?s)^Expected .*network 'foreign_networks:network' .*{complaint}"):
        build(write(network(attribute=attribute)))


def test_the_check_leaves_no_trace(write: Write) -> None:
    noisy = network(
        attribute="self.norm.eval(); self.raw = nn.BatchNorm2d(3); self.register_buffer('n', torch.ones(1))",
        line="self.raw(images); self.n = self.n + 1; logits = logits + torch.randn_like(logits)",
    )
    name = write(noisy)
    build(name)  # imports the module
    torch.manual_seed(7)
    fresh = sys.modules["foreign_networks"].network(num_classes=4, image_size=8)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    model = build(name)
    assert torch.equal(torch.get_rng_state(), state)
    for (key, value), expected in zip(model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, expected), key
        assert value.stride() == expected.stride(), key
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {key for key, module in model.named_modules() if not module.training} == {"norm"}


def test_the_last_layer_to_run_computes_in_float32_and_stays_the_same_object(write: Write) -> None:
    attributes = [
        "self.last = nn.Linear(4, 4)",
        "self.last.register_forward_hook(lambda _module, _inputs, logits: logits + 1)",
        "self.auxiliary = nn.Linear(4, 4)",
        "self.auxiliary.weight = self.last.weight",
    ]
    line = "logits = self.auxiliary(logits) if self.training else self.last(logits) * 2"
    model = build(write(network(attribute="; ".join(attributes), line=line))).eval()
    features: list[Tensor] = []
    model.get_submodule("head").register_forward_hook(lambda _m, _i, output: features.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(2, 3, 8, 8))
    last = nn.Linear(4, 4)
    last.load_state_dict(model.get_submodule("last").state_dict())
    assert features[0].dtype == torch.bfloat16
    assert torch.equal(logits, (last(features[0].float()) + 1) * 2)
    assert type(model.get_submodule("auxiliary")) is nn.Linear
    assert model.get_parameter("auxiliary.weight") is model.get_parameter("last.weight")
