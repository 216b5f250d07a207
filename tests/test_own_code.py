"""Augmentations, optimisers and schedules from outside: wrong ones, and a study by one command."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from recorded_study import BASE
from test_main import HERE, ablate

from ablate.errors import StudyError
from ablate.execution.prepare import check_names
from ablate.study.fields import resolve

OWN = "test_own_code:"
NOISE = f"{OWN}noise"
CALLS: list[None] = []


def noise(images: Any, strength: float = 0.1) -> Any:
    return images + strength * torch.randn_like(images)


def counts(images: Any) -> Any:
    CALLS.append(None)
    return images * len(CALLS)


def of_batch(images: Any, *, draws: Any) -> Any:
    return images - images.mean()


class Forgets(torch.optim.SGD):
    """Warms up by a counter that its state does not hold."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        for group in self.param_groups:
            group["lr"] *= self.steps
        return super().step(closure)


class Keeps(torch.optim.SGD):
    """Saves what torch.load does not take."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "kept": Path()}


class Still(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any: ...


def no_optimizer(params: Any, lr: float) -> Any:
    return lr


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([{"augmentation": "noise"}], r"augmentation: expected none, or an import path .*'noise' .* came"),
        ([{"augmentation": NOISE, "augmentation.stren": 1}], r"^augmentation.stren: .* mean 'strength'\?"),
        (
            [{"augmentation": of, "augmentation.strength": 0.1} for of in ("none", NOISE)],
            r"^augmentation.strength: 'none' takes no .* named levels: factors={'variant': {'a': {'augment",
        ),
        (
            [{"augmentation": f"{OWN}counts"}],
            r"alike in any batch, but .* an image became another in another",
        ),
        (
            [{"augmentation": f"{OWN}of_batch"}],
            r"alike in any batch, but .* an image became another in another",
        ),
        ([{"augmentation": "torch.acosh"}], r"of 0 to 1 to give finite ones .* nan"),
        (
            [{"augmentation": "torch.flatten"}],
            r"\[3, 3, 16, 16\] .*, but this .* torch.float32 \[2304\] came",
        ),
        (
            [{"augmentation": "torchvision.transforms.v2.RandomCrop", "augmentation.size": 99}],
            r"^augmentation 'torch.*, but this raised ValueError: Required crop",
        ),
        ([{"augmentation": "torchvision.transforms.v2.Resize"}], r"^augmentation.size: .*cannot do without"),
        ([{"optimizer": "adam"}], r"optimizer: expected sgd, adamw, .* import path .*Did you mean 'adamw'\?"),
        (
            [{"optimizer": "sgd", "optimizer.lr": 1.0}],
            r"^optimizer.lr: ablate sets it .* or set the field lr",
        ),
        ([{"optimizer": "sgd", "optimizer.nesterov": True}], r"^optimizer 'sgd'.* Nesterov .* a momentum"),
        ([{"optimizer": "torch.optim.LBFGS"}], r"missing 1 required positional argument: 'closure'"),
        (
            [{"optimizer": "torch.optim.NAdam", "beta2": of} for of in (0.9, 0.99)],
            r"^beta2: is 0.9 and 0.99, ",
        ),
        (
            [{"optimizer": "torch.optim.Rprop", "weight_decay": 0.1}],
            r"^weight_decay: is 0.1, .* set it to 0$",
        ),
        ([{"optimizer": f"{OWN}Still"}], r"expected a step to change weights"),
        ([{"optimizer": f"{OWN}no_optimizer"}], r"TypeError: expected a torch.optim.Optimizer, but a float"),
        ([{"optimizer": f"{OWN}Forgets"}], r"from its state_dict\(\) it goes on otherwise"),
        ([{"optimizer": f"{OWN}Keeps"}], r"UnpicklingError: Weights only load failed"),
        ([{"schedule": "cosine"}], r"schedule: expected constant, .*'flat_cosine'\?"),
        ([{"schedule": "math:log1p", "schedule.base": 2}], r"^schedule.base: 'math:log1p' takes no such"),
        ([{"schedule": "math:asin", "anneal_from": of} for of in (0.1, 0.2)], r"^anneal_from: is 0.1 and"),
        ([{"schedule": "math:log"}], r"of progress 0, but this raised ValueError"),
    ],
)
def test_wrong_code_is_found_before_any_training(arms: list[dict[str, Any]], message: str) -> None:
    state = torch.get_rng_state()
    with pytest.raises(StudyError, match=message) as caught:
        check_names([resolve(BASE, arm) for arm in arms])
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), state)


STUDY = '''"""Own."""
import torch
from ablate import Study

class Momentum(torch.optim.Optimizer):
    def __init__(self, params, lr, memory=0.9):
        super().__init__(params, {"lr": lr, "memory": memory})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                speed = self.state[weight].setdefault("speed", torch.zeros_like(weight))
                weight.sub_(speed.mul_(group["memory"]).add_(weight.grad), alpha=group["lr"])

def noise(images, strength):
    return images + strength * torch.randn_like(images)

study = Study(
    question="?",
    base={"data": "synthetic", "image_size": 16, "epochs": 1, "batch_size": 32, "lr": 0.02,
          "optimizer": Momentum, "augmentation": noise},
    factors={"optimizer.memory": (0.0, 0.4, 0.8), "augmentation.strength": (0.0, 0.2)},
    comparisons=("trend",), seeds=2,
)
'''


@pytest.mark.slow
def test_a_study_of_own_code_runs_by_one_command(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(STUDY)
    assert ablate(tmp_path, "run", "own.py", *HERE).status == 0
    folder = tmp_path / "results" / "own" / "default"
    trials, effects = (pd.read_csv(folder / f"{name}.csv") for name in ("trials", "effects"))
    assert set(trials["status"]) == {"complete"}
    assert trials["nll"].nunique() == len(trials) == 12
    terms = {"optimizer.memory=0.8", "augmentation.strength=0.2"}
    assert terms <= {*effects["term"]}
    assert {*effects.loc[effects["kind"] == "trend", "term"]} == {"optimizer.memory=0.8"}
