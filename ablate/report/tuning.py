"""A search on the page: what tuning bought, its facts, the points that were run again, every point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from ablate.analysis.arms import factor_label, level_label
from ablate.analysis.tuning import SUFFIXES, Outcome, Retested, Tuned
from ablate.report.cells import Column, Json, amount, cell, column, count, difference, ends, view
from ablate.report.headline import in_words, uncertainty
from ablate.report.views import effect_cell
from ablate.report.words import words
from ablate.study.search import Range, Search
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables.cells import one_line
from ablate.tables.quantities import ABSENT, Quantity, quantity, shown, shown_difference


def tuning_headline(tuned: Tuned, retests: Sequence[Retested], trials: pd.DataFrame, plan: Plan) -> Json:
    """The verdict on the search; what was chosen, what that showed while tuning and afresh; the cost."""
    kind, better = _bought(tuned, retests)
    planned = int(tuned.facts["points_planned"])
    said = []
    if len(tuned.winners):
        said.append(f"Tuning chose {' and '.join(tuned.winners['label'])} of {tuned.ended} points.")
    for one in retests:
        if "winner" in one.roles:
            about = f"{one.point['label']}: " if len(tuned.winners) > 1 else ""
            said.append(about + " ".join(_of_winner(outcome, one, plan) for outcome in one.outcomes))
    spent = trials[["train_seconds", "eval_seconds"]].sum(axis=1)[trials["status"] == "complete"]
    again = f", the re-test {len(spent)} and {_duration(float(spent.sum()))}" if len(spent) else ""
    said.append(f"The search took {_spent(tuned)}{again}.")
    verdict = words(f"bought.{kind}", ended=tuned.ended, planned=planned, better=better)
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
    start = f"On the tuning split: {what.noun} {shown(outcome.tuned.mean, what)} {what.unit}".rstrip()
    if len(one.numbers) > 1:
        start += f" (mean of {outcome.tuned.n} runs of {len(one.numbers)} points)"
    if math.isfinite(outcome.seen) and not one.is_baseline:
        start += f", {in_words(outcome.seen, what)} against the baseline there"
    if not fresh.n:
        return f"{start}; not re-run with fresh seeds yet."
    start += f"; with {fresh.n} fresh seed{'s' if fresh.n > 1 else ''} on the reported split"
    if effect is None or not int(effect["n"]):
        return f"{start} {shown(fresh.mean, what)} {what.unit}".rstrip() + "."
    sure = uncertainty(effect, plan.study.family_size(what.name, len(plan.comparisons)))
    exploratory = "" if what.name in plan.study.comparison_family else " (exploratory)"
    return f"{start} {in_words(effect['effect'], what)} against it ({sure}): {outcome.verdict}{exploratory}."


def _spent(tuned: Tuned) -> str:
    """Training runs and time of the search, and the runs that pruning stopped, of which no record is kept."""
    stopped = tuned.stopped_early
    more = f" (not counted: {stopped} training run{'' if stopped == 1 else 's'} that pruning stopped early)"
    took = f"{int(tuned.facts['trainings'])} training runs and {_duration(float(tuned.facts['seconds']))}"
    return took + (more if stopped else "")


def _duration(seconds: float) -> str:
    """Time of training, summed over runs, as a reader says it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def tuning_view(tuned: Tuned, retests: Sequence[Retested], study: Study) -> Json:
    """The search as the report shows it: its facts, what was run again, every point."""
    search, facts = tuned.search, tuned.facts
    done, pruned, failed = (int(facts[f"points_{state}"]) for state in ("done", "pruned", "failed"))
    states, sampler = f"{done} complete, {pruned} pruned, {failed} failed", words(f"sampler.{search.sampler}")
    known = {
        "Searched": "; ".join(_dimension(search, name) for name in search.space),
        "Objective": " and ".join(f"{what.label} ({what.better} is better)" for what in tuned.objectives),
        "Budget": f"{int(facts['points_planned'])} points of {int(facts['seeds'])} training runs: {states}",
        "Sampler": f"{sampler}, seed {search.sampler_seed}, {search.batch} points at a time",
        "Pruning": words(f"pruning.{search.pruning}"),
        "Tuning split": f"{int(facts['tuning_images']):,} images held back from training, "
        f"{int(facts['train_images']):,} left to train on; digest {_digest(facts['tuning_digest'])}",
        "Reported split": f"not looked at while tuning; digest {_digest(facts['reported_digest'])}; "
        f"{int(facts['overlap'])} of the tuning images are in it",
        "Cost": _spent(tuned),
    }
    several = tuned.importances if len(search.space) > 1 else tuned.importances[:0]
    for objective, rows in several.groupby("objective", sort=False):
        fields = zip(rows["field"], rows["share"], strict=True)
        shares = ", ".join(f"{factor_label(name)} {share:.2f}" for name, share in fields)
        known[f"Importance for {quantity(str(objective)).noun}"] = f"{shares} ({rows['evaluator'].iloc[0]})"
    return {
        "facts": [{"name": name, "value": value} for name, value in known.items()],
        "retested": _retested_table(retests, study) if retests else None,
        "points": _points_table(tuned),
    }


def _digest(digest: Any) -> str:
    return "not recorded" if pd.isna(digest) else str(digest)[:16]


