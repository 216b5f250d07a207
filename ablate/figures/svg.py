"""An SVG of matplotlib's in half the bytes: places keep a hundredth of a point, looks are classes."""

from __future__ import annotations

import itertools
import re
import string
from collections import defaultdict
from xml.etree import ElementTree
from xml.sax.saxutils import escape

HREF = "{http://www.w3.org/1999/xlink}href"
SPACES = "xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'"
ELSEWHERE = ("defs", "metadata", "style", "title")
ROW = re.compile(r"<use x='\S+' y='\S+' xlink:href='#\w+'( class='[^']*')/>(?:<use [^>]*\1/>)+")
"""Marks of one look, one after the other."""


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
        own = {key: rounded(value) for key, value in own.items()}
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


def rounded(value: str) -> str:
    """Numbers to two digits, those of a scale aside."""
    return re.sub(r"(scale\(.*?\))|(-?\d+\.\d+)", lambda found: found[1] or number(float(found[2])), value)


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
