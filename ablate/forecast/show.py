"""A forecast in lines and a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from rich.console import Console

from ablate.forecast.detectable import Detectable
from ablate.forecast.missing import Forecast
from ablate.tables.quantities import quantity, shown
from ablate.terminal import duration, print_line, print_table


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
    heads = ("arm", "done", "failed", "missing")
    print_table(console, heads, list(_arm_rows(forecast)), numbers=heads[1:])
    for line in (*_duration_lines(forecast), *_detectable_lines(forecast.detectable, seeds)):
        print_line(console, line)


def _arm_rows(forecast: Forecast) -> Iterable[tuple[str, ...]]:
    for arm in forecast.plan.arms:
        own = Counter(forecast.status[t.trial_id] for t in forecast.plan.trials if t.arm == arm)
        failed = own.total() - own["complete"] - own["missing"]
        yield arm, str(own["complete"]), str(failed), str(own["missing"])


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
