"""Networks from outside let in or refused, weights to start from, what is frozen; costs by others' counts."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from recorded_study import BASE
from torch import Tensor, nn

import ablate
from ablate.data import default_cache_dir, prepare
from ablate.errors import StudyError
from ablate.models import MODELS, build_model, count_macs, count_parameters
from ablate.models.torchvision_classifiers import build_torchvision, torchvision_names
from ablate.models.weights import begin, read_weights
from ablate.store.records import read_predictions, read_records
from ablate.store.results import ResultsFolder
from ablate.study.fields import resolve
from ablate.study.trials import weights_digest
from ablate.train.optimizer import build_optimizer, set_rate

Write = Callable[[str], str]
FACTORY = "def network(num_classes, image_size):"
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
        ("my_nets:Net(depth=3)", "without a call, .*; its arguments are fields of their own, as arch.NAME"),
    ],
)
def test_a_name_that_leads_nowhere(name: str, complaint: str) -> None:
    assert re.search(complaint, refusal(name))


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("def netwrk(): pass", "no such name. Check its spelling. Did you mean 'netwrk'?"),
        (f"{FACTORY} return {{}}", "a dict was returned"),
        (f"{FACTORY} raise ValueError('16 divides not')", "16 divides not. Set wh"),
        (f"{FACTORY} raise SystemExit(0)", "raised SystemExit: 0"),
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
        ("logits[:, :3]", "torch.float32 [2, 3], 6 of 6 finite, came. Raise the study"),
        ("(logits, features)", "a tuple came"),
        ("logits - torch.tensor([0, 0, 0, torch.inf])", "torch.float32 [2, 4], 6 of 8 finite, came"),
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


def built(classes: int = 3, arch: str = "seed_cnn", **arguments: Any) -> nn.Module:
    return build_model(arch, num_classes=classes, image_size=32, arguments=arguments)


def test_a_file_gives_all_weights_but_a_head_of_another_shape(tmp_path: Path) -> None:
    source = built(5)
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "w.pt")
    same = begin(built(5), "seed_cnn", str(tmp_path / "w.pt"), "none")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in same.state_dict().items())
    torch.save(source.state_dict(), tmp_path / "w.pt")
    other = begin(built(3), "seed_cnn", str(tmp_path / "w.pt"), "none")
    kept = [torch.equal(v, source.state_dict()[k]) for k, v in other.state_dict().items()]
    assert [not any(kept[-2:]), all(kept[:-2])] == [True, True]


@pytest.mark.parametrize(
    ("weights", "freeze", "message"),
    [
        ("gone.pt", "none", r"expected a file of tensors, .*No such file"),
        ("list.pt", "none", r"not the state of a network, name to tensor"),
        ("vit.pt", "none", r"expected those of 'seed_cnn'; .*Missing key.* \.\.\.$"),
        ("pretrained", "none", r"torchvision publishes for 'seed_cnn': none"),
        ("fresh", "layer9", r"freeze: 'layer9' is no part of the network; its parts are none, body .*, 0, 1"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, weights: str, freeze: str, message: str) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "vit.pt")
    with pytest.raises(StudyError, match=message):
        begin(built(), "seed_cnn", str(tmp_path / weights) if "." in weights else weights, freeze)


def test_published_weights_come_with_their_normalisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch.hub finds them once they were downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source, chosen = torchvision.models.squeezenet1_1(), torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(source.state_dict(), tmp_path / "hub" / "checkpoints" / chosen.url.rpartition("/")[2])
    state, normalisation = read_weights("pretrained", "squeezenet1_1")
    assert normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in state.items())
    with pytest.raises(StudyError, match=r"for 'squeezenet1_1': pretrained, IMAGENET1K_V1, DEFAULT"):
        read_weights("IMAGENET1K_V9", "squeezenet1_1")


def test_frozen_parts_stay_to_the_last_bit_and_the_head_has_its_rate() -> None:
    model = begin(built(arch="resnet18"), "resnet18", "fresh", "conv1+bn1+layer1")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    recipe = resolve(BASE, {"head_lr": 10.0, "momentum": 0.9, "weight_decay": 0.1, "decay_norms": False})
    optimizer = build_optimizer(model, recipe)
    set_rate(optimizer, 0.01)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    ten_times = {name for name, p in model.named_parameters() if rates.get(id(p)) == pytest.approx(0.1)}
    assert ten_times == {"fc.weight", "fc.bias"}
    assert len(rates) == sum(p.requires_grad for p in model.parameters())
    model.train()(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(k.startswith(("conv1", "bn1", "layer1")) for k in changed)
    assert {"layer2.0.bn1.running_mean", "layer4.1.conv2.weight", "fc.bias"} <= changed
    body = begin(built(arch="resnet18"), "resnet18", "fresh", "body")
    assert [n for n, p in body.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    assert not any(m.training for m in body.train().modules() if isinstance(m, nn.BatchNorm2d))


def test_timm_networks_by_name() -> None:
    timm = pytest.importorskip("timm")
    mine = built(arch="timm:resnet10t", drop_rate=0.1)
    plain = timm.create_model("resnet10t", num_classes=3, drop_rate=0.1)
    shapes = [{key: value.shape for key, value in of.state_dict().items()} for of in (mine, plain)]
    assert shapes[0] == shapes[1]
    built(arch="timm:vit_tiny_patch16_224")  # told its size
    with pytest.raises(StudyError, match=r"timm has no such one\. Did you mean 'resnet10t'"):
        built(arch="timm:resnet10tt")


@pytest.mark.slow
def test_a_trained_network_is_kept_loaded_and_started_from(tmp_path: Path) -> None:
    base: dict[str, Any] = {**BASE, "epochs": 1, "precision": "float32", "ema": 0.9, "batch_size": 16}
    study = ablate.Study(question="?", name="first", base=base, seeds=2)
    where: dict[str, Any] = {"results": tmp_path / "results", "report": tmp_path / "report", "timing": False}
    ablate.run(study, keep_weights=True, workers=0, **where)
    folder = ResultsFolder(tmp_path / "results" / "first" / "default")
    (trial_id, record), *_ = sorted(read_records(folder).items())
    saved = folder.weights / f"{trial_id}.safetensors"
    model: Any = ablate.load_network(saved)
    data = prepare(base["data"], image_size=base["image_size"], cache_dir=default_cache_dir())
    pixels = torch.tensor(np.array(data.valid.images)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(model.facts[name]).view(3, 1, 1) for name in ("mean", "std"))
    expected = read_predictions(folder, record).logits
    with torch.inference_mode():
        np.testing.assert_allclose(model((pixels - mean) / std), expected, rtol=1e-3, atol=1e-4)
    moved = tmp_path / "moved.safetensors"
    shutil.copyfile(saved, moved)
    assert weights_digest(str(saved)) == weights_digest(str(moved))  # the path is no part of an identity
    against = {"weights": ("fresh", str(moved)), "freeze": ("none", "body")}
    only = ({"weights": "fresh", "freeze": "none"}, {"weights": str(moved), "freeze": "body"})
    second = ablate.Study(question="?", name="second", base=base, factors=against, only=only, seeds=1)
    trials = ablate.run(second, workers=0, **where).tables["trials"]
    assert (trials["status"] == "complete").all()
    assert trials["parameters"].nunique() == 2
    with pytest.raises(StudyError, match="expected weights that `run --keep-weights` wrote"):
        ablate.load_network(tmp_path / "nowhere.safetensors")
