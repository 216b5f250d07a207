"""Timings as a table for a reader, and pytest-benchmark's JSON as a file."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from ablate.bench.run import Outcome, Timing
from ablate.errors import ResultsError
from ablate.terminal import print_line, print_table

HEADS = ("implementation", "median", "quartiles", "rounds", "to torch", "on the GPU")
BUSY = 0.5
"""Processes of others that wanted a core, from which on timings are not to be relied on."""


def show_timings(console: Console, outcome: Outcome) -> None:
    """Print every group with its ratios to plain torch, then what failed or does not apply here."""
    heads = HEADS if any(timing.device_ms is not None for timing in outcome.timings) else HEADS[:-1]
    for group in dict.fromkeys(timing.group for timing in outcome.timings):
        print_line(console, group)
        rows = [_row(timing)[: len(heads)] for timing in outcome.timings if timing.group == group]
        print_table(console, heads, rows, numbers=heads[1:])
    for case, reason in outcome.skipped:
        print_line(console, f"skipped: {case}: {reason}")
    for case, reason in outcome.failures:
        print_line(console, f"failed: {case}: {reason}")
    if outcome.interrupted:
        print_line(console, "interrupted: the other cases were not timed")
    if outcome.load > BUSY:
        print_line(console, f"the machine was busy (load {outcome.load:.1f} before): ratios can be far off")


def _row(timing: Timing) -> tuple[str, ...]:
    return (
        timing.implementation,
        f"{timing.median_ms:.4g} ms",
        f"{timing.low_ms:.4g} to {timing.high_ms:.4g}",
        str(timing.rounds),
        "–" if timing.ratio is None else f"{timing.ratio:.3f}",
        "–" if timing.device_ms is None else f"{timing.device_ms:.4g} ms",
    )


def write_json(path: Path, outcome: Outcome) -> None:
    """Write pytest-benchmark's JSON.

    Raises:
        ResultsError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(outcome.stored, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"{path}: the timings cannot be written ({error.strerror}); name another file with --json"
        ) from None
