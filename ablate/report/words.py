"""The report's templates: its words between the numbers (words.md by name, method.md) and its pages."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2

from ablate.report.cells import Json
from ablate.study.comparisons import terms
from ablate.study.trials import Plan

TEMPLATES = Path(__file__).parent / "templates"


def template_text(name: str) -> str:
    """A file of templates/."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def environment(**options: Any) -> jinja2.Environment:
    """What renders templates; a blank that nothing fills is an error."""
    loader, undefined = jinja2.FileSystemLoader(TEMPLATES), jinja2.StrictUndefined
    options |= {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return jinja2.Environment(loader=loader, undefined=undefined, **options)


@functools.cache
def _named() -> dict[str, jinja2.Template]:
    parts, plain = template_text("words.md").split("\n## ")[1:], environment()
    return {name: plain.from_string(body) for name, _, body in (part.partition("\n") for part in parts)}


def words(name: str, **values: Any) -> str:
    """A text of words.md in one line, its blanks filled."""
    return " ".join(_named()[name].render(values).split())


def titled(text: str) -> Json:
    """A text whose first line is its title."""
    title, _, body = text.partition("\n")
    return {"title": title, "text": " ".join(body.split())}


def caution(name: str, **values: Any) -> Json:
    """A caution of words.md."""
    return titled(_named()[f"caution.{name}"].render(values))


def method(plan: Plan, *, tuned: bool) -> list[Json]:
    """What each number of the report means: the paragraphs that apply to a study, in reading order."""
    study, compared = plan.study, terms(plan)
    facts = {
        "compared": compared, "search": study.search, "tuned": tuned, "study": study,
        "alone": study.trained_by and "accuracy" not in study.usual("accuracy"),
        "asked": sum(term.asked for term in compared),
        "averages": any(term.kind not in ("arm", "pair") for term in compared),
        "family": [(name, study.all_margins.get(name)) for name in study.comparison_family],
    }  # fmt: skip
    text = environment().get_template("method.md").render(facts)
    return [titled(part) for part in text.split("## ")[1:]]
