"""The training loop, optimisers and schedules against torch's, papers' and hand-written ones; promises."""

import copy
import math
import mmap
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import MEAN, SEED, STD, TRAIN, VALID, changed, history, images, network, run, smoothed
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from ablate.study.fields import Fields
from ablate.train.device import cpu_has_bfloat16, peak_memory_mb, reset_peak_memory, set_numerics
from ablate.train.fit import Callbacks, DivergedError, fit
from ablate.train.images import Augmentation, batches, epoch_order, epoch_seed, shrink
from ablate.train.optimizer import Ranger, build_optimizer, build_schedule
from ablate.train.step import Step


def weights(model: nn.Module) -> list[bytes]:
    return [value.numpy().tobytes() for value in model.state_dict().values()]


def assert_close(model: nn.Module, expected: Iterable[Tensor]) -> None:
    torch.testing.assert_close([*model.parameters()], [*expected], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("momentum", "weight_decay", "seen"), [(0.0, 0.0, 50), (0.9, 0.01, 48)])
def test_trains_as_a_textbook_loop_does(momentum: float, weight_decay: float, seen: int) -> None:
    ours, theirs = network(), network()
    fields = changed(momentum=momentum, weight_decay=weight_decay, drop_last=seen == 48)
    fitted = run(ours, fields)
    x = torch.from_numpy(TRAIN[0]).permute(0, 3, 1, 2).double() / 255
    x = ((x - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)).float()
    y = torch.from_numpy(TRAIN[1])
    velocity = [torch.zeros_like(p) for p in theirs.parameters()]
    for epoch in range(3):
        total, correct = 0.0, 0
        for index in torch.split(epoch_order(50, SEED, epoch)[:seen], 16):
            log_p = functional.log_softmax(theirs(x[index]), dim=1)
            loss = 0.9 * functional.nll_loss(log_p, y[index]) - 0.1 * log_p.mean()
            theirs.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for number, p in enumerate(theirs.parameters()):
                assert p.grad is not None
                velocity[number] = momentum * velocity[number] + p.grad + weight_decay * p.detach()
                p.data -= 0.1 * velocity[number]
            total += loss.item() * len(index)
            correct += int((log_p.argmax(1) == y[index]).sum())
        assert fitted.history[epoch].train_loss == pytest.approx(total / seen, rel=1e-5)
        assert fitted.history[epoch].train_accuracy == correct / seen
    assert_close(ours, theirs.parameters())


def test_own_optimizer_schedule_and_average_are_those_of_a_loop_by_hand() -> None:
    own = {
        "optimizer": "torch.optim.NAdam",
        "optimizer.momentum_decay": 0.02,
        "weight_decay": 0.01,
        "ema": 0.8,
    }
    fields = changed(lr=0.02, decay_norms=False, schedule="small_training:power", drop_last=True, **own)
    fields = changed(fields, **{"schedule.exponent": 2.0})
    ours, theirs, steps = network(), network(), 9
    step = Step(ours, smoothed, images(TRAIN), fields, SEED)
    fitted = fit(step, images(VALID))
    flat = [p for p in theirs.parameters() if p.ndim == 1]
    groups: list[Any] = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1]},
        {"params": flat, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.NAdam(groups, weight_decay=0.01, momentum_decay=0.02)
    parts = [part for e in range(3) for part in torch.split(epoch_order(50, SEED, e)[:48], 16)]
    kept = []
    for number, index in enumerate(parts):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - number / (steps - 1) / 2) ** 2
        optimizer.zero_grad()
        x, y = images(TRAIN).batch(index)
        functional.cross_entropy(theirs(x), y, label_smoothing=0.1).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        kept.append([p.detach().clone() for p in theirs.parameters()])
    assert_close(ours, theirs.parameters())
    assert [epoch.lr for epoch in fitted.history] == pytest.approx(
        [0.02 * (1 - n / 16) ** 2 for n in (2, 5, 8)]
    )
    shares = [0.8 ** (steps - 1 - number) for number in range(steps)]
    averages = [sum(a * p for a, p in zip(shares, of, strict=True)) for of in zip(*kept, strict=True)]
    averages = [average / sum(shares) for average in averages]
    assert_close(step.evaluated, averages)
    for mine, theirs_last in zip(step.evaluated.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs_last)
    with torch.no_grad():
        for p, average in zip(theirs.parameters(), averages, strict=True):
            p.copy_(average)
        logits = theirs.eval()(images(VALID).batch(slice(None))[0])
    np.testing.assert_allclose(fitted.predictions.logits, logits.numpy(), rtol=1e-4, atol=1e-5)
    assert fitted.history[-1].valid_nll == pytest.approx(
        functional.cross_entropy(logits, torch.from_numpy(VALID[1])).item(), rel=1e-4
    )


