"""What running a copy of a network tells: that it keeps to the contract, its cost; and float32 logits."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ablate.errors import StudyError
from ablate.plugins import explained

EXAMPLES = 2  # images; not one, of which a network's `squeeze` would take the batch dimension too


def try_network(name: str, model: nn.Module, *, num_classes: int, image_size: int) -> str | None:
    """Checks that a network maps [2, 3, S, S] float32 images to finite logits [2, K], and can be trained.

    A copy is run as training runs it, channels_last; the network itself and torch's generator stay as they
    were. Returns the name of the last `nn.Linear` with K outputs to run, or None.
    """
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise StudyError(
            f"network {name!r}: expected it to have its weights, but some wait for a first batch "
            "(nn.Lazy...). Run it on one in its factory, or give these layers their sizes."
        )
    images = _example_images(model, image_size).to(memory_format=torch.channels_last)
    ran: list[str] = []  # the linear layers with K outputs, in the order in which they run

    def forward(training: bool) -> Tensor:
        expected = f"images {list(images.shape)} to be mapped to finite logits [{EXAMPLES}, {num_classes}]"
        expected += " in training mode too" * training
        remedy = (
            f"Raise the study's image size where {image_size} pixels are too few, write .reshape for .view "
            "(tensors are channels_last here), and return one floating tensor, a row per image."
        )
        with explained("network", name, expected, remedy), torch.set_grad_enabled(training):
            logits: Any = trial.train(training)(images)
            if not isinstance(logits, Tensor):
                raise TypeError(f"a {type(logits).__name__} came")
            finite = int(logits.isfinite().sum())
            fits = logits.is_floating_point() and logits.shape == (EXAMPLES, num_classes)
            if not fits or finite < logits.numel():
                came = f"{logits.dtype} {list(logits.shape)}, {finite} of {logits.numel()} finite"
                raise ValueError(f"{came}, came")
        return logits

    with torch.random.fork_rng([images.device] if images.is_cuda else []), torch.enable_grad():
        remedy = (
            "Keep locks, open files and the like out of it, and replace torch.nn.utils.weight_norm and "
            "spectral_norm by those of torch.nn.utils.parametrizations."
        )
        with explained("network", name, "one of which copy.deepcopy makes a copy, to try it", remedy):
            trial = copy.deepcopy(model).to(memory_format=torch.channels_last)
        for layer, module in trial.named_modules():
            if type(module) is nn.Linear and module.out_features == num_classes:
                module.register_forward_hook(lambda _module, _inputs, _output, layer=layer: ran.append(layer))
        forward(training=False)
        head = ran[-1] if ran else None
        logits = forward(training=True)
        remedy = (
            "Leave its parameters trainable, compute the logits from them with differentiable torch "
            "operations, and write into no tensor that the gradient needs."
        )
        with explained("network", name, "a backward pass through its logits", remedy):
            labels = torch.zeros(EXAMPLES, dtype=torch.int64, device=images.device)
            torch.autograd.backward(functional.cross_entropy(logits.float(), labels))
    if any(parameter.grad is not None for parameter in model.parameters()):
        raise StudyError(
            f"network {name!r}: expected a copy of it to compute with its own weights, but it computes with "
            "those of the network that it was copied from. Make a lambda or a nested function that uses its "
            "layers a method, and of TorchScript return what was given to torch.jit.script or .trace."
        )
    return head


def keep_logits_float32(model: nn.Module, head: str | None) -> None:
    """Makes the linear layer `head` compute in float32, and the network's output float32, in place.

    Autocast would run the layer in half precision and round the logits: 8 bits of significand in bfloat16.
    Of a network that ends otherwise (in a convolution, say) the logits carry the rounding of that layer.
    """
    if head is not None:
        # Changing the class keeps the object, and with it hooks, tied weights and every name.
        model.get_submodule(head).__class__ = Float32Linear
    model.register_forward_hook(_to_float32)


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 even where autocast asks for less."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps [..., in_features] of any floating dtype to [..., out_features] in float32."""
        with torch.autocast(input.device.type, enabled=False):
            return functional.linear(input.float(), self.weight, self.bias)


def _to_float32(_model: nn.Module, _inputs: object, logits: Tensor) -> Tensor:
    return logits.float()


def count_parameters(model: nn.Module) -> int:
    """Counts the trainable numbers of a network; tied weights once, buffers never."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, image_size: int) -> int:
    """Counts the multiply-adds of one image's forward pass in evaluation mode, half of two images'.

    Counted are convolutions and matrix products, those of a blur and of attention too. Products of weights
    alone, which a batch shares, count by half. What a forward pass raises under torch's counter goes through.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    counter = FlopCounterMode(display=False)
    images = _example_images(model, image_size)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # attention as matrix products: the counter sees no other
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            copy.deepcopy(model).eval()(images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // (2 * EXAMPLES)


def _example_images(model: nn.Module, image_size: int) -> Tensor:
    """Random normal float32 images [2, 3, S, S], always the same, where the weights are."""
    generator = torch.Generator("cpu").manual_seed(0)
    images = torch.randn((EXAMPLES, 3, image_size, image_size), generator=generator, device="cpu")
    weight = next(model.parameters(), None)
    return images if weight is None else images.to(weight.device)
