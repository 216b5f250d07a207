"""Code that does its worst costs its own job, for the right reason, and leaves no process behind."""

import ctypes
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from test_local_executor import endings, gone, pids_in

from ablate.errors import StoppedError
from ablate.execution.driver import Options, Watcher, run_settled, settle
from ablate.execution.executors import Done, Job, LocalExecutor, Lost, Started
from ablate.store.records import read_records
from ablate.study.study import Study, load_study


class Unreadable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


class Own(BaseException):
    pass


def sleeper(left: Path, **options: Any) -> None:
    child = subprocess.Popen(["sleep", "300"], **options)
    left.write_text(f"{child.pid} {os.getpid()}")


def do(task: tuple[str, Path], slot: int, tell: Callable[[Any], None]) -> Any:
    action, left = task
    match action:
        case "raise":
            raise ValueError("no such thing")
        case "reset":  # as a network that talks to a server may: the driver's pipe is whole
            raise ConnectionResetError("by its server")
        case "exit 0":
            sys.exit(0)
        case "die 0":
            os._exit(0)
        case "crash with a copy":
            if os.fork() == 0:
                time.sleep(300)
            ctypes.string_at(0)
        case "stray bytes":
            for descriptor in range(3, 5000):
                try:
                    os.write(descriptor, b"hello world")
                except OSError:
                    continue
        case "copy returns":
            if os.fork():
                os.wait()
                return "the first"
        case "slow to die":
            os.closerange(3, 5000)
            time.sleep(3)
            os._exit(4)
        case "late words":
            print("said before the end")
            os._exit(5)
        case "unreadable":
            return Unreadable()
        case "unsendable":
            return lambda: 0
        case "interrupt":
            raise KeyboardInterrupt
        case "own":
            raise Own("mine")
        case "not text":
            raise ValueError("bad \udcff.png")
        case "no files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
            return [Path(os.devnull).open() for _ in range(40)]
        case "leave":
            sleeper(left, start_new_session=True)
        case "leave and wait":
            sleeper(left, start_new_session=True)
            time.sleep(300)
        case "talk":
            sleeper(left)
            while True:
                tell("more")
                time.sleep(0.1)
        case "stop":
            sleeper(left)
            os.kill(os.getpid(), signal.SIGSTOP)
        case "shout":
            for _ in range(25):
                print("x" * 1_000_000)
                time.sleep(0.1)
        case "draw":
            return random.random.__module__, os.getpid()
    return "done"


REASONS = {
    "raise": r"ValueError: no such thing \(in do, line",
    "reset": r"ConnectionResetError: by its server \(in do, line",
    "exit 0": r"SystemExit: 0 \(in do",
    "die 0": "its process exited with status 0",
    "crash with a copy": "its process was killed by SIGSEGV",
    "stray bytes": "something else was written where its results go",
    "slow to die": "its process exited with status 4",
    "late words": "its process exited with status 5; the last line of its output: said before the end",
    "unreadable": "what it sent cannot be read",
    "unsendable": "its outcome cannot be sent",
    "interrupt": r"KeyboardInterrupt \(in do",
    "own": r"test_supervised.Own: mine \(in do",
    "not text": "ValueError: bad ",
}


@pytest.mark.slow
def test_the_worst_costs_its_own_job_and_says_why(tmp_path: Path) -> None:
    jobs = [Job(name, (name, tmp_path / name), fresh=True) for name in (*REASONS, "copy returns", "leave")]
    jobs += [Job("warm", ("draw", tmp_path)), Job("warm too", ("draw", tmp_path))]
    ended = endings(list(LocalExecutor(do, workers=2, logs=tmp_path).run(jobs)))
    assert {name: type(event) for name, event in ended.items()} == {
        job.name: Lost if job.name in REASONS else Done for job in jobs
    }
    for name, reason in REASONS.items():
        lost = ended[name]
        assert isinstance(lost, Lost)
        assert (lost.status, lost.attempt) == (("killed", 3) if "killed" in reason else ("error", 1))
        with pytest.raises(ValueError, match=f"^{reason}"):
            raise ValueError(lost.reason)
    assert ended["copy returns"] == Done("copy returns", "the first", 1)
    assert all(gone(pid, within=5) for pid in pids_in(tmp_path / "leave"))


@pytest.mark.slow
def test_one_that_says_nothing_or_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    nothing = "said nothing for 1 s"
    reasons = {"leave and wait": nothing, "stop": nothing, "talk": "took longer than 2 s"}
    jobs = [Job(name, (name, tmp_path / name), fresh=True) for name in reasons]
    ended = endings(list(LocalExecutor(do, workers=3, stall=1.0, timeout=2.0).run(jobs)))
    for name, reason in reasons.items():
        assert ended[name] == Lost(name, "timeout", reason, 1)
        assert all(gone(pid, within=5) for pid in pids_in(tmp_path / name))


