"""A figure of the report before it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Drawing:
    """A figure ready to be drawn.

    Attributes:
        caption: what to know when reading it.
        alt: what it shows, in words.
        draw: puts it into an empty matplotlib figure.
        size: width and height in inches.
        wide: takes the page's full width.
        ordered: number of ordered levels that the colours stand for; 0 for categories.
    """

    caption: str
    alt: str
    draw: Callable[[Any], Any]
    size: tuple[float, float]
    wide: bool = False
    ordered: int = 0


def not_drawn(left_out: Sequence[str]) -> str:
    """The end of a caption: what did not fit; empty where everything did."""
    from ablate.figures import names_of

    return f" Left out for want of room: {names_of(left_out)}." if left_out else ""
