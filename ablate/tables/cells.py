"""What a cell may show of a text from outside: no unseen character, one line."""

from __future__ import annotations

import re
from collections.abc import Sequence

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Control characters and those that reorder text: a name that holds one could show as another name."""


def clean(text: str) -> str:
    """Text with its unseen characters replaced by �."""
    return UNSEEN.sub("�", text)


def one_line(text: str, longest: int = 300) -> str:
    """Text without line breaks, cut where it is longer than a table can take."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def few(names: Sequence[str], most: int = 4) -> str:
    """The first of some names, and how many others there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
