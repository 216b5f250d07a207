"""What goes into an executor and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ablate.store.records import Status


@dataclass(frozen=True)
class Job:
    """One piece of work for a worker.

    Attributes:
        name: identifies the job in events.
        width: how much of the executor's capacity it takes while it runs: CPU threads, or 1 on a GPU.
        task: the argument of the work function; must pickle.
    """

    name: str
    width: int
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
