"""What a run settles before it trains: profile, device, arithmetic, threads."""

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from ablate.errors import DeviceError, StudyError
from ablate.execution.driver import (
    Options,
    Watcher,
    choose_profile,
    idle_cores,
    plan_settled,
    run_settled,
    settle,
    trials_at_a_time,
    usable_cores,
)
from ablate.execution.prepare import resolve_device, resolve_numerics
from ablate.store.timing import read_timing
from ablate.study.fields import resolve
from ablate.study.study import Profile, Study, load_study
from ablate.study.trials import Numerics

BASE = {"data": "digits", "image_size": 8}


def study(**changes: Any) -> Study:
    return Study(**{"question": "?", "name": "s", "base": BASE, **changes})


def test_the_hardware_decides_unless_a_profile_is_named() -> None:
    declared = study(profiles={"full": Profile(), "cpu": Profile(), "quick": Profile()})
    assert choose_profile(declared, None, "cuda") == ("full", "CUDA is present, so profile full runs")
    assert choose_profile(declared, None, "cpu")[0] == "quick"
    assert choose_profile(declared, "cpu", "cpu") == ("cpu", "--profile cpu was given")
    assert choose_profile(study(), None, "cpu")[0] == "default"
    with pytest.raises(StudyError, match=r"on cpu the profile 'quick' would run, .* only full"):
        choose_profile(study(profiles={"full": Profile()}), None, "cpu")


def test_arithmetic_is_resolved_by_device() -> None:
    bfloat16, float32 = (resolve(BASE, {"precision": name}) for name in ("bfloat16", "float32"))
    cpu = Numerics(device="cpu", precision="bfloat16", deterministic=True)
    assert resolve_numerics(bfloat16, "cpu") == cpu
    assert resolve_numerics(bfloat16, "cpu", 4) == cpu.model_copy(update={"threads": 4})
    cuda = Numerics(device="cuda", precision="float32", deterministic=False)
    assert resolve_numerics(float32, "cuda", 4) == resolve_numerics(float32, "cuda", 1) == cuda


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_and_its_engine_are_refused_where_there_is_none() -> None:
    assert resolve_device("auto") == "cpu"
    with pytest.raises(DeviceError, match="torch sees none"):
        resolve_device("cuda")
    with pytest.raises(DeviceError, match="--engine graph: expected a GPU"):
        settle(study(), Options(device="cpu", engine="graph"))


def first_id(declared: Study, **options: Any) -> str:
    settled = Options(device="cpu", **options)
    return plan_settled(settle(declared, settled), settled, Watcher())[0].trials[0].trial_id


def pictured(data: Path, **changes: Any) -> Study:
    return study(base={"data": f"folder:{data}", "image_size": 8, "epochs": 1, **changes}, seeds=1)


def pictures(root: Path, *, prefix: str = "", valid: int = 1) -> Path:
    """Three classes of four images each, to train on and to report on, these by a seed."""
    for split, seed in (("train", 0), ("val", valid)):
        rng = np.random.default_rng(seed)
        for name, number in itertools.product("abc", range(4)):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / name / f"{prefix}{number}.png")
    return root


def test_wrong_labels_are_part_of_a_trials_identity(tmp_path: Path) -> None:
    """They are drawn by the images' names, which the fingerprint of clean data leaves out."""
    ours, renamed = pictures(tmp_path / "ours", prefix="x"), pictures(tmp_path / "renamed", prefix="y")

    def ids(**changes: Any) -> list[str]:
        return [first_id(pictured(data, **changes)) for data in (ours, renamed)]

    clean, noisy = ids(), ids(label_noise=0.5)
    assert clean[0] == clean[1]
    assert len({clean[0], *noisy}) == 3
    assert ids(label_noise=0.5) == noisy


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda count: monkeypatch.setattr("ablate.execution.driver.usable_cores", lambda: count)


def test_no_more_trials_at_a_time_than_cores_have_threads_for(cores: Callable[[int], None]) -> None:
    cores(4)
    asked = [(None, 1), (0, 1), (1, 1), (3, 1), (99, 1), (None, 2), (1, 2), (3, 2), (None, 3), (None, 4)]
    found = [trials_at_a_time("cpu", Options(workers=w, threads=t)) for w, t in asked]
    assert found == [4, 1, 1, 3, 4, 2, 1, 2, 1, 1]


