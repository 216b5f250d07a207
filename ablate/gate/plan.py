"""What a run would do, before it does it: what is missing, how long that takes, how likely it decides."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from rich.console import Console

from ablate.analysis.effects import arm_spread
from ablate.errors import RecordError
from ablate.metrics import METRICS, Predictions
from ablate.stats import MOST_SEEDS, confirmable_margin, equivalence_power, paired_power, seeds_range
from ablate.status import read_available
from ablate.store.records import Record
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.comparisons import terms
from ablate.study.trials import Plan, Trial
from ablate.tables.images import read_stored
from ablate.tables.quantities import quantity, shown
from ablate.terminal import duration, print_line, print_table

STATES = ("done", "failed", "missing")
LIKELY = 0.5
"""Chance to decide below which `plan` warns."""
Spreads = dict[str, tuple[float, float, str]]
"""Metric to the standard deviation of an arm over seeds, its degrees of freedom, and where they are from."""


@dataclass(frozen=True)
class Chance:
    """How likely the planned seeds decide on a metric, if these comparisons are asked: on each, at least.

    `equivalent` is the chance where nothing differs, `at_margin` and `at_twice` where the margin and twice
    that is the difference. Of `intervals` that hold together, `seeds` decide with 80 % (from few to many;
    None is more than 1,000), and the planned ones would by a margin of `likely_margin`.
    """

    metric: str
    compared: str
    intervals: int
    margin: float
    equivalent: float
    at_margin: float
    at_twice: float
    seeds: tuple[int | None, int | None]
    likely_margin: float


@dataclass(frozen=True)
class Forecast:
    """What a run would train and show, as plain values.

    `states` counts each arm's trials that are done, failed and missing, of which `damaged` have a damaged
    record. `seconds` are those of the `timed` of the missing; `untimed` are the others' architectures.
    """

    study: str
    reason: str
    results: str
    seeds: int
    states: dict[str, Counter[str]]
    damaged: int
    workers: int
    seconds: float
    timed: int
    untimed: tuple[str, ...]
    chances: list[Chance]
    notes: list[str]

    @property
    def totals(self) -> Counter[str]:
        """All trials by their state."""
        return sum(self.states.values(), Counter[str]())


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


def forecast(plan: Plan, folder: ResultsFolder, *, workers: int, sd: float | None = None) -> Forecast:
    """What a run would train, how long it should take, and how likely it decides.

    The folder of the results need not exist; `workers` trials run at a time. `sd` is the standard deviation
    of an arm over seeds in the primary metric's shown unit. Where it is not given, this profile's records say
    it, or else those of the study's profile that has the most.
    """
    study = plan.study
    records, faults = read_available(folder)
    states = dict.fromkeys((trial.trial_id for trial in plan.trials), "missing")
    for name in states.keys() & records:
        states[name] = "done" if records[name].status == "complete" else "failed"
    missing = [trial for trial in plan.trials if states[trial.trial_id] == "missing"]
    of_arms = {arm: Counter[str]() for arm in plan.arms}
    for trial in plan.trials:
        of_arms[trial.arm][states[trial.trial_id]] += 1
    spreads = _recorded(plan, folder, "recorded here") or _recorded_elsewhere(folder)
    if sd is not None:
        spreads[study.primary] = sd / quantity(study.primary).factor, math.inf, "as given"
    return Forecast(
        study.name, plan.reason, str(folder.root), len(study.seed_list()), of_arms,
        len(faults.keys() & states), workers, *expected_duration(missing, records.values(), workers=workers),
        *_chances(plan, spreads),
    )  # fmt: skip


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


def _chances(plan: Plan, spreads: Spreads) -> tuple[list[Chance], list[str]]:
    """For what is asked, for every arm, and for one comparison alone; and what stands in the way."""
    study, n, family = plan.study, len(plan.study.seed_list()), plan.study.comparison_family
    asked, arms = [], []
    for term in terms(plan):
        asked += [term.scale] if term.asked else []
        arms += [term.scale] if term.kind in ("arm", "pair") else []
    if not asked or n < 2:
        why = (
            "differences need at least two seeds to be judged"
            if asked
            else "nothing that is asked is compared"
        )
        return [], [f"chance to decide: none, as {why}"]
    sizes = {f"the {len(asked)} asked": (asked, len(asked) * len(family)), "one alone": (asked, 1)}
    if arms and len(arms) != len(asked):
        sizes[f"all {len(arms)} arms"] = arms, len(arms) * len(family)
    chances, notes = [], []
    for metric in family:
        what, margin = quantity(metric), study.all_margins.get(metric, math.nan)
        unit = f" {what.difference_unit}".rstrip()
        if metric not in spreads:
            least = max(asked) * confirmable_margin(n, sd=1.0, comparisons=len(asked) * len(family))
            known = "once seeds of compared arms are recorded"
            notes.append(
                f"{what.label}: how far runs of one arm vary is known {known}, or of the primary metric given as "
                f"--sd; 80 % chance takes a margin of {least:.1f} times their standard deviation"
            )
            continue
        sd, freedom, source = spreads[metric]
        notes.append(
            f"{what.label}: runs of one arm vary by {shown(sd, what)}{unit} (standard deviation {source})"
        )
        if math.isnan(margin):
            notes.append(f"{what.label}: no margin is declared, so nothing can be equivalent")
            continue
        for words, (scales, intervals) in sizes.items():
            widest = sd * max(scales)
            chances.append(
                Chance(
                    metric, words, intervals, margin,
                    equivalence_power(margin, n, sd=widest, comparisons=intervals),
                    paired_power(margin, n, sd=widest, comparisons=intervals),
                    paired_power(2 * margin, n, sd=widest, comparisons=intervals),
                    seeds_range(margin, sd=widest, freedom=freedom, comparisons=intervals),
                    confirmable_margin(n, sd=widest, comparisons=intervals),
                )
            )  # fmt: skip
        of_asked = chances[-len(sizes)]
        if (least := min(of_asked.equivalent, of_asked.at_margin, of_asked.at_twice)) < LIKELY:
            notes.append(
                f"warning: {what.label} may be decided with a chance of only {least:.0%}; 80 % takes "
                f"{_in_words(of_asked.seeds)} seeds, or a margin of {shown(of_asked.likely_margin, what)}{unit}"
            )
    return chances, notes


def _in_words(seeds: tuple[int | None, int | None]) -> str:
    few, many = (f"{number:,}" if number else f"more than {MOST_SEEDS:,}" for number in seeds)
    return few if few == many else f"{few} to {many}"


def show_forecast(console: Console, found: Forecast) -> None:
    """Print a forecast."""
    totals = found.totals
    asked = f"{len(found.states)} arms x {found.seeds} seeds = {totals.total()} trials"
    counts = ", ".join(f"{totals[state]} {state}" for state in STATES)
    lines = [f"{found.study}: {found.reason}", f"results: {found.results}", f"{asked}: {counts}"]
    if totals["failed"]:
        lines.append("failed trials stay as they are unless the run is given --retry-failed")
    if found.damaged:
        lines.append(f"{found.damaged} of the missing have a damaged record; a run puts it aside")
    print_line(console, *lines)
    rows = [(arm, *(str(states[state]) for state in STATES)) for arm, states in found.states.items()]
    print_table(console, ("arm", *STATES), rows, numbers=STATES)
    times = [] if totals["missing"] else ["time: nothing is left to train"]
    if found.timed:
        time = f"about {duration(found.seconds)} for {found.timed} of the missing trials"
        times.append(f"time: {time}, {found.workers} at a time, going by those recorded here")
    times += [f"time of {arch}: not known before one trial of {arch} has run" for arch in found.untimed]
    print_line(console, *times)
    if found.chances:
        heads = (
            "chance to decide",
            "margin",
            "compared",
            "equal",
            "margin apart",
            "twice that",
            "seeds for 80 %",
        )
        cells = [
            (
                quantity(of.metric).label, shown(of.margin, quantity(of.metric)), of.compared,
                *(f"{chance:.0%}" for chance in (of.equivalent, of.at_margin, of.at_twice)), _in_words(of.seeds),
            )
            for of in found.chances
        ]  # fmt: skip
        print_table(console, heads, cells, numbers=(heads[1], *heads[3:]))
    print_line(console, *found.notes)
