"""The tables of a report: rows of the study's tables as the cells that a page shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.arms import arm_interval, complete_trials, factor_label, level_label, planned_arms
from ablate.analysis.effects import SHOWN, Claim, claims, contrast_label
from ablate.analysis.published import Value, published_summaries, published_values
from ablate.analysis.timing import Pass, arm_cases
from ablate.analysis.tuning import SUFFIXES, Retested, Tuned
from ablate.metrics import FLOORS
from ablate.report.cells import Column, Json, amount, cell, column, count, of_quantity, view, worded
from ablate.report.pages import words
from ablate.stats.effect import smallest_sign_flip_p
from ablate.stats.intervals import Interval, MedianInterval, median_interval
from ablate.store.timing import plain_case
from ablate.study.comparisons import Term, terms
from ablate.study.parts import PART
from ablate.study.study import ExternalStudy
from ablate.study.trials import Plan
from ablate.tables.columns import COLUMNS
from ablate.tables.files import Tables
from ablate.tables.quantities import ABSENT, Quantity, ends, one_line, quantity, shown, shown_decimal, shown_p

ARM_METRICS = ("accuracy", "nll", "brier", "ece", "confidence_gap", "temperature", "ece_scaled")
MORE_METRICS = (
    "ece_equal_mass", "ece_debiased", "smece", "classwise_ece", "mce", "nll_scaled", "mean_confidence",
    "auroc_error", "auroc_error_normalised", "aurc", "eaurc", "coverage_at_1", "coverage_at_2",
    "scatter_within", "scatter_between",
)  # fmt: skip
TRIAL_METRICS = (
    "accuracy", "nll", "brier", "ece", "ece_floor", "mean_confidence", "temperature", "ece_scaled", "step_ms",
    "train_seconds",
)  # fmt: skip
AVERAGED = ("accuracy", "nll", "ece", "mean_confidence")  # of main effects and interactions
INSIDE = {True: "inside", False: "outside", None: "cannot be told"}


def arm_cells(plan: Plan) -> dict[str, Json]:
    """For each arm the cell that names it, sorted in the study's order."""
    return {arm.name: cell(arm.label, float(at)) for at, arm in enumerate(planned_arms(plan).values())}


def arms_view(tables: Tables, plan: Plan, *, more: bool = False) -> Json | None:
    """A row per arm: each metric's mean, 95 % interval, n, and floor; with `more`, of those left out."""
    complete, names, arms = complete_trials(tables["trials"]), arm_cells(plan), planned_arms(plan)
    study, runs = plan.study, complete["arm"].value_counts()
    metrics = dict.fromkeys((study.primary, *study.usual(*ARM_METRICS), *study.comparison_family))
    if more:
        metrics = dict.fromkeys(name for name in study.usual(*MORE_METRICS) if name not in metrics)

    def columns(arm: str) -> Iterator[Column]:
        yield worded("Arm", names[arm])
        yield _runs(runs.get(arm, 0), arms[arm].planned)
        for what in map(quantity, metrics):
            interval, note = arm_interval(complete, arm, what.name, tables.get("new_images")), ""
            if what.name in FLOORS and (floor := arm_interval(complete, arm, FLOORS[what.name])).n:
                note = f"floor {shown(floor.mean, what)}"
            yield of_quantity(what, _mean(interval, what, note))

    return view(arms if metrics else [], columns, best=True)