def test_last_epoch_is_measured_as_torch_and_numpy_would() -> None:
    model = network()
    fitted = run(model)
    last, labels = fitted.history[-1], VALID[1]
    np.testing.assert_array_equal(fitted.predictions.labels, labels)
    logits = torch.from_numpy(fitted.predictions.logits).double()
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
    assert sum(last.bin_correct) == (logits.argmax(1).numpy() == labels).sum()
    with torch.no_grad():
        once = model.eval()(images(VALID).batch(slice(None))[0])
    np.testing.assert_allclose(fitted.predictions.logits, once.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stream", ["order", "noise"])
def test_a_seed_gives_the_same_bits_stream_by_stream(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, redrawn = (network(dropout=0.3) for _ in range(3))
    run(first)
    run(second)

    def another(seed: int, name: str, epoch: int) -> int:
        return epoch_seed(seed + (name == stream), name, epoch)

    for module in ("images", "step"):
        monkeypatch.setattr(f"ablate.train.{module}.epoch_seed", another)
    run(redrawn)
    assert weights(first) == weights(second) != weights(redrawn)


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.9},
        {"optimizer": "adamw", "schedule": "one_cycle", "mixup": 0.3, "crop_area": 0.5, "flip": True},
        {"optimizer": "ranger", "schedule": "flat_cosine", "momentum": 0.9, "lr": 0.01},
        {"optimizer": "small_training:Counts", "ema": 0.7, "augmentation": "small_training:noisy"},
        {"optimizer": "torch.optim.NAdam", "schedule": "small_training:power", "schedule.exponent": 2.0},
    ],
    ids=str,
)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(changes: dict[str, Any]) -> None:
    fields, whole = changed(**changes), network(dropout=0.3)
    expected = run(whole, fields)

    saved: list[dict[str, Any]] = []
    save = Callbacks(save=lambda make: saved.append(copy.deepcopy(make())))
    run(network(dropout=0.3), fields, callbacks=save)
    resumed = network(dropout=0.3)
    torch.manual_seed(999)  # whatever state a new process has
    fitted = run(resumed, fields, checkpoint=saved[0])
    assert weights(resumed) == weights(whole)
    assert fitted.predictions.logits.tobytes() == expected.predictions.logits.tobytes()
    assert history(fitted) == history(expected)


ADAMW = {"optimizer": "adamw", "lr": 0.01, "momentum": 0.9}
AUGMENTED = {"mixup": 0.4, "flip": True, "crop_area": 0.5}


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.9}, {"clip_norm": 0.3}, ADAMW, AUGMENTED], ids=str)
def test_reductions_that_are_the_same_mathematics_train_the_same_network(changes: dict[str, Any]) -> None:
    """To the bit for none; for a matched sum to rounding, to the bit where the batch is a power of two."""
    mean, none, matched = (network() for _ in range(3))
    fields = changed(weight_decay=0.01, **changes)
    expected = run(mean, fields).history[-1].train_loss
    run(none, changed(fields, reduction="none"))
    summed = run(matched, changed(fields, reduction="sum", lr_rule="matched"))
    assert summed.history[-1].train_loss == pytest.approx(expected, rel=1e-4)  # per image, too
    assert weights(none) == weights(mean)
    assert_close(matched, mean.parameters())
    whole, whole_matched = network(), network()
    run(whole, changed(fields, drop_last=True))
    run(whole_matched, changed(fields, drop_last=True, reduction="sum", lr_rule="matched"))
    assert weights(whole_matched) == weights(whole)


@pytest.mark.parametrize(("drop_last", "decay"), [(True, 0.0), (False, 0.0), (True, 0.1)])
def test_an_unmatched_sum_is_the_mean_but_for_ragged_batches_and_decay(drop_last: bool, decay: float) -> None:
    mean, unmatched, fields = network(), network(), changed(drop_last=drop_last, weight_decay=decay)
    run(mean, fields)
    run(unmatched, changed(fields, reduction="sum", lr=0.1 / 16))
    pairs = zip(unmatched.parameters(), mean.parameters(), strict=True)
    same = all(torch.allclose(p, q, rtol=1e-4, atol=1e-6) for p, q in pairs)
    assert same == (drop_last and not decay)


def test_clipping_bounds_the_step() -> None:
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    run(model, changed(epochs=1, batch_size=50, clip_norm=0.01))
    moved = [(p.detach() - b).norm() for p, b in zip(model.parameters(), before, strict=True)]
    assert torch.stack(moved).norm().item() == pytest.approx(0.1 * 0.01, rel=1e-2)


