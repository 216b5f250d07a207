"""Weights to start from, parts that stay as they are, and the final weights as a file."""

import functools
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate.errors import StudyError, nearest
from ablate.models import build_model
from ablate.models.contract import Float32Linear
from ablate.models.torchvision_classifiers import build_timm, published_weights
from ablate.plugins import WEIGHT_FILES, explained

NESTED = ("state_dict", "model", "net")
"""Where training scripts keep a network's state in a checkpoint."""
FRESH, NOTHING, BODY = "fresh", "none", "body"
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and std of pixels in 0 to 1."""


@functools.lru_cache(maxsize=2)
def read_weights(weights: str, arch: str) -> tuple[Mapping[str, Tensor], Normalisation | None]:
    """The state to start from, on the CPU, and the normalisation it was trained with, where that is known.

    A file, of tensors alone, or the name of weights that torchvision or timm publish for `arch`.
    """
    if weights.endswith(WEIGHT_FILES):
        return _read_file(Path(weights).expanduser()), None
    if arch.startswith("timm:"):
        model: Any = build_timm(arch.removeprefix("timm:"), pretrained=True)
        return model.state_dict(), (model.default_cfg["mean"], model.default_cfg["std"])
    found = published_weights(arch, weights)
    chosen = found.transforms()
    return found.get_state_dict(progress=False, check_hash=True), (tuple(chosen.mean), tuple(chosen.std))


def _read_file(path: Path) -> Mapping[str, Tensor]:
    wanted = "a file of tensors, as torch.save(model.state_dict(), ...) or safetensors write"
    with explained("weights", str(path), wanted):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        for name in NESTED:
            state = state[name] if isinstance(state, dict) and isinstance(state.get(name), dict) else state
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("what is in it is not the state of a network, name to tensor")
    return {name.removeprefix("module."): value for name, value in state.items()}


def begin(model: nn.Module, arch: str, weights: str, freeze: str) -> nn.Module:
    """The network with its first weights, where a head of another shape stays fresh, and its parts frozen."""
    head = head_of(model)
    if weights != FRESH:
        state, own = read_weights(weights, arch)[0], model.state_dict()
        begun = {name: state[name] for name in own if name in state}
        for name, value in own.items():
            if name.startswith(f"{head}.") and getattr(begun.get(name), "shape", None) != value.shape:
                begun[name] = value
        try:
            model.load_state_dict(begun)
        except RuntimeError as error:
            raise StudyError(
                f"weights {weights!r}: expected those of {arch!r}; give the file of this network, or its "
                f"arguments as they were (arch.NAME): {textwrap.shorten(str(error), 300, placeholder=' ...')}"
            ) from None
    for name in freeze.split("+") if freeze != NOTHING else ():
        _freeze(model, name, head)
    return model


def _freeze(model: nn.Module, name: str, head: str | None) -> None:
    """Parameters of a part without gradients, and its buffers as they are: it always evaluates."""
    parts = dict(model.named_modules())
    if name == BODY and head is not None:
        frozen = [module for part, module in parts.items() if part and not f"{head}.".startswith(f"{part}.")]
        loose = [value for part, value in model.named_parameters() if not part.startswith(f"{head}.")]
    elif name != BODY and name in parts and name:
        frozen, loose = [parts[name]], list(parts[name].parameters())
    else:
        raise StudyError(
            f"freeze: {name!r} is no part of the network; its parts are {NOTHING}, {BODY} (all but the last "
            f"linear layer), {', '.join(part for part, _ in model.named_children())}.{nearest(name, parts)}"
        )
    for value in loose:
        value.requires_grad_(False)
    for module in frozen:
        module.eval()
        module.train = _stays.__get__(module)


def _stays(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def head_of(model: nn.Module) -> str | None:
    """The name of the last linear layer, as building it has marked it."""
    return next((name for name, module in model.named_modules() if type(module) is Float32Linear), None)


def save_network(path: Path, model: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write a trained network as safetensors, whole or not at all; `facts` are what `load_network` needs."""
    from safetensors.torch import save_model

    temporary = path.with_suffix(".tmp")
    save_model(model, str(temporary), {"ablate": json.dumps(facts)})
    temporary.replace(path)


def load_network(path: str | Path) -> nn.Module:
    """The trained network of a file that `run --keep-weights` wrote, in evaluation mode.

    It maps normalised images [N, 3, S, S] to logits [N, K]; its `facts` are the fields, class names, and the
    mean and std that normalise pixels in 0 to 1. What cannot be read is a StudyError.
    """
    from safetensors import safe_open
    from safetensors.torch import load_model

    with explained("network", str(path), "weights that `run --keep-weights` wrote"):
        with safe_open(str(path), "pt") as file:
            facts = json.loads(file.metadata()["ablate"])
        fields, classes = facts["fields"], len(facts["classes"])
        given = {name[5:]: value for name, value in fields.items() if name.startswith("arch.")}
        arch, size = fields["arch"], fields["image_size"]
        with torch.random.fork_rng(devices=[]):
            model = build_model(arch, num_classes=classes, image_size=size, arguments=given)
        load_model(model, path)
    model.facts = facts
    return model.eval()
