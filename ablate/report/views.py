"""The tables of a report: rows of the study's tables as the cells that a page shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from ablate.analysis.arms import (
    FLOOR,
    Arm,
    arm_interval,
    complete_trials,
    factor_label,
    labels_of,
    level_label,
    planned_arms,
)
from ablate.analysis.effects import SHOWN, Term, terms
from ablate.analysis.published import Value, published_summaries, published_values
from ablate.analysis.timing import Pass, arm_cases, timing_pass
from ablate.report.cells import (
    Column,
    Json,
    amount,
    cell,
    column,
    count,
    difference,
    ends,
    of_quantity,
    view,
)
from ablate.report.words import words
from ablate.stats import Interval, MedianInterval, median_interval, smallest_sign_flip_p
from ablate.store.timing import plain_case
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables import COLUMNS
from ablate.tables.cells import one_line
from ablate.tables.quantities import ABSENT, Quantity, quantity, shown, shown_decimal, shown_p

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
AVERAGED_METRICS = ("accuracy", "nll", "ece", "mean_confidence")
"""Shown of main effects and interactions beside the family's."""
INSIDE = {True: "inside", False: "outside", None: "cannot be told"}


def arm_cells(plan: Plan) -> dict[str, Json]:
    """For each arm the cell that names it, sorted in the study's order."""
    return {arm: cell(label, float(place)) for place, (arm, label) in enumerate(labels_of(plan).items())}


# Arms and trials.


def arms_view(trials: pd.DataFrame, plan: Plan, *, more: bool = False) -> Json:
    """A row per arm: mean, 95 % interval and n of each metric; calibration errors with their floors.

    The metrics are the primary one, the usual ones and the family's; with `more`, those that this leaves out.
    """
    complete, names = complete_trials(trials), arm_cells(plan)
    runs = complete["arm"].value_counts()
    metrics = dict.fromkeys((plan.study.primary, *ARM_METRICS, *plan.study.comparison_family))
    if more:
        metrics = dict.fromkeys(name for name in MORE_METRICS if name not in metrics)

    def runs_of(arm: Arm) -> Json:
        return cell(f"{runs.get(arm.name, 0)}/{arm.planned}", float(runs.get(arm.name, 0)))

    def mean(what: Quantity, arm: Arm) -> Json:
        interval, note = arm_interval(complete, arm.name, what.name), ""
        if what.name in FLOOR and interval.n:
            note = f"floor {shown(arm_interval(complete, arm.name, FLOOR[what.name]).mean, what)}"
        return _interval(interval, what, note)

    columns: list[Column[Arm]] = [
        column("Arm", lambda arm: names[arm.name], numeric=False),
        column("Runs", runs_of, meaning="complete of planned training runs"),
        *(of_quantity(quantity(name), mean) for name in metrics),
    ]
    return view(planned_arms(plan).values(), columns)


def _interval(interval: Interval, what: Quantity, note: str = "") -> Json:
    """A cell of a mean with its interval."""
    numbers = {"n": interval.n, "low": interval.low, "high": interval.high}
    return amount(interval.mean, what, [interval_text(interval, what), note], **numbers)


def interval_text(interval: Interval, what: Quantity) -> str:
    """The ends of an interval, or why there is none."""
    if interval.n < 2:
        return "n = 1: no interval" if interval.n else ""
    return "all runs equal" if interval.sd == 0 else ends(interval.low, interval.high, what)


def trials_view(trials: pd.DataFrame, plan: Plan, *, failed: bool = False) -> Json:
    """Every planned trial with its metrics; with `failed`, those without a result and the reason instead."""
    names = arm_cells(plan)

    def seed(row: Any) -> Json:
        repeat = f", repeat {row['repeat']}" if row["repeat"] else ""
        return cell(f"{row['seed']}{repeat}", float(row["seed"]))

    def number(what: Quantity, row: Any) -> Json:
        return amount(row[what.name], what)

    def reason(row: Any) -> Json:
        return cell(ABSENT if pd.isna(row["failure"]) else one_line(row["failure"]))

    columns: list[Column[Any]] = [
        column("Trial", lambda row: cell(row["trial_id"]), numeric=False),
        column("Arm", lambda row: names[row["arm"]], numeric=False),
        column("Seed", seed),
        column("Status", lambda row: cell(row["status"]), numeric=False),
    ]
    if failed:
        columns.append(column("Reason", reason, numeric=False))
        trials = trials[~trials["status"].isin(["complete", "missing"])]
    else:
        columns += [of_quantity(quantity(name), number) for name in TRIAL_METRICS]
    return view((row for _, row in trials.iterrows()), columns)


