"""The tables of a report: rows of the study's tables as the cells that a page shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
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
from ablate.stats import Interval, MedianInterval, median_interval, smallest_sign_flip_p
from ablate.store.timing import plain_case
from ablate.study.study import Study
from ablate.study.trials import Plan
from ablate.tables import COLUMNS
from ablate.tables.cells import Json, cell, column, quantity_column, table
from ablate.tables.quantities import (
    ABSENT,
    Quantity,
    quantity,
    shown,
    shown_decimal,
    shown_difference,
    shown_p,
)
from ablate.tables.wording import noun

Row = TypeVar("Row")
ViewColumn = tuple[Json, Callable[[Row], Json]]
"""A column's head, and what makes its cell of a row."""


def view(rows: Iterable[Row], columns: Sequence[ViewColumn[Row]]) -> Json:
    """A table of one row each."""
    return table([head for head, _ in columns], [[make(row) for _, make in columns] for row in rows])


def count(number: Any) -> Json:
    """A cell of a whole number."""
    return cell(str(int(number)), value=float(number))


# Arms.

ARM_METRICS = ("accuracy", "nll", "brier", "ece", "confidence_gap", "temperature", "ece_scaled")
MORE_METRICS = (
    "ece_equal_mass", "ece_debiased", "smece", "classwise_ece", "mce", "nll_scaled", "mean_confidence",
    "auroc_error", "auroc_error_normalised", "aurc", "eaurc", "coverage_at_1", "coverage_at_2",
    "scatter_within", "scatter_between",
)  # fmt: skip


def arm_cells(plan: Plan) -> dict[str, Json]:
    """For each arm the cell that names it, sorted in the study's order."""
    return {
        arm: cell(label, value=float(place)) for place, (arm, label) in enumerate(labels_of(plan).items())
    }


def arms_view(trials: pd.DataFrame, plan: Plan) -> Json:
    """The main metrics of every arm: the primary one first, then the usual ones and the family's."""
    return _metrics_view(trials, plan, _main_metrics(plan.study))


def more_metrics_view(trials: pd.DataFrame, plan: Plan) -> Json:
    """The metrics of every arm that the main table leaves out."""
    main = _main_metrics(plan.study)
    return _metrics_view(trials, plan, [name for name in MORE_METRICS if name not in main])


def _main_metrics(study: Study) -> tuple[str, ...]:
    return tuple(dict.fromkeys((study.primary, *ARM_METRICS, *study.comparison_family)))


def _metrics_view(trials: pd.DataFrame, plan: Plan, metrics: Iterable[str]) -> Json:
    """One row per arm: mean, 95 % interval and n of each metric; calibration errors with their floors."""
    complete, names = complete_trials(trials), arm_cells(plan)
    runs = complete["arm"].value_counts()
    columns: list[ViewColumn[Arm]] = [
        (column("Arm", numeric=False), lambda arm: names[arm.name]),
        (
            column("Runs", meaning="complete of planned training runs"),
            lambda arm: cell(f"{runs.get(arm.name, 0)}/{arm.planned}", value=float(runs.get(arm.name, 0))),
        ),
    ]
    for metric in metrics:
        columns.append((quantity_column(quantity(metric)), partial(_mean_cell, metric, complete)))
    return view(planned_arms(plan).values(), columns)


def _mean_cell(metric: str, complete: pd.DataFrame, arm: Arm) -> Json:
    what, interval = quantity(metric), arm_interval(complete, arm.name, metric)
    notes = [interval_text(interval, what)]
    if metric in FLOOR and interval.n:
        floor = arm_interval(complete, arm.name, FLOOR[metric]).mean
        notes.append(f"floor {shown(floor, what)}")
    numbers = {"n": interval.n, "low": interval.low, "high": interval.high}
    return {**cell(shown(interval.mean, what), value=interval.mean, notes=notes), **numbers}


def interval_text(interval: Interval, what: Quantity) -> str:
    """The ends of an interval, or why there is none."""
    if interval.n == 1:
        return "n = 1: no interval"
    if interval.n == 0:
        return ""
    if interval.sd == 0:
        return "all runs equal"
    return f"{shown(interval.low, what)} to {shown(interval.high, what)}"


# Effects.


@dataclass(frozen=True)
class Compared:
    """An effect that was asked for: its place among those of its table, and its row for each metric."""

    place: int
    term: Term
    by_metric: dict[str, pd.Series[Any]]
    first: pd.Series[Any]


