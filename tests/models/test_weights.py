"""Weights to start from, what is frozen, the head's own rate, and the trained network as a file."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from recorded_study import BASE
from torch import nn

import ablate
from ablate.data import default_cache_dir, prepare
from ablate.errors import StudyError
from ablate.models import build_model
from ablate.models.weights import begin
from ablate.store.records import read_predictions, read_records
from ablate.store.results import ResultsFolder
from ablate.study.fields import resolve
from ablate.study.trials import weights_digest
from ablate.train.optimizer import build_optimizer, set_rate


def network(classes: int = 3, arch: str = "seed_cnn", **arguments: Any) -> nn.Module:
    return build_model(arch, num_classes=classes, image_size=32, arguments=arguments)


def test_a_file_gives_all_weights_but_a_head_of_another_shape(tmp_path: Path) -> None:
    source = network(5)
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "w.pt")
    same = begin(network(5), "seed_cnn", str(tmp_path / "w.pt"), "none")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in same.state_dict().items())
    torch.save(source.state_dict(), tmp_path / "w.pt")
    other = begin(network(3), "seed_cnn", str(tmp_path / "w.pt"), "none")
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
        begin(network(), "seed_cnn", str(tmp_path / weights) if "." in weights else weights, freeze)


def test_published_weights_come_with_their_normalisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch.hub finds them once they were downloaded."""
    from ablate.models.weights import read_weights

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
    model = begin(network(arch="resnet18"), "resnet18", "fresh", "conv1+bn1+layer1")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    recipe = resolve(BASE, {"head_lr": 10.0, "momentum": 0.9, "weight_decay": 0.1, "decay_norms": False})
    optimizer = build_optimizer(model, recipe)
    set_rate(optimizer, 0.01)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {n for n, p in model.named_parameters() if rates.get(id(p)) == pytest.approx(0.1)} == {
        "fc.weight", "fc.bias",
    }  # fmt: skip
    assert len(rates) == sum(p.requires_grad for p in model.parameters())
    model.train()(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(k.startswith(("conv1", "bn1", "layer1")) for k in changed)
    assert {"layer2.0.bn1.running_mean", "layer4.1.conv2.weight", "fc.bias"} <= changed
    body = begin(network(arch="resnet18"), "resnet18", "fresh", "body")
    assert [n for n, p in body.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    assert not any(m.training for m in body.train().modules() if isinstance(m, nn.BatchNorm2d))


def test_timm_networks_by_name() -> None:
    timm = pytest.importorskip("timm")
    mine = network(arch="timm:resnet10t", drop_rate=0.1)
    plain = timm.create_model("resnet10t", num_classes=3, drop_rate=0.1)
    assert {k: v.shape for k, v in mine.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    network(arch="timm:vit_tiny_patch16_224")  # told its size
    with pytest.raises(StudyError, match=r"timm has none of that name\. Did you mean 'resnet10t'"):
        network(arch="timm:resnet10tt")


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
