"""What could mislead a reader."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from ablate.analysis.arms import (
    FLOOR,
    arm_interval,
    complete_trials,
    labels_of,
    planned_arms,
)
from ablate.analysis.floors import floor_bands
from ablate.study.trials import Plan
from ablate.tables.cells import Json, one_line
from ablate.tables.quantities import quantity, shown

FEW_SEEDS = 5
MOST_REASONS = 3
MOST_FLOORS = 6
UNDER_FLOOR = (
    "On so many images a perfectly calibrated network would score as much: what differs here is noise."
)
NEAR_FLOOR = (
    "On so many images a perfectly calibrated network exceeds the second number in 1 of 40 draws of the "
    "labels: an error up to it may be noise, and so may what differs there."
)
SMALL_DATA = {
    "digits": "The data are scikit-learn's digits, 1,797 images of 8×8 pixels. They show that the study "
    "runs, and what its factors do on an easy task. They are not Imagenette, whose numbers will differ.",
    "synthetic": "The data are generated images without meaning. They test the machinery, and say nothing "
    "about a network.",
}
POOLED = {
    "torch_version": "versions of torch",
    "resolved_precision": "precisions",
    "device": "kinds of device",
    "device_name": "processors or GPUs",
    "commit": "commits of ablate",
}


def banners(trials: pd.DataFrame, plan: Plan, floors: pd.DataFrame | None = None) -> list[Json]:
    """Every warning that applies, the gravest first; with the table of floors, from its bands."""
    found = [
        _without_result(trials, plan),
        *_small_data(plan),
        _few_seeds(trials, plan),
        *_pooled(trials),
        _commit(trials),
        _near_floor(trials, plan, floors),
        _outside_family(plan),
    ]
    return [banner for banner in found if banner]


def _banner(title: str, text: str, items: list[str] | None = None) -> Json:
    return {"title": title, "text": text, "items": items or []}


def _without_result(trials: pd.DataFrame, plan: Plan) -> Json | None:
    lost = trials[trials["status"] != "complete"]
    if lost.empty:
        return None
    labels = labels_of(plan)
    planned = trials["arm"].value_counts()
    items = []
    for arm, label in labels.items():
        rows = lost[lost["arm"] == arm]
        if len(rows):
            items.append(f"{label}: {len(rows)} of {planned[arm]} without a result ({_reasons(rows)})")
    text = "Means and comparisons rest on the trials that are complete. Were it chance which ones are not, "
    text += "that would only cost precision; a level that makes training fail is itself a finding."
    return _banner(f"{len(lost)} of {len(trials)} trials have no result", text, items)


def _reasons(rows: pd.DataFrame) -> str:
    reasons = []
    for status in rows["status"].unique():
        own = rows[rows["status"] == status]
        said = list(dict.fromkeys(one_line(text, 120) for text in own["failure"].dropna()))
        more = f"; and {len(said) - MOST_REASONS} other reasons" if len(said) > MOST_REASONS else ""
        why = f": {'; '.join(said[:MOST_REASONS])}{more}" if said else ""
        reasons.append(f"{len(own)} {'not run' if status == 'missing' else status}{why}")
    return ", ".join(reasons)


def _small_data(plan: Plan) -> Iterator[Json]:
    for name in dict.fromkeys(trial.fields.data for trial in plan.trials):
        if name in SMALL_DATA:
            yield _banner("A small stand-in for the full study", SMALL_DATA[name])


def _few_seeds(trials: pd.DataFrame, plan: Plan) -> Json | None:
    complete = complete_trials(trials)
    runs = {arm.label: int((complete["arm"] == arm.name).sum()) for arm in planned_arms(plan).values()}
    fewest = min(runs.values())
    if fewest >= FEW_SEEDS:
        return None
    few = sum(count < FEW_SEEDS for count in runs.values())
    title = f"Fewer than {FEW_SEEDS} training runs in {'every arm' if few == len(runs) else f'{few} arms'}"
    text = (
        f"The smallest arm has {fewest}. With so few, intervals are wide and only large differences can be "
    )
    text += "shown; with one there is no interval at all. More seeds add runs and repeat none."
    return _banner(title, text)


def _pooled(trials: pd.DataFrame) -> Iterator[Json]:
    ran = trials[trials["status"] == "complete"]
    for column, words in POOLED.items():
        values = sorted(str(value) for value in ran[column].dropna().unique())
        if len(values) > 1:
            counts = ran[column].value_counts()
            items = [f"{value}: {int(counts[value])} trials" for value in values]
            text = "A difference between arms may come from this instead of from the factors."
            yield _banner(f"Several {words} are pooled", text, items)


def _commit(trials: pd.DataFrame) -> Json | None:
    commits = trials.loc[trials["status"] == "complete", "commit"]
    if commits.empty:
        return None
    dirty = int(commits.fillna("").str.endswith("-dirty").sum())
    if dirty:
        text = f"{dirty} of {len(commits)} complete trials ran with changes that no commit holds."
        return _banner("Uncommitted code", f"{text} Nobody else can run that code.")
    if commits.isna().any():
        text = f"{int(commits.isna().sum())} of {len(commits)} complete trials ran outside a git checkout."
        return _banner("The commit is not known", text)
    return None


def _near_floor(trials: pd.DataFrame, plan: Plan, floors: pd.DataFrame | None) -> Json | None:
    complete, items, banded = complete_trials(trials), list[str](), False
    for metric, floor_metric in FLOOR.items():
        what, bands = quantity(metric), floor_bands(floors, metric)
        for arm in planned_arms(plan).values():
            value = arm_interval(complete, arm.name, metric).mean
            floor = arm_interval(complete, arm.name, floor_metric).mean
            most = bands[arm.name][1] if arm.name in bands else floor
            if value <= most:
                banded = banded or arm.name in bands
                said = "noise up to" if arm.name in bands else "floor"
                items.append(
                    f"{what.label}, {arm.label}: {shown(value, what)} %, {said} {shown(most, what)} %"
                )
    if not items:
        return None
    if len(items) > MOST_FLOORS:
        items = [*items[:MOST_FLOORS], f"and {len(items) - MOST_FLOORS} more, in the tables of arms"]
    if banded:
        return _banner("Calibration errors that cannot be told from calibration", NEAR_FLOOR, items)
    return _banner("Calibration errors at or under their noise floors", UNDER_FLOOR, items)


def _outside_family(plan: Plan) -> Json | None:
    if plan.study.primary in plan.study.comparison_family or not plan.study.baseline:
        return None
    family = ", ".join(plan.study.comparison_family)
    text = (
        f"The family is {family}. The headline is about {plan.study.primary}, whose intervals and tests are "
    )
    text += "therefore not corrected for the number of comparisons."
    return _banner("The primary metric is outside the family", text)
