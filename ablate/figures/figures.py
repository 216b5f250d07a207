"""The report's figures, drawn light and dark. One that fails says why in its place; the report stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ablate.figures.drawing import Drawing
from ablate.figures.drawings import drawings
from ablate.study.trials import Plan
from ablate.tables import Tables
from ablate.tables.cells import clean, one_line


@dataclass(frozen=True)
class Figure:
    """A drawn figure, or why there is none.

    Attributes:
        name: stem of its files.
        title: its heading.
        light: SVG for light pages; empty when it failed.
        dark: SVG for dark pages.
        error: why it failed; empty when it did not.
    """

    name: str
    title: str
    caption: str = ""
    alt: str = ""
    wide: bool = False
    light: bytes = b""
    dark: bytes = b""
    error: str = ""


def draw_figures(tables: Tables, plan: Plan) -> list[Figure]:
    """Every figure of a study, in the report's order."""
    return [_drawn(name, title, prepare) for name, title, prepare in drawings(tables, plan)]


def _drawn(name: str, title: str, prepare: Callable[[], Drawing]) -> Figure:
    try:
        # Imported here, so that a broken plotting library costs the figures and not the report.
        from ablate.figures import figure_svg

        drawing = prepare()
        alt = str(clean(drawing.alt))
        light, dark = figure_svg(
            drawing.draw, size=drawing.size, title=title, alt=alt, ordered=drawing.ordered
        )
    except Exception as error:
        return Figure(name, title, error=one_line(f"{type(error).__name__}: {error}"))
    return Figure(name, title, drawing.caption, alt, drawing.wide, light, dark)