def test_mixup_is_the_hand_written_one() -> None:
    """One step by hand: pixels and losses mixed with the same weights, the loss reduced after."""
    fields = changed(epochs=1, batch_size=50, mixup=0.4)
    ours, theirs = network(), network()
    fitted = run(ours, fields)
    order = epoch_order(50, SEED, 0)
    mixture = Augmentation(fields, SEED, 50, 0, torch.device("cpu")).mixture(order)
    assert mixture is not None
    (share, partner), (x, y) = mixture, images(TRAIN).batch(order)
    weight, share = share.view(-1, 1, 1, 1), share[:, None]
    log_p = functional.log_softmax(theirs(weight * x + (1 - weight) * x[partner]), dim=1)
    one_hot = functional.one_hot(y, 3).float()
    targets = share * one_hot + (1 - share) * one_hot[partner]
    loss = -((0.9 * targets + 0.1 / 3) * log_p).sum(1).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    assert fitted.history[0].train_loss == pytest.approx(loss.item(), rel=1e-5)
    assert_close(ours, (q - 0.1 * q.grad for q in theirs.parameters() if q.grad is not None))


def test_images_decoded_larger_are_shrunk_to_what_the_network_sees() -> None:
    seen: list[tuple[int, ...]] = []
    model = network()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    for changes in ({}, {"crop_area": 0.5}, {"flip": True}):
        fitted = run(model, changed(epochs=1, image_size=4, **changes))
    assert set(seen) == {(4, 4)}
    model.eval()
    expected = model(shrink(images(VALID).batch(slice(None))[0], 4)).detach().numpy()
    np.testing.assert_allclose(fitted.predictions.logits, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("exploding", "call", "where", "step"),
    [("mean", 6, "step 1 of epoch 1", 1), ("none", 2, "the evaluation after epoch 1", None)],
)
def test_divergence_is_found_where_it_is(exploding: str, call: int, where: str, step: int | None) -> None:
    calls = 0

    def explodes(logits: Tensor, target: Tensor, /, *, epsilon: float | Tensor, reduction: str) -> Tensor:
        nonlocal calls
        calls += reduction == exploding
        value = smoothed(logits, target, epsilon=epsilon, reduction=reduction)
        return value * math.nan if reduction == exploding and calls == call else value

    with pytest.raises(DivergedError, match=where) as caught:
        fit(Step(network(), explodes, images(TRAIN), changed(), SEED), images(VALID))
    assert (caught.value.epoch, caught.value.step, len(caught.value.history)) == (1, step, 1)


