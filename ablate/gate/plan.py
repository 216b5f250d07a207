"""What a run would do, before it does it: what is missing, how long that takes, how likely it decides."""

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import median

import numpy as np
from rich.console import Console

from ablate.analysis.effects import arm_spread, sides_over
from ablate.errors import RecordError
from ablate.guarded import guarded
from ablate.metrics import METRICS
from ablate.stats.power import confirmable_margin, equivalence_power, paired_power, seeds_range
from ablate.status import Facts
from ablate.store.records import Record, read_available
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.comparisons import family_size, terms
from ablate.study.options import Options
from ablate.study.own import OwnFields
from ablate.study.study import Study
from ablate.study.trials import Plan, Trial
from ablate.tables.columns import DECLARED, with_own_metrics
from ablate.tables.images import read_stored, scores_of
from ablate.tables.quantities import quantity, shown, shown_seeds
from ablate.terminal import duration, print_line, print_table

Spreads = dict[str, tuple[float, float, str]]  # metric to an arm's sd over seeds, its freedom, and whence


def show_plan(console: Console, study: Study, options: Options, sd: float | None = None) -> Facts:
    """Print what `run`, or `tune` of a study with a search, would do with a study; the same as facts."""
    from ablate.execution import driver
    from ablate.execution.progress import Watcher

    settled = driver.settle(study, options)
    needed, idle = driver.data_needed(settled, options), ""
    if study.search is not None:
        from ablate.tuning.run import budget_in_words

        print_line(console, *budget_in_words(study, options).splitlines())
        facts: Facts = {"study": study.name, "reason": settled.reason, "search": settled.study.search}
    else:
        folder = settled.folder(options)
        if all(originals.at_hand for originals in needed):
            with Watcher(Console(stderr=True)) as view:
                plan, _ = driver.plan_settled(settled, options, view)
        else:
            recorded = [record.trial for record in read_available(folder)[0].values()]
            what = "trying the study's code"
            plan = guarded(driver.plan_without_data, settled, options, recorded, what=what)
        used = plan.trials[0].numerics.device
        facts = show_forecast(console, plan, folder, workers=driver.trials_at_a_time(used, options), sd=sd)
        idle = driver.idle_cores(facts["missing"], used, options)
        if search := settled.study.retune:
            each = f"each of {len(plan.arms)} arms is tuned: {search.points} points x {search.seeds} seeds"
            print_line(console, f"before that, {each}; then it is trained re-tuned too, twice of the above")
    print_line(console, *(f"data: {originals}" for originals in needed), *filter(None, [idle]))
    return facts | {"data": needed, "idle": idle}


def expected_duration(
    missing: Sequence[Trial], records: Iterable[Record], *, workers: int
) -> tuple[float, int, tuple[str, ...]]:
    """Seconds of missing trials by recorded ones most like them, of how many, and the others' networks."""
    measured: dict[object, list[float]] = defaultdict(list)
    for record in records:
        cost, seconds = record.cost, record.seconds
        seconds = cost.train_seconds + cost.eval_seconds if cost else seconds
        if record.status == "complete" and seconds is not None:
            for likeness, epochs in _likenesses(record.trial):
                measured[likeness].append(seconds / epochs)
    known, unknown = [], dict[str, None]()
    for trial in missing:
        close = [epochs * median(measured[key]) for key, epochs in _likenesses(trial) if key in measured]
        known += close[:1]
        if not close:
            unknown[getattr(trial.fields, "arch", "its own code")] = None
    # No division over workers makes a single trial shorter.
    return max([sum(known) / workers, *known]), len(known), tuple(unknown)


def _likenesses(trial: Trial) -> list[tuple[object, int]]:
    """Keys that trials of like cost share, the closest first, and by how many epochs their times are told."""
    fields, numerics = trial.fields, trial.numerics
    machine = numerics.device, numerics.precision, numerics.threads
    if isinstance(fields, OwnFields):
        alike: tuple[object, ...] = (fields.trained_by, trial.fingerprint, *machine)
        return [((alike, fields.model_dump_json()), 1), (alike, 1)]
    alike = (fields.arch, trial.fingerprint, fields.image_size, *machine)
    return [((alike, fields.model_dump_json()), 1), ((alike, fields.epochs), 1), (alike, fields.epochs)]


