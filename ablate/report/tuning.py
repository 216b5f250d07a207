"""A search on the page: what tuning bought, its facts, the points that were run again, every point."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ablate.analysis.arms import factor_label, level_label
from ablate.analysis.tuning import Outcome, Retested, Tuned
from ablate.report.views import effect_cell
from ablate.stats import Interval
from ablate.study.search import Range, Search
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables.cells import Json, cell, column, one_line, table
from ablate.tables.quantities import ABSENT, Quantity, quantity, shown, shown_difference
from ablate.tables.wording import noun, uncertainty

SAMPLERS = {
    "tpe": "TPE (tree-structured Parzen estimator)",
    "gp": "Gaussian process",
    "random": "random",
    "quasi_random": "quasi-random (Sobol)",
    "nsga2": "NSGA-II",
}
PRUNING = {
    "none": "none: every point got all its seeds",
    "seeds": "across seeds: a point behind the best one over the same seeds (Wilcoxon test) got no more",
    "hyperband": "across epochs, on a point's first seed (Hyperband)",
    "median": "across epochs, on a point's first seed (below the median of the other points)",
}


BOUGHT = {
    "unfinished": "Tuning is not finished: {ended} of {planned} points have ended, and none is chosen yet.",
    "nothing chosen": "Tuning chose nothing: none of its points has a value.",
    "baseline": "Tuning found nothing better than the baseline.",
    "open": "What tuning bought is open until its choice is re-run with fresh seeds.",
    "confirmed": "Tuning bought something that fresh seeds confirm: {better} the baseline.",
    "traded": "Tuning bought one objective with the other: with fresh seeds its choice is better in one "
    "and worse in the other.",
    "worse": "Tuning bought nothing: with fresh seeds its choice is worse than the baseline.",
    "incomplete": "Tuning bought nothing that can be shown yet: its re-test is not complete.",
    "equivalent": "Tuning bought nothing that matters: with fresh seeds its choice is equivalent to the "
    "baseline.",
    "not shown": "Tuning bought nothing that can be shown.",
}
"""What a search came to, in words."""


def tuning_headline(tuned: Tuned, retests: Sequence[Retested], trials: pd.DataFrame, plan: Plan) -> Json:
    """The verdict on the search; what was chosen, what that showed while tuning and afresh; the cost.

    Args:
        tuned: the search.
        retests: what `retested` gives.
        trials: the trials table, of the re-test.
        plan: the re-test.
    """
    kind, better = _bought(tuned, retests)
    beat = f"{' and '.join(better)} {'beats' if len(better) == 1 else 'beat'}"
    verdict = BOUGHT[kind].format(ended=tuned.ended, planned=int(tuned.facts["points_planned"]), better=beat)
    said = []
    if len(tuned.winners):
        said.append(f"Tuning chose {' and '.join(tuned.winners['label'])} of {tuned.ended} points.")
    for one in retests:
        if "winner" in one.roles:
            about = f"{one.point['label']}: " if len(tuned.winners) > 1 else ""
            said.append(about + " ".join(_of_winner(outcome, one, plan) for outcome in one.outcomes))
    return {"verdict": verdict, "sentences": [*said, _cost(tuned, trials)]}


def _bought(tuned: Tuned, retests: Sequence[Retested]) -> tuple[str, list[str]]:
    """Which of `BOUGHT` holds, and the labels of the points that fresh seeds show to be better."""
    if tuned.winners.empty:
        return ("nothing chosen" if tuned.is_spent else "unfinished"), []
    winners = [one for one in retests if "winner" in one.roles]
    chosen = [one for one in winners if not one.is_baseline]
    if winners and not chosen:
        return "baseline", []
    effects = [outcome.effect for one in chosen for outcome in one.outcomes]
    if not chosen or any(effect is None or not int(effect["n"]) for effect in effects):
        return "open", []
    words = {str(one.point["label"]): {outcome.verdict for outcome in one.outcomes} for one in chosen}
    better = [label for label, own in words.items() if "better" in own and "worse" not in own]
    if better:
        return "confirmed", better
    if any(own >= {"better", "worse"} for own in words.values()):
        return "traded", []
    if all("worse" in own for own in words.values()):
        return "worse", []
    if any(effect is not None and effect["reason"] == "incomplete" for effect in effects):
        return "incomplete", []
    return ("equivalent" if all(own == {"equivalent"} for own in words.values()) else "not shown"), []


def _of_winner(outcome: Outcome, one: Retested, plan: Plan) -> str:
    """One objective of a chosen point: while tuning, then with fresh seeds."""
    what, effect, fresh = outcome.what, outcome.effect, outcome.fresh
    points = f" (mean of {outcome.tuned.n} runs of {len(one.numbers)} points)" if len(one.numbers) > 1 else ""
    seen = (
        f", {_signed(outcome.seen, what)} against the baseline there" if math.isfinite(outcome.seen) else ""
    )
    tuned = f"{noun(what)} {shown(outcome.tuned.mean, what)} {what.unit}".rstrip() + points
    start = f"On the tuning split: {tuned}{'' if one.is_baseline else seen};"
    if not fresh.n:
        return f"{start} not re-run with fresh seeds yet."
    again = f"with {fresh.n} fresh seed{'s' if fresh.n > 1 else ''} on the reported split"
    if effect is None or not int(effect["n"]):
        return f"{start} {again} {shown(fresh.mean, what)} {what.unit}".rstrip() + "."
    sure = uncertainty(effect, what, plan.study.family_size(what.name, len(plan.comparisons)), of="pair")
    exploratory = "" if what.name in plan.study.comparison_family else " (exploratory)"
    size = _signed(float(effect["effect"]), what)
    return f"{start} {again} {size} against it ({sure}): {outcome.verdict}{exploratory}."


def _signed(value: float, what: Quantity) -> str:
    return f"{shown_difference(value, what)} {what.difference_unit}".rstrip()


def _cost(tuned: Tuned, trials: pd.DataFrame) -> str:
    spent = trials[["train_seconds", "eval_seconds"]].sum(axis=1)[trials["status"] == "complete"]
    again = f", the re-test {len(spent)} and {_duration(float(spent.sum()))}" if len(spent) else ""
    return f"The search took {_spent(tuned)}{again}."


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
    """The search as the report shows it.

    Args:
        tuned: the search.
        retests: what `retested` gives.
        study: of the re-test.
    """
    return {
        "facts": [{"name": name, "value": value} for name, value in _facts(tuned).items()],
        "retested": _retested_table(retests, study) if retests else None,
        "points": _points_table(tuned),
    }


def _facts(tuned: Tuned) -> dict[str, str]:
    search, facts = tuned.search, tuned.facts
    states = ", ".join(
        f"{int(facts[f'points_{state}'])} {words}"
        for state, words in (("done", "complete"), ("pruned", "pruned"), ("failed", "failed"))
    )
    known = {
        "Searched": "; ".join(_space_in_words(search)),
        "Objective": " and ".join(f"{what.label} ({what.better} is better)" for what in tuned.objectives),
        "Budget": f"{int(facts['points_planned'])} points of {int(facts['seeds'])} training runs: {states}",
        "Sampler": f"{SAMPLERS[search.sampler]}, seed {search.sampler_seed}, {search.batch} points at a time",
        "Pruning": PRUNING[search.pruning],
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
        known[f"Importance for {noun(quantity(str(objective)))}"] = f"{shares} ({rows['evaluator'].iloc[0]})"
    return known


def _digest(digest: Any) -> str:
    return "not recorded" if pd.isna(digest) else str(digest)[:16]


def _space_in_words(search: Search) -> Iterator[str]:
    """Each searched field with its range."""
    for name, dimension in search.space.items():
        values = (
            dimension.in_words()
            if isinstance(dimension, Range)
            else ", ".join(map(level_label, dimension.of))
        )
        when = " and ".join(
            f"{factor_label(other)}={level_label(value)}" for other, value in dimension.when.items()
        )
        yield f"{factor_label(name)}: {values}{f' (where {when})' if when else ''}"


def _retested_table(retests: Sequence[Retested], study: Study) -> Json:
    heads = [
        column("Point", numeric=False),
        column("Number", meaning="of the points of its levels: 0, 1, ... in the order they were asked for"),
    ]
    for outcome in retests[0].outcomes:
        heads += _outcome_heads(outcome.what)
    rows = []
    for place, one in enumerate(retests):
        row = [cell(one.arm.label, value=float(place), notes=[", ".join(one.roles)])]
        row.append(cell(", ".join(map(str, one.numbers)), value=float(one.numbers[0])))
        for outcome in one.outcomes:
            row += _outcome_cells(outcome, one, study)
        rows.append(row)
    return table(heads, rows)


def _outcome_heads(what: Quantity) -> list[Json]:
    unit, difference = what.unit, what.difference_unit
    return [
        column(
            f"{what.label}, tuning split",
            unit=unit,
            meaning="mean over every run of its levels; below it smoothed",
        ),
        column(
            f"{what.label}, reported split", unit=unit, meaning="mean over fresh seeds, all training images"
        ),
        column("Δ while tuning", unit=difference, meaning="against the baseline there; below it smoothed"),
        column("Δ re-tested", unit=difference, meaning="paired differences of fresh seeds, and the verdict"),
        column("Drop", unit=difference, meaning="the advantage while tuning less that of the fresh seeds"),
    ]


def _outcome_cells(outcome: Outcome, one: Retested, study: Study) -> list[Json]:
    what, fresh = outcome.what, outcome.fresh
    found = outcome.tuned
    runs = f", n = {found.n}" if len(one.numbers) > 1 else ""
    smoothed = f"smoothed {shown(outcome.smoothed, what)}" if math.isfinite(outcome.smoothed) else ""
    ends = f"{_ends(found.low, found.high, what)}{runs}"
    tuned = cell(shown(found.mean, what), value=found.mean, notes=[ends, smoothed])
    again = cell(shown(fresh.mean, what), value=fresh.mean, notes=[_fresh_note(fresh, what)])
    if one.is_baseline:
        return [tuned, again, *(cell(ABSENT) for _ in range(3))]
    seen = cell(
        shown_difference(outcome.seen, what),
        value=outcome.seen,
        notes=[f"smoothed {shown_difference(outcome.seen_smoothed, what)}" if smoothed else ""],
    )
    effect = outcome.effect
    known = effect is not None and int(effect["n"]) > 0
    judged = effect_cell(effect, what.name, study) if effect is not None and known else cell(ABSENT)
    return [tuned, again, seen, judged, cell(shown_difference(outcome.drop, what), value=outcome.drop)]


def _ends(low: float, high: float, what: Quantity) -> str:
    return f"{shown(low, what)} to {shown(high, what)}" if math.isfinite(low) else "no interval"


def _fresh_note(fresh: Interval, what: Quantity) -> str:
    return f"{_ends(fresh.low, fresh.high, what)}, n = {fresh.n}" if fresh.n else "not re-run yet"


def _points_table(tuned: Tuned) -> Json:
    heads = [
        column("Number", meaning="from 0, as in tuning.json"),
        column("Levels", numeric=False),
        column("Source", numeric=False),
    ]
    heads.append(column("State", numeric=False))
    for what in tuned.objectives:
        heads.append(
            column(what.label, unit=what.unit, meaning="mean over seeds, below it its 95 % t interval")
        )
        heads.append(column("smoothed", unit=what.unit, meaning="over neighbouring points, with its sd"))
    heads += [column("Runs", meaning="complete of planned training runs"), column("Time", unit="s")]
    return table(heads, [_point_row(tuned, place) for place in range(len(tuned.points))])


def _point_row(tuned: Tuned, place: int) -> list[Json]:
    point, number = tuned.points.iloc[place], int(tuned.points["number"].iloc[place])
    source = [str(point["source"]), *(["winner"] if point["role"] == "winner" else [])]
    row = [cell(str(number), value=float(number)), cell(str(point["label"])), cell(", ".join(source))]
    row.append(cell(str(point["state"]), notes=[_why(point, tuned.search)]))
    for what, suffix in zip(tuned.objectives, ("", "_2"), strict=False):
        value, low, high, smoothed, sd = (
            float(point[f"{name}{suffix}"]) for name in ("value", "low", "high", "smoothed", "smoothed_sd")
        )
        known = math.isfinite(value)
        row.append(cell(shown(value, what), value=value, notes=[_ends(low, high, what) if known else ""]))
        spread = f"sd {shown(sd, what)}" if math.isfinite(sd) else ""
        row.append(cell(shown(smoothed, what), value=smoothed, notes=[spread]))
    done, seconds = int(point["seeds_done"]), float(point["seconds"])
    row.append(cell(f"{done}/{int(point['seeds_planned'])}", value=float(done)))
    return [*row, cell(f"{seconds:.0f}", value=seconds)]


def _why(point: pd.Series[Any], search: Search) -> str:
    """Why and when a point was given up."""
    reason = "" if pd.isna(point["reason"]) else one_line(str(point["reason"]), 200)
    if pd.isna(point["pruned_at"]):
        return reason
    count, unit = int(point["pruned_at"]), "seed" if search.pruning == "seeds" else "epoch"
    return f"after {count} {unit}{'' if count == 1 else 's'}: {reason}"