def test_an_epoch_is_a_permutation_of_its_own_whose_ragged_batch_is_kept_or_dropped() -> None:
    for count, kept, dropped in ((50, [16, 16, 16, 2], [16, 16, 16]), (9, [9], [9])):
        for drop_last, sizes in ((False, kept), (True, dropped)):
            assert [len(part) for part in batches(torch.arange(count), 16, drop_last=drop_last)] == sizes
    orders = [epoch_order(50, SEED, epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_step_times_leave_out_the_warm_up_and_images_those_that_were_dropped() -> None:
    states: list[dict[str, Any]] = []
    save = Callbacks(save=lambda make: states.append(make()))
    cost = run(network(), changed(batch_size=5), callbacks=save).cost  # 10 steps an epoch
    assert len(states[-1]["step_ms"]) == 3 * 10 - 5  # the list goes on after the checkpoint
    quantiles = np.quantile(states[-1]["step_ms"], [0.2, 0.5, 0.8])
    assert [cost.step_ms_p20, cost.step_ms, cost.step_ms_p80] == quantiles.tolist()
    for drop_last, count in ((False, 50), (True, 48)):
        cost = run(network(), changed(drop_last=drop_last)).cost
        assert cost.images_per_second * cost.train_seconds == pytest.approx(3 * count)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cuda_trains_as_the_cpu_does(precision: str) -> None:
    fitted = run(network().to("cuda"), changed(precision=precision))
    on_cpu = run(network())
    expected = [epoch.train_loss for epoch in on_cpu.history]
    tolerance = 1e-3 if precision == "float32" else 5e-2
    assert [epoch.train_loss for epoch in fitted.history] == pytest.approx(expected, rel=tolerance)
    assert fitted.cost.step_ms_p20 > 0
    assert fitted.features is not None is not on_cpu.features
    assert fitted.features.valid.within == pytest.approx(on_cpu.features.valid.within, rel=tolerance)


def test_bfloat16_is_used_only_where_the_processor_has_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert not cpu_has_bfloat16(cpuinfo)  # no such file
    has = {"fpu avx512_bf16 sse": True, "fpu amx_bf16": True, "avx512_vnni": False, "not_avx512_bf16x": False}
    for flags, expected in has.items():
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        assert cpu_has_bfloat16(cpuinfo) is expected


def test_peak_memory_rises_by_what_is_taken_and_starts_anew() -> None:
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before = peak_memory_mb(cpu)
    block = mmap.mmap(-1, 240_000_000)  # and not malloc, which may have been told to keep what is freed
    block.write(b"1" * 240_000_000)
    taken = peak_memory_mb(cpu)
    assert taken - before > 200
    block.close()
    reset_peak_memory(cpu)
    assert peak_memory_mb(cpu) < taken - 200


def test_numerics_are_set_both_ways() -> None:
    for deterministic in (True, False):
        set_numerics(deterministic=deterministic)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert not torch.backends.cudnn.allow_tf32


FIELDS = changed(lr=0.01, momentum=0.9, weight_decay=0.1, optimizer="adamw", beta2=0.99, adam_epsilon=1e-6)
RATE = changed(lr=0.4)


def rate(fields: Fields, step: int, steps: int) -> float:
    return fields.lr * build_schedule(fields)(step / max(steps - 1, 1))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def train(
    model: nn.Module, optimizer: Any, after: Callable[[int], None] = lambda steps: None
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for number in range(20):
        x, y = torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        after(number + 1)
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_ranger_is_the_papers_look_ahead_around_torchs_radam() -> None:
    ours, theirs = linear(), linear()
    unused = nn.Parameter(torch.ones(2))  # which has no gradient, and is left alone
    ours.register_parameter("unused", unused)
    decay: dict[str, Any] = {"weight_decay": 0.1, "decoupled_weight_decay": True}
    radam = torch.optim.RAdam(theirs.parameters(), 0.01, (0.9, 0.99), 1e-6, **decay)
    slow = [parameter.detach().clone() for parameter in theirs.parameters()]

    def look_ahead(steps: int) -> None:
        if steps % 6 == 0:
            for behind, parameter in zip(slow, theirs.parameters(), strict=True):
                behind += 0.5 * (parameter.detach() - behind)
                parameter.data = behind.clone()

    expected = train(theirs, radam, look_ahead)
    ranger = build_optimizer(ours, changed(FIELDS, optimizer="ranger"))
    assert isinstance(ranger, Ranger)
    trained = train(ours, ranger, ranger.look_ahead)
    torch.testing.assert_close(trained, [torch.ones(2), *expected], rtol=1e-5, atol=1e-7)


def test_adamw_is_torchs_with_decay_on_matrices_only() -> None:
    ours, theirs = linear(), linear()
    weight, bias, scale, shift, last, last_bias = theirs.parameters()
    rest = {"params": [bias, scale, shift, last_bias], "weight_decay": 0.0}
    groups = [{"params": [weight, last], "weight_decay": 0.1}, rest]
    expected = train(theirs, torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99), eps=1e-6))
    trained = train(ours, build_optimizer(ours, changed(FIELDS, decay_norms=False)))
    torch.testing.assert_close(trained, expected, rtol=0, atol=0)


@pytest.mark.parametrize("anneal_from", [0.1, 0.25, 0.5])
def test_one_cycle_is_torchs(anneal_from: float) -> None:
    steps, fields = 101, changed(RATE, schedule="one_cycle", anneal_from=anneal_from)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cycle = OneCycleLR(
        optimizer, max_lr=0.4, total_steps=steps, pct_start=(anneal_from * (steps - 1) + 1) / steps,
        div_factor=25, final_div_factor=4000,
    )  # fmt: skip
    for step in range(steps):
        assert rate(fields, step, steps) == pytest.approx(cycle.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        if step + 1 < steps:
            cycle.step()


def test_flat_cosine_is_flat_and_then_falls() -> None:
    fields = changed(RATE, schedule="flat_cosine", anneal_from=0.75)
    rates = [rate(fields, step, 101) for step in range(101)]
    assert rates[:76] == [0.4] * 76
    assert all(after < before for before, after in pairwise(rates[75:]))
    assert rates[88] == pytest.approx(0.4 * 0.46860, rel=1e-4)  # 13 of 25 steps down a half cosine
    assert rates[-1] == pytest.approx(0.4e-5)


@pytest.mark.parametrize("schedule", ["constant", "one_cycle", "flat_cosine"])
def test_a_rate_is_never_above_the_highest_nor_zero(schedule: str) -> None:
    for anneal_from in (0.0, 0.3, 0.99):
        fields = changed(RATE, schedule=schedule, anneal_from=anneal_from)
        rates = [rate(fields, step, steps) for steps in (1, 2, 7) for step in range(steps)]
        assert 0 < min(rates) <= max(rates) <= 0.4
        assert schedule != "constant" or set(rates) == {0.4}
