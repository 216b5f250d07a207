"""The training loop against a hand-written one, and its promises: pairing, resuming, divergence."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ablate.train import Callbacks, DivergedError, EpochResult, Fitted, Images, Settings, Step, fit
from ablate.train.augment import Augmentation
from ablate.train.images import batches, epoch_order
from ablate.train.schedule import learning_rate

MEAN, STD = (0.47, 0.48, 0.45), (0.29, 0.28, 0.30)
SETTINGS = Settings(
    epochs=3,
    batch_size=16,
    eval_batch_size=7,
    drop_last=False,
    lr=0.1,
    momentum=0.0,
    weight_decay=0.0,
    epsilon=0.1,
    reduction="mean",
    lr_rule="fixed",
    precision="float32",
    deterministic=True,
    order_seed=5,
    noise_seed=6,
)


def smoothed(logits: Tensor, target: Tensor, /, *, epsilon: Tensor, reduction: str) -> Tensor:
    return functional.cross_entropy(logits, target, label_smoothing=float(epsilon), reduction=reduction)


def pixels(count: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 120, (count, 6, 6, 3)) + 40 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


TRAIN, VALID = pixels(50, 0), pixels(23, 1)


def images(split: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> Images:
    return Images.on(torch.device("cpu"), *split, MEAN, STD)


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    return model.to(memory_format=torch.channels_last)


def run(model: nn.Module, settings: Settings = SETTINGS, **options: Any) -> Fitted:
    return fit(Step(model, smoothed, images(TRAIN), settings), images(VALID), **options)


def hand_loop(model: nn.Module, *, momentum: float = 0.0, weight_decay: float = 0.0) -> list[float]:
    """The source's recipe as a textbook writes it: mean training loss per epoch."""
    x = torch.from_numpy(TRAIN[0]).permute(0, 3, 1, 2).double() / 255
    x = ((x - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)).float()
    y = torch.from_numpy(TRAIN[1])
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    means = []
    for epoch in range(3):
        total = 0.0
        for index in torch.split(epoch_order(50, 5, epoch), 16):
            log_p = functional.log_softmax(model(x[index]), dim=1)
            loss = 0.9 * functional.nll_loss(log_p, y[index]) - 0.1 * log_p.mean()
            model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for place, p in enumerate(model.parameters()):
                assert p.grad is not None
                velocity[place] = momentum * velocity[place] + p.grad + weight_decay * p.detach()
                p.data -= 0.1 * velocity[place]
            total += loss.item() * len(index)
        means.append(total / 50)
    return means


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_trains_as_a_textbook_loop_does(momentum: float, weight_decay: float) -> None:
    ours, theirs = network(), network()
    fitted = run(ours, replace(SETTINGS, momentum=momentum, weight_decay=weight_decay))
    expected = hand_loop(theirs, momentum=momentum, weight_decay=weight_decay)
    assert [epoch.train_loss for epoch in fitted.progress.history] == pytest.approx(expected, rel=1e-5)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_last_epoch_is_measured_as_torch_and_numpy_would() -> None:
    model = network()
    fitted = run(model)
    last, labels = fitted.progress.history[-1], VALID[1]
    logits = torch.from_numpy(fitted.logits).double()
    assert last.valid_accuracy == np.mean(logits.argmax(1).numpy() == labels)
    target = torch.from_numpy(labels)
    assert last.valid_nll == pytest.approx(functional.cross_entropy(logits, target).item(), rel=1e-12)
    smooth = functional.cross_entropy(logits, target, label_smoothing=0.1).item()
    assert last.valid_loss == pytest.approx(smooth, rel=1e-5)
    confidence = logits.softmax(1).max(1).values.numpy()
    count, _ = np.histogram(confidence, bins=15, range=(0, 1))
    total, _ = np.histogram(confidence, bins=15, range=(0, 1), weights=confidence)
    assert list(last.bin_count) == list(count)
    assert last.bin_confidence == pytest.approx(total)
    assert sum(last.bin_correct) == round(last.valid_accuracy * len(labels))
    model.eval()
    with torch.no_grad():
        once = model(images(VALID).batch(slice(None))[0])
    np.testing.assert_allclose(fitted.logits, once.numpy(), rtol=1e-4, atol=1e-6)


def weights(model: nn.Module) -> list[bytes]:
    return [value.numpy().tobytes() for value in model.state_dict().values()]


