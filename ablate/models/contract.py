"""What every network must keep to, checked when it is built, and float32 logits under every precision."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ablate.errors import StudyError


def check_contract(name: str, model: nn.Module, *, num_classes: int, image_size: int) -> None:
    """Checks that a network maps [2, 3, S, S] float32 images to finite logits [2, K], and can be trained.

    It is run as training does: on channels_last images in evaluation mode, then a copy of it with
    channels_last weights forward and backward in training mode. Nothing that training sees is changed:
    torch's generator, weights, buffers (BatchNorm's running statistics) and every module's training mode
    are as before. A network that cannot be copied runs itself, and these are given back.

    Args:
        name: What the study calls the network; named in the error.
        model: The network to try, fresh and without gradients.
        num_classes: Number of classes K.
        image_size: Height and width S of the images in pixels.

    Raises:
        StudyError: It is TorchScript, the forward or backward pass fails, or forward gives something else.
    """
    _refuse_script(name, model)
    images = example_images(model, 2, image_size).to(memory_format=torch.channels_last)
    wanted = (
        f"Expected the network {name!r} to map images [2, 3, {image_size}, {image_size}] to finite logits "
        f"[2, {num_classes}]"
    )
    small = (
        f"The images may be too small for it (image size {image_size}): raise the study's image size, choose "
        "a network with fewer reductions, or mend its forward."
    )
    with _explained(f"{wanted}, but its forward pass", small):
        logits = _evaluate(model, images)
    _check_logits(wanted, logits, num_classes)
    _check_training(f"{wanted} in training mode too", model, images, num_classes)


def keep_logits_float32(model: nn.Module, *, num_classes: int, image_size: int) -> None:
    """Makes a network's last linear layer compute in float32, and its output float32, in place.

    Autocast would run the layer in half precision and round the logits: 8 bits of significand in
    bfloat16. The last `nn.Linear` with K outputs to run becomes a `Float32Linear`. A network that ends
    otherwise (in a convolution, say) keeps its layers and has its output cast, so its logits are float32
    but carry the rounding of the layer before. Parameters and names in `state_dict` stay as they are.

    Args:
        model: A network that keeps to the contract.
        num_classes: Number of classes K.
        image_size: Height and width S of the images in pixels.
    """
    head = _find_head(model, num_classes, image_size)
    if head is not None:
        # Changing the class keeps the object, and with it hooks, tied weights and every name.
        head.__class__ = Float32Linear
    model.register_forward_hook(_to_float32)


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 even where autocast asks for less."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps [..., in_features] of any floating dtype to [..., out_features] in float32."""
        with torch.autocast(input.device.type, enabled=False):
            return functional.linear(input.float(), self.weight, self.bias)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it a network is in evaluation mode, without gradients; after it each module's mode is back."""
    with _keeping_modes(model), torch.no_grad():
        model.eval()
        yield


def example_images(model: nn.Module, count: int, image_size: int) -> Tensor:
    """Gives random normal float32 images [count, 3, S, S], always the same, where the weights are."""
    # A generator of its own: the global one belongs to the training run.
    images = torch.randn(
        (count, 3, image_size, image_size), generator=torch.Generator("cpu").manual_seed(0), device="cpu"
    )
    weight = next(model.parameters(), None)
    return images if weight is None else images.to(weight.device)


def _refuse_script(name: str, model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise StudyError(
            f"Expected the network {name!r} to be a torch.nn.Module written in Python, but it is TorchScript "
            f"({type(model).__name__}), whose logits cannot be kept in float32. Return the module that was "
            "given to torch.jit.script or torch.jit.trace."
        )


def _evaluate(model: nn.Module, images: Tensor) -> Any:  # a foreign network returns anything
    # A network may draw random numbers even in evaluation mode; give the generator's state back.
    with evaluating(model), _forked_generator(images):
        return model(images)


def _check_training(wanted: str, model: nn.Module, images: Tensor, num_classes: int) -> None:
    forward = "In evaluation mode it works: mend what its forward does in training mode only."
    backward = (
        "Leave its parameters trainable, compute the logits from them with differentiable torch operations, "
        "and write into no tensor that the gradient needs."
    )
    labels = torch.zeros(2, dtype=torch.int64, device=images.device)
    with _training(model) as trained, _forked_generator(images), torch.enable_grad():
        with _explained(f"{wanted}, but its forward pass", forward):
            logits = trained(images)
        _check_logits(wanted, logits, num_classes)
        with _explained(f"{wanted}, but its backward pass", backward):
            functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]


def _check_logits(wanted: str, logits: Any, num_classes: int) -> None:
    if not isinstance(logits, Tensor):
        raise StudyError(
            f"{wanted}, but it returned a {type(logits).__name__}. Return one tensor of logits from forward, "
            "in evaluation and in training mode."
        )
    if tuple(logits.shape) != (2, num_classes):
        raise StudyError(
            f"{wanted}, but the shape was {list(logits.shape)}. Give its last layer num_classes outputs and "
            "return one row per image."
        )
    if not logits.is_floating_point() or not bool(torch.isfinite(logits).all()):
        raise StudyError(
            f"{wanted}, but some were not finite ({logits.dtype}). Check its initialisation and that it "
            "returns logits, not logarithms of zero or class ids."
        )


@contextmanager
def _explained(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a foreign network may raise anything
        if "view size is not compatible" in str(error):
            remedy = (
                "Images and weights are channels_last here, where .view cannot join dimensions: write "
                ".reshape instead of .view, or .flatten(1)."
            )
        message = str(error).rstrip(".")
        raise StudyError(f"{what} raised {type(error).__name__}: {message}. {remedy}") from error


@contextmanager
def _training(model: nn.Module) -> Iterator[nn.Module]:
    """A copy in training mode with channels_last weights, or where there can be none the network itself.

    Buffers, modes and gradients of the network are given back in both cases: a copy may still reach it,
    through a function that it holds.
    """
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        with _keeping_modes(model):
            yield _copied(model).train()
    finally:
        model.zero_grad(set_to_none=True)
        for module, name, buffer, before in buffers:
            with torch.no_grad():
                setattr(module, name, buffer.copy_(before))


def _copied(model: nn.Module) -> nn.Module:
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return model  # the weights of a copied TorchScript part are not leaves, so have no gradients
    try:
        copied = copy.deepcopy(model)
    except Exception:  # it holds what cannot be copied, such as a lock or an open file
        return model
    return copied.to(memory_format=torch.channels_last)


@contextmanager
def _keeping_modes(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _forked_generator(images: Tensor) -> Any:  # torch does not type its context manager
    return torch.random.fork_rng([images.device] if images.is_cuda else [])


def _find_head(model: nn.Module, num_classes: int, image_size: int) -> nn.Linear | None:
    ran: list[nn.Linear] = []

    def note(module: nn.Module, _inputs: object, _output: object) -> None:
        if isinstance(module, nn.Linear) and module.out_features == num_classes:
            ran.append(module)

    # Linear layers only: a TorchScript part of a network takes no hook.
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        _evaluate(model, example_images(model, 2, image_size))
    finally:
        for handle in handles:
            handle.remove()
    return ran[-1] if ran else None


def _to_float32(_model: nn.Module, _inputs: object, logits: Tensor) -> Tensor:
    return logits.float()
