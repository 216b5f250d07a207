"""Captured steps against eager ones: the same weights, one capture for many trials, and eight planted traps.

On a machine without a GPU they run on the pretended card, which replays what a capture recorded, on the same
tensors. What only a real card shows (algorithms of cuDNN, rounding, streams) `ablate bench cuda` measures.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import ablate.train.engine
from ablate.losses import build_loss
from ablate.models import build_model
from ablate.study.recipes import RECIPES
from ablate.train import DivergedError, Fitted, Images, Settings, Step, fit, ready_step
from ablate.train.engine import CapturedStep

pytestmark = pytest.mark.cuda

SETTINGS = Settings(
    epochs=2, batch_size=16, eval_batch_size=24, drop_last=False, lr=0.05, momentum=0.0, weight_decay=0.0,
    epsilon=0.1, reduction="mean", lr_rule="fixed", precision="float32", deterministic=True, order_seed=5,
    noise_seed=6, image_size=16,
)  # fmt: skip
NETWORKS = (
    "seed_cnn", "seed_cnn_bn_relu", "xresnet18", "xse_resnext50", "vit_tiny", "resnet18",
    "mobilenet_v3_small",
)  # fmt: skip
LOSS = build_loss("label_smoothing")


def images(count: int, seed: int, side: int = 18) -> Images:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    pixels = rng.integers(0, 120, (count, side, side, 3)) + 40 * labels[:, None, None, None]
    return Images.on(
        torch.device("cuda"), pixels.astype(np.uint8), labels, (0.47, 0.48, 0.45), (0.29, 0.28, 0.30)
    )


@pytest.fixture(scope="module")
def train() -> Images:
    return images(28, 0)  # batches of 16 and 12


@pytest.fixture(scope="module")
def valid() -> Images:
    return images(30, 1)  # batches of 24 and 6


@pytest.fixture(autouse=True)
def _no_captures() -> Iterator[None]:
    ablate.train.engine._KEPT.clear()
    yield
    ablate.train.engine._KEPT.clear()


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry per capture made."""
    made: list[None] = []
    capture = CapturedStep._capture

    def counted(self: CapturedStep, *arguments: Any) -> Any:
        made.append(None)
        return capture(self, *arguments)

    monkeypatch.setattr(CapturedStep, "_capture", counted)
    return made


def small(seed: int) -> nn.Module:
    """A network with all that makes captures go wrong: statistics, dropout, biases."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def named(arch: str) -> ablate.train.engine.Build:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build_model(arch, num_classes=3, image_size=16)

    return build


def ready(
    train: Images, valid: Images, settings: Settings, *, engine: str = "graph", seed: int = 1,
    build: ablate.train.engine.Build = small, loss: Any = LOSS,
) -> tuple[Step, str | None]:  # fmt: skip
    return ready_step(engine, "kind", build, seed, loss, train, valid, settings)


def trained(train: Images, valid: Images, settings: Settings, **options: Any) -> tuple[Fitted, list[Tensor]]:
    """A run, and its weights and buffers."""
    step, reason = ready(train, valid, settings, **options)
    assert (step.engine, reason) == (options.get("engine", "graph"), None)
    fitted = fit(step, valid)
    return fitted, [value.detach().cpu().clone() for value in step.model.state_dict().values()]


def history(fitted: Fitted) -> list[dict[str, Any]]:
    return [{**vars(epoch), "seconds": 0.0} for epoch in fitted.progress.history]


def recipe(name: str) -> dict[str, Any]:
    """A named recipe's fields, on few images."""
    fields = RECIPES[name].model_dump()
    return {**fields, "epochs": 2, "batch_size": 16, "eval_batch_size": 24}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("arch", NETWORKS)
