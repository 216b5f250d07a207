"""Classifiers of torchvision and timm by name, and a small vision transformer of torchvision's parts.

Dropout and stochastic depth are as torchvision sets them, family by family. torchvision is imported only when
one of these networks is asked for, or a name is unknown: that takes a second or two.
"""

from typing import Any

import torch
from torch import nn

from ablate.errors import StudyError, nearest
from ablate.plugins import explained

GRID = 8  # patches of `vit_tiny` in a row and in a column


def vit_tiny(*, num_classes: int, image_size: int) -> nn.Module:
    """Builds a small vision transformer whose cost hardly depends on the image size, a multiple of 8.

    As DeiT-Ti, but on a grid of 8×8 patches whatever the image size: 64 tokens and the class token; without
    dropout. The last layer starts at zero, and with it the logits. Another size is a `StudyError`.

    Source: https://arxiv.org/abs/2010.11929; DeiT-Ti is in table 1 of https://arxiv.org/abs/2012.12877
    """
    if image_size % GRID:
        raise StudyError(
            f"network 'vit_tiny': expected a multiple of {GRID} as image size, but {image_size} came; set "
            f"the study's image size to {max(image_size // GRID, 1) * GRID}, or choose another network"
        )
    size = {"num_layers": 12, "num_heads": 3, "hidden_dim": 192, "mlp_dim": 768, "num_classes": num_classes}
    model: nn.Module = _import_models().VisionTransformer(image_size, image_size // GRID, **size)
    return model


def torchvision_names() -> list[str]:
    """Lists the names of the classifiers, sorted."""
    return list((models := _import_models()).list_models(module=models))


def build_torchvision(name: str, *, num_classes: int, image_size: int, **arguments: Any) -> nn.Module:
    """Builds one of `torchvision_names()`, transformers for this image size; none has auxiliary outputs.

    `arguments` are torchvision's own. A size that it cannot take fails here or in the first forward pass.
    """
    if name.startswith("vit_"):
        arguments["image_size"] = image_size
    elif name.startswith("maxvit_"):
        arguments["input_size"] = (image_size, image_size)
    elif name in {"googlenet", "inception_v3"}:
        # init_weights=True is the default, but one that warns unless it is spelled out.
        arguments |= {"aux_logits": False, "init_weights": True}
    model: nn.Module = _import_models().get_model(name, weights=None, num_classes=num_classes, **arguments)
    return model


def build_timm(
    name: str, *, num_classes: int | None = None, image_size: int | None = None, **arguments: Any
) -> nn.Module:
    """Builds a network of timm, those of a fixed size for this one."""
    try:
        import timm
    except ImportError:
        raise StudyError(f"network 'timm:{name}': needs timm; run `pip install 'ablate[timm]'`") from None
    if name not in timm.list_models():
        raise StudyError(f"network 'timm:{name}': timm has no such one.{nearest(name, timm.list_models())}")
    own: dict[str, Any] = {"num_classes": num_classes} if num_classes is not None else {}
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if image_size is not None and config is not None and config.fixed_input_size:
        own["img_size"] = image_size
    model: nn.Module = timm.create_model(name, **own, **arguments)
    return model


def published_weights(arch: str, name: str) -> Any:
    """The weights of this name that torchvision publishes for a network; "pretrained" is its default."""
    models = _import_models()
    known = models.get_model_weights(arch).__members__ if arch in torchvision_names() else {}
    chosen = "DEFAULT" if name == "pretrained" else name
    if chosen not in known:
        published = ", ".join(["pretrained", *known] if known else ["none"])
        raise StudyError(
            f"weights {name!r}: expected a file (.pt, .pth or .safetensors), or of the weights that "
            f"torchvision publishes for {arch!r}: {published}"
        )
    return known[chosen]


def _import_models() -> Any:  # torchvision is not typed; one built for another torch raises anything
    remedy = f"Install the one that belongs to torch {torch.__version__}, or name a network of ablate's own."
    with explained("library", "torchvision", "to import it", remedy):
        from torchvision import models
    return models
