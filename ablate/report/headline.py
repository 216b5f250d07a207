"""What the study says, in sentences to paste: each contrast on the primary metric with its verdict.

A verdict is one of three: equivalent within the study's margin, better or worse, or undecided. A study that
cannot see a difference has not found that there is none, so it says how many seeds would likely tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ablate.analysis.arms import (
    FLOOR,
    Arm,
    arm_interval,
    arm_label,
    complete_trials,
    planned_arms,
)
from ablate.analysis.timing import Pass, arm_cases
from ablate.stats import Interval
from ablate.study.trials import Plan
from ablate.tables.cells import Json, finite
from ablate.tables.quantities import Quantity, quantity, shown, shown_difference
from ablate.tables.wording import DECIDED, conclusion, ends, evidence, no_test, noun

ALSO = ("accuracy", "ece", "ece_scaled")
"""Said of every contrast beside its primary metric: accuracy, calibration before and after scaling."""


def headline(
    trials: pd.DataFrame,
    effects: pd.DataFrame,
    plan: Plan,
    timing: Pass | None = None,
    averaged: Sequence[str] = (),
) -> Json:
    """The answer: a summary, then one sentence per compared arm (or, without any, per metric).

    Args:
        trials: the trials table.
        effects: the effects table.
        plan: the study's plan.
        timing: the exclusive timing pass, where there is one.
        averaged: the sentences of `averaged_sentences`.
    """
    complete = complete_trials(trials)
    if complete.empty:
        return _headline("No trial is complete, so there is no result yet.")
    effects = effects[effects["kind"] == "arm"]
    if not effects[effects["metric"] == plan.study.primary].empty:
        return {**_compared(effects, plan, timing), "averaged": list(averaged)}
    if len(planned_arms(plan)) == 1:
        return _one_arm(complete, plan)
    return _headline(_uncompared(complete, plan))


def _headline(summary: str, contrasts: list[Json] | None = None, details: list[str] | None = None) -> Json:
    return {"summary": summary, "averaged": [], "contrasts": contrasts or [], "details": details or []}


def _compared(effects: pd.DataFrame, plan: Plan, timing: Pass | None) -> Json:
    what, primary = quantity(plan.study.primary), effects[effects["metric"] == plan.study.primary]
    size = plan.study.family_size(what.name, len(primary))
    others = {(row["term"], row["metric"]): row for _, row in effects.iterrows()}
    compared = []
    for _, row in primary.iterrows():
        found = _contrast(row, planned_arms(plan), what, size, planned=len(plan.study.seed_list()))
        also = [
            others[row["term"], name] for name in ALSO if name != what.name and (row["term"], name) in others
        ]
        found["also"] = "; ".join([*map(_aside, also), *_step_aside(row, plan, timing)])
        compared.append(found)
    summary = compared[0]["text"] if len(compared) == 1 else _summary(compared, what)
    details = [compared[0]["also"]] if len(compared) == 1 and compared[0]["also"] else []
    return _headline(summary, compared, details)


def _contrast(
    row: pd.Series[Any], arms: dict[str, Arm], what: Quantity, family: int, *, planned: int
) -> Json:
    arm, baseline = arms[row["term"]], arms[row["against"]]
    numbers = (
        "effect",
        "low",
        "high",
        "p",
        "p_adjusted",
        "p_equivalence",
        "low_images",
        "high_images",
        "rho",
    )
    return {
        "arm": arm.label,
        "baseline": baseline.label,
        "metric": what.name,
        **{name: finite(row[name]) for name in numbers},
        "n_pairs": int(row["n"]),
        "verdict": str(row["verdict"]),
        "text": f"{_versus(arm, baseline)}: {evidence(row, what, family)} "
        f"{conclusion(row, what, _why_undecided(row, planned))}",
    }


def _versus(arm: Arm, baseline: Arm) -> str:
    """The levels that differ, then those that both arms have."""
    differ = [name for name, level in arm.levels.items() if level != baseline.levels[name]]
    own, other = (arm_label({name: side.levels[name] for name in differ}) for side in (arm, baseline))
    shared = {name: level for name, level in arm.levels.items() if name not in differ}
    return f"{own} against {other}{f' ({arm_label(shared)})' if shared else ''}"


def _why_undecided(row: pd.Series[Any], planned: int) -> str:
    if row["reason"] == "incomplete":
        return f": only {int(row['n'])} of {planned} planned pairs are complete"
    if row["reason"]:
        return no_test(str(row["reason"]), "pair")
    if pd.isna(row["seeds_needed"]):
        return "; not even 1,000 seeds would likely decide"
    return f"; about {int(row['seeds_needed'])} seeds would likely decide"


def _aside(row: pd.Series[Any]) -> str:
    """Another metric of the same contrast, in short."""
    what = quantity(str(row["metric"]))
    reach = f" ({ends(row, what)})" if math.isfinite(row["low"]) else ""
    size = f"{shown_difference(row['effect'], what)} {what.difference_unit}".rstrip()
    return f"{what.label} {size}{reach}, {row['verdict']}"


def _step_aside(row: pd.Series[Any], plan: Plan, timing: Pass | None) -> list[str]:
    """What the arm's training step costs beside its baseline's, from the exclusive pass."""
    cases = arm_cases(plan)
    own, other = cases[row["term"]], cases[row["against"]]
    if timing is None or own not in timing.times or other not in timing.times:
        return []
    if own == other:
        return ["training step the same"]
    ratio = timing.ratio(own, other)
    ends = f" ({ratio.low:.3f} to {ratio.high:.3f})" if math.isfinite(ratio.low) else ""
    return [f"training step {ratio.median:.3f} times as long{ends}"]


def _summary(contrasts: list[Json], what: Quantity) -> str:
    count = {
        word: sum(item["verdict"] == word for item in contrasts)
        for word in (*DECIDED, "equivalent", "undecided")
    }
    parts = [f"{word} in {count[word]}" for word in count if count[word]]
    return f"Of {len(contrasts)} arms, each against its baseline, {noun(what)} is {_listed(parts)}."


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _one_arm(complete: pd.DataFrame, plan: Plan) -> Json:
    (arm,) = planned_arms(plan)
    metrics = dict.fromkeys((plan.study.primary, "accuracy", "nll", "ece"))
    sentences = [_mean_sentence(complete, arm, metric) for metric in metrics]
    return _headline(sentences[0], details=sentences[1:])


def _mean_sentence(complete: pd.DataFrame, arm: str, metric: str) -> str:
    what, interval = quantity(metric), arm_interval(complete, arm, metric)
    if not interval.n:
        return f"{what.label}: no value."
    unit = f" {what.unit}".rstrip()
    floor = ""
    if metric in FLOOR:
        height = arm_interval(complete, arm, FLOOR[metric]).mean
        floor = f"; its noise floor is {shown(height, what)}{unit}"
    return f"{what.label} {shown(interval.mean, what)}{unit} ({_reach(interval, what)}){floor}."


def _reach(interval: Interval, what: Quantity) -> str:
    if interval.n == 1:
        return "n = 1 training run, so no interval"
    runs = f"n = {interval.n} training runs"
    if not math.isfinite(interval.low):
        return f"{runs}, all equal, so no interval"
    return f"95 % interval {shown(interval.low, what)} to {shown(interval.high, what)}, {runs}"


def _uncompared(complete: pd.DataFrame, plan: Plan) -> str:
    what = quantity(plan.study.primary)
    arms = planned_arms(plan)
    means = [arm_interval(complete, arm, plan.study.primary).mean for arm in arms]
    known = [mean for mean in means if math.isfinite(mean)]
    if not known:
        return f"No arm has a value of {noun(what)}."
    unit = f" {what.unit}".rstrip()
    return (
        f"No baseline is declared, so the {len(arms)} arms are described and not compared: mean "
        f"{noun(what)} lies between {shown(min(known), what)} and {shown(max(known), what)}{unit}."
    )
