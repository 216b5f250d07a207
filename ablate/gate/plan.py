"""What a run would do, before it does it: what is missing, how long that takes, how likely it decides."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

from ablate.analysis.effects import arm_spread
from ablate.errors import RecordError
from ablate.metrics import METRICS, Predictions
from ablate.stats import confirmable_margin, equivalence_power, paired_power, seeds_range
from ablate.status import read_available
from ablate.store.records import Record
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.comparisons import family_size, terms
from ablate.study.trials import Plan, Trial
from ablate.tables.images import read_stored
from ablate.tables.quantities import quantity, shown, shown_seeds
from ablate.terminal import duration, print_line, print_table

STATES = ("done", "failed", "missing")
LIKELY = 0.5
"""Chance to decide below which `plan` warns."""
TRUE = ("equal: equivalent", "margin apart: found", "twice: found")
"""What is so, and the verdict whose chance is told."""
Json = dict[str, Any]
Spreads = dict[str, tuple[float, float, str]]
"""Metric to the standard deviation of an arm over seeds, its degrees of freedom, and where they are from."""


def expected_duration(
    missing: Sequence[Trial], records: Iterable[Record], *, workers: int
) -> tuple[float, int, tuple[str, ...]]:
    """Time of the missing trials, from recorded ones of their architecture, data, image size and arithmetic.

    The median of those with the same fields is taken, else of those with as many epochs, else of all, scaled
    by the epochs. Returns the seconds of those whose cost is known, all workers busy; how many those are; and
    the architectures of the others.
    """
    measured: dict[object, list[float]] = defaultdict(list)
    for record in records:
        if record.status == "complete" and record.cost is not None:
            for likeness, epochs in _likenesses(record.trial):
                measured[likeness].append((record.cost.train_seconds + record.cost.eval_seconds) / epochs)
    known, unknown = [], dict[str, None]()
    for trial in missing:
        close = ((likeness, epochs) for likeness, epochs in _likenesses(trial) if likeness in measured)
        if closest := next(close, None):
            known.append(closest[1] * median(measured[closest[0]]))
        else:
            unknown[trial.fields.arch] = None
    # No division over workers makes a single trial shorter.
    return max([sum(known) / workers, *known]), len(known), tuple(unknown)


def _likenesses(trial: Trial) -> Iterator[tuple[object, int]]:
    """Keys that trials of like cost share, the closest first, and by how many epochs their times are told."""
    fields, numerics = trial.fields, trial.numerics
    machine = numerics.device, numerics.precision, numerics.threads
    alike = (fields.arch, trial.fingerprint, fields.image_size, *machine)
    yield (*alike, fields.model_dump_json()), 1
    yield (*alike, fields.epochs), 1
    yield alike, fields.epochs


def forecast(plan: Plan, folder: ResultsFolder, *, workers: int, sd: float | None = None) -> Json:
    """What a run would train, how long it should take, and how likely it decides, as values for JSON.

    The folder of the results need not exist; `workers` trials run at a time. `sd` is the standard deviation
    of an arm over seeds in the primary metric's shown unit. Where it is not given, this profile's records say
    it, or else those of the study's profile that has the most.
    """
    records, faults = read_available(folder)
    states = dict.fromkeys((trial.trial_id for trial in plan.trials), "missing")
    for name in states.keys() & records:
        states[name] = "done" if records[name].status == "complete" else "failed"
    missing = [trial for trial in plan.trials if states[trial.trial_id] == "missing"]
    totals = Counter(states.values())
    of_arms = Counter((trial.arm, states[trial.trial_id]) for trial in plan.trials)
    seconds, timed, untimed = expected_duration(missing, records.values(), workers=workers)
    spreads = _recorded(plan, folder, "recorded here") or _recorded_elsewhere(folder)
    if sd is not None:
        spreads[plan.study.primary] = sd / quantity(plan.study.primary).factor, math.inf, "as given"
    chances, notes = _chances(plan, spreads)
    return {
        "study": plan.study.name, "reason": plan.reason, "results": str(folder.root),
        "seeds": len(plan.study.seed_list()), **{state: totals[state] for state in STATES},
        "arms": {arm: {state: of_arms[arm, state] for state in STATES} for arm in plan.arms},
        "damaged": len(faults.keys() & states), "workers": workers, "seconds": seconds, "timed": timed,
        "untimed": untimed, "chances": chances, "notes": notes,
    }  # fmt: skip


def _recorded(plan: Plan, folder: ResultsFolder, source: str) -> Spreads:
    """Of those metrics of the family that predictions tell."""
    seeds, compared = plan.study.seed_list(), terms(plan)
    metrics = [metric for metric in plan.study.comparison_family if metric in METRICS]
    values = np.full((len(metrics), len(plan.arms), len(seeds)), np.nan)
    for trial in plan.trials:
        stored = read_stored(folder, trial.trial_id).predictions  # of damaged ones none: the run will say so
        if stored is not None and not trial.repeat:
            predictions = Predictions.of(stored.logits, stored.labels)
            scores = [METRICS[metric].score(predictions) for metric in metrics]
            values[:, plan.arms.index(trial.arm), seeds.index(trial.seed)] = scores
    known = {name: (*arm_spread(compared, own), source) for name, own in zip(metrics, values, strict=True)}
    return {name: spread for name, spread in known.items() if spread[1] >= 2}


def _recorded_elsewhere(folder: ResultsFolder) -> Spreads:
    found: list[Spreads] = [{}]
    for path in sorted(folder.root.parent.glob("*/study.json")):
        with contextlib.suppress(RecordError):
            other = ResultsFolder(path.parent)
            found.append(_recorded(read_plan(other), other, f"of profile {other.root.name}"))
    return max(found, key=lambda spreads: sum(freedom for _, freedom, _ in spreads.values()))


def _chances(plan: Plan, spreads: Spreads) -> tuple[list[Json], list[str]]:
    """For what is asked, for every arm, and for one comparison alone; and what is to be known of them.

    Each is for the effect that varies most: to be equivalent where nothing differs, and to be found where the
    difference is the margin or twice that.
    """
    study, n, compared = plan.study, len(plan.study.seed_list()), terms(plan)
    asked = [term.scale for term in compared if term.asked]
    arms = [term.scale for term in compared if term.kind in ("arm", "pair")]
    if not asked or n < 2:
        why = "one seed decides nothing" if asked else "nothing that is asked can be compared"
        return [], [f"chance to decide: none, as {why}"]
    family, size = study.comparison_family, family_size(plan)
    sets = {"all asked": (asked, size), "every arm": (arms, len(arms) * len(family)), "one alone": (asked, 1)}
    sets = {words: of for words, of in sets.items() if words == "all asked" or of[1] not in (0, size)}
    chances, notes = list[Json](), list[str]()
    for metric in family:
        what, margin = quantity(metric), study.all_margins.get(metric, math.nan)
        unit = f" {what.difference_unit}".rstrip()
        if metric not in spreads:
            least = max(asked) * confirmable_margin(n, sd=1.0, comparisons=size)
            notes.append(
                f"{what.label}: how far runs of an arm vary is not known: records tell it of compared arms, "
                f"and --sd of the primary metric. 80 % takes a margin of {least:.1f} such standard deviations"
            )
            continue
        sd, freedom, source = spreads[metric]
        notes.append(f"{what.label}: runs of an arm vary by {shown(sd, what)}{unit} (sd, {source})")
        if math.isnan(margin):
            notes.append(f"{what.label}: no margin is declared, so nothing can be equivalent")
            continue
        for words, (scales, intervals) in sets.items():
            widest = sd * max(scales)
            least = confirmable_margin(n, sd=widest, comparisons=intervals)
            shares = {
                "equivalent": equivalence_power(margin, n, sd=widest, comparisons=intervals),
                "at_margin": paired_power(margin, n, sd=widest, comparisons=intervals),
                "at_twice": paired_power(2 * margin, n, sd=widest, comparisons=intervals),
            }
            few, many = seeds_range(margin, sd=widest, freedom=freedom, comparisons=intervals)
            chances.append(
                {"metric": metric, "margin": margin, "compared": words, "intervals": intervals, **shares}
                | {"seeds_from": few, "seeds_needed": many, "margin_needed": least}
            )
            if words == "all asked" and min(shares.values()) < LIKELY:
                notes.append(
                    f"warning: {what.label} is decided with a chance of {min(shares.values()):.0%}; 80 % "
                    f"takes {shown_seeds(few, many)} seeds, or a margin of {shown(least, what)}{unit}"
                )
    return chances, notes


def show_forecast(console: Console, found: Json) -> None:
    """Print a forecast."""
    trials = sum(found[state] for state in STATES)
    asked = f"{len(found['arms'])} arms x {found['seeds']} seeds = {trials} trials"
    counts = ", ".join(f"{found[state]} {state}" for state in STATES)
    lines = [f"{found['study']}: {found['reason']}", f"results: {found['results']}", f"{asked}: {counts}"]
    if found["failed"]:
        lines.append("failed trials stay as they are unless the run is given --retry-failed")
    if found["damaged"]:
        lines.append(f"{found['damaged']} of the missing have a damaged record; a run puts it aside")
    print_line(console, *lines)
    rows = [(arm, *map(str, states.values())) for arm, states in found["arms"].items()]
    print_table(console, ("arm", *STATES), rows, numbers=STATES)
    times = [] if found["missing"] else ["time: nothing is left to train"]
    if found["timed"]:
        time = f"about {duration(found['seconds'])} for {found['timed']} of the missing trials"
        times.append(f"time: {time}, {found['workers']} at a time, going by those recorded here")
    times += [f"time of {arch}: not known before one trial of {arch} has run" for arch in found["untimed"]]
    print_line(console, *times)
    if found["chances"]:
        heads = (
            "decided",
            "margin",
            "if",
            "intervals",
            "at 0",
            "at the margin",
            "at twice",
            "seeds for 80 %",
        )
        cells = [
            (
                quantity(of["metric"]).label,
                shown(of["margin"], quantity(of["metric"])),
                *(str(of[key]) for key in ("compared", "intervals")),
                *(f"{of[key]:.0%}" for key in ("equivalent", "at_margin", "at_twice")),
                shown_seeds(of["seeds_from"], of["seeds_needed"]),
            )
            for of in found["chances"]
        ]
        print_table(console, heads, cells, numbers=(heads[1], *heads[3:]))
    print_line(console, *found["notes"])