# Effects.


@dataclass(frozen=True)
class Compared:
    """An effect that was asked for: its place among those of its table, and its row for each metric."""

    place: int
    term: Term
    by_metric: dict[str, pd.Series[Any]]
    first: pd.Series[Any]
    """The row of the primary metric."""


def compared(effects: pd.DataFrame, plan: Plan, kinds: Collection[str]) -> list[Compared]:
    """The effects of these kinds, in the study's order."""
    rows: dict[tuple[str, str, str], dict[str, pd.Series[Any]]] = {}
    for _, row in effects.iterrows():
        rows.setdefault((row["kind"], row["term"], row["against"]), {})[row["metric"]] = row
    asked = ((term, rows.get((term.kind, term.term, term.against))) for term in terms(plan))
    own = [(term, by_metric) for term, by_metric in asked if term.kind in kinds and by_metric]
    primary = plan.study.primary
    return [Compared(place, term, metrics, metrics[primary]) for place, (term, metrics) in enumerate(own)]


def effects_view(effects: pd.DataFrame, plan: Plan, *kinds: str) -> Json | None:
    """Effects of some kinds: a row each, a column per metric; None without any.

    The metrics are the primary one, the family's, and the usual ones of that kind.
    """
    items, names, study = compared(effects, plan, kinds), arm_cells(plan), plan.study
    if not items:
        return None

    def contrast(item: Compared) -> Json:
        return cell(contrast_label(item.term), float(item.place))

    def factor(item: Compared) -> Json:
        return cell(factor_label(next(iter(item.term.levels))), float(item.place))

    def end(levels: Any) -> Json:
        (level,) = levels.values()
        return cell(level_label(level), float(level))

    def averaged_over(item: Compared) -> Json:
        cells, planned = item.first["cells"], item.first["cells_planned"]
        return cell(f"{int(cells)}/{int(planned)}", float(cells))

    averaged: list[Column[Compared]] = [
        column("Averaged over", averaged_over, meaning="combinations of the other factors' levels"),
        column("Seeds", lambda item: count(item.first["n"])),
    ]
    starts: dict[str, list[Column[Compared]]] = {
        "arm": [
            column("Arm", lambda item: names[item.term.term], numeric=False),
            column("Against", lambda item: names[item.term.against], numeric=False),
            column("Pairs", lambda item: count(item.first["n"])),
        ],
        "main": [
            column("Contrast", contrast, numeric=False),
            column("Kind", lambda item: cell(item.term.kind.replace("main", "main effect")), numeric=False),
            *averaged,
        ],
        "trend": [
            column("Factor", factor, numeric=False),
            column("From", lambda item: end(item.term.reference), meaning="its lowest level"),
            column("To", lambda item: end(item.term.levels), meaning="its highest level"),
            column("Levels", lambda item: count(len(item.term.weights))),
            *averaged,
        ],
    }
    columns, usual = starts[kinds[0]], AVERAGED_METRICS if kinds[0] == "main" else SHOWN
    for name in dict.fromkeys((study.primary, *study.comparison_family, *usual)):
        what = quantity(name)

        def judged(item: Compared, name: str = name) -> Json:
            return effect_cell(item.by_metric[name], study)

        meaning = "simultaneous intervals" if name in study.comparison_family else "95 % each, uncorrected"
        columns.append(column(f"Δ {what.label}", judged, unit=what.difference_unit, meaning=meaning))
    return view(items, columns)


