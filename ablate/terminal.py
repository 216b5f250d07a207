"""Tables for a reader: ruled on a terminal, and anywhere else aligned text that a pipe or a log can hold."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(
    console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """Show rows of texts under their heads.

    Args:
        console: where to. Only a terminal gets lines and wraps what is too wide for it.
        heads: name of each column.
        rows: one text per column each.
        numbers: heads of the columns that are aligned on the right.
    """
    if not console.is_terminal:
        for line in aligned(heads, rows, numbers=numbers):
            print_line(console, line)
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for head in heads:
        table.add_column(Text(head), justify="right" if head in numbers else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def print_line(console: Console, line: str) -> None:
    """Show one line as it is: not wrapped, not coloured."""
    console.print(printable(line), highlight=False, soft_wrap=True, markup=False, emoji=False)


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> list[str]:
    """A table as lines of text, columns two spaces apart."""
    table = [list(heads), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(row[place]) for row in table) for place in range(len(heads))]
    return ["  ".join(_padded(row, widths, heads, numbers)).rstrip() for row in table]


def _padded(
    row: Sequence[str], widths: Sequence[int], heads: Sequence[str], numbers: Sequence[str]
) -> list[str]:
    cells = []
    for cell, width, head in zip(row, widths, heads, strict=True):
        space = " " * (width - cell_len(cell))
        cells.append(space + cell if head in numbers else cell + space)
    return cells


def printable(text: str) -> str:
    """Text on one line, in which a name from somebody else's record cannot steer the terminal."""
    line = " ".join(text.splitlines())
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)


def duration(seconds: float) -> str:
    """A time in the two units that fit it: 40 s, 12 min 05 s, 3 h 20 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
