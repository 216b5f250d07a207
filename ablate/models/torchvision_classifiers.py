"""torchvision's image classifiers by name, each with fresh weights and torchvision's own defaults.

Dropout and stochastic depth are as torchvision sets them, so they differ from family to family:
`torchvision.models` documents each. Nothing is downloaded. torchvision is imported only when one of its
networks is asked for, or when a name is unknown.
"""

from typing import Any

import torch
from torch import nn

from ablate.errors import StudyError

# Smallest image side in pixels at which a forward pass works, by the name or its beginning.
SMALLEST = {
    "alexnet": 63,
    "convnext_": 32,
    "densenet": 29,
    "googlenet": 15,
    "inception_v3": 75,
    "squeezenet1_0": 21,
    "squeezenet1_1": 17,
    "swin_": 4,
    "vgg": 32,
}


def torchvision_names() -> list[str]:
    """Lists the names of the classifiers, sorted."""
    models = _import_models()
    return list(models.list_models(module=models))


def build_torchvision(name: str, *, num_classes: int, image_size: int) -> nn.Module:
    """Builds one of `torchvision_names()`, transformers for this image size; none has auxiliary outputs.

    Raises:
        StudyError: The architecture cannot take the image size; the message says what sizes work.
    """
    arguments: dict[str, Any] = {}
    multiple = 1
    if name.startswith("vit_"):
        arguments["image_size"] = image_size
        multiple = int(name.rsplit("_", 1)[1])  # the patch, as in vit_b_16
    elif name.startswith("maxvit_"):
        arguments["input_size"] = (image_size, image_size)
        multiple = 224  # windows of 7×7 on maps that are a 4th to a 32nd of the image
    elif name in {"googlenet", "inception_v3"}:
        # init_weights=True is the default, but one that warns unless it is spelled out.
        arguments |= {"aux_logits": False, "init_weights": True}
    smallest = max([multiple, *(size for start, size in SMALLEST.items() if name.startswith(start))])
    if image_size < smallest or image_size % multiple:
        wanted = f"a multiple of {multiple}" if multiple > 1 else f"{smallest} or more"
        raise StudyError(
            f"network {name!r}: expected an image size it can take, {wanted}, got {image_size}. Change the "
            "study's image size, or choose another network."
        )
    model: nn.Module = _import_models().get_model(name, weights=None, num_classes=num_classes, **arguments)
    return model


def _import_models() -> Any:  # torchvision is not typed
    try:
        from torchvision import models
    except Exception as error:  # one built for another torch raises whatever it meets first
        raise StudyError(
            f"Expected to import torchvision, which looks up this network's name, but this raised "
            f"{type(error).__name__}: {error}. Install the torchvision that belongs to torch "
            f"{torch.__version__}, or name a network of ablate's own."
        ) from error
    return models
