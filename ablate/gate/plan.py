"""What a run would do, before it does it: what is missing, how long that takes, what it can detect."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

import numpy as np
from rich.console import Console

from ablate.metrics import METRICS, Predictions
from ablate.stats import Effect, minimal_detectable_effect, paired_effect, seeds_needed
from ablate.status import read_available
from ablate.store.records import Record
from ablate.store.results import ResultsFolder
from ablate.study.comparisons import family_size
from ablate.study.trials import Plan, Trial
from ablate.tables.images import read_stored
from ablate.tables.quantities import quantity, shown
from ablate.terminal import duration, print_line, print_table

FEWEST_PAIRS, MOST_SEEDS = 3, 1_000_000
"""Pairs that a comparison must have before its spread counts; the most seeds that are advised."""


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


def pooled_sd(effects: Effect) -> tuple[float, int]:
    """Standard deviation of paired differences over all comparisons with at least three pairs.

    The root of the mean variance, weighted by degrees of freedom, and the pairs it comes from. It is NaN
    without pairs, and where no difference varies: no spread says nothing.
    """
    counted = effects.n >= FEWEST_PAIRS
    freedom, sd = effects.n[counted] - 1, effects.sd[counted]
    squares = float((freedom * sd**2).sum())
    return math.sqrt(squares / freedom.sum()) if squares > 0 else math.nan, int(effects.n[counted].sum())


def show_forecast(console: Console, plan: Plan, folder: ResultsFolder, *, workers: int) -> int:
    """Print what a run would train, how long it should take, and what it can detect; how many are missing.

    The folder of the results need not exist; `workers` trials run at a time.
    """
    records, faults = read_available(folder)
    states = dict.fromkeys((trial.trial_id for trial in plan.trials), "missing")
    for name in states.keys() & records:
        states[name] = "done" if records[name].status == "complete" else "failed"
    missing = [trial for trial in plan.trials if states[trial.trial_id] == "missing"]
    heads, totals = ("done", "failed", "missing"), Counter(states.values())
    of_arms = Counter((trial.arm, states[trial.trial_id]) for trial in plan.trials)
    asked = f"{len(plan.arms)} arms x {len(plan.study.seed_list())} seeds = {len(plan.trials)} trials"
    counts = ", ".join(f"{totals[state]} {state}" for state in heads)
    lines = [f"{plan.study.name}: {plan.reason}", f"results: {folder.root}", f"{asked}: {counts}"]
    if totals["failed"]:
        lines.append("failed trials stay as they are unless the run is given --retry-failed")
    if damaged := len(faults.keys() & states):
        lines.append(f"{damaged} of the missing have a damaged record; a run puts it aside")
    print_line(console, *lines)
    rows = [(arm, *(str(of_arms[arm, state]) for state in heads)) for arm in plan.arms]
    print_table(console, ("arm", *heads), rows, numbers=heads)
    seconds, known, unknown = expected_duration(missing, records.values(), workers=workers)
    times = [] if missing else ["time: nothing is left to train"]
    if known:
        time = f"about {duration(seconds)} for {known} of the missing trials, {workers} at a time"
        times.append(f"time: {time}, going by those recorded here")
    times += [f"time of {arch}: not known before one trial of {arch} has run" for arch in unknown]
    print_line(console, *times, *_smallest_effect(plan, folder))
    return len(missing)


def _smallest_effect(plan: Plan, folder: ResultsFolder) -> Iterator[str]:
    """What the planned seeds detect of the primary metric with 80 % power, all comparisons corrected for."""
    study, seeds, what = plan.study, plan.study.seed_list(), quantity(plan.study.primary)
    if not plan.comparisons:
        yield "smallest effect: no arm is compared, as the study declares no baseline"
        return
    if len(seeds) < 2:
        yield "smallest effect: one seed shows none, as differences need at least two to be judged"
        return
    values = {arm: np.full(len(seeds), np.nan) for arm in plan.arms}
    for trial in plan.trials:
        stored = read_stored(folder, trial.trial_id).predictions  # of damaged ones none: the run will say so
        if stored is not None and not trial.repeat:
            score = METRICS[study.primary].score(Predictions.of(stored.logits, stored.labels))
            values[trial.arm][seeds.index(trial.seed)] = score
    arms, baselines = (np.stack([values[pair[side]] for pair in plan.comparisons]) for side in (0, 1))
    sd, pairs = pooled_sd(paired_effect(arms, baselines))
    size = family_size(plan)
    corrected = f"80 % power, 5 % error{f' over {size} comparisons' if size > 1 else ''}"
    unit = f" {what.difference_unit}".rstrip()
    effect = minimal_detectable_effect(len(seeds), sd=1.0 if math.isnan(sd) else sd, comparisons=size)
    if math.isnan(sd):
        unknown = (
            f"the {pairs} recorded ones do not vary, so their size is not known"
            if pairs
            else "their size is not known before three seeds of two compared arms are recorded"
        )
        yield (
            f"smallest effect: {effect:.2f} standard deviations of the paired differences in {what.label} "
            f"({corrected}); {unknown}"
        )
        return
    yield (
        f"smallest effect: {shown(effect, what)}{unit} of {what.label} ({corrected}; the paired differences' "
        f"standard deviation is {shown(sd, what)}{unit} over {pairs} pairs)"
    )
    margin = study.all_margins.get(study.primary, 0.0)
    needed = seeds_needed(margin, sd=sd, comparisons=size, most=MOST_SEEDS) if margin > 0 else None
    if needed is not None:
        yield (
            f"a difference of the margin, {shown(margin, what)}{unit}, would need {needed} seeds; "
            f"{len(seeds)} are planned"
        )
