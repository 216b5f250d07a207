"""What a run shows: a bar with the time left on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from ablate.execution import Event, Started, Told
from ablate.execution.trial import Heartbeat
from ablate.store.points import Tuning
from ablate.store.records import Record
from ablate.study.trials import Plan, Trial
from ablate.terminal import duration

REFRESH_PER_SECOND = 4
LINE_SECONDS = 60
"""Without a terminal, how far the running trials are is a line at most this often."""


@dataclass
class _Running:
    """A trial that a worker has: its name, how much of it is done, and what is known of it."""

    name: str
    fraction: float = 0.0
    place: str = "starting"
    measured: str = ""

    def heard(self, heartbeat: Heartbeat) -> None:
        self.fraction = heartbeat.done / heartbeat.epochs
        self.place = f"epoch {heartbeat.done:.1f} of {heartbeat.epochs}"
        if heartbeat.train_loss is not None:
            self.measured = f", loss {heartbeat.train_loss:.4f}, accuracy {heartbeat.valid_accuracy:.4f}"

    @property
    def state(self) -> str:
        return self.place + self.measured


class ProgressView:
    """Shows a study's run. Use as a context manager; it is the `Watcher` that `run_study` tells.

    Args:
        console: where to write. A bar needs a terminal; without one, each ended trial is a line.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._running: dict[str, _Running] = {}
        self._total, self._ended, self._begun, self._last_line = 0, 0, 0.0, 0.0
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("trials", total=None, left="", visible=False)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=REFRESH_PER_SECOND)

    def __enter__(self) -> ProgressView:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.clear()
        if self.console.is_terminal:
            self._live.stop()

    def preparing(self, label: str, done: int, total: int) -> None:
        """Data is being downloaded, checked or decoded; without a terminal only its end is a line."""
        if self.console.is_terminal:
            self._bar.update(self._task, description=label, completed=done, total=total, visible=True)
        elif done == total:
            self.note(label if total == 0 else f"{label}: done")

    def note(self, line: str) -> None:
        """Something to know, in one line."""
        self._last_line = time.monotonic()
        self.console.print(escape(line), highlight=False, soft_wrap=True)

    def planned(self, plan: Plan, waiting: Sequence[Trial]) -> None:
        """The plan stands; these of its trials will run."""
        arms, seeds = len(plan.arms), len(plan.study.seed_list())
        self.note(f"{plan.study.name}: {plan.reason}")
        done = len(plan.trials) - len(waiting)
        self.note(
            f"{arms} arms x {seeds} seeds = {len(plan.trials)} trials: {done} done, {len(waiting)} to run"
        )
        self._expect(len(waiting))

    def searching(self, tuning: Tuning, name: str, reason: str) -> None:
        """A search begins, or goes on."""
        search = tuning.search
        done = sum(point.state != "running" for point in tuning.points)
        self.note(f"{name}: {reason}")
        self.note(
            f"tuning {' and '.join(search.space)} for {' and '.join(search.objective)}, on "
            f"{tuning.tuning_images} images held back from training: {search.points} points x {search.seeds} "
            f"seeds, {done} points done"
        )
        left = sum(len(point.seeds) for point in tuning.points if point.state == "running")
        left += search.seeds * max(0, search.points - len(tuning.points))
        self._expect(left)

    def _expect(self, trials: int) -> None:
        self._total, self._ended, self._begun = trials, 0, time.monotonic()
        self._bar.update(self._task, description="trials", completed=0, total=trials, visible=bool(trials))

    def happened(self, trial: Trial, event: Event, record: Record | None) -> None:
        """A trial started, told how far it is, or ended with a record."""
        name = f"{trial.arm}, seed {trial.seed}"
        if isinstance(event, Started):
            self._running[event.name] = _Running(name)
        elif isinstance(event, Told):
            self._running[event.name].heard(event.message)
            self._report_in_lines()
        else:
            self._running.pop(event.name, None)
            self._ended += 1
            self.note(self._ending(name, record))
        self._bar.update(self._task, completed=self._ended, left=self._time_left())

    def _report_in_lines(self) -> None:
        if self.console.is_terminal or time.monotonic() - self._last_line < LINE_SECONDS:
            return
        states = [f"{running.name}: {running.state}" for running in self._running.values()]
        self.note("; ".join([*states, self._time_left()]))

    def _ending(self, name: str, record: Record | None) -> str:
        line = f"[{self._ended}/{self._total}] {name}: "
        if record is None or record.status != "complete" or record.cost is None:
            return line + (
                f"{record.status}: {record.failure.message}" if record and record.failure else "ended"
            )
        last, cost = record.history[-1], record.cost
        seconds = cost.train_seconds + cost.eval_seconds
        return line + f"accuracy {last.valid_accuracy:.4f}, train loss {last.train_loss:.4f}, {seconds:.1f} s"

    def _time_left(self) -> str:
        done = self._ended + sum(running.fraction for running in self._running.values())
        if done <= 0 or done >= self._total:
            return ""
        seconds = (time.monotonic() - self._begun) * (self._total - done) / done
        return f"about {duration(seconds)} left"

    def _render(self) -> Group:
        lines = [Text(f"  {running.name}: {running.state}") for running in list(self._running.values())]
        return Group(self._bar, *lines)
