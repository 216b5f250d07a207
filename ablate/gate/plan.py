"""What a run would do, before it does it: what is missing, how long that takes, what it can detect."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ablate.errors import RecordError
from ablate.gate.duration import Duration, expected_duration
from ablate.metrics import METRICS, Predictions
from ablate.stats import Effect, minimal_detectable_effect, paired_effect, seeds_needed
from ablate.status import read_available
from ablate.store.records import Record, read_predictions
from ablate.store.results import ResultsFolder
from ablate.study.trials import Plan
from ablate.tables.quantities import quantity, shown
from ablate.terminal import duration, print_line, print_table

FEWEST_PAIRS = 3
"""Pairs that a comparison must have before its spread counts."""
MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class Detectable:
    """The smallest difference of the primary metric that the planned seeds detect with 80 % power.

    Attributes:
        effect: in the metric's unit, or in standard deviations of the paired differences where `sd` is NaN;
            infinite with one seed.
        sd: of the paired differences, pooled over the comparisons; NaN where it is not known.
        pairs: recorded pairs that it comes from; 0 before a comparison has three.
        comparisons: how many share the 5 % (Bonferroni).
        margin: the study's largest difference that does not matter; NaN without one.
        seeds_for_margin: seeds that detect a difference of `margin`; None where it cannot be told.
    """

    metric: str
    effect: float
    sd: float
    pairs: int
    comparisons: int
    margin: float
    seeds_for_margin: int | None


@dataclass(frozen=True)
class Forecast:
    """A plan beside what is recorded of it.

    Attributes:
        status: of each planned trial by its id: a record's status, or "missing".
        damaged: planned trials whose record cannot be read; a run puts it aside and trains them again.
        duration: of the missing trials.
        detectable: None where the study declares no baseline arm to compare with.
    """

    plan: Plan
    folder: ResultsFolder
    status: Mapping[str, str]
    damaged: int
    workers: int
    duration: Duration
    detectable: Detectable | None


def forecast(plan: Plan, folder: ResultsFolder, *, workers: int) -> Forecast:
    """Look up what a results folder holds of a plan, and reckon the rest. Writes nothing.

    Args:
        plan: a study, settled.
        folder: where its results are; it need not exist.
        workers: trials at a time, at least 1.
    """
    records, faults = read_available(folder)
    status = {
        trial.trial_id: records[trial.trial_id].status if trial.trial_id in records else "missing"
        for trial in plan.trials
    }
    missing = [trial for trial in plan.trials if status[trial.trial_id] == "missing"]
    return Forecast(
        plan=plan,
        folder=folder,
        status=status,
        damaged=sum(trial.trial_id in faults for trial in plan.trials),
        workers=workers,
        duration=expected_duration(missing, records.values(), workers=workers),
        detectable=_detectable(plan, folder, records),
    )


def _detectable(plan: Plan, folder: ResultsFolder, records: Mapping[str, Record]) -> Detectable | None:
    """What the planned seeds can show, every planned comparison corrected for; None without any."""
    study, pairs = plan.study, plan.comparisons
    if not pairs:
        return None
    size = study.family_size(study.primary, len(pairs))
    values = _primary_values(plan, folder, records)
    arms, baselines = (np.stack([values[pair[side]] for pair in pairs]) for side in (0, 1))
    sd, counted = pooled_sd(paired_effect(arms, baselines))
    known, margin = not math.isnan(sd), study.all_margins.get(study.primary, math.nan)
    return Detectable(
        metric=study.primary,
        effect=minimal_detectable_effect(len(study.seed_list()), sd=sd if known else 1.0, comparisons=size),
        sd=sd,
        pairs=counted,
        comparisons=size,
        margin=margin,
        seeds_for_margin=(
            seeds_needed(margin, sd=sd, comparisons=size, most=MOST_SEEDS) if known and margin > 0 else None
        ),
    )


def pooled_sd(effects: Effect) -> tuple[float, int]:
    """Standard deviation of paired differences over all comparisons with at least three pairs.

    Returns:
        The root of the mean variance, weighted by degrees of freedom, and the pairs it comes from: 0 where no
        comparison has three pairs. NaN without pairs, and where no difference varies: no spread says nothing.
    """
    counted = effects.n >= FEWEST_PAIRS
    freedom, sd = effects.n[counted] - 1, effects.sd[counted]
    squares = float((freedom * sd**2).sum())
    return math.sqrt(squares / freedom.sum()) if squares > 0 else math.nan, int(effects.n[counted].sum())


def _primary_values(
    plan: Plan, folder: ResultsFolder, records: Mapping[str, Record]
) -> dict[str, NDArray[np.float64]]:
    """Each arm's primary metric by seed, NaN where there is none."""
    metric, seeds = METRICS[plan.study.primary], plan.study.seed_list()
    values = {arm: np.full(len(seeds), np.nan) for arm in plan.arms}
    for trial in plan.trials:
        record = records.get(trial.trial_id)
        if record is None or record.status != "complete" or trial.repeat:
            continue
        try:
            stored = read_predictions(folder, record)
        except RecordError:
            continue  # published without predictions, or damaged: the run will say so
        score = metric.score(Predictions.of(stored.logits, stored.labels))
        values[trial.arm][seeds.index(trial.seed)] = score
    return values


