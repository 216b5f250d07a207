"""The first screen: what a study found, in sentences printed from its claims, what to do, a table of arms.

One source for the page, its Markdown twin, the terminal and a notebook.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.arms import (
    arm_interval,
    arm_label,
    arm_means,
    best_of,
    complete_trials,
    factor_label,
    level_label,
    planned_arms,
)
from ablate.analysis.claims import VERDICTS, Claim, claims
from ablate.analysis.timing import Pass, arm_cases
from ablate.analysis.tuning import Outcome, Retested, Tuned
from ablate.metrics import FLOORS
from ablate.report.cautions import SMALL_DATA
from ablate.report.cells import (
    Column,
    Json,
    amount,
    cell,
    column,
    ends,
    of_quantity,
    view,
    with_best,
    with_unit,
    worded,
)
from ablate.report.views import duration, search_cost
from ablate.report.words import words
from ablate.stats import Interval, median_interval
from ablate.study.external import ExternalStudy
from ablate.study.own import OwnFields
from ablate.study.trials import Plan, Trial
from ablate.tables import Tables
from ablate.tables.quantities import Quantity, quantity, shown, shown_difference, shown_seeds

SAID = (
    "kind", "term", "against", "metric", "verdict", "reason", "effect", "low", "high", "p", "p_adjusted",
    "p_equivalence", "margin", "n", "seeds_from", "seeds_needed", "detectable",
)  # fmt: skip
MOST_NAMED = 4
UNTOLD = {
    "incomplete": "planned trials are missing",
    "too_few_seeds": "one seed has no spread to judge by",
    "no_spread": "all seeds differ alike, which leaves no spread to judge by",
    "bent": "the means turn within the levels, which no straight line tells",
}


def answer(tables: Tables, plan: Plan, timing: Pass | None = None) -> Json:
    """Everything of the first screen but its picture and its cautions."""
    trials, study, made = tables["trials"], plan.study, claims(tables["effects"], plan)
    complete = complete_trials(trials)
    metrics = dict.fromkeys((study.primary, *study.comparison_family))
    by_metric = {name: [one for one in made if one.metric.name == name] for name in metrics}
    said: list[Json] = []
    if complete.empty:
        said = [{"metric": "", "word": "", "text": "No trial is complete, so there is no result yet."}]
    elif made:
        said = [_sentence(own, complete) for own in by_metric.values() if own]
        said.sort(key=lambda one: one["word"] == "undecided")
    else:
        alone = len(plan.arms) == 1
        for name in dict.fromkeys((*metrics, *(study.usual("accuracy", "nll", "ece") if alone else ()))):
            what = quantity(name)
            text = _mean_sentence(tables, plan.arms[0], what) if alone else _spread(complete, plan, what)
            said.append({"metric": name, "word": "", "text": text})
    data = dict.fromkeys([plan.profile] if isinstance(study, ExternalStudy) else map(_data, plan.trials))
    unit = "seeds" if study.is_paired else "runs, paired by none"
    counts = f"{len(plan.arms)} arm{'' if len(plan.arms) == 1 else 's'} × {len(study.seed_list())} {unit}"
    done = f"{(trials['status'] == 'complete').sum()} of {len(plan.trials)} training runs complete"
    return {
        "about": f"{'; '.join(data)} · {counts} · {done}",
        "sentences": said,
        "recommendation": "" if complete.empty else _recommendation(made, complete, plan),
        "arms": arms_view(tables, made, plan, timing),
        "claims": [{**one.row[list(SAID)].to_dict(), "at": one.place} for one in made],
    }


def answer_lines(report: Json) -> list[str]:
    """The first screen as lines of text."""
    found, table = report["answer"], report["answer"]["arms"] or {"columns": [], "rows": []}
    tuned = found.get("tuning", {"verdict": "", "sentences": []})
    cautions = "; ".join(banner["title"] for banner in report["banners"])
    said = [tuned["verdict"], *tuned["sentences"], *(one["text"] for one in found["sentences"])]
    said += [found["recommendation"], cautions and f"Take care: {cautions}."]
    heads = [f"{head['label']} {head['unit']}".rstrip() for head in table["columns"]]
    rows = [heads, *([" ".join([own["text"], *own["notes"]]) for own in row] for row in table["rows"])]
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows if heads]
    return [line for line in (found["about"], *said, *lines) if line]


def _data(trial: Trial) -> str:
    fields = trial.fields
    if isinstance(fields, OwnFields):
        what = "a command of its own" if " " in fields.trained_by else "own training code"
        return f"{fields.data} at {fields.image_size} px, {what}" if fields.data else what
    name = f"{fields.data}{', a small stand-in,' if fields.data in SMALL_DATA else ''}"
    return f"{name} at {fields.image_size} px, {fields.epochs} epoch{'' if fields.epochs == 1 else 's'}"


# Sentences.


def _sentence(own: Sequence[Claim], complete: pd.DataFrame) -> Json:
    """All claims on one metric in a sentence; its word is the first that occurs in the order of verdicts."""
    what = own[0].metric
    parts = [_grouped(word, group, len(own)) for word in VERDICTS if (group := _of(own, word))]
    word = next(word for word in VERDICTS if _of(own, word))
    why = _mechanism(what, complete) if word not in ("undecided", "equivalent") else ""
    return {"metric": what.name, "word": word, "text": f"{what.label}: {'; '.join(parts)}.{why}"}


def _of(own: Sequence[Claim], word: str) -> list[Claim]:
    return [one for one in own if one.word == word]


def _grouped(word: str, group: list[Claim], asked: int) -> str:
    """The claims of one verdict: where, how large, how sure."""
    if word == "undecided":
        return _undecided(group, asked)
    what, whole = group[0].metric, len(group) == asked > 2
    count = f"in all {asked} comparisons" if whole else f"in {len(group)} of {asked} comparisons"
    if word == "equivalent":
        margin = _difference(group[0].row["margin"], what, signed=False)
        return f"equivalent within ±{margin} {count if whole else _few(list(map(_where, group)))}"
    if len(group) <= 2:
        return f"{word}: {' and '.join(f'{_size(one.row)} {_where(one)}' for one in group)}"
    least, most = (f(group, key=lambda one: abs(float(one.row["effect"]))) for f in (min, max))
    return f"{word} {count}, from {_size(least.row)} {_where(least)} to {_size(most.row)} {_where(most)}"


def _undecided(group: list[Claim], asked: int) -> str:
    """What was not decided, what the study could have shown, and what would settle it."""
    what, rows = group[0].metric, pd.DataFrame([one.row for one in group])
    places = f"in all {asked} comparisons" if len(group) == asked > 2 else _few(list(map(_where, group)))
    text = f"undecided {places}"
    sizes = rows["effect"].dropna()
    if len(sizes) == 1:
        text += _size(group[0].row, " ({}, {})")
    elif len(sizes):
        text += f" ({shown_difference(sizes.min(), what)} to {shown_difference(sizes.max(), what)})"
    reasons = [UNTOLD[reason] for reason in rows["reason"].unique() if reason in UNTOLD]
    text += f", because {' and '.join(reasons)}" if reasons else ""
    untold = rows[rows["reason"] == ""]
    if len(untold):
        found, few, many = untold[["detectable", "seeds_from", "seeds_needed"]].max(skipna=False)
        text += f"; {int(untold['n'].min())} seeds can only show differences of "
        text += f"{_difference(found, what, signed=False)} or more"
        if math.isfinite(margin := untold["margin"].iloc[0]):
            text += f", the margin is {shown(margin, what)}, and {shown_seeds(few, many)} would settle it"
    return text


def _difference(value: float, what: Quantity, *, signed: bool = True) -> str:
    text = shown_difference(value, what) if signed else shown(value, what)
    return f"{text} {what.difference_unit}".rstrip()


def _size(row: pd.Series[Any], form: str = "{} ({})") -> str:
    """A difference with its sign, its unit and its interval."""
    what = quantity(row["metric"])
    reach = ends(row["low"], row["high"], what, "no interval", signed=True)
    return form.format(_difference(row["effect"], what), reach)


def _where(claim: Claim) -> str:
    """Where an effect is: at a level, along a factor, between two arms."""
    if claim.term.kind == "trend":
        ((factor, high),) = claim.term.levels.items()
        low = level_label(claim.term.reference[factor])
        return f"from {factor_label(factor)}={low} to {level_label(high)} on a straight line"
    if claim.term.kind == "pair":
        return f"from {arm_label(claim.term.reference)} to {claim.place}"
    if claim.term.kind == "interaction":
        return f"in the interaction {claim.place}"
    averaged = ", averaged over the other factors" if claim.row["cells_planned"] > 1 else ""
    return f"at {claim.place}{averaged if claim.term.kind == 'main' else ''}"


def _mechanism(what: Quantity, complete: pd.DataFrame) -> str:
    """Of a calibration error, what the tables hold of its cause, and what temperature scaling leaves."""
    names = ["confidence_gap", "ece_scaled"]
    means = complete.reindex(columns=["arm", *names]).groupby("arm")[names].mean()
    if what.name not in FLOORS or means.isna().any(axis=None):
        return ""
    gap, scaled = max(means["confidence_gap"], key=abs), means["ece_scaled"]
    size = _difference(abs(gap), quantity("confidence_gap"), signed=False)
    least, most = shown(scaled.min(), what), shown(scaled.max(), what)
    left = least if least == most else f"{least} to {most}"
    side = "below" if gap < 0 else "above"
    return (
        f" Mean confidence is {side} accuracy by up to {size}; temperature scaling leaves an ECE of {left} %."
    )


def _mean_sentence(tables: Tables, arm: str, what: Quantity) -> str:
    complete = complete_trials(tables["trials"])
    interval, floor = arm_interval(complete, arm, what.name, tables.get("new_images")), ""
    if not interval.n:
        return f"{what.label}: no value."
    reach = f"n = {interval.n} training run{'' if interval.n == 1 else 's'}"
    if math.isfinite(interval.low):
        reach = f"95 % interval {ends(interval.low, interval.high, what)}, {reach}"
    else:
        reach += f"{', all equal' if interval.n > 1 else ''}, so no interval"
    if what.name in FLOORS and (height := arm_interval(complete, arm, FLOORS[what.name])).n:
        floor = f"; its noise floor is {with_unit(height.mean, what)}"
    return f"{what.label} {with_unit(interval.mean, what)} ({reach}){floor}."


def _spread(complete: pd.DataFrame, plan: Plan, what: Quantity) -> str:
    """Where the means of arms lie that no comparison is asked of."""
    means = arm_means(complete, planned_arms(plan).values(), what.name)["mean"].dropna()
    if means.empty:
        return f"{what.label}: no arm has a value."
    both = f"{shown(means.min(), what)} to {with_unit(means.max(), what)}"
    return f"{what.label}: {both} over {len(means)} arms, which are described and not compared."


# What to do.


def _recommendation(made: Sequence[Claim], complete: pd.DataFrame, plan: Plan) -> str:
    """Keep the baseline, unless an arm is better on the primary metric and worse on nothing asked."""
    study, what = plan.study, quantity(plan.study.primary)
    if not study.baseline:
        return _best(made, complete, plan)
    levels: dict[str, list[Claim]] = {}
    for one in made:
        if one.term.kind in ("arm", "main"):
            levels.setdefault(_where(one).removeprefix("at "), []).append(one)
    kept = arm_label(study.baseline)
    better = {
        place: primary
        for place, own in levels.items()
        for primary in own
        if primary.metric == what and primary.word == "better" and not _of(own, "worse")
    }
    if better:
        best = max(better, key=lambda place: abs(float(better[place].row["effect"])))
        return f"Take {best}: it is better on {what.noun} and worse on nothing that was asked."
    if not levels:
        return ""
    others = []
    for place, own in levels.items():
        nouns = {
            word: [one.metric.noun for one in _of(own, word)] for word in ("better", "worse", "undecided")
        }
        if nouns["better"]:
            on = ", ".join(f"{word} on {' and '.join(names)}" for word, names in nouns.items() if names)
            others.append(f"{place} is {on}")
    beside = f" {'; '.join(others[:MOST_NAMED])}." if others else ""
    if any(one.metric == what and one.word == "better" for own in levels.values() for one in own):
        return f"Keep {kept}:{beside}"
    return f"Keep {kept}: nothing that was asked is better on {what.noun}.{beside}"


def _best(made: Sequence[Claim], complete: pd.DataFrame, plan: Plan) -> str:
    """Without a baseline: the best arm, and what it can be told from."""
    what, arms = quantity(plan.study.primary), planned_arms(plan)
    means = arm_means(complete, arms.values(), what.name).set_index("arm")["mean"].dropna()
    best = best_of(means, what)
    if len(means) < 2 or best is None:
        return ""
    told = set()
    for one in (one for one in made if one.metric == what):
        if (one.term.term, one.word) == (best, "better"):
            told.add(one.term.against)
        elif (one.term.against, one.word) == (best, "worse"):
            told.add(one.term.term)
    unlike = [arms[arm].label for arm in plan.arms if arm in told]
    alike = [arms[arm].label for arm in means.index if arm not in told and arm != best]
    text = f"Best {what.noun}: {arms[best].label}, {with_unit(float(means[best]), what)}"
    text += f"; better than {_few(unlike)}" if unlike else ""
    return f"{text}{f'; not told from {_few(alike)}' if alike else ''}."


def _few(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else ""
    return ", ".join(labels[:MOST_NAMED]) + more


# The table of arms.


def arms_view(tables: Tables, made: Sequence[Claim], plan: Plan, timing: Pass | None) -> Json | None:
    """A row per arm: what is asked, accuracy and ECE, with differences and bars; the cost of a step."""
    study, arms, cases = plan.study, planned_arms(plan), arm_cases(plan)
    complete, new_images = complete_trials(tables["trials"]), tables.get("new_images")
    metrics = [
        quantity(name) for name in dict.fromkeys((study.primary, *study.comparison_family, "accuracy", "ece"))
    ]
    metrics = [what for what in metrics if what.name in complete and complete[what.name].notna().any()]
    intervals = {
        what.name: {arm: arm_interval(complete, arm, what.name, new_images) for arm in arms}
        for what in metrics
    }
    by_arm = {(one.term.term, one.metric.name): one for one in made if one.term.kind == "arm"}
    against = dict(plan.comparisons)
    order = list(arms)
    first = quantity(study.primary)
    if not study.baseline and first.better and first.name in intervals:
        down = first.better == "higher"
        order.sort(
            key=lambda arm: (math.isnan(mean := intervals[first.name][arm].mean), -mean if down else mean)
        )

    def columns(arm: str) -> Iterator[Column]:
        baseline = "" if arm in against or not study.baseline else "baseline"
        yield worded("Arm", cell(arms[arm].label, float(list(arms).index(arm)), [baseline]))
        for what in metrics:
            own, claim, notes = intervals[what.name][arm], by_arm.get((arm, what.name)), list[str]()
            if arm in against and own.n:
                delta = own.mean - intervals[what.name][against[arm]].mean
                notes = [f"{shown_difference(delta, what)}{f' {claim.word}' if claim else ''}"]
            shown_as = amount(own.mean, what, notes, low=own.low, high=own.high)
            shown_as["verdict"] = claim.word if claim else ""
            shown_as["bar"] = _bar(own, intervals[what.name].values())
            yield of_quantity(what, shown_as)
        if timing and cases[arm] in timing.times:
            step = median_interval(timing.times[cases[arm]]).median
            other, notes = cases.get(against.get(arm, "")), list[str]()
            if other in timing.times:
                notes = [
                    "same step" if other == cases[arm] else f"× {timing.ratio(cases[arm], other).median:.2f}"
                ]
            yield column("Step", cell(f"{step:.2f}", step, notes), unit="ms")

    return with_best(view(order if len(complete) else [], columns))


def _bar(own: Interval, others: Iterable[Interval]) -> list[float] | None:
    """Low, mean and high of an interval in percent of the width that all of a column take."""
    ends_of = np.array([(one.low, one.mean, one.high) for one in [own, *others]])
    low, high = np.nanmin(ends_of), np.nanmax(ends_of)
    if math.isnan(own.mean) or low == high:
        return None
    ends_of[np.isnan(ends_of)] = own.mean
    return [round(float(end), 1) for end in 100 * (ends_of[0] - low) / (high - low)]


# What tuning bought.


def tuning_answer(tuned: Tuned, retests: Sequence[Retested], trials: pd.DataFrame, plan: Plan) -> Json:
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
        start += f", {_difference(outcome.seen, what)} against the baseline there"
    if not fresh.n:
        return f"{start}; not re-run with fresh seeds yet."
    start += f"; with {fresh.n} fresh seed{'s' if fresh.n > 1 else ''} on the reported split"
    if effect is None or not int(effect["n"]):
        return f"{start} {with_unit(fresh.mean, what)}."
    return f"{start} {_size(effect)} against it: {outcome.verdict}."
