"""What goes into an executor and what comes out of it; the one that needs no process."""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.errors import FOREIGN_FAULTS
from ablate.store.records import Status


@dataclass(frozen=True)
class Job:
    """One piece of work for a worker; events name it, and the task is pickled."""

    name: str
    task: Any


Work = Callable[[Any, int, Callable[[Any], None]], Any]
"""work(task, slot, tell) -> outcome, in a worker process, which finds it by its module and name.

`slot` numbers the worker from 0; `tell` sends a message to the driver while the work goes on."""


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


def attempt(work: Work, job: Job, number: int, slot: int, send: Callable[[Event], None]) -> Done | Lost:
    """Do a job for the given time. What it tells is sent; its end is returned."""
    try:
        outcome = work(job.task, slot, lambda message: send(Told(job.name, message)))
    except FOREIGN_FAULTS as error:
        summary = "".join(traceback.format_exception_only(error)).strip()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"in {frame.name}, line {frame.lineno} of {os.path.basename(frame.filename)}"
        return Lost(job.name, "error", f"{summary} ({place})", number)
    return Done(job.name, outcome, number)


class InlineExecutor:
    """Does jobs in this process, one after the other. What they tell is heard when they have ended."""

    workers = 1

    def __init__(self, work: Work) -> None:
        self._work = work
        self._waiting: deque[Job] = deque()
        self._running = ""

    def warm_up(self, workers: int) -> None:
        """Nothing is to be started."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Do all jobs in order."""
        self._waiting.extend(jobs)
        while self._waiting:
            job = self._waiting.popleft()
            self._running = job.name
            yield Started(job.name, 1)
            told: list[Event] = []
            end = attempt(self._work, job, 1, 0, told.append)
            for event in [*told, end]:
                if self._running == job.name:  # it may be cancelled by what was heard of it
                    yield event

    def submit(self, job: Job) -> None:
        """Add a job behind those that wait."""
        self._waiting.append(job)

    def cancel(self, name: str) -> None:
        """Drop a job, and what else one that ran would have told."""
        self._waiting = deque(job for job in self._waiting if job.name != name)
        self._running = "" if self._running == name else self._running

    def close(self) -> None:
        """Drop what waits."""
        self._waiting.clear()