def test_trials_a_b_a_in_one_worker_train_as_eager_ones_from_one_capture(
    arch: str, name: str, train: Images, valid: Images, captures: list[None]
) -> None:
    settings, build = replace(SETTINGS, **recipe(name)), named(arch)
    other = replace(settings, epsilon=0.4, order_seed=9, augment_seed=9, lr=settings.lr / 2)
    first = trained(train, valid, settings, build=build)
    made = len(captures)
    trained(train, valid, other, build=build, seed=2)
    again = trained(train, valid, settings, build=build)
    assert len(captures) == made == len({16, 12} if not settings.drop_last else {16}) + 1
    eager = trained(train, valid, settings, build=build, engine="eager")
    for outcome in (first, again):
        torch.testing.assert_close(outcome[1], eager[1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(outcome[0].logits, eager[0].logits, rtol=1e-4, atol=1e-4)
    assert history(first[0]) == history(again[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.9, "weight_decay": 0.01},
        {"reduction": "sum", "lr_rule": "matched", "momentum": 0.9},
        {"reduction": "none", "clip_norm": 0.1},
        {"optimizer": "adamw", "lr": 0.003, "clip_norm": 1.0, "schedule": "one_cycle", "anneal_from": 0.3},
        {"optimizer": "ranger", "lr": 0.003, "weight_decay": 0.1, "decay_norms": False, "epochs": 3},
        {"mixup": 0.4, "crop_area": 0.4, "flip": True},
        {"precision": "bfloat16", "momentum": 0.9},
    ],
    ids=str,
)
def test_each_setting_is_that_of_the_eager_step(
    changes: dict[str, Any], train: Images, valid: Images
) -> None:
    settings = replace(SETTINGS, **changes)
    trained(train, valid, replace(settings, epsilon=0.4), seed=2)
    found, weights = trained(train, valid, settings)
    eager, expected = trained(train, valid, settings, engine="eager")
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = ([epoch["valid_loss"] for epoch in history(run)] for run in (found, eager))
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_wrong_labels_of_one_trial_are_not_the_next_ones(train: Images, valid: Images) -> None:
    wrong = replace(train, labels=(train.labels + 1) % 3)
    noisy, _ = trained(wrong, valid, SETTINGS)
    clean, weights = trained(train, valid, SETTINGS)
    _, expected = trained(train, valid, SETTINGS, engine="eager")
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-5)
    assert history(noisy) != history(clean)
    assert not torch.equal(wrong.labels, train.labels)  # nobody else's labels are written to


def test_another_kind_has_a_capture_of_its_own_and_the_oldest_goes(
    train: Images, valid: Images, captures: list[None]
) -> None:
    for batch_size in (8, 9, 10, 11, 12):
        trained(train, valid, replace(SETTINGS, batch_size=batch_size, epochs=1, drop_last=True))
    assert len(captures) == 5 * 2
    trained(train, valid, replace(SETTINGS, batch_size=12, epochs=1, drop_last=True))
    assert len(captures) == 5 * 2
    trained(train, valid, replace(SETTINGS, batch_size=8, epochs=1, drop_last=True))
    assert len(captures) == 6 * 2


def test_nothing_waits_between_an_epochs_first_step_and_its_last(train: Images, valid: Images) -> None:
    settings = replace(SETTINGS, mixup=0.4, crop_area=0.5, flip=True, optimizer="ranger", lr=0.003, epochs=3)
    step, _ = ready(train, valid, settings)
    for epoch in range(3):
        parts = step.begin_epoch(epoch)
        losses = torch.zeros(len(parts), device="cuda")
        with _no_waiting():
            for place, index in enumerate(parts):
                losses[place], _ = step(index, epoch * len(parts) + place)
        assert bool(losses.isfinite().all())


@contextlib.contextmanager
def _no_waiting() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_stopped_run_goes_on_in_another_capture_to_the_same_end(train: Images, valid: Images) -> None:
    settings = replace(
        SETTINGS, optimizer="ranger", lr=0.003, epochs=4, schedule="flat_cosine", anneal_from=0.5
    )
    saved: list[Any] = []
    whole, weights = trained(train, valid, settings)

    step, _ = ready(train, valid, settings)
    callbacks = ablate.train.Callbacks(save=lambda make: saved.append(_copied(make())))
    fit(step, valid, callbacks=callbacks)
    ablate.train.engine._KEPT.clear()
    trained(train, valid, settings, seed=3)  # and after another trial of the same kind
    step, reason = ready(train, valid, settings)
    assert reason is None
    resumed = fit(step, valid, checkpoint=saved[1])
    assert history(resumed) == history(whole)
    ended = [value.detach().cpu() for value in step.model.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(ended, weights, strict=True))


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """As a file would hold it: on the CPU, and by itself."""
    moved: Any = torch.utils._pytree.tree_map(
        lambda value: value.detach().cpu().clone() if isinstance(value, Tensor) else value, state
    )
    moved["history"], moved["step_ms"] = list(state["history"]), list(state["step_ms"])
    return dict(moved)


class ReadsTheDevice(nn.Module):
    """A network whose forward pass asks the host what to do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = small(0)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layers(pixels)
        return logits if float(pixels.sum()) > -1e30 else -logits


class CountsOnTheHost(nn.Module):
    """A network whose forward pass depends on how often it was called: a capture would not count."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.calls = small(0), 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += self.training
        logits: Tensor = self.layers(pixels)
        return logits * (1 + self.calls % 3)


