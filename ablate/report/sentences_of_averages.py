"""The headline's sentences on averages over combinations of levels: main effects, and trends."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ablate.analysis.arms import factor_label, level_label
from ablate.analysis.effects import Term
from ablate.report.views import compared, contrast_label
from ablate.study.trials import Plan
from ablate.tables.quantities import Quantity, quantity, shown
from ablate.tables.wording import conclusion, evidence, no_test, noun, uncertainty, unit_in_words


def averaged_sentences(effects: pd.DataFrame, plan: Plan) -> list[str]:
    """What each factor that has a baseline does to the primary metric.

    Args:
        effects: the effects table.
        plan: the study's plan.
    """
    study, what = plan.study, quantity(plan.study.primary)
    sentences = []
    for kinds in (("main", "interaction"), ("trend",)):
        items = compared(effects, plan, kinds)
        family = study.family_size(what.name, len(items))
        for term, row in ((item.term, item.first) for item in items):
            (factor, *others) = term.levels
            if others or factor not in study.baseline:
                continue
            if term.kind == "trend":
                said = _trend(term, row, what, family)
            else:
                said = f"{contrast_label(term)}, {_averaged_over(row)}: {evidence(row, what, family)}"
            undecided = _why_undecided(row, len(study.seed_list()))
            sentences.append(f"{said} {conclusion(row, what, undecided)}")
    return sentences


def _trend(term: Term, row: pd.Series[Any], what: Quantity, family: int) -> str:
    ((factor, high),) = term.levels.items()
    over = f"Over {factor_label(factor)} from {level_label(term.reference[factor])} to {level_label(high)}"
    if row["n"] == 0:
        return f"{over}: no seed is complete at all levels."
    where = f", {_averaged_over(row)}, " if row["cells_planned"] > 1 else " "
    moves = "rises" if row["effect"] > 0 else "falls" if row["effect"] < 0 else "changes"
    size = f"{noun(what)} {moves} by {shown(abs(row['effect']), what)}{unit_in_words(what)}"
    return f"{over}{where}{size} along a straight line ({uncertainty(row, what, family, of='seed')})."


def _averaged_over(row: pd.Series[Any]) -> str:
    return f"averaged over {int(row['cells'])} of {int(row['cells_planned'])} combinations"


def _why_undecided(row: pd.Series[Any], planned: int) -> str:
    if row["reason"] == "incomplete":
        cells = f"{int(row['cells'])} of {int(row['cells_planned'])} combinations and "
        seeds = f"{int(row['n'])} of {planned} seeds"
        return f": only {cells if row['cells_planned'] > 1 else ''}{seeds} are complete"
    return no_test(str(row["reason"]), "seed")
