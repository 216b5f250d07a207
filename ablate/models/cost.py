"""What a network costs: parameters and multiply-adds."""

import copy

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ablate.models.contract import EXAMPLES, example_images


def count_parameters(model: nn.Module) -> int:
    """Counts the trainable numbers of a network; tied weights once, buffers never."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, image_size: int) -> int:
    """Counts the multiply-adds of one image's forward pass: half of two images' in evaluation mode.

    Counted are convolutions, fixed ones such as a blur too, and matrix products, those of attention too.
    Normalisation, activations, softmax, pooling and biases are not.

    A multiply-add is two of torch's floating-point operations. Products of weights alone, which a batch
    shares, count by half. A copy of the network is run.

    Raises:
        RuntimeError: They cannot be counted, although the network may train: its forward pass fails under
            torch's counter.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    counter = FlopCounterMode(display=False)
    images = example_images(model, image_size)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # attention as matrix products: the counter sees no other
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            copy.deepcopy(model).eval()(images)
    except Exception as error:  # a foreign network may raise anything
        raise RuntimeError(
            f"the multiply-adds cannot be counted: the forward pass under torch's counter raised "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // (2 * EXAMPLES)
