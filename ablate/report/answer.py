"""The first screen: what a study found, in sentences printed from its claims, and what to do."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis import arms
from ablate.analysis.effects import VERDICTS, Claim, claims
from ablate.analysis.timing import Pass
from ablate.analysis.tuning import Outcome, Retested, Tuned
from ablate.metrics import FLOORS
from ablate.report.cautions import SMALL_DATA
from ablate.report.cells import Column, Json, amount, cell, column, of_quantity, view, worded
from ablate.report.pages import words
from ablate.report.views import asked_view, duration, search_cost
from ablate.study.own import OwnFields
from ablate.study.parts import PART
from ablate.study.search import DECLARED, RETUNED, TUNING, Chosen
from ablate.study.study import ExternalStudy
from ablate.study.trials import Plan, Trial, arm_name
from ablate.tables.files import Tables
from ablate.tables.quantities import ABSENT, Quantity, ends, few, quantity, shown, shown_seeds, with_unit

SAID = (
    "kind", "term", "against", "metric", "verdict", "reason", "effect", "low", "high", "p", "p_adjusted",
    "p_equivalence", "margin", "n", "seeds_from", "seeds_needed", "detectable",
)  # fmt: skip
MOST_NAMED, TOLD = 4, ("better", "worse", "undecided")  # other places named, what is said of each
MANY, AVERAGED = 8, ", averaged over the other factors"  # comparisons of which a sentence counts most
TO_TAKE = re.compile("^(at|with) ")  # what a place loses where it is recommended
UNTOLD = {
    "incomplete": "planned trials are missing",
    "too_few_seeds": "one seed has no spread to judge by",
    "no_spread": "all seeds differ alike, which leaves no spread to judge by",
    "bent": "the means turn within the levels, which no straight line tells",
}


def answer(tables: Tables, plan: Plan, timing: Pass | None = None) -> Json:
    """Everything of the first screen but its picture and its cautions."""
    trials, study, made = tables["trials"], plan.study, claims(tables["effects"], plan)
    complete = arms.complete_trials(trials)
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
    images, classes = arms.split_sizes(tables)
    split = f"{' or '.join(f'{many:,}' for many in images)} reported images" if images else ""
    split += f", {classes} classes" if split and classes else ""
    unit = "seeds" if study.is_paired else "runs, paired by none"
    counts = f"{len(plan.arms)} arm{'' if len(plan.arms) == 1 else 's'} × {len(study.seed_list())} {unit}"
    done = f"{(trials['status'] == 'complete').sum()} of {len(plan.trials)} training runs complete"
    about = ["; ".join(data), split, counts, done]
    return {
        "about": " · ".join(filter(None, about)),
        "sentences": said,
        "recommendation": "" if complete.empty else _recommendation(made, complete, plan),
        "arms": asked_view(tables, made, plan, timing),
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


def _sentence(own: Sequence[Claim], complete: pd.DataFrame) -> Json:
    """All claims on one metric in a sentence; its word is the first that occurs in the order of verdicts."""
    what, groups = own[0].metric, {word: group for word in VERDICTS if (group := _of(own, word))}
    said = "; ".join(_grouped(word, group, len(own)) for word, group in groups.items())
    first = next(iter(groups))
    why = _mechanism(what, complete) if first not in ("undecided", "equivalent") else ""
    return {"metric": what.name, "word": first, "text": f"{what.label}: {said}.{why}"}


def _of(own: Sequence[Claim], word: str) -> list[Claim]:
    return [one for one in own if one.word == word]


def _grouped(word: str, group: list[Claim], asked: int) -> str:
    """The claims of one verdict: where, how large, how sure; of many asked the two largest, and how many."""
    whole = f"in all {asked} comparisons" if len(group) == asked > 2 else ""
    if asked > MANY:
        group = sorted(group, key=lambda one: -abs(np.nan_to_num(float(one.row["effect"]))))
    places = few(list(map(_where, group)), 2 if asked > MANY else 4)
    places = places.replace(AVERAGED, "") + AVERAGED * (AVERAGED in places)
    if word == "undecided":
        return f"undecided {whole or places}{_undecided(group)}"
    if word == "equivalent":
        margin = _difference(group[0].row["margin"], group[0].metric, signed=False)
        return f"equivalent within ±{margin} {whole or places}"
    if len(group) <= 2:
        return f"{word}: {' and '.join(f'{_size(one.row)} {_where(one)}' for one in group)}"
    least, most = (f(group, key=lambda one: abs(float(one.row["effect"]))) for f in (min, max))
    count = whole or f"in {len(group)} of {asked} comparisons"
    return f"{word} {count}, from {_size(least.row)} {_where(least)} to {_size(most.row)} {_where(most)}"


def _undecided(group: list[Claim]) -> str:
    """Why some claims are not decided, what the study could have shown, and what would settle it."""
    what, rows, text = group[0].metric, pd.DataFrame([one.row for one in group]), ""
    sizes = rows["effect"].dropna()
    if len(sizes) == 1:
        text += _size(group[0].row, " ({}, {})")
    elif len(sizes):
        text += f" ({ends(sizes.min(), sizes.max(), what, signed=True)})"
    reasons = [UNTOLD[reason] for reason in rows["reason"].unique() if reason in UNTOLD]
    text += f", because {' and '.join(reasons)}" if reasons else ""
    untold = rows[rows["reason"] == ""]
    if len(untold):
        least, most = untold[["seeds_from", "seeds_needed"]].max(skipna=False)
        found = " to ".join(dict.fromkeys(shown(f(untold["detectable"]), what) for f in (min, max)))
        text += f"; {int(untold['n'].min())} seeds can only show differences of "
        text += f"{f'{found} {what.difference_unit}'.rstrip()} or more (80 % power)"
        if math.isfinite(margin := untold["margin"].iloc[0]):
            seeds = shown_seeds(least, most)
            text += f", the margin is {shown(margin, what)}, and {seeds} seeds would settle it"
    return text


def _difference(value: float, what: Quantity, *, signed: bool = True) -> str:
    return f"{shown(value, what, signed=signed)} {what.difference_unit}".rstrip()


def _size(row: "pd.Series[Any]", form: str = "{} ({})") -> str:
    """A difference with its sign, its unit and its interval."""
    what = quantity(row["metric"])
    reach = ends(row["low"], row["high"], what, "no interval", signed=True)
    return form.format(_difference(row["effect"], what), reach)


def _where(claim: Claim) -> str:
    """Where an effect is: at a level, along a factor, between two arms."""
    if claim.term.kind == "trend":
        start, (high,) = arms.arm_label(claim.term.reference), claim.term.levels.values()
        return f"from {start} to {arms.level_label(high)} on a straight line in raw values"
    if claim.term.kind == "pair":
        return f"from {arms.arm_label(claim.term.reference)} to {claim.place}"
    if claim.term.kind == "interaction":
        return f"in the interaction {claim.place}"
    averaged = AVERAGED if claim.row["cells_planned"] > 1 else ""
    if PART in claim.term.levels and not averaged:
        return claim.place if claim.place.startswith("without ") else f"with {claim.place}"
    return f"at {claim.place}{averaged if claim.term.kind == 'main' else ''}"


def _mechanism(what: Quantity, complete: pd.DataFrame) -> str:
    """Of a calibration error, what the tables hold of its cause, and what temperature scaling leaves."""
    names = ["confidence_gap", "ece_scaled"]
    means = complete.reindex(columns=["arm", *names]).groupby("arm")[names].mean()
    if what.name not in FLOORS or means.isna().any(axis=None):
        return ""
    gap, scaled = max(means["confidence_gap"], key=abs), means["ece_scaled"]
    size = _difference(abs(gap), quantity("confidence_gap"), signed=False)
    left = " to ".join(dict.fromkeys((shown(scaled.min(), what), shown(scaled.max(), what))))
    side = f" Mean confidence is {'below' if gap < 0 else 'above'} accuracy by up to {size}"
    return f"{side}; temperature scaling leaves an ECE of {left} %."


def _mean_sentence(tables: Tables, arm: str, what: Quantity) -> str:
    complete = arms.complete_trials(tables["trials"])
    interval, floor = arms.arm_interval(complete, arm, what.name, tables.get("new_images")), ""
    if not interval.n:
        return f"{what.label}: no value."
    reach = f"n = {interval.n} training run{'' if interval.n == 1 else 's'}"
    if math.isfinite(interval.low):
        reach = f"95 % interval {ends(interval.low, interval.high, what)}, {reach}"
    else:
        reach += f"{', all equal' if interval.n > 1 else ''}, so no interval"
    if what.name in FLOORS and (height := arms.arm_interval(complete, arm, FLOORS[what.name])).n:
        floor = f"; its noise floor is {with_unit(height.mean, what)}"
    return f"{what.label} {with_unit(interval.mean, what)} ({reach}){floor}."


def _spread(complete: pd.DataFrame, plan: Plan, what: Quantity) -> str:
    """Where the means of arms lie that no comparison is asked of."""
    means = arms.arm_means(complete, arms.planned_arms(plan).values(), what.name)["mean"].dropna()
    if means.empty:
        return f"{what.label}: no arm has a value."
    both = f"{shown(means.min(), what)} to {with_unit(means.max(), what)}"
    return f"{what.label}: {both} over {len(means)} arms, which are described and not compared."


def _recommendation(made: Sequence[Claim], complete: pd.DataFrame, plan: Plan) -> str:
    """Keep the baseline, unless an arm is better on the primary metric and worse on nothing asked."""
    study, what = plan.study, quantity(plan.study.primary)
    if made and all(one.term.kind == "trend" for one in made):
        return " ".join(_along(one) for one in made if one.metric == what)
    if not study.baseline:
        return _best(made, complete, plan)
    asked = [
        one
        for one in made
        if one.term.kind in ("arm", "main")
        and study.baseline.items() <= {**study.baseline, **one.term.reference}.items()
    ]
    won = [one for one in asked if one.metric == what and one.word == "better"]
    harmed = set(map(_where, _of(asked, "worse")))
    if harmless := [one for one in won if _where(one) not in harmed]:
        best = TO_TAKE.sub("", _where(max(harmless, key=lambda one: abs(float(one.row["effect"])))))
        return f"Take {best}: it is better on {what.noun} and worse on nothing that was asked."
    if not asked:
        return ""
    others = []
    for place in dict.fromkeys(map(_where, asked)):
        own = [one for one in asked if _where(one) == place]
        nouns = {word: [one.metric.noun for one in _of(own, word)] for word in TOLD}
        if nouns["better"]:
            on = ", ".join(f"{word} on {' and '.join(names)}" for word, names in nouns.items() if names)
            others.append(f"{TO_TAKE.sub('', place)} is {on}")
    why = "" if won else f" nothing that was asked is better on {what.noun}."
    beside = f" {'; '.join(others[:MOST_NAMED])}." if others else ""
    return f"Keep {arms.arm_label(study.baseline)}:{why}{beside}"


def _along(trend: Claim) -> str:
    """What to do about a factor of which only the trend is asked."""
    ((factor, high),) = trend.term.levels.items()
    ends_of = [arms.level_label(end) for end in (trend.term.reference[factor], high)]
    facts = {"factor": arms.factor_label(factor), "noun": trend.metric.noun, "low": ends_of[0]}
    return words("trend", **facts, high=ends_of[1], word=trend.word, bent=trend.row["reason"] == "bent")


def _best(made: Sequence[Claim], complete: pd.DataFrame, plan: Plan) -> str:
    """Without a baseline: the best arm, and what it can be told from."""
    what, planned = quantity(plan.study.primary), arms.planned_arms(plan)
    means = arms.arm_means(complete, planned.values(), what.name).set_index("arm")["mean"].dropna()
    best = arms.best_of(means, what)
    if len(means) < 2 or best is None:
        return ""
    own = [one for one in made if one.metric == what]
    told = {one.term.against for one in _of(own, "better") if one.term.term == best}
    told |= {one.term.term for one in _of(own, "worse") if one.term.against == best}
    unlike = [planned[arm].label for arm in plan.arms if arm in told]
    alike = [planned[arm].label for arm in means.index if arm not in told and arm != best]
    text = f"Best {what.noun}: {planned[best].label}, {with_unit(float(means[best]), what)}"
    text += f"; better than {few(unlike)}" if unlike else ""
    return f"{text}{f'; not told from {few(alike)}' if alike else ''}."


def tuning_answer(tuned: Tuned, retests: Sequence[Retested], trials: pd.DataFrame) -> Json:
    """The verdict on the search; what was chosen, what that showed while tuning and afresh; the cost."""
    (kind, better), said = _bought(tuned, retests), list[str]()
    if len(tuned.winners):
        said.append(f"Tuning chose {' and '.join(tuned.winners['label'])} of {tuned.ended} points.")
    for one in retests:
        if "winner" in one.roles:
            about = f"{one.point['label']}: " if len(tuned.winners) > 1 else ""
            said.append(about + " ".join(_of_winner(outcome, one) for outcome in one.outcomes))
    spent = trials[["train_seconds", "eval_seconds"]].sum(axis=1)[trials["status"] == "complete"]
    again = f", the re-test {len(spent)} and {duration(float(spent.sum()))}" if len(spent) else ""
    said.append(f"The search took {search_cost(tuned)}{again}.")
    verdict = words(f"bought.{kind}", ended=tuned.ended, planned=tuned.facts["points_planned"], better=better)
    return {"verdict": verdict, "sentences": said}


def _bought(tuned: Tuned, retests: Sequence[Retested]) -> tuple[str, list[str]]:
    """What it came to, by its name in words.md; labels of the points that fresh seeds show to be better."""
    winners = [one for one in retests if "winner" in one.roles]
    chosen = [one for one in winners if not one.is_baseline]
    effects = [outcome.effect for one in chosen for outcome in one.outcomes]
    seen = [effect for effect in effects if effect is not None and int(effect["n"])]
    verdicts = {str(one.point["label"]): {outcome.verdict for outcome in one.outcomes} for one in chosen}
    better = [label for label, own in verdicts.items() if "better" in own and "worse" not in own]
    cases = {
        "nothing chosen": tuned.winners.empty and tuned.is_spent,
        "unfinished": tuned.winners.empty,
        "baseline": winners and not chosen,
        "open": not chosen or len(seen) < len(effects),
        "confirmed": better,
        "traded": any(own >= {"better", "worse"} for own in verdicts.values()),
        "worse": all("worse" in own for own in verdicts.values()),
        "incomplete": any(effect["reason"] == "incomplete" for effect in seen),
        "equivalent": all(own == {"equivalent"} for own in verdicts.values()),
    }
    return next((name for name, holds in cases.items() if holds), "not shown"), better


def _of_winner(outcome: Outcome, one: Retested) -> str:
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


def retune_view(tables: Tables, plan: Plan) -> Json | None:
    """A row per arm, and in a sentence the budget and the best arm of both kinds; None without re-tuning."""
    study, what, search = plan.study, quantity(plan.study.primary), plan.study.retune
    if search is None or not study.chosen:
        return None
    score = quantity(search.objective[0])

    def columns(one: Chosen) -> Iterator[Column]:
        declared = study.fields({**one.arm, TUNING: DECLARED}).model_dump()
        yield worded("Arm", cell(arms.arm_label(one.arm), float(study.chosen.index(one))))
        for name in search.space:
            before, after = (arms.level_label(own.get(name, ABSENT)) for own in (declared, one.levels))
            yield worded(arms.factor_label(name), cell(after, notes=[f"declared {before}"]))
        yield column("Points", cell(f"{one.complete}/{search.points}", float(one.complete)))
        notes = [] if one.declared is None else [f"as declared {shown(one.declared, score)}"]
        yield of_quantity(score, amount(one.value, score, notes), f"{score.label} while tuning")

    complete = arms.complete_trials(tables["trials"])
    found = arms.arm_means(complete, arms.planned_arms(plan).values(), what.name)
    means, best = found.set_index("arm")["mean"], list[str]()
    for level in (DECLARED, RETUNED):
        labels = {arm_name({**one.arm, TUNING: level}): arms.arm_label(one.arm) for one in study.chosen}
        best.append(labels.get(arms.best_of(means.reindex(list(labels)).dropna(), what) or "", ""))
    images = " or ".join(f"{many:,}" for many in sorted({one.tuning_images for one in study.chosen}))
    overlap = max(one.overlap for one in study.chosen)
    summary = words("retune", search=search, images=images, overlap=overlap, noun=what.noun, best=best)
    return {"summary": summary, "table": view(study.chosen, columns)}
