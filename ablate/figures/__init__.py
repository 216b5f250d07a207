"""The figures that there are, and their drawing. One that fails says why in its place; the report stands.

Each is one function over a study's tables, registered in a module of this room. Matplotlib is imported late.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ablate.figures.context import Context
from ablate.study.trials import Plan
from ablate.tables.files import Tables
from ablate.tables.quantities import clean, few, one_line

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True)
class Figure:
    """A drawn figure, its SVG for light and for dark pages; or its `error`, and nothing else.

    `name` is the stem of its files, `table` that of its numbers; a `wide` one takes the page's full width.
    """

    name: str
    title: str
    caption: str = ""
    alt: str = ""
    table: str = ""
    wide: bool = False
    light: bytes = b""
    dark: bytes = b""
    pdf: bytes = b""
    error: str = ""


@dataclass(frozen=True)
class Drawing:
    """What the function of a figure returns: panels, caption, and the table that holds the numbers.

    `handles` are the legend's; `left_out` names what did not fit; `facts` says what it shows and no table.
    """

    figure: Canvas
    caption: str
    table: str
    handles: dict[str, Artist] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    facts: str = ""


Draw = Callable[..., Drawing | None]
Each = Callable[[Context], Iterable[Any]]


@dataclass(frozen=True)
class Registered:
    """A registered function, which gives one figure or one for each of several items."""

    name: str
    title: str
    order: int
    each: Each
    draw: Draw


REGISTRY: list[Registered] = []


def figure(name: str, title: str, *, order: int, each: Each | None = None) -> Callable[[Draw], Draw]:
    """Register a function as a figure; it returns None for a study that has no such figure.

    With `each` it gets an item as well, which name and title hold as `str.format` does: `{0.label} by level`.
    """

    def register(draw: Draw) -> Draw:
        REGISTRY.append(Registered(name, title, order, each or (lambda context: [None]), draw))
        return draw

    return register


def of_rows(table: str) -> Each:
    """For a figure's `each`: all rows of a table that are of complete runs; none where there is no row."""
    return lambda context: [rows for rows in [context.rows(table)] if len(rows)]


def draw_figures(tables: Tables, plan: Plan, *, pdf: bool = False) -> list[Figure]:
    """Every figure of a study, in the report's order; on request as PDF too."""
    try:
        # A broken plotting library costs the figures and not the report.
        for module in pkgutil.iter_modules(__path__, f"{__name__}."):
            importlib.import_module(module.name)
        from ablate.figures.theme import themed

        context = Context(tables, plan)
        with themed(context.words) as missing:
            items = [(entry, *item) for entry in REGISTRY for item in enumerate(entry.each(context))]
            items.sort(key=lambda item: (item[0].order, item[1]))
            drawn = [_drawn(entry, item, context, missing, pdf) for entry, _, item in items]
            return [figure for figure in drawn if figure is not None]
    except Exception as error:
        return [Figure("figures", "Figures", error=one_line(f"{type(error).__name__}: {error}"))]


def _drawn(entry: Registered, item: Any, context: Context, missing: Set[str], pdf: bool) -> Figure | None:
    from matplotlib.text import Text

    from ablate.figures.draw import HALF, arrange
    from ablate.figures.theme import pdf_of, svg_of

    name, title = quote(entry.name.format(item), safe="").replace("%", "-"), entry.title.format(item)
    try:
        drawing = entry.draw(context) if item is None else entry.draw(context, item)
        if drawing is None:
            return None
        arrange(drawing.figure, drawing.handles)
        caption = drawing.caption
        if drawing.left_out:
            caption += f" Left out for want of room: {few(drawing.left_out)}."
        if lost := missing & {*"".join(text.get_text() for text in drawing.figure.findobj(Text))}:
            caption += f" No font here has these letters, drawn as boxes: {''.join(sorted(lost))}"
        numbers = f"The numbers are in {drawing.table}.csv."
        alt = str(clean(" ".join(filter(None, (f"{title}.", caption, drawing.facts, numbers)))))
        wide = bool(drawing.figure.get_figwidth() > HALF)
        light, dark = svg_of(drawing.figure, title=title, alt=alt)
        paper = pdf_of(drawing.figure, title=title) if pdf else b""
        return Figure(name, title, caption, alt, drawing.table, wide, light, dark, paper)
    except Exception as error:
        return Figure(name, title, error=one_line(f"{type(error).__name__}: {error}"))