@pytest.mark.slow
def test_a_machine_that_fails_ends_the_run_and_blames_no_job(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match=r"Too many open files.*the same command goes on"):
        list(LocalExecutor(do).run([Job("no files", ("no files", tmp_path))]))
    with pytest.raises(StoppedError, match="No module named 'not_there'"):
        list(LocalExecutor(do, imports=("not_there",)).run([Job("any", ("draw", tmp_path))]))


@pytest.mark.slow
@pytest.mark.parametrize("when", ["at work", "as it imports"])
def test_nothing_outlives_a_killed_driver(tmp_path: Path, when: str) -> None:
    (tmp_path / "importing.py").write_text("""import os, pathlib, time
pathlib.Path(__file__).with_name("left").write_text(str(os.getpid()))
time.sleep(60)
""")
    code = f"""
from test_supervised import *
sys.path.append({str(tmp_path)!r})
executor = LocalExecutor(do, imports={("importing",) if when == "as it imports" else ()})
list(executor.run([Job("left", ("leave and wait", Path({str(tmp_path / "left")!r})))]))
"""
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent)
    pids = pids_in(tmp_path / "left")
    driver.kill()
    driver.wait()
    assert all(gone(pid, within=10) for pid in pids)


@pytest.mark.slow
def test_a_supervisor_killed_from_outside_costs_an_attempt_and_leaves_nothing(tmp_path: Path) -> None:
    left, found = tmp_path / "left", list[int]()
    executor = LocalExecutor(do)
    for event in executor.run([Job("left", ("leave and wait", left), fresh=True)]):
        if isinstance(event, Started):
            Thread(target=kill_supervisor, args=(executor, left, found)).start()
    assert event == Lost("left", "killed", "its process was killed by SIGKILL", 3)
    assert len(found) == 6
    assert all(gone(pid, within=5) for pid in found)


def kill_supervisor(executor: LocalExecutor, left: Path, found: list[int]) -> None:
    found += pids_in(left)
    left.unlink()
    os.kill(executor._busy[0].process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_what_jobs_print_is_in_a_bounded_file_and_nowhere_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    list(LocalExecutor(do, logs=tmp_path / "logs").run([Job("shout", ("shout", tmp_path))]))
    assert 0 < (tmp_path / "logs" / "worker-0.log").stat().st_size < 20_000_000
    assert capfd.readouterr() == ("", "")


def test_a_folder_of_the_user_s_shadows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("random", "torch", "ablate", "types", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (ended,) = endings(list(LocalExecutor(do, apart=tmp_path).run([Job("1", ("draw", tmp_path))]))).values()
    assert isinstance(ended, Done)


NETWORK = """
import random
import numpy as np
from torch import nn
built = 0
class Net(nn.Module):
    def __init__(self, num_classes, image_size):
        global built
        super().__init__()
        built += 1
        self.head = nn.Linear(3 * image_size**2, num_classes)
        nn.init.normal_(self.head.weight, std=0.01 * built)
    def forward(self, images):
        return self.head(images.flatten(1)) * (0.5 + random.random() + np.random.rand())
"""
OWN = """
import os
from ablate import Study
def train(trial, *, edits=0):
    if edits:
        with open(__file__, "a") as file:
            file.write("changed = 1\\n")
    return {"logits": [[0.0, 1.0]], "labels": [1]}
study = Study(question="?", train=train, factors={"edits": (0, 1)}, baseline={"edits": 0}, seeds=2)
"""


@pytest.mark.slow
def test_a_network_s_own_state_and_draws_are_the_same_however_a_study_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_main import numbers

    (tmp_path / "counting_net.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    base = {"data": "synthetic", "image_size": 8, "epochs": 1, "batch_size": 32, "arch": "counting_net:Net"}
    found = []
    for name, workers, steps in (("at once", 2, (3,)), ("resumed", 1, (1, 3))):
        for seeds in steps:
            study = Study(name=name, question="?", base=base, seeds=seeds)
            options = Options(device="cpu", workers=workers, results=tmp_path, timing=False)
            summary = run_settled(settle(study, options), options, Watcher())
            assert (summary.failed, summary.interrupted) == (0, False)
        found.append(numbers(summary.folder))
    assert found[0] == found[1]


@pytest.mark.slow
def test_code_edited_while_its_study_runs_is_recorded_under_no_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "edited.py").write_text(OWN)
    options = Options(device="cpu", workers=1, results=tmp_path)
    settled = settle(load_study(tmp_path / "edited.py"), options)
    with pytest.raises(StoppedError, match=r"edited\.py: changed while the study ran"):
        run_settled(settled, options, Watcher())
    kept = read_records(settled.folder(options))
    assert sorted(record.trial.arm for record in kept.values()) == ["edits=0", "edits=1"]
