"""The report as one HTML file that loads nothing: style, script, figures and tables are inside it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import jinja2

from ablate.figures import Figure
from ablate.report.sections import sections
from ablate.tables.cells import Json

TEMPLATES = Path(__file__).parent / "templates"
COLOR = re.compile(rb"(?<=: )#[0-9a-f]{6}\b")
"""A colour in the style of an SVG's element."""


def render_html(report: Json, figures: Sequence[Figure], downloads: Mapping[str, bytes]) -> str:
    """The page of a report.

    Args:
        report: what `build_report` gives.
        figures: the drawn figures, for their SVG.
        downloads: file name to content of the tables to carry along.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        report=report,
        sections=sections(report),
        style=style,
        script=script,
        policy=content_policy(style, script),
        images={figure.name: _svg_url(adaptive(figure.light, figure.dark)) for figure in figures},
        downloads={name: _data_url("text/csv;charset=utf-8", content) for name, content in downloads.items()},
    )


def adaptive(light: bytes, dark: bytes) -> bytes:
    """One SVG in the place of two that differ in colours alone: it takes those of the reader's scheme.

    The dark figure is the light one recoloured, so their colours stand in the same places.
    """
    if light == dark:
        return light
    pairs = list(zip(COLOR.findall(light), COLOR.findall(dark), strict=True))
    names = {pair: f"--c{place}".encode() for place, pair in enumerate(dict.fromkeys(pairs))}
    rules = [
        b":root{" + b";".join(name + b":" + pair[side] for pair, name in names.items()) + b"}"
        for side in (0, 1)
    ]
    style = (
        b"<style>" + rules[0] + b"@media screen and (prefers-color-scheme:dark){" + rules[1] + b"}</style>"
    )
    found = iter(pairs)
    painted = COLOR.sub(lambda color: b"var(" + names[next(found)] + b")", light)
    return painted.replace(b"<defs>", style + b"<defs>", 1)


def content_policy(style: str, script: str) -> str:
    """A policy under which the browser runs this one script, applies this one style and loads nothing."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_source_hash(style)}'",
            f"script-src '{_source_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _source_hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _svg_url(svg: bytes) -> str:
    """Text and not base64, which would make it a third longer."""
    return "data:image/svg+xml," + quote(svg.decode(), safe=" !$&'()*+,-./:;=?@[]^_`{|}~")


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