def contrast_label(term: Term) -> str:
    """A contrast as a reader writes it: ε: 0.1 − 0, or ε: 0.1 − 0 × arch: xresnet18 − seed_cnn."""
    return " × ".join(
        f"{factor_label(factor)}: {level_label(level)} − {level_label(term.reference[factor])}"
        for factor, level in term.levels.items()
    )


def effect_cell(effect: pd.Series[Any], study: Study) -> Json:
    """A difference with its interval, its corrected p and its verdict, in brackets outside the family."""
    what, numbers = quantity(effect["metric"]), {name: effect[name] for name in ("low", "high", "p_adjusted")}
    equal = effect["n"] > 1 and effect["effect"] == 0
    absent = "equal on every seed" if equal else "no interval"
    notes = [ends(effect["low"], effect["high"], what, absent, signed=True)]
    inside = what.name in study.comparison_family
    if inside and math.isfinite(effect["p_adjusted"]):
        notes.append(f"adjusted p {shown_p(effect['p_adjusted'])}")
    notes.append(effect["verdict"] if inside else f"({effect['verdict']})")
    return difference(effect["effect"], what, notes, **numbers)


def certainty_view(effects: pd.DataFrame, plan: Plan) -> Json | None:
    """Everything that the statistics say: a row per arm and metric, for the primary metric and the family's.

    None without comparisons.
    """
    names, metrics = arm_cells(plan), dict.fromkeys((plan.study.primary, *plan.study.comparison_family))
    rows = [own.by_metric[name] for own in compared(effects, plan, ("arm",)) for name in metrics]
    says = {known.name: known.meaning.removeprefix("lower end of ") for known in COLUMNS["effects"]} | {
        "term": "the arm that is compared",
        "against": "the arm it is compared with",
        "effect": "mean over seeds of arm minus baseline",
        "p_sign_flip": "exact test without an assumed normal spread, uncorrected; below it the smallest p "
        "that so many pairs can give",
    }

    def metric(name: str, row: Any) -> Json:
        return cell(quantity(row[name]).label, notes=[quantity(row[name]).difference_unit])

    def interval(name: str, row: Any) -> Json:
        low, high = row[name], row[name.replace("low", "high")]
        text = ends(low, high, quantity(row["metric"]), ABSENT, signed=True)
        return cell(text, float(low), low=low, high=high)

    def p(name: str, row: Any) -> Json:
        return cell(shown_p(row[name]), float(row[name]))

    def sign_flip(name: str, row: Any) -> Json:
        smallest = [f"smallest {shown_p(smallest_sign_flip_p(int(row['n'])))}"] if row["n"] else []
        return {**p(name, row), "notes": smallest}

    def seeds(name: str, row: Any) -> Json:
        if not pd.isna(row[name]):
            return count(row[name])
        beyond = row["verdict"] == "undecided" and math.isfinite(row["low"])
        return cell("> 1,000" if beyond else ABSENT, math.inf)

    made: list[tuple[str, str, Callable[[str, Any], Json]]] = [
        ("Arm", "term", lambda name, row: names[row[name]]),
        ("Against", "against", lambda name, row: names[row[name]]),
        ("Metric", "metric", metric),
        ("Pairs", "n", lambda name, row: count(row[name])),
        ("Difference", "effect", lambda name, row: difference(row[name], quantity(row["metric"]))),
        ("Over seeds", "low", interval),
        ("New images too", "low_images", interval),
        ("p", "p", p),
        ("Adjusted p", "p_adjusted", p),
        ("Holm's p", "p_holm", p),
        ("Sign-flip p", "p_sign_flip", sign_flip),
        ("ρ", "rho", lambda name, row: cell(shown_decimal(row[name], 2), float(row[name]))),
        ("Detectable", "detectable", lambda name, row: amount(row[name], quantity(row["metric"]))),
        ("Seeds needed", "seeds_needed", seeds),
    ]
    columns = [
        column(
            label, partial(make, name), meaning=says[name], numeric=name not in ("term", "against", "metric")
        )
        for label, name, make in made
    ]
    return view(rows, columns) if rows else None


# Step times.


