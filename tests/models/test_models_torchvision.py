"""torchvision's classifiers by name: against torchvision itself, its published costs, and wrong sizes."""

import re
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from ablate.errors import StudyError
from ablate.models import MODELS, build_model, count_macs, count_parameters
from ablate.models.torchvision_classifiers import SMALLEST, build_torchvision, torchvision_names


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


@pytest.mark.parametrize(
    ("name", "image_size"), [("googlenet", 96), ("inception_v3", 96), ("vit_b_32", 96), ("maxvit_t", 224)]
)
def test_transformers_are_built_for_the_image_size_and_no_outputs_are_auxiliary(
    name: str, image_size: int
) -> None:
    with torch.device("meta"):
        model = build_torchvision(name, num_classes=4, image_size=image_size)
        assert model(torch.empty(2, 3, image_size, image_size)).shape == (2, 4)
    assert not [key for key in model.state_dict() if "aux" in key.lower()]


@pytest.mark.parametrize(
    ("name", "image_size", "wanted", "near"),
    [
        ("vit_tiny", 100, "a multiple of 8", "96 or 104"),
        ("vit_tiny", 7, "a multiple of 8", "8"),
        ("vit_b_16", 72, "a multiple of 16", "64 or 80"),
        ("maxvit_t", 128, "a multiple of 224", "224"),
        ("alexnet", 62, "63 or more", "63"),
        ("swin_v2_t", 3, "4 or more", "4"),
    ],
)
def test_a_size_that_cannot_be_is_refused_with_those_that_can(
    name: str, image_size: int, wanted: str, near: str
) -> None:
    message = (
        f"^network '{name}': .* it can take, {wanted}, got {image_size}. Set .* image size to {near}, or"
    )
    with pytest.raises(StudyError, match=message):
        build_model(name, num_classes=4, image_size=image_size)


@pytest.mark.parametrize(("start", "smallest"), SMALLEST.items())
def test_the_smallest_sizes_are_torchvisions(start: str, smallest: int) -> None:
    name = next(name for name in torchvision_names() if name.startswith(start))
    with torch.device("meta"):
        model = build_torchvision(name, num_classes=4, image_size=smallest).eval()
        assert model(torch.empty(2, 3, smallest, smallest)).shape == (2, 4)
        with pytest.raises((RuntimeError, ValueError, IndexError)):
            model(torch.empty(2, 3, smallest - 1, smallest - 1))


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


def test_a_torchvision_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # what Python does for a module that is not there
    with pytest.raises(StudyError, match=f"Expected to import torchvision.*{re.escape(torch.__version__)}"):
        build_model("resnet18", num_classes=4, image_size=64)
    assert isinstance(build_model("seed_cnn", num_classes=4, image_size=8), nn.Module)


@pytest.mark.slow
def test_ablates_own_networks_do_not_import_torchvision() -> None:
    code = """if True:
        import sys
        import ablate.models
        ablate.models.build_model("seed_cnn", num_classes=4, image_size=8)
        sys.exit("torchvision" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
