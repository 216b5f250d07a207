"""What a run shows: a bar with the time left on a terminal or in a notebook, plain lines anywhere else."""

from __future__ import annotations

import io
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from ablate.execution.executors import Event, Started, Told
from ablate.execution.trial import Heartbeat
from ablate.store.points import Tuning
from ablate.store.records import Record
from ablate.study.trials import Plan, Trial
from ablate.terminal import Lasting, duration, print_line, printable

REFRESH_PER_SECOND = 4
LINE_SECONDS = 60  # without a terminal, how far the running trials are is a line at most this often
LATEST, FAILURES_SHOWN = 3, 5  # how many trials that ended, and that failed, a notebook shows
NOTEBOOK_WIDTH = 110
PAGE = '<pre style="font-size:13px;line-height:1.4">{code}</pre>'


class Watcher:
    """What a run tells of itself: on a terminal as a bar, elsewhere in lines; nothing without a console."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console = console or Console(quiet=True)
        outlasting: Any = Lasting(console.file)
        console.file = outlasting
        self._running: dict[str, tuple[float, str]] = {}
        """Of each trial that a worker has, the part that is done, and a line."""
        self._total, self._ended, self._begun, self._last_line, self._at_once = 0, 0, 0.0, 0.0, 1
        self._took, self._timed = 0.0, 0  # seconds, of so many ended trials
        what = TextColumn("{task.description}", style="bold", markup=False)
        columns = what, BarColumn(), MofNCompleteColumn()
        self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=console)
        self._task = self._bar.add_task("trials", total=None, left="", visible=False)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=REFRESH_PER_SECOND)

    def __enter__(self) -> Watcher:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._running.clear()
        if self.console.is_terminal:
            self._live.stop()

    def preparing(self, label: str, done: int, total: int) -> None:
        """Data is made ready; without a terminal its end is a line, or, with nothing to count, the label."""
        if self.console.is_terminal and (done or total):
            label = printable(label)
            self._bar.update(self._task, description=label, completed=done, total=total, visible=True)
        elif done == total:
            self.note(label if total == 0 else f"{label}: done")
        self._changed()

    def note(self, line: str) -> None:
        """Something to know, in one line."""
        self._last_line = time.monotonic()
        print_line(self.console, line)

    def _changed(self) -> None:
        """What is shown has changed; a terminal's bar looks by itself."""

    def planned(self, plan: Plan, mine: int, waiting: Sequence[Trial]) -> None:
        """The plan stands; so many of its trials are this run's, and those that wait will run."""
        grid = f"{len(plan.arms)} arms x {len(plan.study.seed_list())} seeds = {len(plan.trials)} trials"
        self.note(f"{plan.study.name}: {plan.reason}")
        grid += f", {mine} of them in this shard" if mine < len(plan.trials) else ""
        self.note(f"{grid}: {mine - len(waiting)} done, {len(waiting)} to run")
        self._expect(len(waiting))

    def searching(self, tuning: Tuning, name: str, reason: str) -> None:
        """A search begins, or goes on."""
        search, running = tuning.search, tuning.running
        self.note(f"{name}: {reason}")
        images, done = tuning.tuning_images, len(tuning.points) - len(running)
        split = f"{images} images held back from training" if images else "what its code holds back itself"
        self.note(
            f"tuning {' and '.join(search.space)} for {' and '.join(search.objective)}, on {split}: "
            f"{search.points} points x {search.seeds} seeds, {done} points done"
        )
        unasked = search.seeds * max(0, search.points - len(tuning.points))
        self._expect(sum(len(point.seeds) for point in running) + unasked)

    def _expect(self, trials: int) -> None:
        self._total, self._ended, self._begun = trials, 0, time.monotonic()
        self._bar.update(self._task, description="trials", completed=0, total=trials, visible=bool(trials))

    def happened(self, trial: Trial, event: Event, record: Record | None) -> None:
        """A trial started, told how far it is, or ended with a record."""
        name = f"{trial.arm}, seed {trial.seed}"
        if isinstance(event, Started):
            self._running[event.name] = 0.0, f"{name}: starting"
        elif isinstance(event, Told):
            heartbeat: Heartbeat = event.message
            line = f"{name}: epoch {heartbeat.done:.1f} of {heartbeat.epochs}" if heartbeat.epochs else name
            line += f", {heartbeat.note}" if heartbeat.note else ""
            if heartbeat.train_loss is not None:
                line += f", loss {heartbeat.train_loss:.4f}, accuracy {heartbeat.valid_accuracy:.4f}"
            self._running[event.name] = heartbeat.done / (heartbeat.epochs or 1), line
            if not self.console.is_terminal and time.monotonic() - self._last_line >= LINE_SECONDS:
                lines = [*(line for _, line in self._running.values()), self._time_left()]
                self.note("; ".join(filter(None, lines)))
        else:
            self._running.pop(event.name, None)
            self._ended += 1
            self._at_once = max(self._at_once, len(self._running))  # its worker has the next one already
            end = "ended"
            if record is not None and record.failure is not None:
                end = f"{record.status}: {record.failure.message}"
            elif record is not None and record.cost is not None:
                last, took = record.history[-1], record.cost.train_seconds + record.cost.eval_seconds
                end = f"accuracy {last.valid_accuracy:.4f}, train loss {last.train_loss:.4f}, {took:.1f} s"
                self._took, self._timed = self._took + took, self._timed + 1
            elif record is not None and record.seconds is not None:
                words = [f"{name} {value:.4g}" for name, value in record.metrics.items()]
                end = ", ".join([*words, f"{record.seconds:.1f} s"])
                self._took, self._timed = self._took + record.seconds, self._timed + 1
            self.note(f"[{self._ended}/{self._total}] {name}: {end}")
        self._bar.update(self._task, completed=self._ended, left=self._time_left())
        self._changed()

    def _time_left(self) -> str:
        """Going by what the trials that ended took, so not by how long workers take to start."""
        if not self._timed or self._ended >= self._total:
            return ""
        left = [1 - part for part, _ in self._running.values()]
        rounds = (self._total - self._ended - len(left) + sum(left)) / self._at_once
        return f"about {duration(self._took / self._timed * max([rounds, *left]))} left"

    def _render(self) -> Group:
        return Group(self._bar, *[Text(f"  {printable(line)}") for _, line in list(self._running.values())])


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel, whose shell has a `kernel`; a terminal's IPython has none."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class NotebookView(Watcher):
    """The same as one output of a notebook cell: rich's own needs ipywidgets, which is not stored with it."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO(), force_terminal=True, force_jupyter=False))
        self._head, self._endings, self._failures = list[str](), list[str](), list[str]()
        self._drawn: deque[float] = deque(maxlen=REFRESH_PER_SECOND)
        self._handle: Any = None

    def __enter__(self) -> NotebookView:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave what was done, with the trials' endings to unfold."""
        self._running.clear()
        if self._handle is None and not self._head:
            return
        came = "ended in" if self._ended == self._total else "ended, then it was stopped, after"
        summary = f"{self._ended} of {self._total} trials {came} {time.monotonic() - self._begun:.0f} s"
        self._draw([Text(summary)] if self._total else [], folded=self._endings)

    def note(self, line: str) -> None:
        """Once the run has begun, lines are the trials' endings."""
        (self._endings if self._begun else self._head).append(printable(line))
        self._changed()

    def happened(self, trial: Trial, event: Event, record: Record | None) -> None:
        """A trial that failed stays in sight."""
        super().happened(trial, event, record)
        if record is not None and record.failure is not None:
            self._failures.append(self._endings[-1])

    def _changed(self) -> None:
        """Draw, unless that was done as often as it may be in the last second; the next event will."""
        now = time.monotonic()
        if len(self._drawn) < REFRESH_PER_SECOND or now - self._drawn[0] >= 1:
            self._drawn.append(now)
            self._draw([*map(Text, self._endings[-LATEST:]), self._render()])

    def _draw(self, parts: Sequence[RenderableType], folded: Sequence[str] = ()) -> None:
        """Show what is known of the run, and under it these parts; the folded lines as HTML alone."""
        from IPython import display

        more = len(self._failures) - FAILURES_SHOWN
        lines = [*self._head, *self._failures[:FAILURES_SHOWN]]
        lines += [f"and {more} more without a result"] if more > 0 else []
        bundle = _exported([*map(Text, lines), *parts])
        if folded:
            unfolded = _exported([*map(Text, folded)])["text/html"]
            bundle["text/html"] += f"<details><summary>each trial</summary>{unfolded}</details>"
        show: Any = display.display if self._handle is None else self._handle.update
        handle = show(bundle, raw=True, **({} if self._handle else {"display_id": True}))
        self._handle = self._handle or handle


def _exported(parts: Sequence[RenderableType]) -> dict[str, str]:
    page = Console(file=io.StringIO(), record=True, width=NOTEBOOK_WIDTH, force_jupyter=False)
    for part in parts:
        page.print(part, soft_wrap=isinstance(part, Text))
    text = page.export_text(clear=False).strip()
    return {"text/plain": text, "text/html": page.export_html(inline_styles=True, code_format=PAGE)}