def show_forecast(console: Console, forecast: Forecast) -> None:
    """Print what would run, how long it should take, and what it can detect."""
    plan, counts = forecast.plan, Counter(forecast.status.values())
    failed = len(plan.trials) - counts["complete"] - counts["missing"]
    seeds = len(plan.study.seed_list())
    print_line(console, f"{plan.study.name}: {plan.reason}")
    print_line(console, f"results: {forecast.folder.root}")
    print_line(
        console,
        f"{len(plan.arms)} arms x {seeds} seeds = {len(plan.trials)} trials: "
        f"{counts['complete']} done, {failed} failed, {counts['missing']} missing",
    )
    if failed:
        print_line(console, "failed trials stay as they are unless the run is given --retry-failed")
    if forecast.damaged:
        print_line(console, f"{forecast.damaged} of the missing have a damaged record; a run puts it aside")
    rows = []
    for arm in plan.arms:
        own = Counter(forecast.status[trial.trial_id] for trial in plan.trials if trial.arm == arm)
        ended = own["complete"], own.total() - own["complete"] - own["missing"], own["missing"]
        rows.append((arm, *map(str, ended)))
    heads = ("arm", "done", "failed", "missing")
    print_table(console, heads, rows, numbers=heads[1:])
    for line in (*_duration_lines(forecast), *_detectable_lines(forecast.detectable, seeds)):
        print_line(console, line)


def _duration_lines(forecast: Forecast) -> Iterable[str]:
    expected = forecast.duration
    if not expected.known and not expected.unknown:
        yield "time: nothing is left to train"
    if expected.known:
        yield (
            f"time: about {duration(expected.seconds)} for {expected.known} of the missing trials, "
            f"{forecast.workers} at a time, going by those recorded here"
        )
    for arch in expected.unknown:
        yield f"time of {arch}: not known before one trial of {arch} has run"


def _detectable_lines(found: Detectable | None, seeds: int) -> Iterable[str]:
    if found is None:
        yield "smallest effect: no arm is compared, as the study declares no baseline"
        return
    what = quantity(found.metric)
    family = f" over {found.comparisons} comparisons" if found.comparisons > 1 else ""
    corrected = f"80 % power, 5 % error{family}"
    if math.isinf(found.effect):
        yield "smallest effect: one seed shows none, as differences need at least two to be judged"
    elif math.isnan(found.sd):
        unknown = (
            f"the {found.pairs} recorded ones do not vary, so their size is not known"
            if found.pairs
            else "their size is not known before three seeds of two compared arms are recorded"
        )
        yield (
            f"smallest effect: {found.effect:.2f} standard deviations of the paired differences in "
            f"{what.label} ({corrected}); {unknown}"
        )
    else:
        unit = f" {what.difference_unit}".rstrip()
        yield (
            f"smallest effect: {shown(found.effect, what)}{unit} of {what.label} ({corrected}; the paired "
            f"differences' standard deviation is {shown(found.sd, what)}{unit} over {found.pairs} pairs)"
        )
        if found.seeds_for_margin is not None:
            yield (
                f"a difference of the margin, {shown(found.margin, what)}{unit}, would need "
                f"{found.seeds_for_margin} seeds; {seeds} are planned"
            )
