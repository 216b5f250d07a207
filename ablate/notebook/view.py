"""A run's progress as one output of a notebook cell."""

from __future__ import annotations

import html
import sys
import time
from collections import deque
from types import TracebackType
from typing import Any

from rich.console import Console

from ablate.execution import Event
from ablate.execution.progress import ProgressView
from ablate.store.records import Record
from ablate.study.trials import Trial

DRAWINGS_PER_SECOND = 4
LATEST, FAILURES_SHOWN = 3, 5
"""How many of the latest ended trials are shown while others run, and how many failed ones at any time."""
PREPARING = ("preparing", 0, 0)


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel, whose shell has a `kernel`; a terminal's IPython has none."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class NotebookView(ProgressView):
    """Shows a study's run as one output of a notebook cell, drawn again as the run goes on."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True, force_terminal=False, force_jupyter=False))
        self._head: list[str] = []
        self._endings: list[str] = []
        self._failures: list[str] = []
        self._step = PREPARING
        self._drawn: deque[float] = deque(maxlen=DRAWINGS_PER_SECOND)
        self._handle: Any = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave a summary."""
        super().__exit__(kind, error, trace)
        if self._handle or self._head:
            self._draw(self._summary())

    def preparing(self, label: str, done: int, total: int) -> None:
        """Data is being downloaded, checked or decoded; a bar that goes away."""
        self._step = (label, done, total) if done < total else PREPARING
        self._draw_soon()

    def note(self, line: str) -> None:
        """Something to know, in one line. Once the run has begun, lines are the trials' endings."""
        (self._endings if self._begun else self._head).append(line)
        self._draw_soon()

    def happened(self, trial: Trial, event: Event, record: Record | None) -> None:
        """A trial started, told how far it is, or ended with a record."""
        super().happened(trial, event, record)
        if record is not None and record.status != "complete":
            self._failures.append(self._endings[-1])
        self._draw_soon()

    def _report_in_lines(self) -> None:
        """How far the running trials are is drawn, not told."""

    def _draw_soon(self) -> None:
        """Draw, unless that was done as often as it may be in the last second; the next event will."""
        now = time.monotonic()
        if len(self._drawn) < DRAWINGS_PER_SECOND or now - self._drawn[0] >= 1:
            self._drawn.append(now)
            self._draw(self._state())

    def _draw(self, state: tuple[str, str]) -> None:
        from IPython import display

        failures = self._failures[:FAILURES_SHOWN]
        more = len(self._failures) - len(failures)
        lines = [*self._head, *failures, *([f"and {more} more without a result"] if more else [])]
        body, words = state
        page = "".join(f"<div>{html.escape(line)}</div>" for line in lines) + body
        bundle = {
            "text/html": f'<div style="font-size:13px;line-height:1.6">{page}</div>',
            "text/plain": "\n".join([*lines, words]).strip(),
        }
        show: Any = display.display if self._handle is None else self._handle.update
        handle = show(bundle, raw=True, **({} if self._handle else {"display_id": True}))
        self._handle = self._handle or handle

    def _state(self) -> tuple[str, str]:
        """What is going on, as HTML and in words."""
        if not self._begun:
            label, done, total = self._step
            words = f"{label}: {done} of {total}" if total else label
            return f"<div>{_bar(done, total)} {html.escape(words)}</div>", words
        words = f"{self._ended} of {self._total} trials"
        left = self._time_left()
        words += f", {left}" if left else ""
        rows = "".join(
            f"<tr>{_cell(running.name)}<td>{_bar(running.fraction, 1)}</td>{_cell(running.state)}</tr>"
            for running in self._running.values()
        )
        latest = "".join(
            f'<div style="opacity:.75">{html.escape(line)}</div>' for line in self._endings[-LATEST:]
        )
        table = f'<table style="margin:0">{rows}</table>' if rows else ""
        return f"<div>{_bar(self._ended, self._total)} {words}</div>{table}{latest}", words

    def _summary(self) -> tuple[str, str]:
        """What was done, as HTML with the trials' endings to unfold, and in words."""
        if not self._total:
            return "", ""
        came = "ended in" if self._ended == self._total else "ended, then it was stopped, after"
        words = f"{self._ended} of {self._total} trials {came} {time.monotonic() - self._begun:.0f} s"
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in self._endings)
        return f"<details><summary>{words}</summary>{lines}</details>" if lines else words, words


def _bar(done: float, total: float) -> str:
    value = f' value="{done:g}" max="{total:g}"' if total else ""
    return f'<progress{value} style="vertical-align:middle"></progress>'


def _cell(text: str) -> str:
    return f'<td style="text-align:left">{html.escape(text)}</td>'
