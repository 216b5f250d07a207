"""How every figure looks, drawn in the light theme's colours and recoloured, and how it becomes SVG bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib import font_manager
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from ablate.figures.svg import slim


@dataclass(frozen=True)
class Theme:
    """Colours of one variant: background, what must stand out, other words and lines, grid.

    `palette` has categories, told apart with any colour vision; `ramp` is a part of plasma, for levels.
    """

    surface: str
    ink: str
    muted: str
    grid: str
    palette: tuple[str, ...]
    ramp: tuple[float, float]

    def shade(self, step: int) -> str:
        """Colour of an ordered level, from 0 (the lowest) to STEPS - 1."""
        low, high = self.ramp
        return str(to_hex(matplotlib.colormaps["plasma"](low + (high - low) * step / (STEPS - 1))))

    def tint(self, category: int, step: int) -> str:
        """A category's colour over the surface, from 0 (hardly seen) to TINTS - 1; ink can be read on it."""
        opacity = PALEST + (DEEPEST - PALEST) * step / (TINTS - 1)
        below, above = np.array(to_rgb(self.surface)), np.array(to_rgb(self.palette[category]))
        return str(to_hex(tuple((1 - opacity) * below + opacity * above)))

    def colors(self) -> list[bytes]:
        """Every colour that a figure may have."""
        tints = [self.tint(category, step) for category in (0, 1) for step in range(TINTS)]
        shades = [self.shade(step) for step in range(STEPS)]
        plain = [self.surface, self.ink, self.muted, self.grid, *self.palette]
        return [color.encode() for color in (*plain, *shades, *tints)]


STEPS, TINTS = 64, 12
PALEST, DEEPEST = 0.08, 0.55  # opacities of the tints
LIGHT = Theme(
    surface="#ffffff",
    ink="#1c2530",
    muted="#5d6875",
    grid="#e3e7ec",
    palette=("#0067a5", "#d1520f", "#0aa583", "#7b1f6a", "#554513", "#20262d"),
    ramp=(0.0, 0.62),
)
DARK = Theme(
    surface="#171c23",
    ink="#e6eaef",
    muted="#9aa5b1",
    grid="#2c343e",
    palette=("#58b0e8", "#ff8a4c", "#35dca6", "#dd4fa3", "#f1cf2f", "#ccd0d7"),
    ramp=(0.43, 0.96),
)
DARK_OF = dict(zip(LIGHT.colors(), DARK.colors(), strict=True))
PALETTE = LIGHT.palette
REFERENCE: dict[str, Any] = {"color": LIGHT.muted, "linestyle": (0, (4, 3)), "linewidth": 1.2}
"""Keywords of a line to compare with."""
SHADE: dict[str, Any] = {"facecolor": (LIGHT.muted, 0.16), "edgecolor": (LIGHT.muted, 0.55), "linewidth": 0.6}
NEAR: dict[str, Any] = {"color": LIGHT.muted, "alpha": 0.16, "linewidth": 0}
"""Keywords of a shaded band, whose edges are drawn so that print shows it too, and of a margin's."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")  # so that no reader needs the colours
FONT = "DejaVu Sans"
STYLE: dict[str, Any] = {
    "svg.hashsalt": "ablate",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # letters stay text, which editors and publishers ask for
    "text.parse_math": False,  # a name may hold dollar signs
    "font.size": 10.0,
    "figure.dpi": 72.0,  # an SVG's: what is measured is what is drawn
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), LIGHT.surface),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), LIGHT.muted),
    **dict.fromkeys(("text.color", "axes.titlecolor", "legend.labelcolor"), LIGHT.ink),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **{"axes.titlelocation": "left", "axes.titlesize": 10.5, "axes.titlepad": 8.0},
    **{"grid.color": LIGHT.grid, "grid.linewidth": 0.8, "legend.fontsize": 9.5},
    **{"xtick.major.size": 3.0, "xtick.minor.size": 0.0, "ytick.major.size": 0.0},
    **{"lines.linewidth": 1.4, "lines.solid_capstyle": "round"},
}


def level_colors(count: int, *, ordered: bool) -> list[str]:
    """Colours of so many categories, or of ordered levels, lowest first; these serve many categories too."""
    if not ordered and count <= len(PALETTE):
        return list(PALETTE[:count])
    return [LIGHT.shade(round((STEPS - 1) * place / max(count - 1, 1))) for place in range(count)]


@contextmanager
def themed(words: str) -> Iterator[frozenset[str]]:
    """The style, and nothing else of a reader's own settings; gives the letters of `words` without a font."""
    families, missing = _fonts_for(frozenset(words))
    style = {**STYLE, "font.family": [FONT, *families]}
    with matplotlib.style.context(["default", style]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the caption says so
        yield missing


@cache
def _fonts_for(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have what the usual font lacks, and the letters that no family here has."""
    missing = {letter for letter in letters if not letter.isspace()} - _letters(font_manager.findfont(FONT))
    families = list[str]()
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        usual = entry.style == "normal" and entry.weight == 400 and "Last Resort" not in entry.name
        if missing and usual and missing & _letters(entry.fname):
            families.append(entry.name)
            missing -= _letters(entry.fname)
    return tuple(families), frozenset(missing)


@cache
def _letters(path: str) -> frozenset[str]:
    font = FT2Font(path)
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def svg_of(figure: Figure, *, title: str, alt: str) -> tuple[bytes, bytes]:
    """An arranged figure as two SVG files, light and dark, that need no font and load nothing."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    light = slim(buffer.getvalue(), title=title, about=alt)
    dark = re.sub(rb"(?<=: )#[0-9a-f]{6}\b", lambda color: DARK_OF.get(color[0], color[0]), light)
    return light, dark


def pdf_of(figure: Figure, *, title: str) -> bytes:
    """An arranged figure as a PDF file, light, with its fonts in it and no date."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"Title": title, "CreationDate": None})
    return buffer.getvalue()
