"""What the study says, in sentences to paste: each effect on the primary metric with its verdict.

A verdict is one of three: equivalent within the study's margin, better or worse, or undecided. A study that
cannot see a difference has not found that there is none, so it says how many seeds would likely tell.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ablate.analysis.arms import (
    FLOOR,
    arm_interval,
    arm_label,
    complete_trials,
    factor_label,
    labels_of,
    level_label,
    planned_arms,
)
from ablate.analysis.effects import Term
from ablate.analysis.timing import Pass, arm_cases
from ablate.report.cells import Json, ends
from ablate.report.views import Compared, compared, contrast_label
from ablate.study.trials import Plan
from ablate.tables.quantities import Quantity, quantity, shown, shown_difference, shown_p

ALSO = ("accuracy", "ece", "ece_scaled")
"""Said of every contrast beside its primary metric: accuracy, calibration before and after scaling."""
DECIDED = ("better", "worse", "higher", "lower")


def headline(trials: pd.DataFrame, effects: pd.DataFrame, plan: Plan, timing: Pass | None = None) -> Json:
    """The answer: a summary, then a sentence per compared arm and per average (without any, per metric)."""
    complete, what = complete_trials(trials), quantity(plan.study.primary)
    answer: Json = {"summary": "", "averaged": [], "contrasts": [], "details": []}
    arms = compared(effects, plan, ("arm",))
    if complete.empty:
        return {**answer, "summary": "No trial is complete, so there is no result yet."}
    if arms:
        contrasts = [_contrast(item, plan, timing, len(arms)) for item in arms]
        averaged = [
            effect_sentence(item.term, item.first, plan, planned=len(items))
            for kinds in (("main", "interaction"), ("trend",))
            for items in [compared(effects, plan, kinds)]
            for item in items
            if item.term.kind != "interaction" and set(item.term.levels) <= set(plan.study.baseline)
        ]
        answer |= {"contrasts": contrasts, "averaged": averaged}
        if len(contrasts) == 1:
            details = [contrasts[0]["also"]] if contrasts[0]["also"] else []
            return {**answer, "summary": contrasts[0]["text"], "details": details}
        verdicts = [item["verdict"] for item in contrasts]
        words = (word for word in (*DECIDED, "equivalent", "undecided") if word in verdicts)
        counts = [f"{word} in {verdicts.count(word)}" for word in words]
        listed = " and ".join(filter(None, (", ".join(counts[:-1]), counts[-1])))
        summary = f"Of {len(arms)} arms, each against its baseline, {what.noun} is {listed}."
        return {**answer, "summary": summary}
    names = list(planned_arms(plan))
    if len(names) == 1:
        metrics = dict.fromkeys((plan.study.primary, "accuracy", "nll", "ece"))
        summary, *details = (_mean_sentence(complete, names[0], quantity(metric)) for metric in metrics)
        return {**answer, "summary": summary, "details": details}
    means = [arm_interval(complete, arm, what.name).mean for arm in names]
    known = [mean for mean in means if math.isfinite(mean)]
    summary = f"No arm has a value of {what.noun}."
    if known:
        summary = (
            f"No baseline is declared, so the {len(names)} arms are described and not compared: mean "
            f"{what.noun} lies between {shown(min(known), what)} and {_with_unit(max(known), what)}."
        )
    return {**answer, "summary": summary}


def effect_sentence(term: Term, row: pd.Series[Any], plan: Plan, *, planned: int) -> str:
    """A row of the effects table in a sentence: what is compared, how much differs, how sure, the verdict.

    `planned` effects are in its family.
    """
    what, averaged = quantity(row["metric"]), int(row["cells_planned"]) > 1
    cells = f"{int(row['cells'])} of {int(row['cells_planned'])} combinations"
    over = f"{_compared_in_words(term)}{f', averaged over {cells}' if averaged else ''}"
    size = f"no seed is complete {'in both arms' if term.kind == 'arm' else 'at all levels'}"
    if row["n"]:
        family = plan.study.family_size(what.name, planned)
        size = f"{what.noun} {in_words(row['effect'], what)} ({uncertainty(row, family)})"
    return f"{over}: {size}. {_conclusion(row, what, len(plan.study.seed_list()), cells if averaged else '')}"


def _compared_in_words(term: Term) -> str:
    if term.kind == "trend":
        ((factor, high),) = term.levels.items()
        low = level_label(term.reference[factor])
        return f"{factor_label(factor)} from {low} to {level_label(high)} along a straight line"
    if term.kind != "arm":
        return contrast_label(term)
    # The levels that differ, then those that both arms have.
    shared = {name: level for name, level in term.levels.items() if level == term.reference[name]}
    arm, baseline = (
        arm_label({name: level for name, level in levels.items() if name not in shared})
        for levels in (term.levels, term.reference)
    )
    return f"{arm} against {baseline}{f' ({arm_label(shared)})' if shared else ''}"


def uncertainty(row: pd.Series[Any], family: int) -> str:
    """Interval, n and p of an effect, as they stand in brackets; `family` intervals hold together with it."""
    n, counts = int(row["n"]), "pair" if row["kind"] == "arm" else "seed"
    counted = f"n = {n} {counts}{'' if n == 1 else 's'}"
    reach = ends(row["low"], row["high"], quantity(row["metric"]), signed=True)
    if not reach:
        return f"{counted}, no interval"
    simultaneous, adjusted = ("simultaneous ", "adjusted ") if family > 1 else ("", "")
    p = shown_p(row["p_adjusted"])
    return f"{simultaneous}95 % interval {reach}; {counted}; {adjusted}p {p if p[0] == '<' else f'= {p}'}"


def in_words(value: float, what: Quantity) -> str:
    """A difference with its sign and its unit, within a sentence."""
    unit = what.difference_unit.replace("points", "percentage points")
    return f"{shown_difference(value, what)} {unit}".rstrip()


def _conclusion(row: pd.Series[Any], what: Quantity, planned: int, cells: str) -> str:
    """The verdict as a sentence, with why where it is undecided."""
    counts = "pair" if row["kind"] == "arm" else "seed"
    if row["verdict"] in DECIDED:
        return f"{str(row['verdict']).capitalize()}."
    if row["verdict"] == "equivalent":
        if row["reason"] == "identical":
            return "Equivalent: the same predictions on every seed."
        within = f"within ±{shown(row['margin'], what)} {what.difference_unit}".rstrip()
        return f"Equivalent {within}{': different, by less than matters' if row['below_margin'] else ''}."
    if row["reason"] == "incomplete":
        seeds = f"{int(row['n'])} of {planned} planned {counts}s"
        return f"Undecided: only {f'{cells} and ' if cells else ''}{seeds} are complete."
    if row["reason"] == "too_few_seeds":
        return f"Undecided: one {counts} has no spread to judge by."
    if row["reason"] == "no_spread":
        return f"Undecided: all {counts}s differ alike, which leaves no spread to judge by."
    if pd.isna(row["seeds_needed"]):
        return "Undecided; not even 1,000 seeds would likely decide."
    return f"Undecided; about {int(row['seeds_needed'])} seeds would likely decide."


def _contrast(item: Compared, plan: Plan, timing: Pass | None, planned: int) -> Json:
    """An arm against its baseline, in numbers and in words, with other metrics and the cost of a step."""
    row, labels, cases, also = item.first, labels_of(plan), arm_cases(plan), list[str]()
    for name in ALSO:
        if name != row["metric"] and name in item.by_metric:
            what, other = quantity(name), item.by_metric[name]
            reach = ends(other["low"], other["high"], what, signed=True)
            size = f"{shown_difference(other['effect'], what)} {what.difference_unit}".rstrip()
            also.append(f"{what.label} {size}{f' ({reach})' if reach else ''}, {other['verdict']}")
    arm, baseline = cases[item.term.term], cases[item.term.against]
    if timing and arm in timing.times and baseline in timing.times:
        ratio = timing.ratio(arm, baseline)
        reach = f" ({ratio.low:.3f} to {ratio.high:.3f})" if math.isfinite(ratio.low) else ""
        slower = f"{ratio.median:.3f} times as long{reach}"
        also.append(f"training step {'the same' if arm == baseline else slower}")
    numbers = (
        "effect", "low", "high", "p", "p_adjusted", "p_equivalence", "low_images", "high_images", "rho",
    )  # fmt: skip
    return {
        "arm": labels[item.term.term],
        "baseline": labels[item.term.against],
        "metric": row["metric"],
        **{name: row[name] for name in numbers},
        "n_pairs": int(row["n"]),
        "verdict": str(row["verdict"]),
        "text": effect_sentence(item.term, row, plan, planned=planned),
        "also": "; ".join(also),
    }


def _mean_sentence(complete: pd.DataFrame, arm: str, what: Quantity) -> str:
    interval, floor = arm_interval(complete, arm, what.name), ""
    if not interval.n:
        return f"{what.label}: no value."
    reach = f"n = {interval.n} training run{'' if interval.n == 1 else 's'}"
    if math.isfinite(interval.low):
        reach = f"95 % interval {ends(interval.low, interval.high, what)}, {reach}"
    else:
        reach += f"{', all equal' if interval.n > 1 else ''}, so no interval"
    if what.name in FLOOR:
        height = arm_interval(complete, arm, FLOOR[what.name]).mean
        floor = f"; its noise floor is {_with_unit(height, what)}"
    return f"{what.label} {_with_unit(interval.mean, what)} ({reach}){floor}."


def _with_unit(value: float, what: Quantity) -> str:
    return f"{shown(value, what)} {what.unit}".rstrip()
