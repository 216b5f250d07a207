"""Workers that die, raise, hang or are orphaned cost their own job, and leave nothing behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_main import alive

from ablate.execution.executors import Done, Event, InlineExecutor, Job, LocalExecutor, Lost, Started, Told


def do(task: dict[str, Any], slot: int, tell: Callable[[Any], None]) -> Any:
    """Do what the task says, leaving a line in its log; a worker process imports it by name."""
    log, action = Path(task["log"]), task["do"]
    with log.open("a") as file:
        file.write(f"{action}\n")
    tries = len(log.read_text().splitlines())
    tell(f"begun {action}")
    if action == "kill" and tries <= task["times"]:
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise ValueError("no such thing")
    elif action == "sleep":
        child = subprocess.Popen(["sleep", "300"])
        log.with_suffix(".child").write_text(f"{child.pid} {os.getpid()}")
        time.sleep(300)
    elif action == "interval":
        begun = time.monotonic()
        time.sleep(0.2)
        return begun, time.monotonic(), os.getpid()
    return f"alive at try {tries}"


def job(tmp_path: Path, action: str, name: str = "", **task: Any) -> Job:
    name = name or action
    return Job(name, {"do": action, "log": str(tmp_path / f"{name}.log"), **task})


def run(jobs: list[Job], workers: int = 2, **options: Any) -> list[Event]:
    return list(LocalExecutor(do, workers=workers, **options).run(jobs))


def endings(events: list[Event]) -> dict[str, Event]:
    return {event.name: event for event in events if isinstance(event, (Done, Lost))}


def gone(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def pids_in(path: Path) -> list[int]:
    """What a sleeper writes when it has started: its child's and its own."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.05)
    return list(map(int, path.read_text().split()))


@pytest.mark.slow
def test_every_job_ends_once_and_no_more_run_at_once_than_workers_which_are_kept_warm(tmp_path: Path) -> None:
    events = run([job(tmp_path, "interval", f"job {n}") for n in range(6)])
    for n in range(6):
        assert [type(event) for event in events if event.name == f"job {n}"] == [Started, Told, Done]
    done = [event.outcome for event in events if isinstance(event, Done)]
    assert (len(events), len({process for _, _, process in done})) == (18, 2)
    for at, _, _ in done:
        assert sum(begun <= at < ended for begun, ended, _ in done) <= 2
    assert run([]) == []


@pytest.mark.slow
def test_a_killed_worker_costs_one_of_three_attempts(tmp_path: Path) -> None:
    ever = job(tmp_path, "kill", "ever", times=99)
    events = run([job(tmp_path, "kill", times=2), job(tmp_path, "interval"), ever])
    ended = endings(events)
    assert ended["ever"] == Lost("ever", "killed", "its process was killed by SIGKILL", 3)
    assert ended["kill"] == Done("kill", "alive at try 3", 3)
    assert isinstance(ended["interval"], Done)
    assert [e.attempt for e in events if isinstance(e, Started) and e.name == "kill"] == [1, 2, 3]


def test_closing_the_run_kills_the_workers(tmp_path: Path) -> None:
    events = LocalExecutor(do, workers=1).run([job(tmp_path, "sleep")])
    assert [type(next(events)) for _ in range(2)] == [Started, Told]
    pids = pids_in(tmp_path / "sleep.child")
    events.close()  # type: ignore[attr-defined]
    assert all(gone(pid, within=5) for pid in pids)


def test_a_worker_has_its_next_job_before_the_end_of_its_last_is_told(tmp_path: Path) -> None:
    events = run([job(tmp_path, "interval", f"job {n}") for n in range(2)], workers=1)
    told = [(type(event), event.name) for event in events if not isinstance(event, Told)]
    assert told == [(Started, "job 0"), (Started, "job 1"), (Done, "job 0"), (Done, "job 1")]


def test_warm_workers_take_the_jobs_and_are_no_more_than_may_run(tmp_path: Path) -> None:
    executor = LocalExecutor(do, workers=2, imports=("wave",))
    executor.warm_up(9)
    warm = {worker.process.pid for worker in executor._idle}
    jobs = [job(tmp_path, "interval", f"job {n}") for n in range(4)]
    done = [event.outcome[2] for event in executor.run(jobs) if isinstance(event, Done)]
    assert (len(warm), len(set(done))) == (2, 2)
    assert not any(map(alive, [*warm, *done]))
    executor.warm_up(1)  # and without jobs they go when closed
    (idle,) = executor._idle
    executor.close()
    assert not alive(idle.process.pid)


def test_in_this_process_jobs_run_in_order_and_can_be_cancelled(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "interval", f"job {n}") for n in range(3)]
    executor, told = InlineExecutor(do), []
    for event in executor.run([jobs[0], job(tmp_path, "raise"), jobs[1]]):
        told.append((type(event), event.name))
        if event == Started("raise", 1):
            executor.cancel("job 1")
            executor.submit(jobs[2])
        if isinstance(event, Told) and event.name == "job 2":
            executor.cancel("job 2")  # nothing more is heard of it
        if isinstance(event, Lost):
            assert "ValueError: no such thing (in do, line" in event.reason
    assert [(kind, name) for kind, name in told if kind is not Told] == [
        (Started, "job 0"), (Done, "job 0"), (Started, "raise"), (Lost, "raise"), (Started, "job 2"),
    ]  # fmt: skip