def compared(effects: pd.DataFrame, plan: Plan, kinds: Collection[str]) -> list[Compared]:
    """The effects of these kinds in the study's order; `first` is the row of the primary metric."""
    rows: dict[tuple[str, str, str], dict[str, pd.Series[Any]]] = {}
    for _, row in effects.iterrows():
        rows.setdefault((row["kind"], row["term"], row["against"]), {})[row["metric"]] = row
    items: list[Compared] = []
    for term in terms(plan):
        own = rows.get((term.kind, term.term, term.against))
        if term.kind in kinds and own is not None:
            items.append(Compared(len(items), term, own, own[plan.study.primary]))
    return items


AVERAGED = (
    (
        column("Averaged over", meaning="combinations of the other factors' levels"),
        lambda item: cell(
            f"{int(item.first['cells'])}/{int(item.first['cells_planned'])}", value=float(item.first["cells"])
        ),
    ),
    (column("Seeds"), lambda item: count(item.first["n"])),
)


def effects_view(effects: pd.DataFrame, plan: Plan) -> Json | None:
    """Arms against their baselines: a row per arm, a column per metric; None without comparisons."""
    names = arm_cells(plan)
    columns: list[ViewColumn[Compared]] = [
        (column("Arm", numeric=False), lambda item: names[item.term.term]),
        (column("Against", numeric=False), lambda item: names[item.term.against]),
        (column("Pairs"), lambda item: count(item.first["n"])),
    ]
    return _differences(compared(effects, plan, ("arm",)), columns, plan.study)


def contrasts_view(effects: pd.DataFrame, plan: Plan) -> Json | None:
    """Main effects and interactions; None for a study of fewer than two factors."""
    kinds = {"main": "main effect", "interaction": "interaction"}
    columns: list[ViewColumn[Compared]] = [
        (
            column("Contrast", numeric=False),
            lambda item: cell(contrast_label(item.term), value=float(item.place)),
        ),
        (column("Kind", numeric=False), lambda item: cell(kinds[item.term.kind])),
        *AVERAGED,
    ]
    usual = ("accuracy", "nll", "ece", "mean_confidence")
    return _differences(compared(effects, plan, kinds), columns, plan.study, usual)


def trends_view(effects: pd.DataFrame, plan: Plan) -> Json | None:
    """Trends: a row per factor; None without a factor of numbers."""

    def end(levels: Any) -> Json:
        (level,) = levels.values()
        return cell(level_label(level), value=float(level))

    columns: list[ViewColumn[Compared]] = [
        (
            column("Factor", numeric=False),
            lambda item: cell(factor_label(next(iter(item.term.levels))), value=float(item.place)),
        ),
        (column("From", meaning="its lowest level"), lambda item: end(item.term.reference)),
        (column("To", meaning="its highest level"), lambda item: end(item.term.levels)),
        (column("Levels"), lambda item: count(len(item.term.weights))),
        *AVERAGED,
    ]
    return _differences(compared(effects, plan, ("trend",)), columns, plan.study)


def contrast_label(term: Term) -> str:
    """A contrast as a reader writes it: ε: 0.1 − 0, or ε: 0.1 − 0 × arch: xresnet18 − seed_cnn."""
    parts = [
        f"{factor_label(factor)}: {level_label(level)} − {level_label(term.reference[factor])}"
        for factor, level in term.levels.items()
    ]
    return " × ".join(parts)


def _differences(
    items: list[Compared],
    columns: Sequence[ViewColumn[Compared]],
    study: Study,
    usual: Sequence[str] = SHOWN,
) -> Json | None:
    """The columns, then one per metric: the primary one, the family's, the usual ones."""
    if not items:
        return None
    differences: list[ViewColumn[Compared]] = []
    for metric in dict.fromkeys((study.primary, *study.comparison_family, *usual)):
        what, inside = quantity(metric), metric in study.comparison_family
        meaning = "simultaneous intervals" if inside else "95 % each, uncorrected"
        head = column(f"Δ {what.label}", unit=what.difference_unit, meaning=meaning)
        differences.append((head, partial(_difference_cell, metric, study)))
    return view(items, [*columns, *differences])


def _difference_cell(metric: str, study: Study, item: Compared) -> Json:
    return effect_cell(item.by_metric[metric], metric, study)


def effect_cell(effect: pd.Series[Any], metric: str, study: Study) -> Json:
    """A difference with its interval, its corrected p and its verdict, in brackets outside the family."""
    what = quantity(metric)
    ends = f"{shown_difference(effect['low'], what)} to {shown_difference(effect['high'], what)}"
    equal = effect["n"] > 1 and effect["effect"] == 0
    notes = [ends if math.isfinite(effect["low"]) else "equal on every seed" if equal else "no interval"]
    inside = metric in study.comparison_family
    if inside and math.isfinite(effect["p_adjusted"]):
        notes.append(f"adjusted p {shown_p(effect['p_adjusted'])}")
    notes.append(effect["verdict"] if inside else f"({effect['verdict']})")
    numbers = {"low": effect["low"], "high": effect["high"], "p_adjusted": effect["p_adjusted"]}
    value = float(effect["effect"])
    return {**cell(shown_difference(value, what), value=value, notes=notes), **numbers}


