"""How every figure looks, drawn in the light theme's colours and recoloured, and how it becomes SVG bytes."""

import io
import itertools
import re
import string
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib import font_manager
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font


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


HREF = "{http://www.w3.org/1999/xlink}href"
SPACES = "xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'"
ELSEWHERE = ("defs", "metadata", "style", "title")
ROW = re.compile(r"<use x='\S+' y='\S+' xlink:href='#\w+'( class='[^']*')/>(?:<use [^>]*\1/>)+")
"""Marks of one look, one after the other."""
NUMBER = re.compile(r"(scale\(.*?\))|(-?\d+\.\d+)")  # those of a scale aside, which stay as they are
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
    missing = {letter for letter in words if not letter.isspace()} - _letters(font_manager.findfont(FONT))
    families = [FONT]  # and those that have what it lacks
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        usual = entry.style == "normal" and entry.weight == 400 and "Last Resort" not in entry.name
        if missing and usual and missing & _letters(entry.fname):
            families.append(entry.name)
            missing -= _letters(entry.fname)
    style = {**STYLE, "font.family": families}
    with matplotlib.style.context(["default", style]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the caption says so
        yield frozenset(missing)


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


def short_names() -> defaultdict[str, str]:
    """A short name for every key that is asked for."""
    names = (f"{letter}{turn or ''}" for turn in itertools.count() for letter in string.ascii_letters)
    return defaultdict(names.__next__)


def slim(svg: bytes, *, title: str, about: str) -> bytes:
    """The same drawing in fewer bytes; `about` says what it shows."""
    ids, looks, defined, blank = short_names(), short_names(), list[str](), set[str]()

    def attributes(tag: str, own: dict[str, str]) -> str:
        name, target, style, clip = (own.pop(key, "") for key in ("id", HREF, "style", "clip-path"))
        if tag == "path":
            own["d"] = outline(own["d"], own.pop("transform", "scale(1)"))
        if tag == "use" and "transform" in own:  # a letter's place in its line
            own["x"] = own.pop("transform").partition("(")[2].partition(" ")[0]
        own = {key: NUMBER.sub(lambda found: found[1] or number(float(found[2])), own[key]) for key in own}
        own["id"] = ids[name] if name and tag != "g" else ""
        own["xlink:href"] = f"#{ids[target[1:]]}" if target[:1] == "#" else target
        own["class"] = " ".join(looks[look] for look in (style, clip and f"clip-path: {clip}") if look)
        return "".join(f" {key}='{value}'" for key, value in own.items() if value)

    def written(element: ElementTree.Element) -> str:
        tag, inner = element.tag.rpartition("}")[2], "".join(map(written, element))
        if tag == "defs":
            defined.append(inner)
        unseen = tag == "path" and (element.get("style") == "fill: none" or "d" not in element.attrib)
        if unseen:
            blank.add(f"#{element.get('id')}")  # the space between words
        if tag in ELSEWHERE or unseen or element.get(HREF) in blank:
            return ""
        said = attributes(tag, dict(element.attrib))
        if tag == "g" and not said:
            return inner
        return f"<{tag}{said}>{inner}</{tag}>" if inner else f"<{tag}{said}/>"

    root = ElementTree.fromstring(svg)
    drawn = "".join(map(written, root))
    drawn = ROW.sub(lambda row: f"<g{row[1]}>{row[0].replace(row[1], '')}</g>", drawn)
    rules = "".join(f".{name}{{{look}}}" for look, name in looks.items()).replace("; ", ";")
    rules = re.sub(r"(?<=url\(#)\w+", lambda name: ids[name[0]], rules)
    head = f"<svg {SPACES} stroke-linejoin='round'{attributes('svg', dict(root.attrib))}>"
    words = f"<title>{escape(title)}</title><desc>{escape(about)}</desc>"
    return f"{head}{words}<defs><style>{rules}</style>{''.join(defined)}</defs>{drawn}</svg>".encode()


def number(value: float, digits: int = 2) -> str:
    """A number as short as can be."""
    text = f"{round(value, digits) + 0.0:.12g}"
    return text.replace("0.", ".") if abs(value) < 1 else text


def outline(path: str, scale: str) -> str:
    """A path in steps from point to point; a letter's, in its font's units, is drawn a tenth as large."""
    factor, digits = float(scale[6:-1]), 2 if scale == "scale(1)" else 1
    words, last, here, start = list[str](), "", 0j, 0j
    for command, text in re.findall("([MLQCz])([^MLQCz]*)", path):
        places = [round(factor * float(place), digits) for place in text.split()]
        ends = [complex(*pair) for pair in zip(places[::2], places[1::2], strict=True)]
        steps = [part for end in ends for part in ((end - here).real, (end - here).imag)]
        if command == "L" and 0 in steps:
            command, steps = ("h", steps[:1]) if steps[1] == 0 else ("v", steps[1:])
        here = ends[-1] if ends else start
        start = here if command == "M" else start
        words += [command.lower()] if command != last or command == "M" else []
        words += [number(step, digits) for step in steps]
        last = command
    return re.sub(r" ?([a-z]) ?| (?=-)", r"\1", " ".join(words))
