"""What ablate itself takes of a study of many trials that 64 workers end at once: no process, no training.

Everything but the workers is real: the plan, the driver, its records on disk, reading them, tables, report.

    python -m benchmarks.scale            # 10,000 trials, some minutes
    python -m benchmarks.scale 1000
"""

from __future__ import annotations

import io
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib.externals.loky import get_reusable_executor
from rich.console import Console

from ablate.execution import driver
from ablate.execution.executors import Done, Event, Executor, Job, Started, Told
from ablate.execution.progress import Watcher
from ablate.execution.trial import Heartbeat
from ablate.guarded import FORKS
from ablate.pipeline import rebuild_tables
from ablate.report import write_report
from ablate.status import show_status
from ablate.store.records import Predictions, Record, read_records
from ablate.study.options import Options
from ablate.study.study import Study

WORKERS, IMAGES, CLASSES = 64, 100, 10


def train(trial: Any, *, lr: float = 0.1) -> Mapping[str, Any]:
    """What the study names; no worker here calls it."""
    raise NotImplementedError


class Scripted:
    """Workers that are each heard of three times, the first that began being the first to end."""

    def __init__(self, workers: int = WORKERS) -> None:
        self.workers, self.most = workers, 0
        self._waiting: deque[Job] = deque()

    def run(self, jobs: Sequence[Job]) -> Iterator[Event]:
        """Start what there is room for, and end the oldest."""
        self._waiting.extend(jobs)
        busy: deque[Job] = deque()
        while self._waiting or busy:
            while self._waiting and len(busy) < self.workers:
                busy.append(self._waiting.popleft())
                yield Started(busy[-1].name, 1)
            self.most = max(self.most, len(busy))
            job = busy.popleft()
            yield Told(job.name, Heartbeat(1, 1))
            labels = np.arange(IMAGES) % CLASSES
            logits = np.random.default_rng(job.task.trial.seed).normal(size=(IMAGES, CLASSES))
            record = Record(trial=job.task.trial, status="complete", seconds=0.001)
            yield Done(job.name, (record, Predictions(logits.astype(np.float32), labels)), 1)

    def submit(self, job: Job) -> None:
        """Add a job behind those that wait."""
        self._waiting.append(job)

    def warm_up(self, workers: int) -> None:
        """Nothing is to be started."""

    def cancel(self, name: str) -> None:
        """Nothing runs that could be stopped."""

    def close(self) -> None:
        """Nothing was started."""


def declared(arms: int, seeds: int) -> Study:
    """A study of so many arms."""
    levels = tuple(round(0.001 * (1 + arm), 4) for arm in range(arms))
    code = f"{__name__ if __name__ != '__main__' else 'benchmarks.scale'}:train"
    return Study(
        question="What does ablate take?", name="scale", train=code, factors={"lr": levels}, seeds=seeds,
        baseline={"lr": levels[0]}, primary="accuracy",
    )  # fmt: skip


def stages(study: Study, here: Path, executor: Executor) -> Iterator[str]:
    """Take a study from its plan to its report, and say after each stage which it was."""
    options = Options(results=here / "results", report=here / "report", timing=False)
    with Watcher(Console(file=io.StringIO())) as view:
        settled = driver.settle(study, options)
        folder = settled.folder(options)
        for ran in ("the plan", "the plan of a finished study"):
            plan, inputs = driver.plan_settled(settled, options, view)
            yield ran
            folder.create()
            with driver.only_driver(folder):
                driver._Drive(folder, plan, inputs.folders(), options, view).run(executor)
            yield "the driver and its records" if ran == "the plan" else "a run of a finished study"
    read_records(folder)
    yield "reading the records"
    show_status(Console(file=io.StringIO()), folder)
    yield "status"
    rebuild_tables(folder)
    get_reusable_executor().shutdown()  # whose processes count when they have ended
    yield "tables"
    write_report(folder, here / "report" / "scale")
    yield "report"


def processor_seconds() -> float:
    """Of this process and of those that it waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main(trials: int) -> None:
    """Print what each stage takes a trial."""
    FORKS.set(False)
    study = declared(max(1, min(100, trials // 10)), max(1, trials // max(1, min(100, trials // 10))))
    with tempfile.TemporaryDirectory() as scratch:
        used, passed = processor_seconds(), time.monotonic()
        for stage in stages(study, Path(scratch), Scripted()):
            now, then = processor_seconds(), time.monotonic()
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            took = f"{1000 * (now - used) / trials:7.3f} ms of CPU, {1000 * (then - passed) / trials:7.3f} ms"
            print(f"{stage:30} {took} a trial; most memory so far {memory:,.0f} MB", flush=True)
            used, passed = processor_seconds(), time.monotonic()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