# How sure the differences of arms are.


def certainty_view(effects: pd.DataFrame, plan: Plan) -> Json | None:
    """Everything that the statistics say: a row per arm and metric, for the primary metric and the family's.

    None without comparisons.
    """
    meaning = {known.name: known.description for known in COLUMNS["effects"]}
    names = arm_cells(plan)
    metrics = tuple(dict.fromkeys((plan.study.primary, *plan.study.comparison_family)))
    rows = [own.by_metric[name] for own in compared(effects, plan, ("arm",)) for name in metrics]
    columns: list[ViewColumn[pd.Series[Any]]] = [
        (column("Arm", meaning="the arm that is compared", numeric=False), lambda row: names[row["term"]]),
        (
            column("Against", meaning="the arm it is compared with", numeric=False),
            lambda row: names[row["against"]],
        ),
        (
            column("Metric", meaning=meaning["metric"], numeric=False),
            lambda row: cell(_metric(row).label, notes=[_metric(row).difference_unit]),
        ),
        (
            column("Pairs", meaning="seeds for which both arms are complete"),
            lambda row: count(row["n"]),
        ),
        (
            column("Difference", meaning="mean over seeds of arm minus baseline"),
            lambda row: cell(shown_difference(row["effect"], _metric(row)), value=float(row["effect"])),
        ),
        (
            column(
                "Over seeds",
                meaning="95 % interval for new training runs on these images: of all the family's together, "
                "or of a metric outside it alone",
            ),
            lambda row: _interval_cell(row["low"], row["high"], _metric(row)),
        ),
        (
            column(
                "New images too",
                meaning="the same for new images as well; only for metrics that are means over images",
            ),
            lambda row: _interval_cell(row["low_images"], row["high_images"], _metric(row)),
        ),
    ]
    for label, name in (("p", "p"), ("Adjusted p", "p_adjusted"), ("Holm's p", "p_holm")):
        columns.append((column(label, meaning=meaning[name]), partial(_p_cell, name)))
    columns += [
        (
            column(
                "Sign-flip p",
                meaning="exact test without an assumed normal spread, uncorrected; below it the smallest p "
                "that so many pairs can give",
            ),
            _sign_flip_cell,
        ),
        (
            column("ρ", meaning=meaning["rho"]),
            lambda row: cell(shown_decimal(row["rho"], 2), value=float(row["rho"])),
        ),
        (
            column("Detectable", meaning=meaning["detectable"]),
            lambda row: cell(shown(row["detectable"], _metric(row)), value=float(row["detectable"])),
        ),
        (column("Seeds needed", meaning=meaning["seeds_needed"]), _seeds_cell),
    ]
    return view(rows, columns) if rows else None


def _metric(row: pd.Series[Any]) -> Quantity:
    return quantity(str(row["metric"]))


def _interval_cell(low: float, high: float, what: Quantity) -> Json:
    """Both ends, sorted by the lower one."""
    known = math.isfinite(low)
    text = f"{shown_difference(low, what)} to {shown_difference(high, what)}" if known else ABSENT
    return {**cell(text, value=float(low)), "low": low, "high": high}


def _p_cell(name: str, row: pd.Series[Any]) -> Json:
    return cell(shown_p(row[name]), value=float(row[name]))


def _sign_flip_cell(row: pd.Series[Any]) -> Json:
    p, pairs = float(row["p_sign_flip"]), int(row["n"])
    notes = [f"smallest {shown_p(smallest_sign_flip_p(pairs))}"] if pairs else []
    return cell(shown_p(p), value=p, notes=notes)


def _seeds_cell(row: pd.Series[Any]) -> Json:
    if not pd.isna(row["seeds_needed"]):
        return count(row["seeds_needed"])
    beyond = row["verdict"] == "undecided" and math.isfinite(row["low"])
    return cell("> 1,000" if beyond else ABSENT, value=math.inf)


# Step times.


