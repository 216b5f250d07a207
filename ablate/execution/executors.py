"""Who does jobs, and what is heard of them: warm worker processes on this machine, or this process itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ablate.errors import FOREIGN_FAULTS
from ablate.store.records import Status

POLL_SECONDS = 0.5
DEATH_SECONDS = 5.0  # for a process whose pipe is closed to end, so that its exit status is known
THEIRS = "ABLATE_PYTHONPATH"  # the user's own, in whose place stands what the worker imports from
ATTEMPTS = 3  # of a job whose process dies; one that raises or takes too long would do so again


@dataclass(frozen=True)
class Job:
    """One piece of work for a worker; events name it, and the task is pickled."""

    name: str
    task: Any


Work = Callable[[Any, int, Callable[[Any], None]], Any]
"""work(task, slot from 0, tell a message) -> outcome, in a worker, which finds it by its module and name."""


@dataclass(frozen=True)
class Started:
    """A worker took the job; `attempt` counts from 1."""

    name: str
    attempt: int


@dataclass(frozen=True)
class Told:
    """The work sent a message."""

    name: str
    message: Any


@dataclass(frozen=True)
class Done:
    """The work returned its outcome, at the given attempt."""

    name: str
    outcome: Any
    attempt: int


@dataclass(frozen=True)
class Lost:
    """The work ended without an outcome: its process died, it took too long, or it raised."""

    name: str
    status: Status
    reason: str
    attempt: int


Event = Started | Told | Done | Lost


def do_job(work: Work, job: Job, number: int, slot: int, send: Callable[[Event], None]) -> Done | Lost:
    """Do a job for the given time. What it tells is sent; its end is returned."""
    try:
        outcome = work(job.task, slot, lambda message: send(Told(job.name, message)))
    except FOREIGN_FAULTS as error:
        summary = "".join(traceback.format_exception_only(error)).strip()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"in {frame.name}, line {frame.lineno} of {os.path.basename(frame.filename)}"
        return Lost(job.name, "error", f"{summary} ({place})", number)
    return Done(job.name, outcome, number)


@dataclass
class _Worker:
    slot: int
    process: subprocess.Popen[bytes]
    connection: Connection
    job: Job | None = None
    attempt: int = 0
    started: float = 0.0


class LocalExecutor:
    """Runs jobs, each in `timeout` seconds, in processes that end with it and import `imports` first."""

    def __init__(
        self, work: Work, *, workers: int = 1, timeout: float | None = None, imports: Sequence[str] = ()
    ) -> None:
        self.work, self.workers, self.timeout, self.imports = work, workers, timeout, tuple(imports)
        self._waiting: deque[tuple[Job, int]] = deque()
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Do all jobs in order, and those submitted meanwhile; closing the iterator kills the workers."""
        self._waiting.extend((job, 1) for job in jobs)
        try:
            while self._waiting or self._busy:
                yield from self._start_waiting()
                wait([worker.connection for worker in self._busy], timeout=POLL_SECONDS)
                for worker in list(self._busy):
                    for event in self._look_at(worker):
                        yield from self._start_waiting()  # no worker waits for who hears the event
                        yield event
        finally:
            self.close()

    def warm_up(self, workers: int) -> None:
        """Start so many workers, as far as may run at once; they import meanwhile, and need a `close`."""
        while len(self._idle) + len(self._busy) < min(workers, self.workers):
            self._idle.append(self._spawn())

    def submit(self, job: Job) -> None:
        """Add a job behind those that wait; for the user of a running `run`."""
        self._waiting.append((job, 1))

    def cancel(self, name: str) -> None:
        """Drop a job: one that waits, or one that runs, with its worker. Nothing more is heard of it."""
        self._waiting = deque((job, attempt) for job, attempt in self._waiting if job.name != name)
        for worker in list(self._busy):
            if worker.job is not None and worker.job.name == name:
                self._release(worker, keep=False)

    def close(self) -> None:
        """Kill every worker and whatever it started."""
        for worker in [*self._idle, *self._busy]:
            self._kill(worker)
        self._idle, self._busy = [], []
        self._waiting.clear()

    def _start_waiting(self) -> Iterator[Started]:
        while self._waiting and len(self._busy) < self.workers:
            job, attempt = self._waiting.popleft()
            worker = self._idle.pop() if self._idle else self._spawn()
            worker.job, worker.attempt, worker.started = job, attempt, time.monotonic()
            self._busy.append(worker)
            with contextlib.suppress(BrokenPipeError):  # it died while idle: found by the next look at it
                worker.connection.send((job, attempt))
            yield Started(job.name, attempt)

    def _spawn(self) -> _Worker:
        """A fresh process in a process group of its own, so that all it starts can be killed with it."""
        slot = min(set(range(self.workers)) - {worker.slot for worker in [*self._idle, *self._busy]})
        ours, theirs = Pipe()
        arguments = [str(theirs.fileno()), str(slot), str(os.getpid())]
        environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # deterministic cuBLAS, if asked
        environment[THEIRS] = os.environ.get("PYTHONPATH", "")
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        process = subprocess.Popen(
            [sys.executable, "-m", "ablate.execution.worker", *arguments],
            pass_fds=[theirs.fileno()], process_group=0, stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        theirs.close()
        worker = _Worker(slot, process, ours)
        with contextlib.suppress(BrokenPipeError):
            ours.send((list(sys.path), self.imports, (self.work.__module__, self.work.__qualname__)))
        return worker

    def _look_at(self, worker: _Worker) -> Iterator[Event]:
        job, attempt = worker.job, worker.attempt
        if job is None:
            return  # cancelled while another's event was looked at
        try:
            while worker.job is job and worker.connection.poll():
                event: Event = worker.connection.recv()
                if not isinstance(event, Told):
                    self._release(worker, keep=isinstance(event, Done))
                yield event  # whose hearer may cancel the job
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=DEATH_SECONDS)
            self._release(worker, keep=False)
            code = worker.process.returncode
            if code >= 0:
                yield Lost(job.name, "error", f"its process exited with status {code}", attempt)
            elif attempt < ATTEMPTS:
                self._waiting.appendleft((job, attempt + 1))
            else:
                killer = next((one.name for one in signal.Signals if one == -code), f"signal {-code}")
                yield Lost(job.name, "killed", f"its process was killed by {killer}", attempt)
            return
        overdue = self.timeout is not None and time.monotonic() - worker.started > self.timeout
        if worker.job is job and overdue:
            self._release(worker, keep=False)
            yield Lost(job.name, "timeout", f"took longer than {self.timeout:g} s", attempt)

    def _release(self, worker: _Worker, *, keep: bool) -> None:
        """The worker's job is over. One whose state is in doubt is not used again."""
        self._busy.remove(worker)
        worker.job = None
        if keep:
            self._idle.append(worker)
        else:
            self._kill(worker)

    def _kill(self, worker: _Worker) -> None:
        worker.connection.close()
        for process in _family(worker.process.pid):
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(process, signal.SIGKILL)
        worker.process.wait()


class InlineExecutor(LocalExecutor):
    """Does jobs in this process, one after the other. What they tell is heard when they have ended."""

    _running = ""

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Do all jobs in order."""
        self._waiting.extend((job, 1) for job in jobs)
        while self._waiting:
            job, attempt = self._waiting.popleft()
            self._running = job.name
            yield Started(job.name, attempt)
            told: list[Event] = []
            end = do_job(self.work, job, attempt, 0, told.append)
            for event in [*told, end]:
                if self._running == job.name:  # it may be cancelled by what was heard of it
                    yield event

    def warm_up(self, workers: int) -> None:
        """Nothing is to be started."""

    def cancel(self, name: str) -> None:
        """Drop a job, and what else one that ran would have told."""
        super().cancel(name)
        self._running = "" if self._running == name else self._running


def _family(process: int) -> list[int]:
    """A process and all that it started, whose groups may be their own, as far as Linux tells."""
    children = list[int]()
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            children += map(int, (thread / "children").read_text().split())
    return [process, *(one for child in children for one in _family(child))]
