"""The small vision transformer: counts by hand, and the sizes it takes."""

import pytest
import torch
from torch import nn

from ablate.errors import StudyError
from ablate.models import build_model, count_macs, count_parameters
from ablate.models.vit_tiny import vit_tiny

WIDTH, LAYERS, HIDDEN, TOKENS = 192, 12, 768, 65


@pytest.mark.parametrize("image_size", [8, 128])
def test_parameters_and_multiply_adds_equal_a_count_by_hand(image_size: int) -> None:
    patch = 3 * (image_size // 8) ** 2
    attention, hidden = 4 * (WIDTH + 1) * WIDTH, (WIDTH + 1) * HIDDEN + (HIDDEN + 1) * WIDTH
    parameters = LAYERS * (attention + hidden + 4 * WIDTH)
    parameters += (patch + 1) * WIDTH + (TOKENS + 1) * WIDTH + 2 * WIDTH + (WIDTH + 1) * 10
    macs = LAYERS * (TOKENS * (4 * WIDTH**2 + 2 * WIDTH * HIDDEN) + 2 * TOKENS**2 * WIDTH)
    macs += 64 * patch * WIDTH + WIDTH * 10
    model = vit_tiny(num_classes=10, image_size=image_size)
    assert count_parameters(model) == parameters
    assert count_macs(model, image_size) == macs


def test_eight_by_eight_patches_and_no_dropout() -> None:
    model = vit_tiny(num_classes=10, image_size=24)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes["conv_proj.weight"] == (WIDTH, 3, 3, 3)
    assert shapes["encoder.pos_embedding"] == (1, TOKENS, WIDTH)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.0}
    attention = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    assert {(module.num_heads, module.dropout) for module in attention} == {(3, 0.0)}


@pytest.mark.parametrize(("image_size", "advice"), [(100, "96 or 104"), (7, "to 8"), (129, "128 or 136")])
def test_a_size_that_eight_does_not_divide_is_refused(image_size: int, advice: str) -> None:
    with pytest.raises(StudyError, match=rf"multiple of 8, .* got {image_size}\. .*{advice}\.$"):
        build_model("vit_tiny", num_classes=10, image_size=image_size)


def test_the_position_of_a_patch_matters() -> None:
    torch.manual_seed(0)
    model = vit_tiny(num_classes=4, image_size=8).eval()
    nn.init.normal_(model.get_parameter("heads.head.weight"))
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(model(images), model(images.flip(3)), atol=1e-4)