@given(st.integers(0, 40), st.integers(1, 64), st.none() | st.integers(1, 70), st.integers(1, 64))
def test_advice_on_idle_cores_helps(trials: int, count: int, workers: int | None, threads: int) -> None:
    assume(threads <= count)
    options = Options(workers=workers, threads=threads)

    def busy(threads: int) -> int:
        other = options.model_copy(update={"threads": threads})
        return threads * min(trials, trials_at_a_time("cpu", other))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ablate.execution.driver.usable_cores", lambda: count)
        line = idle_cores(trials, "cpu", options)
        assert bool(line) == (trials > 0 and busy(threads) < count)
        if line:
            form = r"idle CPU cores: (\d+) of (\d+); --threads (\d+) would keep (\d+) busy, "
            idle, of, advice, said = map(int, re.findall(form, line)[0])
            assert (idle, of) == (count - busy(threads), count)
            assert busy(threads) < busy(advice) == said <= count
            for_as_many_trials = threads * count // busy(threads)
            if for_as_many_trials > threads:
                assert advice == for_as_many_trials
            else:
                assert said == max(map(busy, range(1, count + 1)))
    assert idle_cores(trials, "cuda", options) == ""


def test_threads_that_cannot_be_had(cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    cores(4)
    assert len({first_id(study(), threads=threads) for threads in (1, 2, 4)}) == 3  # they are other trials
    with pytest.raises(StudyError, match=r"--threads 5: expected at most 4 on cpu: .* give fewer"):
        settle(study(), Options(device="cpu", threads=5))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settle(study(), Options(device="cuda"))
    with pytest.raises(StudyError, match=r"--threads 2: expected at most 1 on cuda: .* leave --threads out"):
        settle(study(), Options(device="cuda", threads=2))


def test_a_lone_last_image_is_refused_or_taken(tmp_path: Path) -> None:
    """12 training images: batches of 11 leave one."""
    data = pictures(tmp_path / "ours", prefix="x")
    with pytest.raises(StudyError, match=r"batch_size: 12 training images in batches of 11 .* drop_last"):
        first_id(pictured(data, batch_size=11))
    assert first_id(pictured(data, batch_size=11, drop_last=True))
    assert first_id(pictured(data, batch_size=5))
    assert first_id(pictured(data, batch_size=11, arch="vit_tiny"))  # no batch normalisation
    with pytest.raises(StudyError, match="resnet81"):  # before any data
        first_id(pictured(tmp_path / "nowhere", arch="resnet81"))


NET = """
from torch import nn
WHOSE = {name!r}
def net(*, num_classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear({head}))
"""
OWN = """
from ablate import Study
study = Study(question="?", base={"data": "synthetic", "image_size": 8, "arch": "same_name:net"})
"""


def test_each_study_has_its_own_folders_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders with a module of one name, loaded in one process, from a third folder that has it too."""
    monkeypatch.setattr("sys.path", ["", *sys.path])
    for name, head in (("a", "192, num_classes"), ("b", "192, num_classes, bias=False"), ("elsewhere", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_name.py").write_text(NET.format(head=head, name=name))
        (tmp_path / name / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path / "elsewhere")
    studies = {name: load_study(tmp_path / name / "own.py") for name in ("a", "b")}
    ids: dict[str, str] = {}
    for name in ("a", "b", "a"):
        trial_id = first_id(studies[name])
        assert name == sys.modules["same_name"].WHOSE
        assert ids.setdefault(name, trial_id) == trial_id
    assert ids["a"] != ids["b"]
    del sys.modules["same_name"]


class Impatient(Watcher):
    def preparing(self, label: str, done: int, total: int) -> None:
        if "timing" in label:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_steps_are_timed_once_in_a_worker_of_as_many_threads_as_trials_have(tmp_path: Path) -> None:
    synthetic = {"data": "synthetic", "image_size": 16, "epochs": 1, "batch_size": 32}
    declared, threads = study(name="tiny", base=synthetic, seeds=1), min(2, usable_cores())
    options = Options(device="cpu", workers=1, threads=threads, results=tmp_path)

    def run(watcher: Watcher) -> tuple[int, bool]:
        summary = run_settled(settle(declared, options), options, watcher)
        return summary.ran, summary.interrupted

    folder = settle(declared, options).folder(options)
    assert run(Watcher()) == (1, False)
    timing = read_timing(folder)
    assert timing is not None
    own = timing.environment
    assert (own.engine, own.threads, own.workers) == ("eager", threads, 1)
    assert (run(Impatient()), read_timing(folder)) == ((0, False), timing)
    folder.timing.unlink()
    assert (run(Impatient()), read_timing(folder)) == ((0, True), None)
