"""What is found out by running a copy of a network: that it keeps to the contract, and its multiply-adds.

And float32 logits under every precision.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ablate.errors import FOREIGN_FAULTS, StudyError

EXAMPLES = 2  # images; not one, of which a network's `squeeze` would take the batch dimension too


def try_network(name: str, model: nn.Module, *, num_classes: int, image_size: int) -> str | None:
    """Checks that a network maps [2, 3, S, S] float32 images to finite logits [2, K], and can be trained.

    A copy is run as training runs it, channels_last: forward in evaluation mode, then forward and backward in
    training mode. The network itself and torch's generator are left as they were. What fails is a
    `StudyError`; the name of the last `nn.Linear` with K outputs to run comes back, or None.
    """
    expected = (
        f"Expected the network {name!r} to map images [2, 3, {image_size}, {image_size}] to finite logits "
        f"[2, {num_classes}]"
    )
    images = _example_images(model, image_size).to(memory_format=torch.channels_last)
    with torch.random.fork_rng([images.device] if images.is_cuda else []), torch.enable_grad():
        trial = _copy(name, model).to(memory_format=torch.channels_last)
        ran: list[str] = []  # the linear layers with K outputs, in the order in which they run
        for layer, module in trial.named_modules():
            if type(module) is nn.Linear and module.out_features == num_classes:
                module.register_forward_hook(lambda _module, _inputs, _output, layer=layer: ran.append(layer))
        remedy = (
            f"The images may be too small for it (image size {image_size}): raise the study's image size, "
            "choose a network with fewer reductions, or mend its forward."
        )
        with _explained(f"{expected}, but its forward pass", remedy), torch.no_grad():
            logits = trial.eval()(images)
        _check_logits(expected, logits, num_classes)
        head = ran[-1] if ran else None

        expected += " in training mode too"
        remedy = "In evaluation mode it works: mend what its forward does in training mode only."
        with _explained(f"{expected}, but its forward pass", remedy):
            logits = trial.train()(images)
        _check_logits(expected, logits, num_classes)
        remedy = (
            "Leave its parameters trainable, compute the logits from them with differentiable torch "
            "operations, and write into no tensor that the gradient needs."
        )
        with _explained(f"{expected}, but its backward pass", remedy):
            labels = torch.zeros(EXAMPLES, dtype=torch.int64, device=images.device)
            torch.autograd.backward(functional.cross_entropy(logits.float(), labels))
    if any(parameter.grad is not None for parameter in model.parameters()):
        raise StudyError(
            f"Expected a copy of the network {name!r} to compute with its own weights, but it computes with "
            "those of the network that it was copied from. Where the network holds a lambda or a nested "
            "function that uses its layers, make that a method."
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

    Counted are convolutions, fixed ones such as a blur too, and matrix products, those of attention too, but
    not normalisation, activations, softmax, pooling and biases. Products of weights alone, which a batch
    shares, count by half. A forward pass that fails under torch's counter is a `RuntimeError`.
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    counter = FlopCounterMode(display=False)
    images = _example_images(model, image_size)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # attention as matrix products: the counter sees no other
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            copy.deepcopy(model).eval()(images)
    except FOREIGN_FAULTS as error:  # a foreign network may raise anything
        raise RuntimeError(
            f"the multiply-adds cannot be counted: the forward pass under torch's counter raised "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // (2 * EXAMPLES)


def _example_images(model: nn.Module, image_size: int) -> Tensor:
    """Random normal float32 images [2, 3, S, S], always the same, where the weights are."""
    # A generator of its own: the global one belongs to the training run.
    generator = torch.Generator("cpu").manual_seed(0)
    images = torch.randn((EXAMPLES, 3, image_size, image_size), generator=generator, device="cpu")
    weight = next(model.parameters(), None)
    return images if weight is None else images.to(weight.device)


def _copy(name: str, model: nn.Module) -> nn.Module:
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise StudyError(
            f"Expected the network {name!r} to be written in Python, but it is or holds TorchScript, "
            "of which no copy can train. Return what was given to torch.jit.script or torch.jit.trace."
        )
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise StudyError(
            f"Expected the network {name!r} to have its weights, but some wait for a first batch "
            "(nn.Lazy...). Run it on one in its factory, or give these layers their sizes."
        )
    try:
        return copy.deepcopy(model)
    except FOREIGN_FAULTS as error:
        raise StudyError(
            f"Expected the network {name!r} to be one that copy.deepcopy can copy, as a copy of it is tried "
            f"before training, but this raised {type(error).__name__}: {str(error).rstrip('.')}. Keep locks, "
            "open files and the like out of the network, and replace torch.nn.utils.weight_norm and "
            "spectral_norm by those of torch.nn.utils.parametrizations."
        ) from error


def _check_logits(expected: str, logits: Any, num_classes: int) -> None:
    if not isinstance(logits, Tensor):
        problem = f"it returned a {type(logits).__name__}"
        remedy = "Return one tensor of logits from forward, in evaluation and in training mode."
    elif tuple(logits.shape) != (EXAMPLES, num_classes):
        problem = f"the shape was {list(logits.shape)}"
        remedy = "Give its last layer num_classes outputs and return one row per image."
    elif not logits.is_floating_point() or not torch.isfinite(logits).all():
        problem = f"some were not finite ({logits.dtype})"
        remedy = "Check its initialisation and that it returns logits, not logarithms of zero or class ids."
    else:
        return
    raise StudyError(f"{expected}, but {problem}. {remedy}")


@contextmanager
def _explained(attempt: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except FOREIGN_FAULTS as error:  # a foreign network may raise anything
        if "view size is not compatible" in str(error):
            remedy = (
                "Images and weights are channels_last here, where .view cannot join dimensions: write "
                ".reshape instead of .view, or .flatten(1)."
            )
        message = str(error).rstrip(".")
        raise StudyError(f"{attempt} raised {type(error).__name__}: {message}. {remedy}") from error
