"""What tuning bought, in sentences: what it saw, what of that returned with fresh seeds, what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from ablate.analysis.tuning import Outcome, Retested, Tuned
from ablate.study.trials import Plan
from ablate.tables.cells import Json
from ablate.tables.quantities import shown, shown_difference
from ablate.tables.wording import noun, uncertainty


def tuning_headline(tuned: Tuned, retests: Sequence[Retested], trials: pd.DataFrame, plan: Plan) -> Json:
    """The verdict on the search, and the sentences below it."""
    return {
        "verdict": _verdict(tuned, retests),
        "sentences": list(tuning_sentences(tuned, retests, trials, plan)),
    }


def _verdict(tuned: Tuned, retests: Sequence[Retested]) -> str:
    winners = [one for one in retests if "winner" in one.roles]
    if tuned.winners.empty:
        return _nothing_chosen(tuned)
    if winners and all(one.is_baseline for one in winners):
        return "Tuning found nothing better than the baseline."
    chosen = [one for one in winners if not one.is_baseline]
    rows = [outcome.effect for one in chosen for outcome in one.outcomes]
    if not chosen or any(row is None or not int(row["n"]) for row in rows):
        return "What tuning bought is open until its choice is re-run with fresh seeds."
    incomplete = any(row is not None and row["reason"] == "incomplete" for row in rows)
    return _bought([(str(one.point["label"]), _words(one)) for one in chosen], incomplete=incomplete)


def _bought(judged: Sequence[tuple[str, set[str]]], *, incomplete: bool) -> str:
    """The verdict on points that were re-run: each in words, and the verdicts on its objectives."""
    better = [label for label, words in judged if "better" in words and "worse" not in words]
    if better:
        beat = f"{' and '.join(better)} {'beats' if len(better) == 1 else 'beat'}"
        return f"Tuning bought something that fresh seeds confirm: {beat} the baseline."
    if any(words >= {"better", "worse"} for _, words in judged):
        return (
            "Tuning bought one objective with the other: with fresh seeds its choice is better in one and "
            "worse in the other."
        )
    if all("worse" in words for _, words in judged):
        return "Tuning bought nothing: with fresh seeds its choice is worse than the baseline."
    if incomplete:
        return "Tuning bought nothing that can be shown yet: its re-test is not complete."
    if all(words == {"equivalent"} for _, words in judged):
        return (
            "Tuning bought nothing that matters: with fresh seeds its choice is equivalent to the baseline."
        )
    return "Tuning bought nothing that can be shown."


def _words(one: Retested) -> set[str]:
    """The verdicts on a winner, over the objectives."""
    return {str(outcome.effect["verdict"]) for outcome in one.outcomes if outcome.effect is not None}


def _nothing_chosen(tuned: Tuned) -> str:
    planned = int(tuned.facts["points_planned"])
    if not tuned.is_spent:
        return (
            f"Tuning is not finished: {tuned.ended} of {planned} points have ended, and none is chosen yet."
        )
    return "Tuning chose nothing: none of its points has a value."


def tuning_sentences(
    tuned: Tuned, retests: Sequence[Retested], trials: pd.DataFrame, plan: Plan
) -> Iterator[str]:
    """What was chosen, per winner what it showed while tuning and with fresh seeds, and what it cost.

    Args:
        tuned: the search.
        retests: what `retested` gives.
        trials: the trials table, of the re-test.
        plan: the re-test.
    """
    if len(tuned.winners):
        yield f"Tuning chose {' and '.join(tuned.winners['label'])} of {tuned.ended} points."
    winners = [one for one in retests if "winner" in one.roles]
    for one in winners:
        about = f"{one.point['label']}: " if len(tuned.winners) > 1 else ""
        yield about + " ".join(_of_winner(one, plan))
    yield _cost(tuned, trials)


def _of_winner(one: Retested, plan: Plan) -> Iterator[str]:
    alone = len(one.outcomes) == 1
    for outcome in one.outcomes:
        what = outcome.what
        scored = f"{noun(what)} {shown(outcome.tuned.mean, what)}{_unit(what.unit)}{_pooled(one, outcome)}"
        above = "" if one.is_baseline else _beside(outcome)
        said = _fresh(outcome, plan, it="it" if alone else f"its {noun(what)}")
        yield f"On the tuning split it scored {scored}{above}; {said}"
        if not one.is_baseline:
            yield from _returned(outcome, alone=alone)


def _pooled(one: Retested, outcome: Outcome) -> str:
    """How many runs a mean is over, where its levels were asked for more than once."""
    count = len(one.numbers)
    return f" (mean of {outcome.tuned.n} runs of {count} points)" if count > 1 else ""


def _unit(unit: str) -> str:
    return f" {unit}".rstrip()


def _beside(outcome: Outcome) -> str:
    what, seen = outcome.what, outcome.seen
    if not math.isfinite(seen):
        return ""
    text = shown(abs(seen), what)
    if text == shown(0.0, what):
        return ", as the baseline there"
    side, means = "above" if seen > 0 else "below", "better" if outcome.advantage > 0 else "worse"
    return f", {text}{_unit(what.difference_unit)} {side} the baseline there ({means})"


def _fresh(outcome: Outcome, plan: Plan, *, it: str) -> str:
    what, effect, fresh = outcome.what, outcome.effect, outcome.fresh
    if not fresh.n:
        return "it is not re-run with fresh seeds yet."
    seeds = f"{fresh.n} fresh seed{'s' if fresh.n > 1 else ''}"
    if effect is None or not int(effect["n"]):
        return (
            f"re-run with {seeds} on the reported split {it} is {shown(fresh.mean, what)}{_unit(what.unit)}."
        )
    family = plan.study.family_size(what.name, len(plan.comparisons))
    size = f"{shown_difference(effect['effect'], what)}{_unit(what.difference_unit)}"
    inside = what.name in plan.study.comparison_family
    return (
        f"re-run with {seeds} on the reported split {it} is {size} against the baseline "
        f"({uncertainty(effect, what, family, of='pair')}): "
        f"{effect['verdict']}{'' if inside else ' (exploratory)'}."
    )


def _returned(outcome: Outcome, *, alone: bool) -> Iterator[str]:
    """How much of what was seen while tuning came back; with a second objective there may be nothing to."""
    what, drop = outcome.what, outcome.drop
    if not math.isfinite(drop):
        return
    if outcome.advantage <= 0:
        if alone:
            yield "Its own mean there was no better than the baseline's: the choice rests on smoothed values."
        return
    advantage = "advantage" if alone else f"advantage in {noun(what)}"
    size = f"{shown(abs(drop), what)}{_unit(what.difference_unit)}"
    none = shown(drop, what) == shown(0.0, what)
    # A verdict on the drop would need its own interval: it is told as a plain difference.
    if outcome.is_confirmed and (drop <= 0 or none):
        yield f"The {advantage} seen while tuning returned in full."
        return
    if drop > 0 and not none:
        found = f"Of the {advantage} seen while tuning, {size} did not show again"
    else:
        more = "the same as" if none else f"{size} more than"
        found = f"With fresh seeds the {advantage} is {more} while tuning"
    open_yet = outcome.verdict == "undecided"
    yield f"{found}{'; whether any of it returned cannot be told' if open_yet else ''}."


def _cost(tuned: Tuned, trials: pd.DataFrame) -> str:
    spent = trials[["train_seconds", "eval_seconds"]].sum(axis=1)[trials["status"] == "complete"]
    again = f", the re-test {len(spent)} and {duration(float(spent.sum()))}" if len(spent) else ""
    runs = int(tuned.facts["trainings"])
    return (
        f"The search took {runs} training runs and {duration(float(tuned.facts['seconds']))}"
        f"{not_counted(tuned)}{again}."
    )


def not_counted(tuned: Tuned) -> str:
    """What the cost leaves out, in brackets; nothing where pruning stops no training run."""
    stopped = tuned.stopped_early
    if not stopped:
        return ""
    return f" (not counted: {stopped} training run{'' if stopped == 1 else 's'} that pruning stopped early)"


def duration(seconds: float) -> str:
    """Time of training, summed over runs, as a reader says it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"