def asked_view(tables: Tables, made: Sequence[Claim], plan: Plan, timing: Pass | None) -> Json | None:
    """A row per arm: what is asked, accuracy and ECE, with differences and bars; the cost of a step."""
    study, arms, names, cases = plan.study, planned_arms(plan), arm_cells(plan), arm_cases(plan)
    complete, against = complete_trials(tables["trials"]), dict(plan.comparisons)
    by_arm = {(one.term.term, one.metric.name): one for one in made if one.term.kind == "arm"}
    intervals, bars = dict[str, dict[str, Interval]](), dict[str, pd.DataFrame]()
    for name in dict.fromkeys((study.primary, *study.comparison_family, "accuracy", "ece")):
        if name in complete and complete[name].notna().any():
            found = {arm: arm_interval(complete, arm, name, tables.get("new_images")) for arm in arms}
            ends_of = pd.DataFrame({arm: [own.low, own.mean, own.high] for arm, own in found.items()})
            least, most = np.nanquantile(ends_of, [0, 1])
            intervals[name] = found
            # In percent of the width that all arms take; an interval without ends is its mean.
            bars[name] = 100 * (ends_of.fillna(ends_of.loc[1]) - least) / (most - least)
    order, first = list(arms), quantity(study.primary)
    if not study.baseline and first.better and first.name in intervals:
        means, rising = {arm: own.mean for arm, own in intervals[first.name].items()}, first.better == "lower"
        order = list(pd.Series(means).sort_values(ascending=rising, kind="stable").index)

    def columns(arm: str) -> Iterator[Column]:
        baseline = "" if arm in against or not study.baseline else "baseline"
        yield worded("Arm", cell(arms[arm].label, names[arm]["value"], [baseline]))
        for what in map(quantity, intervals):
            own, claim, notes = intervals[what.name][arm], by_arm.get((arm, what.name)), list[str]()
            if arm in against and own.n:
                delta = shown(own.mean - intervals[what.name][against[arm]].mean, what, signed=True)
                notes = [f"{delta} {claim.word}" if claim else delta]
                if study.design == "both" and PART in study.factors:
                    notes.append(f"against {arms[against[arm]].levels[PART]}")
            numbers: Json = {"low": own.low, "high": own.high, "verdict": claim.word if claim else ""}
            bar = [round(float(end), 1) for end in bars[what.name][arm].dropna()] or None
            yield of_quantity(what, amount(own.mean, what, notes, **numbers, bar=bar))
        if timing and cases[arm] in timing.times:
            step = median_interval(timing.times[cases[arm]]).median
            other, notes = cases.get(against.get(arm, "")), []
            if other in timing.times:
                ratio = timing.ratio(cases[arm], other).median
                notes = ["same step" if other == cases[arm] else f"× {ratio:.2f}"]
            yield column("Step", cell(f"{step:.2f}", step, notes), unit="ms")

    return view(order if len(complete) else [], columns, best=True)


def components_view(tables: Tables, effects: pd.DataFrame, plan: Plan) -> Json | None:
    """A row per arm of a study of parts, or of two or more on-off factors: ticks, scores, differences.

    Of two levels 0 or False is off; otherwise the baseline's. Parts made of others have no column.
    """
    study, complete, on = plan.study, complete_trials(tables["trials"]), dict[str, Any]()
    parts = study.parts if PART in study.factors else {}
    for factor, levels in study.factors.items():
        off = min(levels, key=lambda level: (bool(level), level != study.baseline.get(factor, levels[0])))
        if len(levels) == 2 and not (parts and factor == PART):
            on[factor] = next(level for level in levels if level != off)
    if (len(on) < 2 and not parts) or study.search:
        return None
    # A study of parts may compare an arm with two others.
    judged = {(term.term, term.reference.get(PART)): rows for term, rows in compared(effects, plan, "arm")}
    arms, against = planned_arms(plan), dict.fromkeys(end for _, end in judged)
    single = [part for part, off in parts.items() if not any(o.keys() < off.keys() for o in parts.values())]

    def columns(arm: str) -> Iterator[Column]:
        own_levels = arms[arm].levels
        for factor, level in own_levels.items():
            label, ticked = factor_label(factor), level == on.get(factor)
            if factor in on:
                head = label if on[factor] is True else f"{label}={level_label(on[factor])}"
                yield worded(head, cell("✓" if ticked else ABSENT, float(ticked)))
            else:
                yield worded(label, cell(level_label(level)))
        for part in single:
            left = parts[part].keys() - study.named[PART][own_levels[PART]].keys()
            text = "✓" if len(left) == len(parts[part]) else "in part" if left else ABSENT
            yield worded(part, cell(text, len(left) / len(parts[part])))
        for what in map(quantity, dict.fromkeys((study.primary, *study.comparison_family))):
            interval = arm_interval(complete, arm, what.name, tables.get("new_images"))
            yield of_quantity(what, _mean(interval, what))
            for end in against:
                own = judged.get((arm, end))
                none = cell("baseline", 0.0) if own_levels.get(PART) == end else cell(ABSENT)
                head = f"Δ {what.label}{f' against {end}' if len(against) > 1 else ''}"
                shown_as = none if own is None else effect_cell(own[what.name])
                yield column(head, shown_as, unit=what.difference_unit)

    return view(arms, columns, best=True)


