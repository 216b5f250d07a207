"""What a run settles before it trains: profile, device, arithmetic, threads."""

import itertools
import json
import os
import re
import subprocess
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
from test_main import numbers

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
from ablate.study.fields import resolve
from ablate.study.study import Profile, Study, load_study
from ablate.study.trials import Numerics

BASE = {"data": "digits", "image_size": 8}


def study(**changes: Any) -> Study:
    return Study(**{"question": "?", "base": BASE, **changes})


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


@pytest.mark.slow
def test_how_many_run_at_a_time_changes_no_number(tmp_path: Path) -> None:
    """In the driver's own process, and on two workers, where the last of three is alone."""
    declared = study(name="three", base={**BASE, "epochs": 2, "batch_size": 32, "lr": 0.1}, seeds=3)
    found = []
    for workers in (0, 2):
        options = Options(device="cpu", workers=workers, results=tmp_path / str(workers), timing=False)
        summary = run_settled(settle(declared, options), options, Watcher())
        assert (summary.ran, summary.failed) == (3, 0)
        found.append(numbers(summary.folder))
    assert found[0] == found[1]


LEAVES = """
import sys, torch
class Leaves(torch.nn.Module):
    def __init__(self, num_classes, image_size):
        super().__init__()
        self.head = torch.nn.Linear(3 * image_size**2, num_classes)
    def forward(self, images):
        return self.head(images.flatten(1)) if len(images) > 1 else sys.exit()
"""


def test_a_lone_last_image_is_refused_or_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 training images: batches of 11 leave one."""
    data = pictures(tmp_path / "ours", prefix="x")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lone_network.py").write_text(LEAVES)
    with pytest.raises(StudyError, match=r"leave a last batch of one image"):
        first_id(pictured(data, batch_size=11, arch="lone_network:Leaves"))
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


COUNTED = """
import json, sys
from collections import Counter
from pathlib import Path
from rich.console import Console
from ablate.execution.driver import Options, run_settled, settle
from ablate.execution.progress import Watcher
from ablate.store.timing import read_timing
from ablate.study.study import Study

study = Study(
    name="tiny", question="?", seeds=2,
    base={"data": "synthetic", "image_size": 16, "epochs": 1, "batch_size": 32, "lr": 0.05},
)
opened, workers = Counter(), []

def audit(event, arguments):
    if event == "open" and "records/" in str(arguments[0]) and str(arguments[0]).endswith(".json"):
        opened[Path(str(arguments[0])).name] += 1
    if event == "subprocess.Popen" and "ablate.execution.worker" in arguments[1]:
        workers[-1] += 1

class Impatient(Watcher):
    def preparing(self, label, done, total):
        if "timing" in label:
            raise KeyboardInterrupt

def run(view=Watcher):
    workers.append(0)
    summary = run_settled(settle(study, options), options, view(Console(stderr=True)))
    return summary.ran, summary.interrupted, read_timing(summary.folder)

sys.addaudithook(audit)
options = Options(device="cpu", workers=1, threads=int(sys.argv[2]), results=Path(sys.argv[1]))
*first, timing = run()
environment = (timing.environment.engine, timing.environment.threads, timing.environment.workers)
opened.clear()
*second, kept = run()
read = list(opened.values())
heavy = sorted({"matplotlib", "pandas", "optuna", "torchvision", "sklearn"} & set(sys.modules))
(options.results / "tiny" / "default" / "timing.json").unlink()
third = run(Impatient)
print(json.dumps([workers, first, environment, second, kept == timing, read, heavy, third]))
"""


@pytest.mark.slow
def test_one_warm_worker_trains_and_times_and_a_finished_study_reads_each_record_once(tmp_path: Path) -> None:
    command, threads = [sys.executable, "-c", COUNTED, str(tmp_path)], min(2, usable_cores())
    own = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # one that spins is in the way of others
    result = subprocess.run([*command, str(threads)], env=own, capture_output=True, text=True, check=True)
    workers, first, environment, *second, third = json.loads(result.stdout)
    assert workers == [1, 0, 1]  # the last one for the timing pass alone, whose file had been deleted
    assert (first, environment) == ([2, False], ["eager", threads, 1])
    assert second == [[0, False], True, [1, 1], []]
    assert third == [0, True, None]
