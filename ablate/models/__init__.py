"""The networks a study can name, and the one door through which a network is built.

To add a network: write a factory in a file of its own and name it in `MODELS` (docs/add_a_model.md).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ablate.errors import StudyError, nearest
from ablate.models.contract import count_macs, count_parameters, keep_logits_float32, try_network
from ablate.models.seed_cnn import seed_cnn, seed_cnn_bn_relu
from ablate.models.torchvision_classifiers import build_timm, build_torchvision, torchvision_names, vit_tiny
from ablate.models.xresnet import xresnet18, xresnet34, xresnet50, xse_resnext50
from ablate.plugins import bind, explained, is_foreign, load_foreign

__all__ = ["MODELS", "Factory", "bind_network", "build_model", "count_macs", "count_parameters"]

Factory = Callable[..., nn.Module]
"""Called as `factory(num_classes=K, image_size=S)`; gives a network from [N, 3, S, S] to logits [N, K]."""

MODELS: dict[str, Factory] = {
    "seed_cnn": seed_cnn,
    "seed_cnn_bn_relu": seed_cnn_bn_relu,
    "xresnet18": xresnet18,
    "xresnet34": xresnet34,
    "xresnet50": xresnet50,
    "xse_resnext50": xse_resnext50,
    "vit_tiny": vit_tiny,
}


def build_model(
    name: str, *, num_classes: int, image_size: int, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """Builds a network with fresh weights and float32 logits, and checks that it keeps to the contract.

    `arguments` are the study's for the factory, which gets the other two where it takes them. The weights
    come from torch's global generator, which the caller seeds. What fails is a StudyError.
    """
    factory = bind_network(name, arguments or {}, num_classes, image_size)
    given = ", ".join(f"{argument}={value!r}" for argument, value in factory.keywords.items())
    remedy = "Set what else it needs as arch.NAME; if it refuses this size, change the study's image size."
    with explained("network", name, f"its factory to build a torch.nn.Module with {given}", remedy):
        model = factory()
        if not isinstance(model, nn.Module):
            raise TypeError(f"a {type(model).__name__} was returned; return the network itself")
    keep_logits_float32(model, try_network(name, model, num_classes=num_classes, image_size=image_size))
    return model


def bind_network(
    name: str, arguments: Mapping[str, Any], num_classes: int = 0, image_size: int = 0
) -> functools.partial[nn.Module]:
    """A network's factory, its arguments in place; an unknown name, or one not taken, is a StudyError."""
    factory: Factory
    if name in MODELS:
        factory = MODELS[name]
    elif name.startswith("timm:"):
        factory = functools.partial(build_timm, name.removeprefix("timm:"))
    elif is_foreign(name):
        factory = load_foreign("network", name)
    elif name in (names := torchvision_names()):
        factory = functools.partial(build_torchvision, name)
    else:
        raise StudyError(
            f"network {name!r}: expected one that ablate knows ({', '.join(MODELS)}), a classifier of "
            "torchvision.models (resnet18, convnext_tiny, vit_b_16, ...), one of timm's as timm:resnet50, "
            f"or an import path package.module:factory.{nearest(name, [*MODELS, *names])}"
        )
    ours = {"num_classes": num_classes, "image_size": image_size}
    return functools.partial(factory, **bind("network", name, factory, arguments, ours))