def _runs(complete: int, planned: int) -> Column:
    meaning = "complete of planned training runs"
    return column("Runs", cell(f"{complete}/{planned}", float(complete)), meaning=meaning)


def _mean(interval: Interval, what: Quantity, note: str = "") -> Json:
    numbers: Json = {"n": interval.n, "low": interval.low, "high": interval.high}
    return amount(interval.mean, what, [interval_text(interval, what), note], **numbers)


def interval_text(interval: Interval, what: Quantity) -> str:
    """The ends of an interval, or why there is none."""
    if interval.n < 2:
        return "n = 1: no interval" if interval.n else ""
    return "all runs equal" if interval.sd == 0 else ends(interval.low, interval.high, what)


def trials_view(trials: pd.DataFrame, plan: Plan, *, failed: bool = False) -> Json | None:
    """Every planned trial with its metrics; with `failed`, those without a result and the reason instead."""
    names = arm_cells(plan)

    def columns(row: pd.Series[Any]) -> Iterator[Column]:
        repeat = f", repeat {row['repeat']}" if row["repeat"] else ""
        yield worded("Trial", cell(row["trial_id"]))
        yield worded("Arm", names[row["arm"]])
        own = cell(f"{row['seed']}{repeat}", float(row["seed"]))
        yield column("Seed" if plan.study.is_paired else "Run", own)
        yield worded("Status", cell(row["status"]))
        if failed:
            reason = ABSENT if pd.isna(row["failure"]) else one_line(row["failure"])
            yield worded("Reason", cell(reason))
        else:
            for what in map(quantity, plan.study.usual(*TRIAL_METRICS)):
                yield of_quantity(what, amount(row[what.name], what))

    lost = ~trials["status"].isin(["complete", "missing"])
    return view((row for _, row in (trials[lost] if failed else trials).iterrows()), columns)


def compared(effects: pd.DataFrame, plan: Plan, *kinds: str) -> list[tuple[Term, dict[str, pd.Series[Any]]]]:
    """The effects of these kinds, in the study's order, each with its row of the table for each metric."""
    groups = effects.groupby(["kind", "term", "against"])
    rows = {key: {row["metric"]: row for _, row in own.iterrows()} for key, own in groups}
    asked = ((term, rows.get((term.kind, term.term, term.against))) for term in terms(plan))
    return [(term, by_metric) for term, by_metric in asked if term.kind in kinds and by_metric]


def effects_view(effects: pd.DataFrame, plan: Plan, *kinds: str) -> Json | None:
    """A row per effect of some kinds, a column per metric: the primary one, the family's, the usual ones."""
    names, study = arm_cells(plan), plan.study
    others = study.usual(*(AVERAGED if "main" in kinds else SHOWN))

    def columns(item: tuple[int, tuple[Term, dict[str, pd.Series[Any]]]]) -> Iterator[Column]:
        place, (term, by_metric) = item
        first = next(iter(by_metric.values()))
        if term.kind in ("arm", "pair"):
            yield worded("Arm", names[term.term])
            yield worded("Against", names[term.against])
            yield column("Pairs", count(first["n"]))
        elif term.kind == "trend":
            ((factor, high),) = term.levels.items()
            low = term.reference[factor]
            yield worded("Factor", cell(factor_label(factor), float(place)))
            yield column("From", cell(level_label(low), float(low)), meaning="its lowest level")
            yield column("To", cell(level_label(high), float(high)), meaning="its highest level")
            yield column("Levels", count(len(term.weights)))
        else:
            yield worded("Contrast", cell(contrast_label(term), float(place)))
            yield worded("Kind", cell(term.kind.replace("main", "main effect")))
        if term.kind not in ("arm", "pair"):
            cells, planned = int(first["cells"]), int(first["cells_planned"])
            over = "combinations of the other factors' levels"
            yield column("Averaged over", cell(f"{cells}/{planned}", float(cells)), meaning=over)
            yield column("Seeds", count(first["n"]))
        for name in dict.fromkeys((study.primary, *study.comparison_family, *others)):
            if name in by_metric:  # of pairs, claims alone
                what = quantity(name)
                yield column(f"Δ {what.label}", effect_cell(by_metric[name]), unit=what.difference_unit)

    return view(enumerate(compared(effects, plan, *kinds)), columns)


