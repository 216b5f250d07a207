"""What both simulations have: a command with its options, a table, and a file of unrounded numbers."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ablate.terminal import print_line, print_table

Columns = Sequence[tuple[str, str, str]]
"""Head, attribute of an outcome, and format."""


def options(doc: str) -> argparse.Namespace:
    """The command's `--json` and `--repeats`."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--repeats", type=int, help="of each situation, instead of its own")
    return parser.parse_args()


def run(console: Console, outcomes: Iterable[Any], columns: Columns, notes: Sequence[str]) -> list[Any]:
    """Print each situation as it is done, then the table, and what its columns should be.

    Args:
        console: where to.
        outcomes: data classes of numbers and a `situation`, which is one of what was simulated.
        columns: of the table, beside the situation's own.
        notes: lines below it.

    Returns:
        The numbers, unrounded, and None for one that does not apply: a row for each situation.
    """
    rows, stored = [], []
    for outcome in outcomes:
        numbers = dataclasses.asdict(outcome)
        situation = numbers.pop("situation")
        print_line(console, "done: " + ", ".join(f"{name} {value}" for name, value in situation.items()))
        cells = (_cell(numbers[name], form) for _, name, form in columns)
        rows.append((*map(str, situation.values()), *cells))
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        stored.append({**situation, **finite})
    heads = (*situation, *(head for head, _, _ in columns))
    print_table(console, heads, rows, numbers=[head for head in heads if head not in ("sampler", "rule")][1:])
    for note in notes:
        print_line(console, note)
    return stored


def _cell(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def write(path: Path | None, stored: list[Any]) -> None:
    """Write a simulation's numbers, where they are wanted."""
    if path is not None:
        path.write_text(json.dumps({"situations": stored}, indent=1) + "\n", encoding="utf-8")
