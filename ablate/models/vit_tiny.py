"""A small vision transformer whose cost hardly depends on the image size.

Twelve layers of width 192 with three heads and a hidden width of 768, as DeiT-Ti, but on a grid of 8×8
patches whatever the image size: 64 tokens and the class token. No dropout. torchvision's
`VisionTransformer` computes it and sets its initial weights; the last layer starts at zero, and with it
the logits.

References:
    Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020. https://arxiv.org/abs/2010.11929
    Touvron et al., "Training data-efficient image transformers & distillation through attention", 2020,
    table 1. https://arxiv.org/abs/2012.12877
"""

from torch import nn

from ablate.errors import StudyError

GRID = 8


def vit_tiny(*, num_classes: int, image_size: int) -> nn.Module:
    """Builds the network for images of one size, a multiple of 8; a patch is an eighth of it wide.

    Raises:
        StudyError: for another size.
    """
    if image_size % GRID:
        below = image_size // GRID * GRID
        near = f"{below} or {below + GRID}" if below else f"{GRID}"
        raise StudyError(
            f"network 'vit_tiny': expected an image size that is a multiple of {GRID}, for its grid of "
            f"{GRID}×{GRID} patches, got {image_size}. Set the study's image size to {near}."
        )
    # Importing torchvision takes a second or two, which only those who use it should wait.
    from torchvision.models import VisionTransformer

    model: nn.Module = VisionTransformer(
        image_size=image_size,
        patch_size=image_size // GRID,
        num_layers=12,
        num_heads=3,
        hidden_dim=192,
        mlp_dim=768,
        num_classes=num_classes,
    )
    return model
