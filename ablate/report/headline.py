"""What the study says, in sentences to paste: each effect on the primary metric with its verdict; its search.

A verdict is one of three: equivalent within the study's margin, better or worse, or undecided. A study that
cannot see a difference has not found that there is none, so it says how many seeds would likely tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ablate.analysis.arms import FLOOR, arm_interval, arm_label, complete_trials, factor_label, level_label
from ablate.analysis.timing import Pass, arm_cases
from ablate.analysis.tuning import Outcome, Retested, Tuned
from ablate.report.cells import Json, ends, with_unit
from ablate.report.views import Compared, compared, contrast_label, duration, search_cost
from ablate.report.words import words
from ablate.study.comparisons import Term
from ablate.study.trials import Plan
from ablate.tables.quantities import Quantity, quantity, shown, shown_difference, shown_p

ALSO = ("accuracy", "ece", "ece_scaled")
"""Said of every contrast beside its primary metric: accuracy, calibration before and after scaling."""
DECIDED = ("better", "worse", "higher", "lower")
NUMBERS = ("effect", "low", "high", "p", "p_adjusted", "p_equivalence", "low_images", "high_images", "rho")


def headline(trials: pd.DataFrame, effects: pd.DataFrame, plan: Plan, timing: Pass | None = None) -> Json:
    """The answer: a summary, then a sentence per compared arm and per average (without any, per metric)."""
    complete, what, details = complete_trials(trials), quantity(plan.study.primary), list[str]()
    arms = compared(effects, plan, "arm")
    arms = [item for item in arms if what.name in item[1]]
    contrasts = [_contrast(item, plan, timing, len(arms)) for item in arms]
    if complete.empty:
        summary, contrasts = "No trial is complete, so there is no result yet.", []
    elif len(contrasts) > 1:
        verdicts = [item["verdict"] for item in contrasts]
        occurring = (word for word in (*DECIDED, "equivalent", "undecided") if word in verdicts)
        *most, last = (f"{word} in {verdicts.count(word)}" for word in occurring)
        listed = " and ".join(filter(None, (", ".join(most), last)))
        summary = f"Of {len(arms)} arms, each against its baseline, {what.noun} is {listed}."
    elif contrasts:
        summary, details = contrasts[0]["text"], [also for also in [contrasts[0]["also"]] if also]
    elif len(plan.arms) == 1:
        metrics = dict.fromkeys((what.name, "accuracy", "nll", "ece"))
        summary, *details = (_mean_sentence(complete, plan.arms[0], quantity(name)) for name in metrics)
    else:
        means = pd.Series([arm_interval(complete, arm, what.name).mean for arm in plan.arms])
        summary = f"No arm has a value of {what.noun}."
        if means.notna().any():
            summary = (
                f"No baseline is declared, so the {len(means)} arms are described and not compared: mean "
                f"{what.noun} lies between {shown(means.min(), what)} and {with_unit(means.max(), what)}."
            )
    averaged = [
        effect_sentence(term, rows[what.name], plan, planned=len(items))
        for items in (compared(effects, plan, "main", "interaction"), compared(effects, plan, "trend"))
        for term, rows in items
        if contrasts and term.kind != "interaction" and set(term.levels) <= set(plan.study.baseline)
    ]
    return {"summary": summary, "averaged": averaged, "contrasts": contrasts, "details": details}


def effect_sentence(term: Term, row: pd.Series[Any], plan: Plan, *, planned: int) -> str:
    """A row of the effects table in a sentence; `planned` effects are in its family."""
    what, averaged = quantity(row["metric"]), int(row["cells_planned"]) > 1
    cells = f"{int(row['cells'])} of {int(row['cells_planned'])} combinations"
    over = f"{_compared_in_words(term)}{f', averaged over {cells}' if averaged else ''}"
    size = f"no seed is complete {'in both arms' if term.kind == 'arm' else 'at all levels'}"
    if row["n"]:
        size = f"{what.noun} {in_words(row['effect'], what)} ({uncertainty(row)})"
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


def uncertainty(row: pd.Series[Any]) -> str:
    """Interval, n and p of an effect, as they stand in brackets."""
    n, counts = int(row["n"]), "pair" if row["kind"] == "arm" else "seed"
    counted = f"n = {n} {counts}{'' if n == 1 else 's'}"
    reach = ends(row["low"], row["high"], quantity(row["metric"]), signed=True)
    if not reach:
        return f"{counted}, no interval"
    claim = row["verdict"] != "exploratory"
    simultaneous, adjusted = ("simultaneous ", "adjusted ") if claim else ("", "")
    p = shown_p(row["p_adjusted" if claim else "p"])
    return f"{simultaneous}95 % interval {reach}; {counted}; {adjusted}p {p if p[0] == '<' else f'= {p}'}"


def in_words(value: float, what: Quantity) -> str:
    """A difference with its sign and its unit, within a sentence."""
    unit = what.difference_unit.replace("points", "percentage points")
    return f"{shown_difference(value, what)} {unit}".rstrip()


def _conclusion(row: pd.Series[Any], what: Quantity, planned: int, cells: str) -> str:
    """The verdict as a sentence, with why where it is undecided."""
    counts, reason = "pair" if row["kind"] == "arm" else "seed", row["reason"]
    if row["verdict"] in DECIDED:
        return f"{str(row['verdict']).capitalize()}."
    if row["verdict"] == "equivalent":
        if reason == "identical":
            return "Equivalent: the same predictions on every seed."
        within = f"within ±{shown(row['margin'], what)} {what.difference_unit}".rstrip()
        return f"Equivalent {within}{': different, by less than matters' if row['below_margin'] else ''}."
    seeds = f"{int(row['n'])} of {planned} planned {counts}s"
    likely = "not even 1,000" if pd.isna(row["seeds_needed"]) else f"about {int(row['seeds_needed'])}"
    why = {
        "incomplete": f": only {f'{cells} and ' if cells else ''}{seeds} are complete",
        "too_few_seeds": f": one {counts} has no spread to judge by",
        "no_spread": f": all {counts}s differ alike, which leaves no spread to judge by",
    }
    return f"Undecided{why.get(reason, f'; {likely} seeds would likely decide')}."


def _contrast(item: Compared, plan: Plan, timing: Pass | None, planned: int) -> Json:
    """An arm against its baseline, in numbers and in words, with other metrics and the cost of a step."""
    term, rows = item
    row, cases, also = rows[plan.study.primary], arm_cases(plan), list[str]()
    for name in ALSO:
        if name != row["metric"] and name in rows:
            what, other = quantity(name), rows[name]
            reach = ends(other["low"], other["high"], what, signed=True)
            size = f"{shown_difference(other['effect'], what)} {what.difference_unit}".rstrip()
            also.append(f"{what.label} {size}{f' ({reach})' if reach else ''}, {other['verdict']}")
    arm, baseline = cases[term.term], cases[term.against]
    if timing and arm in timing.times and baseline in timing.times:
        ratio = timing.ratio(arm, baseline)
        reach = f" ({ratio.low:.3f} to {ratio.high:.3f})" if math.isfinite(ratio.low) else ""
        slower = f"{ratio.median:.3f} times as long{reach}"
        also.append(f"training step {'the same' if arm == baseline else slower}")
    return {
        "arm": arm_label(term.levels),
        "baseline": arm_label(term.reference),
        "metric": row["metric"],
        **{name: row[name] for name in NUMBERS},
        "n_pairs": int(row["n"]),
        "verdict": str(row["verdict"]),
        "text": effect_sentence(term, row, plan, planned=planned),
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
        floor = f"; its noise floor is {with_unit(height, what)}"
    return f"{what.label} {with_unit(interval.mean, what)} ({reach}){floor}."


# What tuning bought.


def tuning_headline(tuned: Tuned, retests: Sequence[Retested], trials: pd.DataFrame, plan: Plan) -> Json:
    """The verdict on the search; what was chosen, what that showed while tuning and afresh; the cost."""
    (kind, better), said = _bought(tuned, retests), list[str]()
    if len(tuned.winners):
        said.append(f"Tuning chose {' and '.join(tuned.winners['label'])} of {tuned.ended} points.")
    for one in retests:
        if "winner" in one.roles:
            about = f"{one.point['label']}: " if len(tuned.winners) > 1 else ""
            said.append(about + " ".join(_of_winner(outcome, one, plan) for outcome in one.outcomes))
    spent = trials[["train_seconds", "eval_seconds"]].sum(axis=1)[trials["status"] == "complete"]
    again = f", the re-test {len(spent)} and {duration(float(spent.sum()))}" if len(spent) else ""
    said.append(f"The search took {search_cost(tuned)}{again}.")
    verdict = words(f"bought.{kind}", ended=tuned.ended, planned=tuned.facts["points_planned"], better=better)
    return {"verdict": verdict, "sentences": said}


def _bought(tuned: Tuned, retests: Sequence[Retested]) -> tuple[str, list[str]]:
    """What it came to, by its name in words.md; labels of the points that fresh seeds show to be better."""
    if tuned.winners.empty:
        return ("nothing chosen" if tuned.is_spent else "unfinished"), []
    winners = [one for one in retests if "winner" in one.roles]
    chosen = [one for one in winners if not one.is_baseline]
    if winners and not chosen:
        return "baseline", []
    effects = [outcome.effect for one in chosen for outcome in one.outcomes]
    if not chosen or any(effect is None or not int(effect["n"]) for effect in effects):
        return "open", []
    verdicts = {str(one.point["label"]): {outcome.verdict for outcome in one.outcomes} for one in chosen}
    better = [label for label, own in verdicts.items() if "better" in own and "worse" not in own]
    if better:
        return "confirmed", better
    if any(own >= {"better", "worse"} for own in verdicts.values()):
        return "traded", []
    if all("worse" in own for own in verdicts.values()):
        return "worse", []
    if any(effect is not None and effect["reason"] == "incomplete" for effect in effects):
        return "incomplete", []
    return ("equivalent" if all(own == {"equivalent"} for own in verdicts.values()) else "not shown"), []


def _of_winner(outcome: Outcome, one: Retested, plan: Plan) -> str:
    """One objective of a chosen point: while tuning, then with fresh seeds."""
    what, effect, fresh = outcome.what, outcome.effect, outcome.fresh
    start = f"On the tuning split: {what.noun} {with_unit(outcome.tuned.mean, what)}"
    if len(one.numbers) > 1:
        start += f" (mean of {outcome.tuned.n} runs of {len(one.numbers)} points)"
    if math.isfinite(outcome.seen) and not one.is_baseline:
        start += f", {in_words(outcome.seen, what)} against the baseline there"
    if not fresh.n:
        return f"{start}; not re-run with fresh seeds yet."
    start += f"; with {fresh.n} fresh seed{'s' if fresh.n > 1 else ''} on the reported split"
    if effect is None or not int(effect["n"]):
        return f"{start} {with_unit(fresh.mean, what)}."
    sure = uncertainty(effect)
    return f"{start} {in_words(effect['effect'], what)} against it ({sure}): {outcome.verdict}."