def show_forecast(
    console: Console, plan: Plan, folder: ResultsFolder, *, workers: int, sd: float | None = None
) -> Facts:
    """Print, and give as facts, what a run would do; `sd`, in shown units, is instead of the records'."""
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
    if damaged := len(states.keys() & faults):
        lines.append(f"{damaged} of the missing have a damaged record; a run puts it aside")
    print_line(console, *lines)
    arms = [{"arm": arm} | {state: of_arms[arm, state] for state in heads} for arm in plan.arms]
    print_table(console, ("arm", *heads), [[*map(str, arm.values())] for arm in arms], numbers=heads)
    seconds, known, unknown = expected_duration(missing, records.values(), workers=workers)
    times = [f"time of {arch}: not known before one trial of {arch} has run" for arch in unknown]
    if known:
        time = f"about {duration(seconds)} for {known} of the missing trials, {workers} at a time"
        times.insert(0, f"time: {time}, going by those recorded here")
    print_line(console, *(times if missing else ["time: nothing is left to train"]))
    family = plan.study.comparison_family
    spreads = with_own_metrics(family, lambda: _recorded(plan, folder, "recorded here"))
    for path in () if spreads else sorted(folder.shared.parent.glob("*/study.json")):
        with contextlib.suppress(RecordError):
            other = ResultsFolder(path.parent)
            of_other = partial(_recorded, read_plan(other), other, f"of profile {other.root.name}")
            spreads |= with_own_metrics(family, of_other)
    if sd is not None:
        spreads[plan.study.primary] = sd / quantity(plan.study.primary).factor, math.inf, "as given"
    return {
        "study": plan.study.name, "profile": plan.profile, "reason": plan.reason, "folder": folder.root,
        "planned": len(plan.trials), **{state: totals[state] for state in heads}, "damaged": damaged,
        "arms": arms, "seeds": plan.study.seed_list(), "workers": workers,
        "seconds": seconds if known else None, "timed_trials": known, "untimed_architectures": unknown,
        "chances": _show_chances(console, plan, spreads),
    }  # fmt: skip


def _recorded(plan: Plan, folder: ResultsFolder, source: str) -> Spreads:
    """Of those metrics of the family that predictions tell."""
    seeds, asked = plan.study.seed_list(), [term for term in terms(plan) if term.asked]
    metrics = [metric for metric in plan.study.comparison_family if metric in {*METRICS, *DECLARED.get()}]
    values = np.full((len(metrics), len(plan.arms), len(seeds)), np.nan)
    for trial in plan.trials:
        stored = read_stored(folder, trial.trial_id)  # of damaged ones none: the run will say so
        if stored.status == "complete" and not trial.repeat:
            scores = scores_of(stored, metrics)
            values[:, plan.arms.index(trial.arm), seeds.index(trial.seed)] = [*scores.values()]
    spreads, scales = Spreads(), [term.scale for term in asked]
    for metric, own in zip(metrics, values, strict=True):
        sd, freedom = arm_spread([sides_over(term, own)[0] for term in asked], scales)
        if freedom >= 2:
            spreads[metric] = sd, freedom, source
    return spreads


def _show_chances(console: Console, plan: Plan, spreads: Spreads) -> list[Facts]:
    """How likely the seeds decide the most varied effect: if all is asked, each arm is, or it alone."""
    study, n, size, compared = plan.study, len(plan.study.seed_list()), family_size(plan), terms(plan)
    widest = max((term.scale for term in compared if term.asked), default=0.0)
    arms = [term.scale for term in compared if term.kind in ("arm", "pair")]
    sets = {"all asked": (widest, size), "one alone": (widest, 1)}
    sets |= {"every arm": (max(arms), len(arms) * len(study.comparison_family))} if arms else {}
    sets = {words: (scale, of) for words, (scale, of) in sets.items() if words == "all asked" or of != size}
    if not widest or n < 2:
        why = "one seed decides nothing" if widest else "nothing that is asked can be compared"
        print_line(console, f"chance to decide: none, as {why}")
        return []
    chances, notes, rows = list[Facts](), list[str](), list[list[str]]()
    for metric in study.comparison_family:
        what, margin = quantity(metric), study.all_margins.get(metric)
        if margin is None or metric not in spreads:
            why = "records of compared arms tell how far its runs vary, or --sd for the primary metric"
            why = "no margin is declared, so nothing can be equivalent" if margin is None else why
            notes.append(f"{what.label}: chance to decide not known: {why}")
            continue
        (sd, freedom, source), unit = spreads[metric], f" {what.difference_unit}".rstrip()
        notes.append(f"{what.label}: runs of an arm vary by {shown(sd, what)}{unit} (sd, {source})")
        for words, (scale, intervals) in sets.items():
            family: Facts = {"sd": sd * scale, "comparisons": intervals}
            few, many = seeds_range(margin, freedom=freedom, **family)
            equal, needed = equivalence_power(margin, n, **family), confirmable_margin(n, **family)
            apart, twice = (paired_power(times * margin, n, **family) for times in (1, 2))
            chances.append({
                "metric": metric, "margin": margin, "compared": words, "intervals": intervals,
                "equivalent": equal, "at_margin": apart, "at_twice": twice,
                "seeds_from": few, "seeds_needed": many, "margin_needed": needed,
            })  # fmt: skip
            seeds, told = shown_seeds(few, many), [f"{chance:.0%}" for chance in (equal, apart, twice)]
            rows.append([what.label, shown(margin, what), words, str(intervals), *told, seeds])
            if words == "all asked" and equal < 0.5:
                notes.append(
                    f"warning: {what.label} is decided with a chance of {equal:.0%}; 80 % takes "
                    f"{seeds} seeds, or a margin of {shown(needed, what)}{unit}"
                )
    verdicts = "equal: equivalent", "margin apart: found", "twice: found"
    heads = ("chance", "margin", "compared", "intervals", *verdicts, "seeds for 80 %")
    if rows:
        print_table(console, heads, rows, numbers=(heads[1], *heads[3:]))
    print_line(console, *notes)
    return chances
