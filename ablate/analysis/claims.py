"""The claims of a study: the effects that it asks about, each with its verdict. Nothing else has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablate.analysis.arms import arm_label, factor_label, level_label
from ablate.study.comparisons import Term, terms
from ablate.study.parts import NONE, PART
from ablate.study.trials import Plan
from ablate.tables.quantities import Quantity, quantity

VERDICTS = ("better", "worse", "higher", "lower", "equivalent", "undecided")


@dataclass(frozen=True)
class Claim:
    """One effect on one metric, its row of the effects table, and the verdict."""

    term: Term
    row: pd.Series[Any]
    metric: Quantity
    word: str

    @property
    def place(self) -> str:
        """Its levels, as they stand after "at": those that differ; in brackets what both sides share."""
        if self.term.kind == "interaction":
            return contrast_label(self.term)
        apart, beside = _apart_and_shared(self.term)
        against = f" against {NONE}" if self.term.reference.get(PART) == NONE else ""
        return f"{arm_label(apart)}{against}{beside}"


def claims(effects: pd.DataFrame, plan: Plan) -> list[Claim]:
    """All claims, in the order of the effects table."""
    known = {(term.kind, term.term, term.against): term for term in terms(plan)}
    return [
        Claim(term, row, quantity(row["metric"]), row["verdict"])
        for _, row in effects[effects["verdict"].isin(VERDICTS)].iterrows()
        if (term := known.get((row["kind"], row["term"], row["against"])))
    ]


def contrast_label(term: Term) -> str:
    """An effect as a reader writes it, what both sides share last: ε: 0.1 − 0 (arch=xresnet18)."""
    apart, beside = _apart_and_shared(term)
    steps = [
        f"{factor_label(factor)}: {level_label(level)} − {level_label(term.reference[factor])}"
        for factor, level in apart.items()
    ]
    line = ", along a straight line" if term.kind == "trend" else ""
    return f"{(' × ' if term.kind == 'interaction' else ', ').join(steps)}{line}{beside}"


def _apart_and_shared(term: Term) -> tuple[dict[str, Any], str]:
    """The levels in which both sides differ, and in brackets what they share."""
    apart = {factor: level for factor, level in term.levels.items() if level != term.reference[factor]}
    shared = {factor: level for factor, level in term.levels.items() if factor not in apart}
    return apart, f" ({arm_label(shared)})" if shared else ""
