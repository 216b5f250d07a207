"""The optimisers by name, with weight decay on the parameters that it is meant for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ablate.train.settings import Settings

Group = dict[str, Any]


def build_optimizer(
    model: nn.Module, settings: Settings, device: torch.device | None = None
) -> torch.optim.Optimizer:
    """The optimiser of a run, over a network's trainable parameters.

    With `decay_norms` off, weight decay leaves out every parameter of fewer than two dimensions: biases, and
    the weights of normalisation layers. On a GPU the learning rate is a tensor there, so that a step reads
    nothing from the host and can be captured.
    """
    build, on_gpu = _BUILDERS[settings.optimizer]
    if device is None or device.type != "cuda":
        return build(_groups(model, settings), settings, lr=settings.lr)
    return build(_groups(model, settings), settings, lr=torch.tensor(settings.lr, device=device), **on_gpu)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group; a tensor is filled, for a captured step reads it where it is."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take over the state of a stopped run's optimiser; tensors that are there are filled, not replaced."""
    if not optimizer.state:
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(saved)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in saved["state"].items():
        for name, value in kept.items():
            if value is not None:
                optimizer.state[parameters[number]][name].copy_(value)


def clear_state(optimizer: torch.optim.Optimizer) -> None:
    """Bring an optimiser that has made steps back to its beginning, in the same tensors.

    Zeros are where SGD (whose first step sets the momentum to the gradient, and so does 0 times the momentum
    plus the gradient), AdamW and RAdam begin; slow weights begin at the weights.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name == "slow":
                value.copy_(parameter.detach())
            elif value is not None:
                value.zero_()


def _groups(model: nn.Module, settings: Settings) -> list[Group]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.decay_norms or not settings.weight_decay:
        return [{"params": parameters, "weight_decay": settings.weight_decay}]
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [(decayed, settings.weight_decay), (others, 0.0)]
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]


def _sgd(groups: list[Group], settings: Settings, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, momentum=settings.momentum, **options)


def _adamw(groups: list[Group], settings: Settings, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, betas=_betas(settings), eps=settings.adam_epsilon, **options)


def _ranger(groups: list[Group], settings: Settings, **options: Any) -> torch.optim.Optimizer:
    return Ranger(groups, betas=_betas(settings), eps=settings.adam_epsilon, **options)


def _betas(settings: Settings) -> tuple[float, float]:
    return settings.momentum, settings.beta2


class Ranger(torch.optim.RAdam):
    """Rectified Adam with decoupled weight decay, inside a look-ahead.

    Every `every` steps the slow weights move half the way to the fast ones, which go on from there.

    Args:
        groups: parameter groups.
        lr: learning rate.
        betas: decay of the mean of gradients and of their squares.
        eps: added to the root of the mean square.
        every: steps between two moves of the slow weights.
        capturable: keep the steps' count on the device, as a captured step must.
        rate: part of the way that the slow weights move, in (0, 1].

    References:
        Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, arXiv 1908.03265.
        Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019, arXiv 1907.08610.
    """

    def __init__(
        self,
        groups: list[Group],
        *,
        lr: float | Tensor,
        betas: tuple[float, float],
        eps: float,
        capturable: bool = False,
        every: int = 6,
        rate: float = 0.5,
    ) -> None:
        super().__init__(
            groups, lr=lr, betas=betas, eps=eps, decoupled_weight_decay=True, capturable=capturable
        )
        self.every, self.rate = every, rate

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the fast weights, and where it is due one of the slow ones."""
        result = self.fast_step(closure)
        self.look_ahead(max((int(state["step"]) for state in self.state.values() if state), default=0))
        return result

    @torch.no_grad()
    def fast_step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the fast weights alone; the first one remembers where they began."""
        begun = {
            parameter: parameter.detach().clone(memory_format=torch.preserve_format)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and not self.state[parameter]
        }
        result = super().step(closure)
        for parameter, slow in begun.items():
            self.state[parameter]["slow"] = slow
        return result

    @torch.no_grad()
    def look_ahead(self, steps: int) -> None:
        """Move the slow weights, where they are due after so many steps. Apart, for the host decides it."""
        if steps % self.every == 0:
            moved = {parameter: state["slow"] for parameter, state in self.state.items() if state}
            slow = list(moved.values())
            torch._foreach_lerp_(slow, list(moved), self.rate)
            torch._foreach_copy_(list(moved), slow)


_BUILDERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, bool]]] = {
    "sgd": (_sgd, {"fused": True}),
    "adamw": (_adamw, {"fused": True, "capturable": True}),
    "ranger": (_ranger, {"capturable": True}),
}
"""Each with what it needs on a GPU to be captured with a rate in a tensor."""