def reads_epsilon(logits: Tensor, target: Tensor, /, *, epsilon: Tensor, reduction: str) -> Tensor:
    return functional.cross_entropy(logits, target, label_smoothing=float(epsilon), reduction=reduction)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"build": lambda seed: ReadsTheDevice()}, "cannot be captured"),
        ({"loss": reads_epsilon}, "cannot be captured"),
        ({"build": lambda seed: CountsOnTheHost()}, "differ from eager ones"),
    ],
    ids=["network", "loss", "state"],
)
def test_what_cannot_be_captured_trains_eagerly_and_says_why(
    options: Any, expected: str, train: Images, valid: Images, captures: list[None]
) -> None:
    step, reason = ready(train, valid, SETTINGS, **options)
    assert step.engine == "eager"
    assert expected in str(reason)
    assert fit(step, valid).progress.history
    tried = len(captures)
    assert ready(train, valid, SETTINGS, **options)[1] == reason
    assert len(captures) == tried  # it is not tried again


# Traps of captured training, planted one at a time: the check before a capture serves must find each.


def _a_rate_as_a_number(patch: pytest.MonkeyPatch) -> None:
    def set_number(optimizer: torch.optim.Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    patch.setattr("ablate.train.step.set_rate", set_number)


def _an_index_that_is_replaced(patch: pytest.MonkeyPatch) -> None:
    def replay(self: ablate.train.engine.Captured, index: Tensor) -> Any:
        object.__setattr__(self, "index", index)
        self.graph.replay()
        return self.results

    patch.setattr(ablate.train.engine.Captured, "replay", replay)


def _momentums_first_step_captured(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ablate.train.engine, "WARM_UP", 0)


def _weights_drawn_on_the_card(patch: pytest.MonkeyPatch) -> None:
    load = CapturedStep.load

    def draw(self: CapturedStep, model: nn.Module, train: Images, settings: Settings) -> None:
        load(self, model, train, settings)
        torch.manual_seed(1)
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    patch.setattr(CapturedStep, "load", draw)


def _casts_that_are_cached(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "ablate.train.step.autocast",
        lambda device, precision: torch.autocast(device.type, torch.bfloat16, cache_enabled=True),
    )


def _gradients_set_to_none_outside(patch: pytest.MonkeyPatch) -> None:
    zero_grad = torch.optim.Optimizer.zero_grad

    def outside(self: torch.optim.Optimizer, set_to_none: bool = True) -> None:
        if not torch.cuda.is_current_stream_capturing():
            zero_grad(self, set_to_none)

    patch.setattr(torch.optim.Optimizer, "zero_grad", outside)


def _a_sum_divided_by_another_batchs_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CapturedStep, "_match", lambda self, batch: self.settings.batch_size)


@pytest.mark.parametrize(
    ("plant", "changes"),
    [
        (_a_rate_as_a_number, {}),
        (_an_index_that_is_replaced, {}),
        (_momentums_first_step_captured, {"momentum": 0.9}),
        (_weights_drawn_on_the_card, {}),
        (_casts_that_are_cached, {"precision": "bfloat16"}),
        (_gradients_set_to_none_outside, {}),
        (_a_sum_divided_by_another_batchs_size, {"reduction": "sum", "lr_rule": "matched"}),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_planted_trap_is_found_before_a_capture_serves(
    plant: Any, changes: dict[str, Any], train: Images, valid: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, **changes)

    def asked() -> tuple[Step, str | None]:
        # Somebody's autocast around ours, whose cache outlives a step.
        with torch.autocast("cuda", torch.bfloat16, enabled=settings.precision == "bfloat16"):
            return ready(train, valid, settings)

    assert asked()[0].engine == "graph"
    ablate.train.engine._KEPT.clear()
    plant(monkeypatch)
    step, reason = asked()
    assert step.engine == "eager"
    assert "differ from eager ones" in str(reason)


def _only_weights_are_loaded(patch: pytest.MonkeyPatch) -> None:
    def load(self: CapturedStep, model: nn.Module, train: Images, settings: Settings) -> None:
        self.settings = self.augmentation.settings = settings
        with torch.no_grad():
            for mine, first in zip(self.model.parameters(), model.parameters(), strict=True):
                mine.copy_(first)

    patch.setattr(CapturedStep, "load", load)


@pytest.mark.parametrize("planted", [False, True])
def test_a_trial_after_a_diverged_one_is_as_if_there_had_been_none(
    planted: bool, train: Images, valid: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eighth trap: statistics and momentum that are not numbers stay where only weights are loaded."""
    settings = replace(SETTINGS, momentum=0.9)
    _, expected = trained(train, valid, settings, engine="eager")
    step, _ = ready(train, valid, replace(settings, lr=1e30), seed=2)
    with pytest.raises(DivergedError):
        fit(step, valid)
    if planted:
        _only_weights_are_loaded(monkeypatch)
        with pytest.raises(DivergedError):
            trained(train, valid, settings)
    else:
        _, weights = trained(train, valid, settings)
        torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-5)
