"""The optimisers by name, with weight decay on the parameters that it is meant for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ablate.train.settings import Settings

Group = dict[str, Any]


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """The optimiser of a run, over a network's trainable parameters.

    With `decay_norms` off, weight decay leaves out every parameter of fewer than two dimensions: biases, and
    the weights of normalisation layers.
    """
    return _BUILDERS[settings.optimizer](_groups(model, settings), settings)


def _groups(model: nn.Module, settings: Settings) -> list[Group]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.decay_norms or not settings.weight_decay:
        return [{"params": parameters, "weight_decay": settings.weight_decay}]
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [(decayed, settings.weight_decay), (others, 0.0)]
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]


def _sgd(groups: list[Group], settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)


def _adamw(groups: list[Group], settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=settings.lr, betas=_betas(settings), eps=settings.adam_epsilon)


def _ranger(groups: list[Group], settings: Settings) -> torch.optim.Optimizer:
    return Ranger(groups, lr=settings.lr, betas=_betas(settings), eps=settings.adam_epsilon)


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
        rate: part of the way that the slow weights move, in (0, 1].

    References:
        Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, arXiv 1908.03265.
        Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019, arXiv 1907.08610.
    """

    def __init__(
        self,
        groups: list[Group],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        every: int = 6,
        rate: float = 0.5,
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, decoupled_weight_decay=True)
        self.every, self.rate = every, rate

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the fast weights, and where it is due one of the slow ones."""
        for parameter in self._parameters():
            if "slow" not in self.state[parameter] and parameter.grad is not None:
                self._remember(parameter)
        result = super().step(closure)
        for parameter in self._parameters():
            self._look_ahead(parameter)
        return result

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _remember(self, parameter: Tensor) -> None:
        # RAdam takes an empty state for a parameter that has made no step: begin it as RAdam would.
        self.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "slow": parameter.detach().clone(memory_format=torch.preserve_format),
        }

    def _look_ahead(self, parameter: Tensor) -> None:
        state = self.state[parameter]
        if state and int(state["step"]) % self.every == 0:
            slow = cast(Tensor, state["slow"])
            slow.lerp_(parameter, self.rate)
            parameter.copy_(slow)


_BUILDERS: dict[str, Callable[[list[Group], Settings], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "ranger": _ranger,
}