def timing_view(step_times: pd.DataFrame | None, plan: Plan) -> Json | None:
    """The timing pass: a row per arm that was timed; None without a pass."""
    found = timing_pass(step_times)
    if found is None:
        return None
    times, ratio, cases = found.times, found.ratio, arm_cases(plan)
    names, baseline = arm_cells(plan), dict(plan.comparisons)

    def beside_baseline(arm: str) -> Json:
        other = cases.get(baseline.get(arm, ""))
        if other == cases[arm]:
            return cell("same step", 1.0)
        return _median(ratio(cases[arm], other), 3) if other in times else cell(ABSENT)

    def beside_plain(arm: str) -> Json:
        return _median(ratio(cases[arm], plain_case(cases[arm])), 3)

    plain, same = "same network and batch, ratio by round", "1 where the arms do the same work"
    columns: list[Column[str]] = [
        column("Arm", lambda arm: names[arm], numeric=False),
        column("Training step", lambda arm: _median(median_interval(times[cases[arm]]), 2), unit="ms"),
        column("Beside plain cross-entropy", beside_plain, unit="×", meaning=plain),
        column("Beside its baseline", beside_baseline, unit="×", meaning=same),
    ]
    return view([arm for arm in cases if cases[arm] in times], columns)


def _median(interval: MedianInterval, digits: int) -> Json:
    note = "too few rounds for an interval"
    if math.isfinite(interval.low):
        note = f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
    return cell(f"{interval.median:.{digits}f}", interval.median, [note])


def timing_note(found: Pass | None) -> str:
    """How the pass was taken, in a sentence or two."""
    if found is None:
        return words("timing.none")
    rounds, others = len(next(iter(found.times.values()))), f"{found.others or 0:.0%}"
    return words("timing.pass", rounds=rounds, others=others, exclusive=found.exclusive)


# A published run beside ours.


def published_view(epochs: pd.DataFrame, plan: Plan) -> Json | None:
    """The epochs of complete trials beside the published table, arm by arm; None where a study names none."""
    published = plan.study.published
    if published is None:
        return None
    values, summaries = published_values(epochs, plan), published_summaries(epochs, plan)
    runs = epochs.groupby("arm")["trial_id"].nunique()
    tables = []
    for arm, label in labels_of(plan).items():
        own = [value for value in values if value.arm == arm]
        known = [value for value in own if not math.isnan(value.theirs)]
        tables.append({
            "arm": label,
            "runs": int(runs.get(arm, 0)),
            "published": len(known),
            "inside": sum(value.inside is True for value in known),
            "outside": [_outside(value) for value in known if value.inside is False],
            "summary": summaries[arm],
            **_published_table({(value.epoch, value.name): value for value in own}),
        })  # fmt: skip
    return {
        "source": published.source,
        "differences": published.differences,
        "caution": words("published.caution"),
        "summary": " ".join(summaries.values()) if len(epochs) else "",
        "tables": tables,
    }


def _published_table(values: dict[tuple[int, str], Value]) -> Json:
    """A row per epoch; of each column our mean and the published value."""

    def ours(what: Quantity, epoch: int) -> Json:
        return _interval(values[epoch, what.name].ours, what)

    def theirs(what: Quantity, epoch: int) -> Json:
        value = values[epoch, what.name]
        place = "" if math.isnan(value.theirs) else INSIDE[value.inside]
        return amount(value.theirs, what, [place], inside=value.inside)

    columns: list[Column[int]] = [column("Epoch", count, meaning="0 is the first")]
    for what in map(quantity, dict.fromkeys(name for _, name in values)):
        meaning = f"{what.meaning}; mean, 95 % prediction interval"
        columns.append(of_quantity(what, ours, f"{what.label}: ours", meaning))
        columns.append(of_quantity(what, theirs, "published"))
    return view(dict.fromkeys(epoch for epoch, _ in values), columns)


def _outside(value: Value) -> str:
    what = quantity(value.name)
    theirs, ours = f"{shown(value.theirs, what)} {what.unit}".rstrip(), interval_text(value.ours, what)
    return f"epoch {value.epoch}, {what.noun}: published {theirs}, ours {ours}"