def effect_cell(effect: pd.Series[Any]) -> Json:
    """A difference with its interval; of a claim its corrected p and its verdict, of any other an arrow."""
    what, size, arrow = quantity(effect["metric"]), effect["effect"], ""
    equal = effect["n"] > 1 and size == 0 and not math.isfinite(effect["low"])
    absent = "equal on every seed" if equal else "no interval"
    notes = [ends(effect["low"], effect["high"], what, absent, signed=True)]
    if effect["verdict"] == "exploratory":
        arrow = "↑ " if size > 0 else "↓ " if size < 0 else "= " if equal else ""
    elif math.isfinite(effect["p_adjusted"]):
        notes += [f"adjusted p {shown_p(effect['p_adjusted'])}", effect["verdict"]]
    else:
        notes.append(effect["verdict"])
    own = amount(size, what, notes, signed=True, **effect[["low", "high", "p_adjusted", "verdict"]])
    return {**own, "text": f"{arrow}{own['text']}"}


def sensitivity_view(effects: pd.DataFrame, plan: Plan) -> Json | None:
    """How far each claim rests on its test, a row per effect and metric: other intervals, tests and power."""
    says = {known.name: known.meaning.removeprefix("lower end of ") for known in COLUMNS["effects"]}

    def columns(item: tuple[int, Claim]) -> Iterator[Column]:
        (place, claim), row = item, item[1].row
        what, n, (low, high) = claim.metric, int(row["n"]), row[["low_images", "high_images"]]
        yield worded("Comparison", cell(contrast_label(claim.term), float(place)))
        yield worded("Metric", cell(what.label, notes=[what.difference_unit]))
        yield column("Seeds", count(n), meaning=says["n"])
        yield column("Difference", effect_cell(row), meaning=says["effect"])
        if not isinstance(plan.study, ExternalStudy):
            reach = cell(ends(low, high, what, ABSENT, signed=True), float(low), low=low, high=high)
            yield column("New images too", reach, meaning=says["low_images"])
        tests = {"p": "p"}
        if plan.study.is_paired:
            tests |= {"Welch's p": "p_welch", "Sign-flip p": "p_sign_flip"}
            tests |= {"Largest share": "largest_share", "ρ": "rho"}
        for label, name in tests.items():
            text = shown_p(row[name]) if name.startswith("p") else shown_decimal(row[name], 2)
            notes = [f"smallest {shown_p(smallest_sign_flip_p(n))}"] if name == "p_sign_flip" and n else []
            yield column(label, cell(text, float(row[name]), notes), meaning=says[name])
        yield column("Detectable", amount(row["detectable"], what), meaning=says["detectable"])

    return view(enumerate(claims(effects, plan)), columns)


def timing_view(found: Pass | None, plan: Plan) -> Json:
    """The timing pass: in a note how it was taken, and in a table a row per arm that was timed."""
    untimed = isinstance(plan.study, ExternalStudy) or plan.study.trained_by
    if found is None:
        return {"note": "" if untimed else words("timing.none"), "table": None}
    times, ratio, cases = found.times, found.ratio, arm_cases(plan)
    rounds, others = len(next(iter(times.values()))), f"{found.others or 0:.0%}"
    note = words("timing.pass", rounds=rounds, others=others, exclusive=found.exclusive)
    names, baselines = arm_cells(plan), dict(plan.comparisons)

    def columns(arm: str) -> Iterator[Column]:
        case, other = cases[arm], cases.get(baselines.get(arm, ""))
        beside = cell("same step", 1.0) if other == case else cell(ABSENT)
        if other in times and other != case:
            beside = _median(ratio(case, other), 3)
        plain, by_round = _median(ratio(case, plain_case(case)), 3), "same network and batch, ratio by round"
        yield worded("Arm", names[arm])
        yield column("Training step", _median(median_interval(times[case]), 2), unit="ms")
        yield column("Beside plain cross-entropy", plain, unit="×", meaning=by_round)
        yield column("Beside its baseline", beside, unit="×", meaning="1 where the arms do the same work")

    return {"note": note, "table": view([arm for arm in cases if cases[arm] in times], columns)}


def _median(interval: MedianInterval, digits: int) -> Json:
    reach = f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
    note = reach if math.isfinite(interval.low) else "too few rounds for an interval"
    return cell(f"{interval.median:.{digits}f}", interval.median, [note])


