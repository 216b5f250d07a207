"""What each number of the report means: the paragraphs of templates/method.md that apply to a study."""

from __future__ import annotations

from pathlib import Path

import jinja2

from ablate.study.trials import Plan
from ablate.tables.cells import Json

TEXT = Path(__file__).parent / "templates" / "method.md"


def method(plan: Plan, *, averages: bool, tuned: int = 0) -> list[Json]:
    """The paragraphs, in reading order.

    Args:
        plan: the study's plan.
        averages: whether there are main effects, interactions or trends.
        tuned: how many objectives a search has; 0 where nothing was tuned.
    """
    study, margins = plan.study, plan.study.all_margins
    text = jinja2.Template(TEXT.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined).render(
        pairs=len(plan.comparisons),
        family=[(name, margins.get(name)) for name in study.comparison_family],
        search=study.search,
        averages=averages,
        tuned=tuned,
    )
    sections = [part.partition("\n") for part in text.split("## ")[1:]]
    return [{"title": title, "text": " ".join(body.split())} for title, _, body in sections]
