"""The exclusive timing pass, which a worker does after its last trial."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ablate.execution.trial import (
    Engine,
    Heartbeat,
    Outcome,
    Task,
    environment_of,
    first_step,
    ready_device,
    run_trial,
)
from ablate.store.timing import Case, TimingPass
from ablate.study.trials import Trial
from ablate.train.device import set_numerics, synchronize

ROUNDS, FEWEST_ROUNDS = 40, 8
SAMPLE_SECONDS = 0.02
"""A case's turn in a round takes at least this long, in as many steps as that needs."""
BUDGET_SECONDS = 30.0
"""The rounds stop after this, the fewest aside."""
NO_RATE = 1e-9


@dataclass(frozen=True)
class TimingTask:
    """What a worker is to time: cases, each with a trial that it is of and the folder of its data."""

    cases: Mapping[Case, tuple[Trial, Path]]
    engine: Engine = "eager"


def do_task(
    task: Task | TimingTask, slot: int, tell: Callable[[Heartbeat | float], None]
) -> Outcome | TimingPass:
    """What a worker does with what it is handed: train a trial, or time the steps."""
    return time_cases(task, slot, tell) if isinstance(task, TimingTask) else run_trial(task, slot, tell)


def time_cases(task: TimingTask, slot: int, tell: Callable[[float], None]) -> TimingPass:
    """Time every case round by round; `tell` is called with the part that is done."""
    numerics = next(iter(task.cases.values()))[0].numerics  # of all: a plan has one device, and its threads
    device = ready_device(numerics, slot)
    turns = [_Turn(case, *of, device, task.engine) for case, of in task.cases.items()]
    times: list[list[float]] = [[] for _ in turns]
    busy, own, began = _busy_seconds(), time.process_time(), time.monotonic()
    for done in range(ROUNDS):
        if done >= FEWEST_ROUNDS and time.monotonic() - began > BUDGET_SECONDS:
            break
        for place in range(len(turns)):
            turn = (done + place) % len(turns)  # each round begins elsewhere: no case always follows the same
            times[turn].append(turns[turn].take())
        tell((done + 1) / ROUNDS)
    engines = "; ".join(dict.fromkeys(turn.step.engine for turn in turns))
    return TimingPass(
        cases=tuple(task.cases),
        step_ms=tuple(map(tuple, times)),
        steps=tuple(turn.steps for turn in turns),
        environment=environment_of(device, numerics.threads, workers=1, engine=engines),
        others=_used_by_others(busy, own, began),
    )


class _Turn:
    """One case, ready to take steps: its network, a step, and batches of its images."""

    def __init__(
        self, case: Case, trial: Trial, data_folder: Path, device: torch.device, engine: Engine
    ) -> None:
        # A rate that changes nothing: one batch over and over would otherwise end in zeros or infinities.
        changes = {"loss": case.loss, "reduction": case.reduction, "lr": NO_RATE}
        changes |= {"epsilon": 0.0} if case.loss != trial.fields.loss else {}
        fields = trial.fields.model_copy(update=changes)
        trial = trial.model_copy(update={"fields": fields})
        set_numerics(deterministic=trial.numerics.deterministic)
        self.device = device
        self.step = first_step(trial, data_folder, device, engine)
        self.index = self.step.begin_epoch(0)[0]
        self.steps = 1
        self.take()  # the first step allocates and chooses algorithms
        self.steps = max(1, math.ceil(1000 * SAMPLE_SECONDS / self.take()))

    def take(self) -> float:
        """Milliseconds per step, over `steps` steps."""
        synchronize(self.device)
        began = time.perf_counter()
        for _ in range(self.steps):
            self.step(self.index)
        synchronize(self.device)
        return 1000 * (time.perf_counter() - began) / self.steps


def _used_by_others(busy: float | None, own: float, began: float) -> float | None:
    """Part of all cores that other processes used since; None where the system does not say."""
    now = _busy_seconds()
    if busy is None or now is None:
        return None
    others = (now - busy) - (time.process_time() - own)
    return min(max(others / ((os.cpu_count() or 1) * (time.monotonic() - began)), 0.0), 1.0)


def _busy_seconds() -> float | None:
    """Seconds that all cores have worked since the machine started."""
    try:
        counts = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = counts[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