def published_view(epochs: pd.DataFrame, plan: Plan) -> Json | None:
    """The epochs of complete trials beside the published table, arm by arm; None where a study names none."""
    if (published := plan.study.published) is None:
        return None
    values, summaries = list(published_values(epochs, plan)), published_summaries(epochs, plan)
    runs = epochs.groupby("arm")["trial_id"].nunique()
    tables = []
    for arm, planned in planned_arms(plan).items():
        own = [value for value in values if value.arm == arm]
        tables.append({
            "arm": planned.label,
            "runs": int(runs.get(arm, 0)),
            "published": sum(not math.isnan(value.theirs) for value in own),
            "inside": sum(value.inside is True for value in own),
            "outside": [_outside(value) for value in own if value.inside is False],
            "summary": summaries[arm],
            "columns": [], "rows": [],
            **(view((list(row) for _, row in groupby(own, lambda value: value.epoch)), _beside) or {}),
        })  # fmt: skip
    return {
        "source": published.source,
        "differences": published.differences,
        "caution": words("published.caution"),
        "summary": " ".join(summaries.values()) if len(epochs) else "",
        "tables": tables,
    }


def _beside(values: list[Value]) -> Iterator[Column]:
    """Of one epoch's columns our mean and the published value."""
    yield column("Epoch", count(values[0].epoch), meaning="0 is the first")
    for value in values:
        what = quantity(value.name)
        meaning = f"{what.meaning}; mean, 95 % prediction interval"
        yield of_quantity(what, _mean(value.ours, what), f"{what.label}: ours", meaning)
        place = "" if math.isnan(value.theirs) else INSIDE[value.inside]
        yield of_quantity(what, amount(value.theirs, what, [place], inside=value.inside), "published")


def _outside(value: Value) -> str:
    what, ours = quantity(value.name), interval_text(value.ours, quantity(value.name))
    return f"epoch {value.epoch}, {what.noun}: published {shown(value.theirs, what)} {what.unit}, ours {ours}"


def tuning_view(tuned: Tuned, retests: Sequence[Retested]) -> Json:
    """The search as the report shows it: its facts, what was run again, every point."""
    search, facts = tuned.search, tuned.facts
    states = "{points_done} complete, {points_pruned} pruned, {points_failed} failed".format(**facts)
    digests = facts[["tuning_digest", "reported_digest"]].fillna("not recorded").str[:16]
    splits = {
        "Tuning split": f"{facts['tuning_images']:,} images held back from training, "
        f"{facts['train_images']:,} left to train on; digest {digests['tuning_digest']}",
        "Reported split": f"not looked at while tuning; digest {digests['reported_digest']}; "
        f"{facts['overlap']} of the tuning images are in it",
    }
    searched = list[str]()
    for name, dimension in search.space.items():
        when = " and ".join(f"{factor_label(on)}={level_label(of)}" for on, of in dimension.when.items())
        searched.append(f"{factor_label(name)}: {dimension.in_words()}{f' (where {when})' if when else ''}")
    known = {
        "Searched": "; ".join(searched),
        "Objective": " and ".join(f"{what.label} ({what.better} is better)" for what in tuned.objectives),
        "Budget": f"{facts['points_planned']} points of {facts['seeds']} training runs: {states}",
        "Sampler": f"{words(f'sampler.{search.sampler}')}, seed {search.sampler_seed}, "
        f"{search.batch} points at a time",
        "Pruning": words(f"pruning.{search.pruning}"),
        **(splits if facts["tuning_images"] else {"Tuning split": words("split.own")}),
        "Cost": search_cost(tuned),
    }
    several = tuned.importances if len(search.space) > 1 else tuned.importances[:0]
    for objective, rows in several.groupby("objective", sort=False):
        fields = zip(rows["field"], rows["share"], strict=True)
        shares = ", ".join(f"{factor_label(name)} {share:.2f}" for name, share in fields)
        known[f"Importance for {quantity(str(objective)).noun}"] = f"{shares} ({rows['evaluator'].iloc[0]})"
    facts_shown = [{"name": name, "value": value} for name, value in known.items()]
    return {"facts": facts_shown, "retested": _retested_table(retests), "points": _points_table(tuned)}


