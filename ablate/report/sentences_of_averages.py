"""The headline's sentences on averages over combinations of levels: main effects, and trends."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ablate.analysis.arms import factor_label, level_label
from ablate.analysis.contrasts import contrast_label, contrasts
from ablate.analysis.trends import Ordered, ordered_factors
from ablate.study.study import Study
from ablate.tables.quantities import Quantity, quantity, shown
from ablate.tables.wording import conclusion, evidence, no_test, noun, uncertainty, unit_in_words


def averaged_sentences(contrasts_: pd.DataFrame, trends: pd.DataFrame, study: Study) -> list[str]:
    """What each factor that has a baseline does to the primary metric.

    Args:
        contrasts_: the contrasts table; empty for a study of fewer than two factors.
        trends: the trends table; empty without a factor of numbers.
        study: what was asked.
    """
    return [*_main_effects(contrasts_, study), *_trends(trends, study)]


def _main_effects(table: pd.DataFrame, study: Study) -> list[str]:
    what, asked = quantity(study.primary), contrasts(study)
    family = study.family_size(what.name, len(asked))
    found = table[table["metric"] == what.name]
    return [
        f"{contrast_label(contrast, study)}, {_averaged_over(row)}: {evidence(row, what, family)} "
        f"{_conclusion(row, what, study)}"
        for contrast, (_, row) in zip(asked, found.iterrows(), strict=True)
        if len(contrast) == 1 and contrast[0].factor in study.baseline
    ]


def _trends(table: pd.DataFrame, study: Study) -> list[str]:
    what, asked = quantity(study.primary), ordered_factors(study)
    family = study.family_size(what.name, len(asked))
    found = table[table["metric"] == what.name]
    return [
        f"{_trend(factor, row, what, family)} {_conclusion(row, what, study)}"
        for factor, (_, row) in zip(asked, found.iterrows(), strict=True)
        if factor.factor in study.baseline
    ]


def _trend(factor: Ordered, row: pd.Series[Any], what: Quantity, family: int) -> str:
    low, high = (level_label(end) for end in factor.ends)
    over = f"Over {factor_label(factor.factor)} from {low} to {high}"
    if row["n_pairs"] == 0:
        return f"{over}: no seed is complete at all levels."
    where = f", {_averaged_over(row)}, " if row["cells_planned"] > 1 else " "
    moves = "rises" if row["effect"] > 0 else "falls" if row["effect"] < 0 else "changes"
    size = f"{noun(what)} {moves} by {shown(abs(row['effect']), what)}{unit_in_words(what)}"
    return f"{over}{where}{size} along a straight line ({uncertainty(row, what, family, of='seed')})."


def _averaged_over(row: pd.Series[Any]) -> str:
    return f"averaged over {int(row['cells'])} of {int(row['cells_planned'])} combinations"


def _conclusion(row: pd.Series[Any], what: Quantity, study: Study) -> str:
    return conclusion(row, what, _why_undecided(row, len(study.seed_list())))


def _why_undecided(row: pd.Series[Any], planned: int) -> str:
    if row["reason"] == "incomplete":
        cells = f"{int(row['cells'])} of {int(row['cells_planned'])} combinations and "
        seeds = f"{int(row['n_pairs'])} of {planned} seeds"
        return f": only {cells if row['cells_planned'] > 1 else ''}{seeds} are complete"
    return no_test(str(row["reason"]), "seed")