def test_the_same_seeds_give_the_same_bits_and_others_do_not() -> None:
    first, second, reordered, renoised = (network(dropout=0.3) for _ in range(4))
    run(first)
    run(second)
    run(reordered, replace(SETTINGS, order_seed=7))
    run(renoised, replace(SETTINGS, noise_seed=7))
    assert weights(first) == weights(second)
    assert weights(first) != weights(reordered)
    assert weights(first) != weights(renoised)


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.9},
        {"optimizer": "adamw", "schedule": "one_cycle", "mixup": 0.3, "crop_area": 0.5, "flip": True},
        {"optimizer": "ranger", "schedule": "flat_cosine", "momentum": 0.9, "lr": 0.01},
    ],
    ids=str,
)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **changes)
    whole = network(dropout=0.3)
    expected = run(whole, settings)

    class StoppedError(Exception):
        pass

    saved: list[dict[str, Any]] = []

    def save_and_stop(make: Any) -> None:
        state = make()
        saved.append(copy.deepcopy(state))
        raise StoppedError

    with pytest.raises(StoppedError):
        run(network(dropout=0.3), settings, callbacks=Callbacks(save=save_and_stop))
    resumed = network(dropout=0.3)
    torch.manual_seed(999)  # whatever state a new process has
    fitted = run(resumed, settings, checkpoint=saved[0])
    assert weights(resumed) == weights(whole)
    assert fitted.logits.tobytes() == expected.logits.tobytes()
    assert [strip(e) for e in fitted.progress.history] == [strip(e) for e in expected.progress.history]


def strip(result: EpochResult) -> EpochResult:
    return replace(result, seconds=0.0)


STEPPERS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"clip_norm": 0.3},
    {"optimizer": "adamw", "lr": 0.01, "momentum": 0.9},
    {"mixup": 0.4, "flip": True, "crop_area": 0.5},
]


@pytest.mark.parametrize("changes", STEPPERS, ids=str)
def test_reductions_that_are_the_same_mathematics_train_the_same_network(changes: dict[str, Any]) -> None:
    """Ragged batches included: to the bit for none, to rounding for a matched sum."""
    mean, none, matched = (network() for _ in range(3))
    settings = replace(SETTINGS, weight_decay=0.01, **changes)
    run(mean, settings)
    run(none, replace(settings, reduction="none"))
    run(matched, replace(settings, reduction="sum", lr_rule="matched"))
    assert weights(none) == weights(mean)
    for p, q in zip(matched.parameters(), mean.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("changes", STEPPERS, ids=str)
def test_a_matched_sum_over_batches_of_a_power_of_two_is_the_mean_bit_for_bit(
    changes: dict[str, Any],
) -> None:
    """Dividing by a power of two rounds nothing, so that only the order of additions could differ."""
    mean, matched = network(), network()
    settings = replace(SETTINGS, weight_decay=0.01, drop_last=True, **changes)
    run(mean, settings)
    run(matched, replace(settings, reduction="sum", lr_rule="matched"))
    assert weights(matched) == weights(mean)


@pytest.mark.parametrize("changes", [{"lr": 0.1 / 64}, {"lr": 0.1 / 16, "weight_decay": 0.01}], ids=str)
def test_a_sum_with_a_smaller_rate_is_another_run_when_not_matched(changes: dict[str, Any]) -> None:
    """A rate over the batch's size forgets the ragged batch, and takes from the weight decay too."""
    mean, unmatched = network(), network()
    run(mean, replace(SETTINGS, weight_decay=changes.get("weight_decay", 0.0)))
    run(unmatched, replace(SETTINGS, reduction="sum", **changes))
    assert not all(
        torch.allclose(p, q, rtol=1e-3)
        for p, q in zip(unmatched.parameters(), mean.parameters(), strict=True)
    )


def test_clipping_bounds_the_step() -> None:
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    run(model, replace(SETTINGS, epochs=1, batch_size=50, clip_norm=0.01))
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-2)


def test_mixup_is_the_hand_written_one() -> None:
    """One step by hand: pixels and losses mixed with the same weights, the loss reduced after."""
    settings = replace(SETTINGS, epochs=1, batch_size=50, mixup=0.4)
    ours, theirs = network(), network()
    fitted = run(ours, settings)
    order = epoch_order(50, 5, 0)
    mixture = Augmentation(settings, 50, 0, torch.device("cpu")).mixture(order)
    assert mixture is not None
    x, y = images(TRAIN).batch(order)
    weight = mixture.weight.view(-1, 1, 1, 1)
    log_p = functional.log_softmax(theirs(weight * x + (1 - weight) * x[mixture.partner]), dim=1)
    one_hot = functional.one_hot(y, 3).float()
    targets = mixture.weight[:, None] * one_hot + (1 - mixture.weight[:, None]) * one_hot[mixture.partner]
    loss = -((0.9 * targets + 0.1 / 3) * log_p).sum(1).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    assert fitted.progress.history[0].train_loss == pytest.approx(loss.item(), rel=1e-5)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert q.grad is not None
        torch.testing.assert_close(p, q - 0.1 * q.grad, rtol=1e-4, atol=1e-6)