def timing_view(step_times: pd.DataFrame | None, plan: Plan) -> Json | None:
    """The timing pass: a row per arm that was timed; None without a pass."""
    found = timing_pass(step_times)
    if found is None:
        return None
    times, ratio = found.times, found.ratio
    labels, baseline, cases = labels_of(plan), dict(plan.comparisons), arm_cases(plan)

    def beside_baseline(arm: str) -> Json:
        other = cases.get(baseline.get(arm, ""))
        if other == cases[arm]:
            return cell("same step", value=1.0)
        return _median_cell(ratio(cases[arm], other) if other in times else None, 3)

    columns: list[ViewColumn[tuple[int, str]]] = [
        (column("Arm", numeric=False), lambda at: cell(labels[at[1]], value=float(at[0]))),
        (
            column("Training step", unit="ms"),
            lambda at: _median_cell(median_interval(times[cases[at[1]]]), 2),
        ),
        (
            column("Beside plain cross-entropy", unit="×", meaning="same network and batch, ratio by round"),
            lambda at: _median_cell(ratio(cases[at[1]], plain_case(cases[at[1]])), 3),
        ),
        (
            column("Beside its baseline", unit="×", meaning="1 where the arms do the same work"),
            lambda at: beside_baseline(at[1]),
        ),
    ]
    return view([at for at in enumerate(cases) if cases[at[1]] in times], columns)


def _median_cell(interval: MedianInterval | None, digits: int) -> Json:
    if interval is None:
        return cell("–")
    ends = f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
    notes = [ends if np.isfinite(interval.low) else "too few rounds for an interval"]
    return cell(f"{interval.median:.{digits}f}", value=interval.median, notes=notes)


def timing_note(found: Pass | None) -> str:
    """How the pass was taken, in a sentence or two."""
    if found is None:
        return (
            "Step time was not measured apart. Those of the trials come from a machine that other trials "
            "shared, and say little about what a level costs."
        )
    rounds = len(next(iter(found.times.values())))
    shared = {
        True: "nothing else used the machine much",
        False: f"other processes used {found.others or 0:.0%} of its cores, so the times are not exclusive",
        None: "whether other processes ran is not known",
    }[found.exclusive]
    return (
        f"Timed after the trials, one case after the other in {rounds} rounds; {shared}. Medians over rounds "
        "with 95 % intervals; ratios are taken within a round. ε is a tensor of the step, so arms that "
        "differ in ε alone do the same work."
    )


# A published run beside ours.

CAUTION = (
    "The interval is mean ± t · sd · sqrt(1 + 1/n) over n complete runs of different seeds; it holds one "
    "more run of the same normal population in 95 % of cases, and of few runs it is wide. Each interval "
    "stands for itself, so about 5 % of the values are expected outside even if both tables come from one "
    "process; and since the values of a run are correlated, several tend to miss together."
)
PLACES = {True: "inside", False: "outside", None: "cannot be told"}


def published_view(epochs: pd.DataFrame, plan: Plan) -> Json | None:
    """The comparison, arm by arm, and in a sentence; None when the study names no published table.

    Args:
        epochs: the epochs table of complete trials.
        plan: the study's plan.
    """
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
            **_published_table(own),
        })  # fmt: skip
    return {
        "source": published.source,
        "differences": published.differences,
        "caution": CAUTION,
        "summary": " ".join(summaries.values()) if len(epochs) else "",
        "tables": tables,
    }


def _published_table(values: Sequence[Value]) -> Json:
    """A row per epoch; of each column our mean and the published value."""
    by_epoch: dict[int, dict[str, Value]] = {}
    for value in values:
        by_epoch.setdefault(value.epoch, {})[value.name] = value
    columns: list[ViewColumn[int]] = [(column("Epoch", meaning="0 is the first"), count)]
    for name in dict.fromkeys(value.name for value in values):
        what = quantity(name)
        meaning = f"{what.meaning}; mean, 95 % prediction interval"
        ours = column(f"{what.label}: ours", unit=what.unit, meaning=meaning)
        theirs = column("published", unit=what.unit, meaning=what.meaning)
        columns += [
            (ours, partial(_our_cell, name, by_epoch)),
            (theirs, partial(_their_cell, name, by_epoch)),
        ]
    return view(by_epoch, columns)


def _our_cell(name: str, by_epoch: dict[int, dict[str, Value]], epoch: int) -> Json:
    what, ours = quantity(name), by_epoch[epoch][name].ours
    mean = cell(shown(ours.mean, what), value=ours.mean, notes=[interval_text(ours, what)])
    return {**mean, "n": ours.n, "low": ours.low, "high": ours.high}


def _their_cell(name: str, by_epoch: dict[int, dict[str, Value]], epoch: int) -> Json:
    value = by_epoch[epoch][name]
    place = "" if math.isnan(value.theirs) else PLACES[value.inside]
    shown_value = cell(shown(value.theirs, quantity(name)), value=value.theirs, notes=[place])
    return {**shown_value, "inside": value.inside}


def _outside(value: Value) -> str:
    what = quantity(value.name)
    theirs, ours = f"{shown(value.theirs, what)} {what.unit}".rstrip(), interval_text(value.ours, what)
    return f"epoch {value.epoch}, {noun(what)}: published {theirs}, ours {ours}"
