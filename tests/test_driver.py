"""What a run settles before it trains: profile, device, arithmetic, threads."""

import sys
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
    trial_widths,
    trials_at_a_time,
)
from ablate.errors import DeviceError, StudyError
from ablate.fields import resolve
from ablate.inputs import resolve_device, resolve_numerics
from ablate.study import Profile, Study, load_study
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
    return plan_study(declared, Options(device="cpu"), Silent())  # type: ignore[arg-type]


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


def test_a_lone_last_image_is_refused_where_the_network_cannot_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 training images: batches of 11 leave one."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    data = pictures(tmp_path / "ours", prefix="x")
    with pytest.raises(
        StudyError, match=r"batch_size: 12 training images in batches of 11 leave .* drop_last"
    ):
        planned(data, batch_size=11)
    assert planned(data, batch_size=11, drop_last=True).trials
    assert planned(data, batch_size=5).trials
    assert planned(data, batch_size=11, arch="vit_tiny").trials  # no batch normalisation


def test_a_wrong_name_is_found_before_any_data(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(StudyError, match="resnet81"):
        planned(nowhere, arch="resnet81")


def test_each_study_has_the_modules_of_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two folders with a module of one name, loaded in one process, from a third folder that has it too."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.path", ["", *sys.path])
    text = "from torch import nn\ndef net(*, num_classes, image_size):\n    "
    text += "return nn.Sequential(nn.Flatten(), {})\n"
    head = {"a": "nn.Linear(192, num_classes)", "b": "nn.LazyLinear(num_classes)"}
    study_text = (
        "from ablate.study import Study\n"
        "study = Study(question='?', base={'data': 'synthetic', 'image_size': 8, 'arch': 'same_name:net'})\n"
    )
    for name in ("a", "b", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_name.py").write_text(
            text.format(head.get(name, "missing")) + f"WHOSE = {name!r}\n"
        )
        (tmp_path / name / "own.py").write_text(study_text)
    monkeypatch.chdir(tmp_path / "elsewhere")
    studies = {name: load_study(tmp_path / name / "own.py") for name in ("a", "b")}
    ids: dict[str, str] = {}
    for name in ("a", "b", "a"):
        plan = plan_study(studies[name], Options(device="cpu"), Silent())  # type: ignore[arg-type]
        assert name == sys.modules["same_name"].WHOSE
        assert ids.setdefault(name, plan.trials[0].trial_id) == plan.trials[0].trial_id
    assert ids["a"] != ids["b"]
    del sys.modules["same_name"]