def search_cost(tuned: Tuned) -> str:
    """Training runs and time of the search, and the runs that pruning stopped, of which no record is kept."""
    took = f"{int(tuned.facts['trainings'])} training runs and {duration(float(tuned.facts['seconds']))}"
    stopped = ((tuned.points["state"] == "pruned") & (tuned.points["seeds_done"] == 0)).sum()
    if tuned.search.pruning == "seeds" or not stopped:  # which only asks for no further seed
        return took
    runs = "run" if stopped == 1 else "runs"
    return f"{took} (not counted: {stopped} training {runs} that pruning stopped early)"


def duration(seconds: float) -> str:
    """Time of training, summed over runs, as a reader says it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def _retested_table(retests: Sequence[Retested]) -> Json | None:
    """A row per re-tested arm; of each objective both means, both advantages and what did not show again."""

    def columns(item: tuple[int, Retested]) -> Iterator[Column]:
        place, one = item
        numbers = ", ".join(map(str, one.numbers))
        yield worded("Point", cell(one.arm.label, float(place), [", ".join(one.roles)]))
        yield column("Number", cell(numbers, float(one.numbers[0])), meaning=words("column.numbers"))
        for outcome in one.outcomes:
            what, tuned, fresh, effect = outcome.what, outcome.tuned, outcome.fresh, outcome.effect
            runs = f", n = {tuned.n}" if len(one.numbers) > 1 else ""
            reach = f"{ends(tuned.low, tuned.high, what, 'no interval')}{runs}"
            again = f"{ends(fresh.low, fresh.high, what, 'no interval')}, n = {fresh.n}"
            judged = effect_cell(effect) if effect is not None and effect["n"] else cell(ABSENT)
            note = f"smoothed {shown(outcome.smoothed, what)}" if math.isfinite(outcome.smoothed) else ""
            own = amount(tuned.mean, what, [reach, note])
            yield column(f"{what.label}, tuning split", own, unit=what.unit, meaning=words("column.tuning"))
            own = amount(fresh.mean, what, [again if fresh.n else "not re-run yet"])
            head = f"{what.label}, reported split"
            yield column(head, own, unit=what.unit, meaning=words("column.reported"))
            smoothed = shown(outcome.seen_smoothed, what, signed=True)
            note = f"smoothed {smoothed}" if math.isfinite(outcome.seen_smoothed) else ""
            seen, drop = (
                amount(outcome.seen, what, [note], signed=True),
                amount(outcome.drop, what, signed=True),
            )
            for label, own in {"Δ while tuning": seen, "Δ re-tested": judged, "Drop": drop}.items():
                shown_as = cell(ABSENT) if one.is_baseline else own
                yield column(label, shown_as, unit=what.difference_unit, meaning=words(f"column.{label}"))

    return view(enumerate(retests), columns)


def _points_table(tuned: Tuned) -> Json | None:
    interval, sd = "mean over seeds, below it its 95 % t interval", "over neighbours; none below a cliff"

    def columns(point: pd.Series[Any]) -> Iterator[Column]:
        reason = "" if pd.isna(point["reason"]) else one_line(point["reason"], 200)
        if not pd.isna(point["pruned_at"]):
            after, unit = int(point["pruned_at"]), "seed" if tuned.search.pruning == "seeds" else "epoch"
            reason = f"after {after} {unit}{'' if after == 1 else 's'}: {reason}"
        source = f"{point['source']}{', winner' if point['role'] == 'winner' else ''}"
        yield column("Number", count(point["number"]), meaning="from 0, as in tuning.json")
        yield worded("Levels", cell(point["label"]))
        yield worded("Source", cell(source))
        yield worded("State", cell(point["state"], notes=[reason]))
        for what, suffix in zip(tuned.objectives, SUFFIXES, strict=False):
            scored = ("value", "low", "high", "smoothed", "smoothed_sd")
            mean, low, high, smoothed, spread = (point[f"{name}{suffix}"] for name in scored)
            reach = [ends(low, high, what, "no interval")] if math.isfinite(mean) else []
            yield column(what.label, amount(mean, what, reach), unit=what.unit, meaning=interval)
            own = amount(smoothed, what, [f"sd {shown(spread, what)}" if math.isfinite(spread) else ""])
            yield column("smoothed", own, unit=what.unit, meaning=sd)
        yield _runs(int(point["seeds_done"]), int(point["seeds_planned"]))
        yield column("Time", cell(f"{point['seconds']:.0f}", float(point["seconds"])), unit="s")

    return view((point for _, point in tuned.points.iterrows()), columns)
