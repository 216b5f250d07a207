"""The report as Markdown, for a repository or a message: the same numbers, figures by relative path."""

from __future__ import annotations

import re

import jinja2

from ablate.report.html import TEMPLATES
from ablate.report.sections import sections
from ablate.tables.cells import Json

SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
"""Characters that mean something to Markdown or to GitHub's tables and formulas; inside a word an underscore
means nothing."""
LEADING = re.compile(r"^(?:#|[-+](?=[-\s]|$)|=(?==*$)|(\d+)([.)])(?=\s|$))")
"""What would start a heading, a list or a rule."""


def render_markdown(report: Json) -> str:
    """The page of a report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # that of HTML; every value goes through `finalize` instead
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escaped,
    )
    environment.filters["code"] = code
    text = environment.get_template("report.md.j2").render(report=report, sections=sections(report))
    return re.sub(r"\n{3,}", "\n\n", text)


class Markup(str):
    """Text that is Markdown already."""


def _escaped(value: object) -> object:
    return escape(str(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def escape(text: str) -> str:
    """Text that Markdown shows as it is: in one line, nothing in it a mark, a tag, a link or a cell's end."""
    line = SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))
    return LEADING.sub(lambda start: f"{start[1] or ''}\\{start[2] or start[0]}", line)


def code(text: str) -> Markup:
    """Text as inline code, fenced by more backquotes than it holds."""
    line = " ".join(text.split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{fence}{space}{line}{space}{fence}")
