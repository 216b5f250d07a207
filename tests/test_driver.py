"""What a run settles before it trains: profile, device, arithmetic, threads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ablate.driver import (
    Options,
    choose_profile,
    plan_study,
    resolve_device,
    resolve_numerics,
    trial_widths,
    trials_at_a_time,
)
from ablate.errors import DeviceError, StudyError
from ablate.fields import resolve
from ablate.study import Profile, Study
from ablate.trials import Numerics, Plan, expand

BASE = {"data": "digits", "image_size": 8}
CPU = Numerics(device="cpu", precision="float32", deterministic=True)


def study(**changes: Any) -> Study:
    return Study(**{"question": "?", "base": BASE, **changes})


def plan(trials: int) -> Plan:
    declared = study(seeds=trials)
    expanded = expand(declared, lambda fields: "f", lambda fields: CPU)
    return Plan(study=declared, profile="p", reason="r", trials=tuple(expanded))


@pytest.mark.parametrize(
    ("trials", "capacity", "workers", "expected"),
    [
        (1, 2, 2, [2]),
        (2, 2, 2, [1, 1]),
        (3, 2, 2, [1, 1, 2]),
        (5, 4, 4, [1, 1, 1, 1, 4]),
        (6, 4, 4, [1, 1, 1, 1, 2, 2]),
        (3, 16, 16, [5, 5, 5]),
        (4, 2, 1, [2, 2, 2, 2]),
    ],
)
def test_threads_follow_from_the_plan_and_the_machine(
    trials: int, capacity: int, workers: int, expected: list[int]
) -> None:
    assert list(trial_widths(plan(trials), capacity, workers).values()) == expected


PROFILES = {"full": Profile(), "cpu": Profile(), "quick": Profile()}


@pytest.mark.parametrize(
    ("asked", "device", "name", "reason"),
    [
        (None, "cuda", "full", "CUDA is present"),
        (None, "cpu", "quick", "no CUDA is present"),
        ("cpu", "cpu", "cpu", "--profile cpu was given"),
    ],
)
def test_the_hardware_decides_unless_a_profile_is_named(
    asked: str | None, device: str, name: str, reason: str
) -> None:
    chosen, why = choose_profile(study(profiles=PROFILES), asked, device)
    assert chosen == name
    assert reason in why


def test_a_study_without_the_profile_that_is_called_for() -> None:
    with pytest.raises(StudyError, match=r"on cpu the profile 'quick' would run, .* only full"):
        choose_profile(study(profiles={"full": Profile()}), None, "cpu")
    assert choose_profile(study(), None, "cpu")[0] == "default"


def test_arithmetic_is_resolved_by_device() -> None:
    fields = resolve(BASE, {"precision": "bfloat16"})
    assert resolve_numerics(fields, "cpu") == Numerics(device="cpu", precision="bfloat16", deterministic=True)
    fields = resolve(BASE, {"precision": "float32"})
    assert not resolve_numerics(fields, "cuda").deterministic
    assert resolve_numerics(resolve(BASE, {"deterministic": True}), "cpu").deterministic


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_where_there_is_none() -> None:
    assert resolve_device("auto") == "cpu"
    with pytest.raises(DeviceError, match="torch sees none"):
        resolve_device("cuda")


class Silent:
    """A watcher that nobody listens to."""

    def preparing(self, label: str, done: int, total: int) -> None: ...
    def note(self, line: str) -> None: ...


def planned(data: Path, **changes: Any) -> Plan:
    base = {"data": f"folder:{data}", "image_size": 8, "epochs": 1}
    declared = study(name="noise", base={**base, **changes}, seeds=1)
    return plan_study(declared, Options(device="cpu"), Silent())[0]  # type: ignore[arg-type]


def pictures(root: Path, *, prefix: str) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b", "c"):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{prefix}{number}.png")
    return root


def test_wrong_labels_are_part_of_a_trials_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn by the images' names, which the fingerprint of clean data leaves out."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    ours, renamed = pictures(tmp_path / "ours", prefix="x"), pictures(tmp_path / "renamed", prefix="y")

    def ids(**changes: Any) -> list[str]:
        return [planned(data, **changes).trials[0].trial_id for data in (ours, renamed)]

    clean, noisy = ids(), ids(label_noise=0.5)
    assert clean[0] == clean[1]
    assert noisy[0] != noisy[1]
    assert not {*clean} & {*noisy}
    assert ids(label_noise=0.5) == noisy


def test_no_more_trials_at_a_time_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.driver.usable_cores", lambda: 4)
    assert [trials_at_a_time("cpu", asked) for asked in (None, 1, 3, 99)] == [4, 1, 3, 4]