def _dimension(search: Search, name: str) -> str:
    """A searched field with its range."""
    dimension = search.space[name]
    if isinstance(dimension, Range):
        values = dimension.in_words()
    else:
        values = ", ".join(map(level_label, dimension.of))
    when = " and ".join(f"{factor_label(other)}={level_label(of)}" for other, of in dimension.when.items())
    return f"{factor_label(name)}: {values}{f' (where {when})' if when else ''}"


def _retested_table(retests: Sequence[Retested], study: Study) -> Json:
    """A row per re-tested arm; of each objective both means, both advantages and what did not show again."""
    places = {one.arm.name: float(place) for place, one in enumerate(retests)}

    def point(one: Retested) -> Json:
        return cell(one.arm.label, places[one.arm.name], [", ".join(one.roles)])

    def numbers(one: Retested) -> Json:
        return cell(", ".join(map(str, one.numbers)), float(one.numbers[0]))

    def tuned(at: int, one: Retested) -> Json:
        found, what, smoothed = one.outcomes[at].tuned, one.outcomes[at].what, one.outcomes[at].smoothed
        runs = f", n = {found.n}" if len(one.numbers) > 1 else ""
        reach = f"{ends(found.low, found.high, what, 'no interval')}{runs}"
        return amount(found.mean, what, [reach, _noted("smoothed", smoothed, what)])

    def fresh(at: int, one: Retested) -> Json:
        found, what = one.outcomes[at].fresh, one.outcomes[at].what
        reach = f"{ends(found.low, found.high, what, 'no interval')}, n = {found.n}"
        return amount(found.mean, what, [reach if found.n else "not re-run yet"])

    def seen(at: int, one: Retested) -> Json:
        outcome = one.outcomes[at]
        smoothed = f"smoothed {shown_difference(outcome.seen_smoothed, outcome.what)}"
        return difference(outcome.seen, outcome.what, [smoothed] if math.isfinite(outcome.smoothed) else [])

    def judged(at: int, one: Retested) -> Json:
        effect = one.outcomes[at].effect
        return effect_cell(effect, study) if effect is not None and effect["n"] else cell(ABSENT)

    def drop(at: int, one: Retested) -> Json:
        return difference(one.outcomes[at].drop, one.outcomes[at].what)

    def beside(make: Callable[[int, Retested], Json], at: int, one: Retested) -> Json:
        return cell(ABSENT) if one.is_baseline else make(at, one)

    columns: list[Column[Retested]] = [
        column("Point", point, numeric=False),
        column("Number", numbers, meaning=words("column.numbers")),
    ]
    for at, what in enumerate(outcome.what for outcome in retests[0].outcomes):
        for split, mean in (("tuning", tuned), ("reported", fresh)):
            label, says = f"{what.label}, {split} split", words(f"column.{split}")
            columns.append(column(label, partial(mean, at), unit=what.unit, meaning=says))
        for label, change in (("Δ while tuning", seen), ("Δ re-tested", judged), ("Drop", drop)):
            make, says = partial(beside, change, at), words(f"column.{label}")
            columns.append(column(label, make, unit=what.difference_unit, meaning=says))
    return view(retests, columns)


def _noted(name: str, value: float, what: Quantity) -> str:
    return f"{name} {shown(value, what)}" if math.isfinite(value) else ""


def _points_table(tuned: Tuned) -> Json:
    """Every point that was asked for."""

    def source(point: Any) -> Json:
        return cell(f"{point['source']}{', winner' if point['role'] == 'winner' else ''}")

    def state(point: Any) -> Json:
        """With why and when it was given up."""
        reason = "" if pd.isna(point["reason"]) else one_line(point["reason"], 200)
        if not pd.isna(point["pruned_at"]):
            after, unit = int(point["pruned_at"]), "seed" if tuned.search.pruning == "seeds" else "epoch"
            reason = f"after {after} {unit}{'' if after == 1 else 's'}: {reason}"
        return cell(point["state"], notes=[reason])

    def value(what: Quantity, suffix: str, point: Any) -> Json:
        mean, low, high = (point[f"{name}{suffix}"] for name in ("value", "low", "high"))
        return amount(mean, what, [ends(low, high, what, "no interval")] if math.isfinite(mean) else [])

    def smoothed(what: Quantity, suffix: str, point: Any) -> Json:
        return amount(point[f"smoothed{suffix}"], what, [_noted("sd", point[f"smoothed_sd{suffix}"], what)])

    def runs(point: Any) -> Json:
        return cell(f"{int(point['seeds_done'])}/{int(point['seeds_planned'])}", float(point["seeds_done"]))

    columns: list[Column[Any]] = [
        column("Number", lambda point: count(point["number"]), meaning="from 0, as in tuning.json"),
        column("Levels", lambda point: cell(point["label"]), numeric=False),
        column("Source", source, numeric=False),
        column("State", state, numeric=False),
    ]
    interval = "mean over seeds, below it its 95 % t interval"
    for what, suffix in zip(tuned.objectives, SUFFIXES, strict=False):
        of_objective, sd = partial(value, what, suffix), "over neighbouring points, with its sd"
        columns.append(column(what.label, of_objective, unit=what.unit, meaning=interval))
        columns.append(column("smoothed", partial(smoothed, what, suffix), unit=what.unit, meaning=sd))
    columns += [
        column("Runs", runs, meaning="complete of planned training runs"),
        column("Time", lambda point: cell(f"{point['seconds']:.0f}", float(point["seconds"])), unit="s"),
    ]
    return view((point for _, point in tuned.points.iterrows()), columns)
