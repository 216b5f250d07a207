"""Captured steps against eager ones: the same weights, one capture for many trials, and eight planted traps.

On a machine without a GPU they run on the pretended card, which replays what a capture recorded, on the same
tensors. What only a real card shows (algorithms of cuDNN, rounding, streams) `ablate bench cuda` measures.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
import torch
from small_training import SEED, Made, changed, history, images, network, pixels, smoothed
from torch import Tensor, nn

import ablate.train.engine
from ablate.losses import build_loss
from ablate.models import build_model
from ablate.study.fields import RECIPES, Fields
from ablate.train.engine import Build, CapturedStep, Work, ready_step
from ablate.train.fit import Callbacks, DivergedError, Fitted, fit
from ablate.train.images import Images
from ablate.train.step import Step

pytestmark = pytest.mark.cuda

FIELDS = changed(epochs=2, batch_size=16, eval_batch_size=24, lr=0.05, image_size=16)
NETWORKS = (
    "seed_cnn", "seed_cnn_bn_relu", "xresnet18", "xse_resnext50", "vit_tiny", "resnet18",
    "mobilenet_v3_small",
)  # fmt: skip
LOSS = build_loss("label_smoothing")


@functools.cache
def splits() -> tuple[Images, Images]:
    """Training images in batches of 16 and 12, reported ones in batches of 24 and 6."""
    return images(pixels(28, 0, side=18), "cuda"), images(pixels(30, 1, side=18), "cuda")


@pytest.fixture(autouse=True)
def _no_captures() -> None:
    ablate.train.engine._KEPT.clear()


@pytest.fixture
def captures() -> Iterator[Mock]:
    """Counts the captures that are made."""
    with patch.object(CapturedStep, "_capture", autospec=True, side_effect=CapturedStep._capture) as counted:
        yield counted


def small(seed: int) -> nn.Module:
    """A network with all that makes captures go wrong: statistics, dropout, biases."""
    return network(dropout=0.2, seed=seed)


def named(arch: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(arch, num_classes=3, image_size=16)


def ready(fields: Fields, *, engine: str = "graph", build: Build = small, **options: Any) -> Step:
    train, valid = splits()
    options = {"loss": LOSS, "train": train, "seed": SEED, **options}
    return ready_step(engine, "kind", build, valid=valid, fields=fields, **options)


def trained(fields: Fields, **options: Any) -> tuple[Fitted, list[Tensor]]:
    """A run, and its weights and buffers."""
    step = ready(fields, **options)
    assert step.engine == options.get("engine", "graph")
    fitted = fit(step, splits()[1])
    return fitted, [value.detach().cpu().clone() for value in step.model.state_dict().values()]


# Every other recipe for each network, and more than one network for each recipe.
PAIRS = [(arch, name) for at, arch in enumerate(NETWORKS) for name in [*RECIPES][at % 2 :: 2]]


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "name"), PAIRS)
def test_trials_a_b_a_train_as_eager_ones_from_one_capture(arch: str, name: str, captures: Mock) -> None:
    sizes = {"epochs": 2, "batch_size": 16, "eval_batch_size": 24}
    fields, build = changed(FIELDS, **{**RECIPES[name].model_dump(), **sizes}), functools.partial(named, arch)
    other = changed(fields, epsilon=0.4, lr=fields.lr / 2, label_noise=0.2)
    first = trained(fields, build=build)
    made = captures.call_count
    trained(other, build=build, seed=2)
    again = trained(fields, build=build)
    assert captures.call_count == made == len({16, 12} if not fields.drop_last else {16}) + 1
    eager = trained(fields, build=build, engine="eager")
    for outcome in (first, again):
        torch.testing.assert_close(outcome[1], eager[1], rtol=1e-5, atol=1e-5)
        ours, theirs = (of.predictions.logits for of in (outcome[0], eager[0]))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
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
        {"ema": 0.9, "momentum": 0.9, "optimizer.nesterov": True},
        {"augmentation": "small_training:faded", "schedule": "small_training:power", "schedule.exponent": 3},
    ],
    ids=str,
)
def test_each_setting_is_that_of_the_eager_step(changes: dict[str, Any]) -> None:
    fields = changed(FIELDS, **changes)
    trained(changed(fields, epsilon=0.4), seed=2)
    runs = [trained(fields, engine=engine) for engine in ("graph", "eager")]
    torch.testing.assert_close(*(weights for _, weights in runs), rtol=1e-5, atol=1e-5)
    ours, theirs = ([epoch["valid_loss"] for epoch in history(fitted)] for fitted, _ in runs)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_wrong_labels_of_one_trial_are_not_the_next_ones() -> None:
    right, _ = splits()
    wrong = replace(right, labels=(right.labels + 1) % 3)
    noisy, _ = trained(FIELDS, train=wrong)
    clean, weights = trained(FIELDS)
    _, expected = trained(FIELDS, engine="eager")
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-5)
    assert history(noisy) != history(clean)
    assert not torch.equal(wrong.labels, right.labels)  # nobody else's labels are written to


def test_another_kind_has_a_capture_of_its_own_and_the_oldest_goes(captures: Mock) -> None:
    for batch_size, kinds in ((8, 1), (9, 2), (10, 3), (11, 4), (12, 5), (12, 5), (8, 6)):
        trained(changed(FIELDS, batch_size=batch_size, epochs=1, drop_last=True))
        assert captures.call_count == 2 * kinds


@pytest.mark.parametrize("engine", ["eager", "graph"])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_nothing_waits_between_an_epochs_first_step_and_its_last(engine: str) -> None:
    fields = changed(FIELDS, mixup=0.4, crop_area=0.5, flip=True, optimizer="ranger", lr=0.003, epochs=3)
    fields = changed(fields, ema=0.9, augmentation="small_training:faded")
    step = ready(fields, engine=engine)
    for epoch in range(3):
        parts = step.begin_epoch(epoch)
        losses = torch.zeros(len(parts), device="cuda")
        torch.cuda.set_sync_debug_mode("error")
        try:
            for number, index in enumerate(parts):
                losses[number], _ = step(index, epoch * len(parts) + number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert bool(losses.isfinite().all())


def test_a_stopped_run_goes_on_in_another_capture_to_the_same_end(tmp_path: Path) -> None:
    fields = changed(FIELDS, optimizer="ranger", lr=0.003, epochs=4, schedule="flat_cosine", anneal_from=0.5)
    whole, weights = trained(fields)
    kept = itertools.count()
    save = Callbacks(save=lambda make: torch.save(make(), tmp_path / f"{next(kept)}.pt"))
    fit(ready(fields), splits()[1], callbacks=save)
    ablate.train.engine._KEPT.clear()
    trained(fields, seed=3)  # and after another trial of the same kind
    step = ready(fields)
    assert step.engine == "graph"
    resumed = fit(step, splits()[1], checkpoint=torch.load(tmp_path / "1.pt", map_location="cpu"))
    assert history(resumed) == history(whole)
    ended = [value.detach().cpu() for value in step.model.state_dict().values()]
    torch.testing.assert_close(ended, weights, rtol=0, atol=0)


def reads_the_device(seed: int) -> nn.Module:
    return Made(lambda net, x: net.layers(x) * (1 if float(x.sum()) > -1e30 else -1), layers=small(0))


def counts_calls_on_the_host(seed: int) -> nn.Module:
    calls = itertools.count()
    return Made(lambda net, x: net.layers(x) * (1 + next(calls) % 3 * net.training), layers=small(0))


def test_what_cannot_be_captured_trains_eagerly_and_says_why(captures: Mock) -> None:
    reads = "cannot be captured"
    by_image, foreign = {"augmentation": "small_training:noisy"}, {"optimizer": "torch.optim.NAdam"}
    for reason, changes, options in (
        (reads, {}, {"build": reads_the_device}),
        (reads, {}, {"loss": smoothed}),  # which reads epsilon
        (reads, by_image, {}),
        ("is not ablate's own", foreign, {}),
        ("differ from eager ones", {}, {"build": counts_calls_on_the_host}),
    ):
        fields = changed(FIELDS, **changes)
        step = ready(fields, **options)
        assert re.match(f"eager: .*{reason}", step.engine)
        assert fit(step, splits()[1]).history
        tried = captures.call_count
        assert ready(fields, **options).engine == step.engine
        assert captures.call_count == tried  # it is not tried again
        ablate.train.engine._KEPT.clear()


def a_number(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def same_index(self: CapturedStep, work: Work, size: int) -> Work:
    replay, index = CAPTURE(self, work, size), torch.arange(size, device="cuda")
    return lambda _: replay(index)


def drawn_on_the_card(self: CapturedStep, *loaded: Any) -> None:
    LOAD(self, *loaded)
    torch.manual_seed(1)
    for module in self.model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)


def outside_a_capture(self: torch.optim.Optimizer, set_to_none: bool = True) -> None:
    if not torch.cuda.is_current_stream_capturing():
        ZERO_GRAD(self, set_to_none)


def weights_only(self: CapturedStep, model: nn.Module, train: Images, fields: Fields, seed: int) -> None:
    self.fields = self.augmentation.fields = fields
    self.seed = self.augmentation.seed = seed
    with torch.no_grad():
        for mine, first in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.copy_(first)


CAPTURE, LOAD, ZERO_GRAD = CapturedStep._capture, CapturedStep.load, torch.optim.Optimizer.zero_grad
SUMMED = {"reduction": "sum", "lr_rule": "matched"}


def of_a_whole_batch(step: Step, logits: Any, labels: Any, mixture: Any) -> Any:
    """A loss that is matched to the declared size of a batch, also in the shorter last one."""
    return Step._batch_loss(step, logits, labels, mixture) * len(labels) / step.fields.batch_size


@pytest.mark.parametrize(
    ("place", "planted", "changes"),
    [
        ("ablate.train.step.set_rate", a_number, {}),
        ("ablate.train.engine.CapturedStep._capture", same_index, {}),
        ("ablate.train.engine.WARM_UP", 0, {"momentum": 0.9}),  # momentum's first step is captured
        ("ablate.train.engine.CapturedStep.load", drawn_on_the_card, {}),
        (
            "ablate.train.step.autocast",
            lambda *_: torch.autocast("cuda", torch.bfloat16),
            {"precision": "bfloat16"},
        ),
        ("torch.optim.Optimizer.zero_grad", outside_a_capture, {}),
        ("ablate.train.engine.CapturedStep._batch_loss", of_a_whole_batch, SUMMED),
    ],
)
def test_a_planted_trap_is_found_before_a_capture_serves(
    place: str, planted: Any, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = changed(FIELDS, **changes)

    def asked() -> Step:
        # Somebody's autocast around ours, whose cache outlives a step.
        with torch.autocast("cuda", torch.bfloat16, enabled=fields.precision == "bfloat16"):
            return ready(fields)

    assert asked().engine == "graph"
    ablate.train.engine._KEPT.clear()
    monkeypatch.setattr(place, planted)
    assert "differ from eager ones" in asked().engine


@pytest.mark.parametrize("planted", [False, True])
def test_a_diverged_trial_leaves_nothing_to_the_next(planted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The eighth trap: statistics and momentum that are not numbers stay where only weights are loaded."""
    fields = changed(FIELDS, momentum=0.9, ema=0.5)
    _, expected = trained(fields, engine="eager")
    with pytest.raises(DivergedError):
        trained(changed(fields, lr=1e30), seed=2)
    if planted:
        monkeypatch.setattr(CapturedStep, "load", weights_only)
        with pytest.raises(DivergedError):
            trained(fields)
    else:
        _, weights = trained(fields)
        torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-5)
