"""Augmentations, optimisers and schedules from outside: wrong ones, and a study by one command."""

from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_study import BASE

from ablate.errors import StudyError
from ablate.execution.prepare import check_names
from ablate.pipeline import run
from ablate.study.fields import resolve
from ablate.study.study import Study

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
        ([{"augmentation": f"{OWN}counts"}], r"an image to become the same again, in another batch"),
        ([{"augmentation": f"{OWN}of_batch"}], r"an image to become the same again, in another batch"),
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


@pytest.mark.slow
def test_arguments_of_own_code_reach_every_trial_and_are_axes(tmp_path: Path) -> None:
    own = {"optimizer": "torch.optim.NAdam", "augmentation": NOISE, "lr": 0.02}
    axes = {"optimizer.momentum_decay": (0.0, 0.4, 0.8), "augmentation.strength": (0.0, 0.2)}
    base, asked = {**BASE, **own, "epochs": 1}, ("trend",)
    study = Study(name="s", question="?", base=base, factors=axes, comparisons=asked, seeds=2)
    tables = run(study, workers=0, timing=False, results=tmp_path / "r", report=tmp_path / "p").tables
    trials, effects = tables["trials"], tables["effects"]
    assert set(trials["status"]) == {"complete"}
    assert trials["nll"].nunique() == len(trials) == 12
    terms = {"optimizer.momentum_decay=0.8", "augmentation.strength=0.2"}
    assert terms <= {*effects["term"]}
    assert {*effects.loc[effects["kind"] == "trend", "term"]} == {"optimizer.momentum_decay=0.8"}
