"""Networks from outside, by import path or torchvision's name, let in or refused; costs by others' counts."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import torch
import torchvision
from torch import Tensor, nn

from ablate.errors import StudyError
from ablate.models import MODELS, build_model, count_macs, count_parameters
from ablate.models.torchvision_classifiers import build_torchvision, torchvision_names

Write = Callable[[str], str]
HEADER = "import threading\nimport warnings\nimport torch\nfrom torch import nn\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes source text to a module on the import path; gives the path of its `network`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source: str) -> str:
        (tmp_path / "foreign_networks.py").write_text(HEADER + dedent(source))
        sys.modules.pop("foreign_networks", None)
        return "foreign_networks:network"

    return write


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
    ("name", "complaint"),
    [
        ("seed_cn", "^network 'seed_cn': .*seed_cnn, seed_cnn_bn_relu.*module:factory.*'seed_cnn'[?]"),
        ("no_such_package.networks:network", "module 'no_such_package.networks' .*beside the study"),
        (":network", "expected an import path package.module:name"),
        ("my_nets:Net(depth=3)", "write 'my_nets:Net', and its arguments as .*, as arch.depth"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, complaint: str) -> None:
    assert re.search(complaint, refusal(name))


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("raise OSError('weights are on another disk')", "raised OSError: weights are on another disk"),
        ("def netwrk(): pass", "no such name. Check its spelling. Did you mean 'netwrk'?"),
        ("def network(num_classes, image_size): return {}", "returned a dict"),
        (
            "def network(num_classes, image_size): raise ValueError('16 divides not')",
            "16 divides not. Set wh",
        ),
        ("def network(num_classes, image_size): raise SystemExit(0)", "raised SystemExit: 0"),
    ],
)
def test_a_factory_that_cannot_be_used(write: Write, source: str, complaint: str) -> None:
    assert complaint in refusal(write(source))


def test_images_too_small_for_the_network(write: Write) -> None:
    name = write(network())
    assert "Raise the study's image size where 2 pixels" in refusal(name, 2)
    build(name, 3)  # maps of one pixel, which BatchNorm takes of two images and not of one


@pytest.mark.parametrize("training_only", [False, True])
@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ("logits[:, :3]", "torch.float32 [2, 3], 6 of 6 finite, came. Return one floating tensor"),
        ("(logits, features)", "a tuple came"),
        ("logits - torch.tensor([0, 0, 0, torch.inf])", "torch.float32 [2, 4], 6 of 8 finite, came"),
        ("logits.long()", "torch.int64"),
        ("{}['teacher']", "this raised KeyError: 'teacher'"),
    ],
)
def test_an_output_without_logits(write: Write, returned: str, complaint: str, training_only: bool) -> None:
    message = refusal(write(network(line=f"if self.training or {not training_only}: return {returned}")))
    assert "images [2, 3, 8, 8] to be mapped to finite logits [2, 4]" in message
    assert (" in training mode too, but" in message) == training_only
    assert complaint in message


@pytest.mark.parametrize("line", ["logits = logits.detach()", "logits = logits.sigmoid().mul_(2)"])
def test_a_backward_pass_that_fails_is_found(write: Write, line: str) -> None:
    message = refusal(write(network(line=line)))
    assert "expected a backward pass through its logits, but this raised RuntimeError" in message
    assert "write into no tensor that the gradient needs" in message


@pytest.mark.parametrize(
    "line", ["self.training and features.view(len(images), -1)", "self.conv.weight.view(5, -1)"]
)
def test_a_view_of_channels_last_maps_is_told_apart(write: Write, line: str) -> None:
    message = refusal(write(network(line=line)))
    assert "view size is not compatible" in message
    assert "write .reshape for .view (tensors are channels_last here)" in message
    build(write(network(line=line.replace(".view", ".reshape"))))


@pytest.mark.parametrize(
    ("attribute", "complaint"),
    [
        ("self.lock = threading.Lock()", "copy.deepcopy makes a copy, .*raised TypeError: cannot pickle"),
        ("warnings.simplefilter('ignore'); nn.utils.weight_norm(self.conv)", "nn.utils.parametrizations"),
        ("self.features = lambda images: self.norm(self.conv(images))", "a nested function"),
        ("self.head = nn.LazyLinear(num_classes)", "wait for a first batch"),
        ("warnings.simplefilter('ignore'); self.norm = torch.jit.script(self.norm)", "of TorchScript ret"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_a_network_of_which_no_copy_can_be_tried(write: Write, attribute: str, complaint: str) -> None:
    with pytest.raises(StudyError, match=f"(?s)^network 'foreign_networks:network': .*{complaint}"):
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
    attribute = (
        "self.last = nn.Linear(4, 4); self.last.register_forward_hook(lambda _m, _i, logits: logits + 1); "
        "self.auxiliary = nn.Linear(4, 4); self.auxiliary.weight = self.last.weight"
    )
    line = "logits = self.auxiliary(logits) if self.training else self.last(logits) * 2"
    model = build(write(network(attribute=attribute, line=line))).eval()
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


def test_counts_by_hand_change_nothing() -> None:
    conv, linear = nn.Conv2d(3, 5, 3, padding=1, stride=2), nn.Linear(5 * 4 * 4, 7)
    model = nn.Sequential(conv, nn.BatchNorm2d(5).eval(), nn.ReLU(), nn.Flatten(), linear)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    assert count_parameters(model) == (3 * 5 * 9 + 5) + 2 * 5 + (80 * 7 + 7)
    assert count_macs(model, 8) == 3 * 5 * 9 * 4 * 4 + 80 * 7
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled() is fast is True
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True]
    # Frozen weights are not counted, and tied ones once.
    first, tied, frozen = (nn.Linear(4, 4) for _ in range(3))
    tied.weight = first.weight
    frozen.weight.requires_grad_(False)
    assert count_parameters(nn.Sequential(first, tied, frozen)) == 16 + 3 * 4


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "efficientnet_b0"])
def test_a_name_builds_torchvisions_network_with_fresh_weights_and_float32_logits(name: str) -> None:
    torch.manual_seed(3)
    ours = build_model(name, num_classes=4, image_size=64)
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=4)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))
        with torch.autocast("cpu", torch.bfloat16):
            logits = ours(images)
    assert logits.dtype == torch.float32
    rounded = torch.equal(logits, logits.bfloat16().float())
    assert rounded == (name == "squeezenet1_1")  # which ends in a convolution


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "vit_b_32", "maxvit_t"])
def test_transformers_fit_the_image_size_and_no_outputs_are_auxiliary(name: str) -> None:
    image_size = 224 if name == "maxvit_t" else 96
    with torch.device("meta"):
        model = build_torchvision(name, num_classes=4, image_size=image_size)
        assert model(torch.empty(2, 3, image_size, image_size)).shape == (2, 4)
    assert not [key for key in model.state_dict() if "aux" in key.lower()]


@pytest.mark.parametrize(
    ("name", "image_size", "said"),
    [
        ("vit_tiny", 100, "a multiple of 8 as image size, but 100 came; set the study's image size to 96"),
        ("vit_b_16", 72, "patch size.* change the study's image size"),
        ("maxvit_t", 128, "not divisible by partition size 7.* change the study's image size"),
        ("alexnet", 62, "too small. Raise the study's image size where 62 pixels are too few"),
    ],
)
def test_a_size_that_cannot_be_is_refused(name: str, image_size: int, said: str) -> None:
    with pytest.raises(StudyError, match=f"^network '{name}': .*{said}"):
        build_model(name, num_classes=4, image_size=image_size)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_32", "swin_t"])
def test_costs_are_those_that_torchvision_publishes(name: str) -> None:
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    with torch.device("meta"):  # shapes alone tell the cost
        model = build_torchvision(name, num_classes=1000, image_size=224)
    assert count_parameters(model) == meta["num_params"]
    assert count_macs(model, 224) / 1e9 == pytest.approx(meta["_ops"], abs=0.0006)


def test_no_name_of_torchvision_hides_one_of_ablates_and_a_typing_error_finds_both() -> None:
    assert not set(MODELS) & set(torchvision_names())
    for typed, meant in (("resnet_18", "resnet18"), ("vit_tyny", "vit_tiny")):
        with pytest.raises(StudyError, match=f"(?s)^.{{,350}}Did you mean '{meant}'"):  # names are not listed
            build_model(typed, num_classes=4, image_size=64)


def test_only_torchvisions_networks_need_a_torchvision_that_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # what Python does for a module that is not there
    with pytest.raises(StudyError, match=f"library 'torchvision': .*{re.escape(torch.__version__)}"):
        build_model("resnet18", num_classes=4, image_size=64)
    assert isinstance(build_model("seed_cnn", num_classes=4, image_size=8), nn.Module)
