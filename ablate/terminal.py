"""Tables for a reader: ruled on a terminal, and anywhere else aligned text that a pipe or a log can hold."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.errors import ResultsError


class Lasting:
    """A stream that may go: where its reader has gone, or its disk is full, it says so once and is silent."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.fault = stream or io.StringIO(), ""  # none where it was closed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, if it can."""
        self._outlast(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, if it can."""
        self._outlast(self.stream.flush)

    def _outlast(self, act: Callable[..., object], *text: str) -> None:
        try:
            act(*text)
        except OSError as error:
            self.fault = str(error)
            with contextlib.suppress(OSError):  # what it still holds would be tried again at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
                print(f"nothing more is shown ({error.strerror}); all else goes on", file=sys.stderr)


@contextlib.contextmanager
def optional() -> Iterator[None]:
    """Go on without an output that nothing needs where it cannot be written, with a note of why."""
    try:
        yield
    except (OSError, ResultsError) as error:
        print_line(Console(stderr=True), f"note: {error}")


def print_table(
    console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """Show rows of texts under their heads; `numbers` are those heads whose columns are aligned on the right.

    Only a terminal gets rules, and wraps what is too wide for it.
    """
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False)
    for head in heads:
        table.add_column(Text(head), justify="right" if head in numbers else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if console.is_terminal:
        console.print(table)
        return
    width = sum(max(map(cell_len, column)) + 2 for column in zip(heads, *rows, strict=True))
    for line in Console(width=width, color_system=None).render_lines(table, pad=False):
        print_line(console, "".join(segment.text for segment in line).rstrip())


def print_line(console: Console, *lines: str) -> None:
    """Show lines as they are: not wrapped, not coloured."""
    for line in lines:
        console.print(printable(line), highlight=False, soft_wrap=True, markup=False, emoji=False)


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