def test_images_decoded_larger_are_shrunk_to_what_the_network_sees() -> None:
    seen: list[tuple[int, ...]] = []
    model = network()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    for changes in ({}, {"crop_area": 0.5}, {"flip": True}):
        fitted = run(model, replace(SETTINGS, epochs=1, image_size=4, **changes))
    assert set(seen) == {(4, 4)}
    model.eval()
    with torch.no_grad():
        small = functional.interpolate(
            images(VALID).batch(slice(None))[0], (4, 4), mode="bilinear", antialias=True
        )
        np.testing.assert_allclose(fitted.logits, model(small).numpy(), rtol=1e-4, atol=1e-6)


def test_the_learning_rate_follows_its_schedule_over_the_whole_run() -> None:
    settings = replace(SETTINGS, schedule="one_cycle", anneal_from=0.25, drop_last=True)
    history = run(network(), settings).progress.history
    expected = [learning_rate("one_cycle", 0.1, step=step, steps=9, anneal_from=0.25) for step in (2, 5, 8)]
    assert [epoch.lr for epoch in history] == expected
    assert expected[-1] == pytest.approx(0.1e-5)


def test_a_summed_loss_is_reported_per_image() -> None:
    mean = run(network()).progress.history[0]
    summed = run(network(), replace(SETTINGS, reduction="sum", lr_rule="matched")).progress.history[0]
    assert summed.train_loss == pytest.approx(mean.train_loss, rel=1e-5)


def test_divergence_is_found_at_its_step() -> None:
    calls = 0

    def explodes(logits: Tensor, target: Tensor, /, *, epsilon: Tensor, reduction: str) -> Tensor:
        nonlocal calls
        value = smoothed(logits, target, epsilon=epsilon, reduction=reduction)
        if reduction != "mean":
            return value
        calls += 1
        return value * (math.nan if calls == 6 else 1.0)  # the second step of epoch 1

    with pytest.raises(DivergedError, match="step 1 of epoch 1") as caught:
        fit(Step(network(), explodes, images(TRAIN), SETTINGS), images(VALID))
    assert (caught.value.epoch, caught.value.step, len(caught.value.history)) == (1, 1, 1)


def test_a_learning_rate_that_is_too_high_diverges() -> None:
    with pytest.raises(DivergedError):
        run(network(), replace(SETTINGS, lr=1e30))


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [16, 16, 16, 2]), (True, [16, 16, 16])])
def test_the_last_ragged_batch_is_kept_or_dropped(drop_last: bool, sizes: list[int]) -> None:
    parts = batches(torch.arange(50), 16, drop_last=drop_last)
    assert [len(part) for part in parts] == sizes
    assert [len(p) for p in batches(torch.arange(9), 16, drop_last=drop_last)] == [9]


def test_an_epoch_order_is_a_permutation_of_its_own() -> None:
    orders = [epoch_order(50, 5, epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_step_times_leave_out_the_warm_up() -> None:
    settings = replace(SETTINGS, batch_size=5)  # 10 steps an epoch
    assert len(run(network(), settings).progress.step_ms) == 3 * 10 - 5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_logits_are_float32_under_every_precision(precision: Any) -> None:
    assert run(network(), replace(SETTINGS, precision=precision, epochs=1)).logits.dtype == np.float32


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cuda_trains_as_the_cpu_does(precision: Any) -> None:
    device = torch.device("cuda")
    settings = replace(SETTINGS, precision=precision)
    train, valid = (Images.on(device, *split, MEAN, STD) for split in (TRAIN, VALID))
    fitted = fit(Step(network().to(device), smoothed, train, settings), valid)
    expected = run(network())
    tolerance = 1e-3 if precision == "float32" else 5e-2
    ours = [epoch.train_loss for epoch in fitted.progress.history]
    assert ours == pytest.approx([e.train_loss for e in expected.progress.history], rel=tolerance)
    assert all(ms > 0 for ms in fitted.progress.step_ms)
    assert train.pixels.device.type == "cuda"


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize("changes", [{}, {"crop_area": 0.5, "flip": True, "mixup": 0.2}], ids=str)
def test_a_cuda_step_never_waits_for_the_device(changes: dict[str, Any]) -> None:
    device = torch.device("cuda")

    def sync_free(logits: Tensor, target: Tensor, /, *, epsilon: Tensor, reduction: str) -> Tensor:
        return functional.cross_entropy(logits, target, reduction=reduction) + 0 * epsilon

    settings = replace(SETTINGS, **changes)
    train = Images.on(device, *TRAIN, MEAN, STD)
    step = Step(network().to(device), sync_free, train, settings)
    index = torch.arange(16, device=device)
    step(index)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(index)
    finally:
        torch.cuda.set_sync_debug_mode("default")
