"""The report's words between its numbers: templates/words.md by name, and templates/method.md."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2

from ablate.report.cells import Json
from ablate.study.trials import Plan

TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def _templates() -> dict[str, jinja2.Template]:
    parts = (part.partition("\n") for part in template_text("words.md").split("\n## ")[1:])
    return {name: jinja2.Template(body, undefined=jinja2.StrictUndefined) for name, _, body in parts}


def template_text(name: str) -> str:
    """A file of templates/."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def words(name: str, **values: Any) -> str:
    """A text of words.md in one line, its blanks filled."""
    return " ".join(_templates()[name].render(values).split())


def titled(name: str, **values: Any) -> Json:
    """A text of words.md whose first line is its title."""
    title, _, text = _templates()[name].render(values).partition("\n")
    return {"title": title, "text": " ".join(text.split())}


def method(plan: Plan, *, averages: bool, tuned: int = 0) -> list[Json]:
    """What each number of the report means: the paragraphs that apply to a study, in reading order.

    `averages` are main effects, interactions and trends; `tuned` is how many objectives a search has, or 0.
    """
    study, margins = plan.study, plan.study.all_margins
    text = jinja2.Template(template_text("method.md"), undefined=jinja2.StrictUndefined).render(
        pairs=len(plan.comparisons),
        family=[(name, margins.get(name)) for name in study.comparison_family],
        search=study.search,
        averages=averages,
        tuned=tuned,
    )
    sections = [part.partition("\n") for part in text.split("## ")[1:]]
    return [{"title": title, "text": " ".join(body.split())} for title, _, body in sections]
