"""The optimisers by name, with weight decay on the parameters that it is meant for; and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ablate.models.weights import head_of
from ablate.study.fields import Recipe

FIRST_RATE, LAST_RATE = 1 / 25, 1e-5
"""Where one_cycle begins and where both falling schedules end, as parts of the highest rate."""


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a run, over a network's trainable parameters; on a GPU its learning rate is a tensor.

    With `decay_norms` off, weight decay leaves out every parameter of fewer than two dimensions: biases, and
    the weights of normalisation layers.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = parameters[0].device
    on_gpu = device.type == "cuda"
    lr = torch.tensor(recipe.lr, device=device) if on_gpu else recipe.lr
    groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": recipe.weight_decay}]
    if recipe.weight_decay and not recipe.decay_norms:
        others = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups[0]["params"] = [parameter for parameter in parameters if parameter.ndim > 1]
        groups = [group for group in (*groups, {"params": others, "weight_decay": 0.0}) if group["params"]]
    if recipe.head_lr != 1:
        groups = [part for group in groups for part in _head_apart(group, model, recipe.head_lr)]
    betas = recipe.momentum, recipe.beta2
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr, momentum=recipe.momentum, fused=on_gpu or None)
    if recipe.optimizer == "adamw":
        eps, fused = recipe.adam_epsilon, on_gpu or None
        return torch.optim.AdamW(groups, lr, betas, eps, fused=fused, capturable=on_gpu)
    options: dict[str, Any] = {"decoupled_weight_decay": True, "capturable": on_gpu}
    return Ranger(groups, lr, betas, recipe.adam_epsilon, **options)


def _head_apart(group: dict[str, Any], model: nn.Module, factor: float) -> list[dict[str, Any]]:
    """A group's parameters of the last linear layer in a group of their own, whose rate is by `factor`."""
    head = head_of(model)
    of_head = set(model.get_submodule(head).parameters()) if head else set()
    parts = ([one for one in group["params"] if (one in of_head) == apart] for apart in (False, True))
    return [
        {**group, "params": part, "rate": rate}
        for part, rate in zip(parts, (1.0, factor), strict=True)
        if part
    ]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of one of a run's training steps, the first of which is step 0.

    Schedules are "constant", "one_cycle" (a cosine up, then one down) and "flat_cosine" (flat, then the same
    cosine down); after the part `anneal_from` of the run, in [0, 1), the rate falls.

    Source: Smith and Topin 2018, super-convergence, https://arxiv.org/abs/1708.07120
    """

    def cosine(begin: float, end: float, part: float) -> float:
        return recipe.lr * (end + (begin - end) * (1 + math.cos(math.pi * part)) / 2)

    done, turn = step / max(steps - 1, 1), recipe.anneal_from
    if recipe.schedule != "constant" and done >= turn:
        return cosine(1.0, LAST_RATE, (done - turn) / (1 - turn))
    return cosine(FIRST_RATE, 1.0, done / turn) if recipe.schedule == "one_cycle" else recipe.lr


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group; a tensor is filled, for a captured step reads it where it is."""
    for group in optimizer.param_groups:
        own = rate * group.get("rate", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


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
    """Bring an optimiser that has made steps back to its beginning, in the same tensors."""
    # SGD (whose first step sets the momentum to the gradient), AdamW and RAdam begin at zeros.
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name == "slow":
                value.copy_(parameter.detach())
            elif value is not None:
                value.zero_()


class Ranger(torch.optim.RAdam):
    """Rectified Adam inside a look-ahead.

    Every sixth step the slow weights move half the way to the fast ones, which go on from there: call
    `look_ahead` after each step. It is apart because the host decides it, which a captured step cannot.

    Source: Liu et al. 2020, https://arxiv.org/abs/1908.03265; Zhang et al. 2019, https://arxiv.org/abs/1907.08610
    """

    EVERY, RATE = 6, 0.5

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the fast weights; the first one remembers where they began."""
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
        """Move the slow weights, where they are due after so many steps."""
        if steps % self.EVERY == 0:
            moved = {parameter: state["slow"] for parameter, state in self.state.items() if state}
            slow = list(moved.values())
            torch._foreach_lerp_(slow, list(moved), self.RATE)
            torch._foreach_copy_(list(moved), slow)
