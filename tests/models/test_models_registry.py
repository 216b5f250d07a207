"""Every network of the registry keeps the same promises."""

import copy
import functools
import pickle
import re
from pathlib import Path

import pytest
import torch
from test_models_families import fresh
from torch import nn
from torch.nn import functional

import ablate.models
from ablate.models import MODELS, build_model, count_macs, count_parameters
from ablate.models.contract import Float32Linear

GUIDE = Path(ablate.models.__file__).parents[2] / "docs" / "add_a_model.md"


@pytest.fixture(params=sorted(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@functools.cache
def built_once(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, num_classes=4, image_size=16)


def build(name: str) -> nn.Module:
    """A network that nobody else changes; copying one is quicker than building one."""
    return copy.deepcopy(built_once(name))


def shaken(model: nn.Module) -> nn.Module:
    """Moves every parameter a little: what starts at zero would hide what lies behind it."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


@pytest.mark.parametrize("image_size", [1, 17, 33])
def test_images_of_any_size_become_finite_logits(name: str, image_size: int) -> None:
    if name == "vit_tiny":
        image_size = 8 * image_size
    logits = fresh(name, 3, image_size).eval()(torch.randn(2, 3, image_size, image_size))
    assert logits.shape == (2, 3)
    assert bool(torch.isfinite(logits).all())


def test_building_repeats_a_seeds_weights_and_leaves_nothing_behind_that_training_sees(name: str) -> None:
    other, plain = (fresh(name, 4, 16, seed).state_dict() for seed in (2, 3))
    state = torch.get_rng_state()
    torch.manual_seed(3)
    built = build_model(name, num_classes=4, image_size=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(built.state_dict()) == list(plain)
    assert all(torch.equal(value, plain[key]) for key, value in built.state_dict().items())
    assert all(module.training for module in built.modules())
    assert all(parameter.grad is None for parameter in built.parameters())
    drawn = [key for key, value in plain.items() if value.ndim > 1 and value.any()]
    assert drawn
    assert not any(torch.equal(plain[key], other[key]) for key in drawn)


@pytest.mark.parametrize("halved", [False, True], ids=["float32", "bfloat16"])
def test_a_training_step_on_two_images_reaches_every_parameter(name: str, halved: bool) -> None:
    model = shaken(build(name))
    before = {key: value.clone() for key, value in model.named_parameters()}
    # Large enough that every tap of every kernel meets a pixel.
    with torch.autocast("cpu", torch.bfloat16, enabled=halved):
        logits = model(torch.randn(2, 3, 16, 16))
    assert logits.dtype == torch.float32
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert isinstance(layers[-1], Float32Linear)
    torch.autograd.backward(functional.cross_entropy(logits, torch.arange(2)))
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for key, value in model.named_parameters():
        assert value.grad is not None, key
        assert value.grad.dtype == torch.float32, key
        assert not torch.equal(value, before[key]), key


def test_copies_pickles_and_state_dicts_carry_a_trained_network(name: str) -> None:
    model, other = shaken(build(name)), build(name).eval()
    model(torch.randn(4, 3, 16, 16)).sum().backward()  # moves running statistics too
    model.eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(images)
        assert torch.equal(copy.deepcopy(model)(images), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(images), expected)
    with torch.no_grad():
        expected = model(images)
        assert not torch.equal(other(images), expected)
        other.load_state_dict(copy.deepcopy(model.state_dict()))
        assert torch.equal(other(images), expected)


def test_channels_last_computes_the_same(name: str) -> None:
    plain = shaken(fresh(name, 4, 16)).double()  # as built, a last layer in float32 would blur it
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    for training in (True, False):
        with torch.no_grad():
            expected = plain.train(training)(images)
            logits = last.train(training)(images.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(logits, expected, rtol=1e-8, atol=1e-10)


def test_the_guides_table_holds_every_network_and_its_cost() -> None:
    row = re.compile(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \|", re.MULTILINE)
    costs = []
    for name in MODELS:
        with torch.device("meta"):  # shapes alone tell the cost
            model = fresh(name, image_size=128)
        costs.append((name, f"{count_parameters(model):,}", f"{round(count_macs(model, 128) / 1e6):,}"))
    assert row.findall(GUIDE.read_text(encoding="utf-8")) == costs
