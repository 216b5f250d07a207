"""Who does jobs, and what is heard of them: supervised workers on this machine, or this process itself."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import inf
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import ablate
from ablate.channel import Channel, channels
from ablate.errors import FOREIGN_FAULTS, StoppedError, first_line, of_machine
from ablate.guarded import Known
from ablate.store.records import Status

POLL_SECONDS = 0.5
HANG_UP_SECONDS = 2.0  # for a supervisor that is told to, to end all that it started
THEIRS = "ABLATE_PYTHONPATH"  # the user's own, in whose place stands what the worker imports from
START_SECONDS = 600.0
ATTEMPTS = 3  # of a job whose process is killed; one that raises or takes too long would do so again
KEPT = "nothing of it is recorded. Recorded trials and checkpoints are kept; the same command goes on"


@dataclass(frozen=True)
class Job:
    """One piece of work for a worker; events name it, and the task is pickled."""

    name: str
    task: Any
    fresh: bool = False
    """Whether it is to have a process of its own."""
    block: int | None = None
    """Jobs of one block are to be done on one kind of device."""


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


class Executor(Protocol):
    """What the driver asks of whoever does jobs; `workers` are the jobs that may run at a time."""

    workers: int

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Do all jobs, and those submitted meanwhile; each is told of as Started, then as Done or Lost."""

    def warm_up(self, workers: int) -> None:
        """Prepare for about so many jobs, while they are planned."""

    def submit(self, job: Job) -> None:
        """Add a job to a `run`."""

    def cancel(self, name: str) -> None:
        """Drop a job, of which nothing more is heard."""

    def close(self) -> None:
        """End all that was started."""


def do_job(
    work: Work,
    job: Job,
    number: int,
    slot: int,
    send: Callable[[Event], None],
    faults: Any = FOREIGN_FAULTS,
) -> Done | Lost:
    """Do a job for the given time, and return its end; a failure of the machine is a StoppedError."""
    try:
        outcome = work(job.task, slot, lambda message: send(Told(job.name, message)))
    except StoppedError:
        raise
    except faults as error:
        if failure := of_machine(error):
            raise StoppedError(f"the machine failed ({failure}) in a trial: {KEPT}") from error
        summary = "".join(traceback.format_exception_only(error)).strip()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"in {frame.name}, line {frame.lineno} of {os.path.basename(frame.filename)}"
        return Lost(job.name, "error", f"{summary} ({place})", number)
    return Done(job.name, outcome, number)


@dataclass
class _Worker:
    """A slot's supervisor, and what is known of its child."""

    slot: int
    process: subprocess.Popen[bytes]
    channel: Channel
    mark: bytes
    """What stands in the environment of all that it started."""
    job: Job | None = None
    attempt: int = 0
    begun: float = inf
    heard: float = 0.0


class LocalExecutor:
    """Runs jobs, each in `timeout` seconds, in processes that end with it and import `imports` first.

    After `stall` silent seconds a job is over as well; `apart` is a folder that supervisors do not see.
    """

    def __init__(
        self,
        work: Work,
        *,
        workers: int = 1,
        timeout: float | None = None,
        stall: float | None = None,
        imports: Sequence[str] = (),
        apart: Path | None = None,
        logs: Path | None = None,
    ) -> None:
        self.work, self.workers, self.timeout, self.stall = work, workers, timeout, stall
        self.imports, self.apart, self.logs = tuple(imports), apart, logs
        self._waiting: deque[tuple[Job, int]] = deque()
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Do all jobs in order, and those submitted meanwhile; closed, it kills. May be a StoppedError."""
        self._waiting.extend((job, 1) for job in jobs)
        try:
            while self._waiting or self._busy:
                yield from self._start_waiting()
                self._wait()
                for worker in list(self._busy):
                    for event in self._look_at(worker):
                        yield from self._start_waiting()  # no worker waits for who hears the event
                        yield event
        finally:
            self.close()

    def _wait(self) -> None:
        wait([worker.channel for worker in self._busy], timeout=POLL_SECONDS)

    def warm_up(self, workers: int) -> None:
        """Start so many workers, as far as may run at once; they import meanwhile, and need a `close`."""
        while len(self._idle) + len(self._busy) < min(workers, self.workers):
            self._idle.append(self._spawn())

    def submit(self, job: Job, attempt: int = 1) -> None:
        """Add a job behind those that wait; for the user of a running `run`."""
        self._waiting.append((job, attempt))

    def cancel(self, name: str) -> None:
        """Drop a job: one that waits, or one that runs, with its worker. Nothing more is heard of it."""
        self._waiting = deque((job, attempt) for job, attempt in self._waiting if job.name != name)
        for worker in list(self._busy):
            if worker.job is not None and worker.job.name == name:
                self._release(worker, keep=False)

    def close(self) -> None:
        """Kill every worker and whatever it started."""
        workers = [*self._idle, *self._busy]
        for worker in workers:
            worker.channel.hang_up()  # all begin to end before any is waited for
        for worker in workers:
            self._kill(worker)
        self._idle, self._busy = [], []
        self._waiting.clear()

    def _start_waiting(self) -> Iterator[Started]:
        while self._waiting and len(self._busy) < self.workers:
            job, attempt = self._waiting.popleft()
            worker = self._idle.pop() if self._idle else self._spawn()
            worker.job, worker.attempt, worker.begun, worker.heard = job, attempt, inf, time.monotonic()
            self._busy.append(worker)
            with contextlib.suppress(ConnectionError):  # it died while idle: found by the next look at it
                task = pickle.dumps((sys.path, job, attempt))
                worker.channel.put(b"once" if job.fresh else b"job ", os.urandom(16), task)
            yield Started(job.name, attempt)

    def _spawn(self) -> _Worker:
        """A supervisor, in a process group of its own, that finds no module of the user's."""
        slot = min(set(range(self.workers)) - {worker.slot for worker in [*self._idle, *self._busy]})
        environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # deterministic cuBLAS, if asked
        environment["ABLATE_WORKER"] = mark = os.urandom(16).hex()
        environment[THEIRS] = os.environ.get("PYTHONPATH", "")
        paths = [path for path in map(os.path.abspath, sys.path) if path != str(self.apart)]
        environment["PYTHONPATH"] = os.pathsep.join([*paths, str(Path(ablate.__file__).parents[1])])
        log = self.logs / f"worker-{slot}.log" if self.logs else os.devnull
        work = (self.work.__module__, self.work.__qualname__, *self.imports)
        try:
            ours, theirs = channels()
            with theirs:
                given = map(str, (theirs.fileno(), slot, os.getpid(), log, *work))
                process = subprocess.Popen(
                    [sys.executable, "-u", "-P", "-m", "ablate.execution.worker", *given],
                    pass_fds=[theirs.fileno()], process_group=0, env=environment,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                )  # fmt: skip
        except OSError as error:
            raise StoppedError(f"a worker cannot be started ({error}): {KEPT}") from None
        return _Worker(slot, process, ours, mark.encode())

    def _look_at(self, worker: _Worker) -> Iterator[Event]:
        job, attempt, now = worker.job, worker.attempt, time.monotonic()
        if job is None:
            return  # cancelled while another's event was looked at
        try:
            for kind, _, payload in worker.channel.frames():
                worker.heard = now
                if kind == b"went":
                    worker.begun = now
                    continue
                event = self._heard(job, attempt, kind, payload)
                if not isinstance(event, Told):
                    self._release(worker, keep=kind != b"told")
                if event is not None:
                    yield event  # whose hearer may cancel the job
                if worker.job is not job:
                    return
        except (EOFError, OSError):
            said = b""
            with contextlib.suppress(subprocess.TimeoutExpired):
                said = worker.process.communicate(timeout=HANG_UP_SECONDS)[1]
            code = worker.process.returncode
            self._release(worker, keep=False)
            if code is None or code >= 0 or (attempt == ATTEMPTS and worker.begun == inf):
                last = said.decode(errors="replace").strip().rpartition("\n")[2]
                raise StoppedError(f"a worker failed (status {code}: {last}): {KEPT}") from None
            if lost := self._ended(job, attempt, code):
                yield lost
            return
        reason = ""
        if self.timeout is not None and now - worker.begun > self.timeout:
            reason = f"took longer than {self.timeout:g} s"
        elif worker.begun == inf and now - worker.heard > START_SECONDS:
            raise StoppedError(f"a worker did not start in {START_SECONDS:g} s: {KEPT}")
        elif worker.begun < inf and now - worker.heard > (self.stall or inf):
            reason = f"said nothing for {self.stall:g} s"
        if reason:
            self._release(worker, keep=False)
            yield Lost(job.name, "timeout", reason, attempt)

    def _heard(self, job: Job, attempt: int, kind: bytes, payload: bytes) -> Event | None:
        """What a frame says; None where the job is to be done again."""
        if kind == b"stop":
            raise StoppedError(payload.decode())
        try:
            said = Known(BytesIO(payload)).load()
        except Exception as error:
            return Lost(job.name, "error", f"what it sent cannot be read: {first_line(error)}", attempt)
        return self._ended(job, attempt, *said) if kind == b"gone" else said

    def _ended(
        self, job: Job, attempt: int, code: int | None, fault: str = "", line: str = ""
    ) -> Lost | None:
        """A job at fault, or whose process ended with an exit code; None where it is to be done again."""
        said = f"; the last line of its output: {line}" if line else ""
        if code is None or code >= 0:
            reason = fault if code is None else f"its process exited with status {code}"
            return Lost(job.name, "error", reason + said, attempt)
        if attempt < ATTEMPTS:
            self._waiting.appendleft((job, attempt + 1))
            return None
        killer = next((one.name for one in signal.Signals if one == -code), f"signal {-code}")
        return Lost(job.name, "killed", f"its process was killed by {killer}{said}", attempt)

    def _release(self, worker: _Worker, *, keep: bool) -> None:
        """The worker's job is over. One whose state is in doubt is not used again."""
        self._busy.remove(worker)
        worker.job = None
        if keep:
            self._idle.append(worker)
        else:
            self._kill(worker)

    def _kill(self, worker: _Worker) -> None:
        """Hang up, for the supervisor to end what it started; one that does not is killed with all that."""
        worker.channel.hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(HANG_UP_SECONDS if worker.begun < inf else 0)
        if worker.process.poll() != 0:
            worker.process.kill()
            for path in Path("/proc").glob("[0-9]*/environ"):
                with contextlib.suppress(OSError):
                    if worker.mark in path.read_bytes():
                        os.kill(int(path.parent.name), signal.SIGKILL)
        worker.process.wait()
        assert worker.process.stderr is not None
        worker.process.stderr.close()


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
