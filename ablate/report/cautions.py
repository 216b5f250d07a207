"""What could mislead a reader: warnings that a study or its search calls for, each with its reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from ablate.analysis.arms import FLOOR, arm_interval, complete_trials, labels_of, planned_arms
from ablate.analysis.floors import floor_bands
from ablate.analysis.tuning import Tuned
from ablate.metrics import FLOORS
from ablate.study.trials import Plan
from ablate.tables.cells import Json, one_line
from ablate.tables.quantities import quantity, shown
from ablate.tables.wording import noun

FEW_SEEDS, FEW_SEEDS_A_POINT = 5, 3
MOST_LINES = 6
MANY_LOST, MANY_PRUNED = 0.1, 0.5
"""Parts of a search's points, failed and pruned, above which the report warns."""
SMALL_SPLIT, SMALL_FOR_CALIBRATION = 500, 1000
"""Images of a tuning split below which the report warns; where a calibration error is searched for."""
CALIBRATION = {*FLOORS, "ece_scaled", "ece_debiased"}
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


def banners(
    trials: pd.DataFrame, plan: Plan, floors: pd.DataFrame | None = None, tuned: Tuned | None = None
) -> list[Json]:
    """Every warning that applies, those about a search first, then the gravest.

    Args:
        trials: the trials table.
        plan: the study's plan.
        floors: the table of noise floors' bands, where there is one.
        tuned: the search, where there was one.
    """
    return [
        *(_of_search(tuned) if tuned else ()),
        *_without_result(trials, plan),
        *_small_data(plan),
        *_few_seeds(trials, plan),
        *_pooled(trials),
        *_commit(trials),
        *_near_floor(trials, plan, floors),
        *_outside_family(plan),
    ]


def _banner(title: str, text: str, items: Sequence[str] = ()) -> Json:
    more = [f"and {len(items) - MOST_LINES} more, in the tables"] if len(items) > MOST_LINES else []
    return {"title": title, "text": text, "items": [*items[:MOST_LINES], *more]}


def _without_result(trials: pd.DataFrame, plan: Plan) -> Iterator[Json]:
    lost, planned = trials[trials["status"] != "complete"], trials["arm"].value_counts()
    items = [
        f"{label}: {len(rows)} of {planned[arm]} without a result ({_reasons(rows)})"
        for arm, label in labels_of(plan).items()
        if len(rows := lost[lost["arm"] == arm])
    ]
    if items:
        yield _banner(
            f"{len(lost)} of {len(trials)} trials have no result",
            "Means and comparisons rest on the trials that are complete. Were it chance which ones are "
            "not, that would only cost precision; a level that makes training fail is itself a finding.",
            items,
        )


def _reasons(rows: pd.DataFrame) -> str:
    reasons = []
    for status in map(str, rows["status"].unique()):
        own = rows[rows["status"] == status]
        said = list(dict.fromkeys(one_line(text, 120) for text in own["failure"].dropna()))
        more = f"; and {len(said) - 3} other reasons" if len(said) > 3 else ""
        why = f": {'; '.join(said[:3])}{more}" if said else ""
        reasons.append(f"{len(own)} {'not run' if status == 'missing' else status}{why}")
    return ", ".join(reasons)


def _small_data(plan: Plan) -> Iterator[Json]:
    for name in dict.fromkeys(trial.fields.data for trial in plan.trials):
        if name in SMALL_DATA:
            yield _banner("A small stand-in for the full study", SMALL_DATA[name])


def _few_seeds(trials: pd.DataFrame, plan: Plan) -> Iterator[Json]:
    complete = complete_trials(trials)
    runs = [int((complete["arm"] == arm).sum()) for arm in planned_arms(plan)]
    few = sum(count < FEW_SEEDS for count in runs)
    if few:
        yield _banner(
            f"Fewer than {FEW_SEEDS} training runs in {'every arm' if few == len(runs) else f'{few} arms'}",
            f"The smallest arm has {min(runs)}. With so few, intervals are wide and only large differences "
            "can be shown; with one there is no interval at all. More seeds add runs and repeat none.",
        )


def _pooled(trials: pd.DataFrame) -> Iterator[Json]:
    ran = trials[trials["status"] == "complete"]
    for column, words in POOLED.items():
        counts = ran[column].dropna().value_counts().sort_index()
        if len(counts) > 1:
            items = [f"{value}: {count} trials" for value, count in counts.items()]
            text = "A difference between arms may come from this instead of from the factors."
            yield _banner(f"Several {words} are pooled", text, items)


def _commit(trials: pd.DataFrame) -> Iterator[Json]:
    commits = trials.loc[trials["status"] == "complete", "commit"]
    dirty, unknown = int(commits.fillna("").str.endswith("-dirty").sum()), int(commits.isna().sum())
    if dirty:
        text = f"{dirty} of {len(commits)} complete trials ran with changes that no commit holds."
        yield _banner("Uncommitted code", f"{text} Nobody else can run that code.")
    elif unknown:
        text = f"{unknown} of {len(commits)} complete trials ran outside a git checkout."
        yield _banner("The commit is not known", text)


def _near_floor(trials: pd.DataFrame, plan: Plan, floors: pd.DataFrame | None) -> Iterator[Json]:
    complete, items, banded = complete_trials(trials), list[str](), False
    for metric, floor_metric in FLOOR.items():
        what, bands = quantity(metric), floor_bands(floors, metric)
        for arm in planned_arms(plan).values():
            value = arm_interval(complete, arm.name, metric).mean
            has_band = arm.name in bands
            most = bands[arm.name][1] if has_band else arm_interval(complete, arm.name, floor_metric).mean
            if value <= most:
                banded = banded or has_band
                said = "noise up to" if has_band else "floor"
                items.append(
                    f"{what.label}, {arm.label}: {shown(value, what)} %, {said} {shown(most, what)} %"
                )
    if banded:
        yield _banner("Calibration errors that cannot be told from calibration", NEAR_FLOOR, items)
    elif items:
        yield _banner("Calibration errors at or under their noise floors", UNDER_FLOOR, items)


def _outside_family(plan: Plan) -> Iterator[Json]:
    family = plan.study.comparison_family
    if plan.study.primary not in family and plan.study.baseline:
        yield _banner(
            "The primary metric is outside the family",
            f"The family is {', '.join(family)}. The headline is about {plan.study.primary}, whose "
            "intervals and tests are therefore not corrected for the number of comparisons.",
        )


def _of_search(tuned: Tuned) -> Iterator[Json]:
    facts, ended = tuned.facts, tuned.ended
    overlap, images, seeds = (int(facts[name]) for name in ("overlap", "tuning_images", "seeds"))
    failed, pruned = (int(facts[f"points_{state}"]) for state in ("failed", "pruned"))
    if overlap:
        yield _banner(
            "The tuning split and the reported split share images",
            f"The exact pixels of {overlap} of {images:,} tuning images stand in the reported split too. So "
            "far the reported numbers are of images that tuning has seen, and a part of its luck may "
            "return in them.",
        )
    if not tuned.is_spent:
        yield _banner(
            "The search's budget is not spent",
            f"{ended} of {int(facts['points_planned'])} planned points have ended. What is chosen may "
            "change; the same command goes on.",
        )
    if failed > MANY_LOST * ended:
        rows = tuned.points[(tuned.points["state"] == "failed") & tuned.points["reason"].notna()]
        yield _banner(
            f"{failed} of {ended} points of the search failed",
            "A failed point has no value and is never chosen. Where training fails more often in some part "
            "of the ranges, that part was hardly searched.",
            [f"{row['label']}: {one_line(str(row['reason']), 120)}" for _, row in rows.iterrows()],
        )
    if pruned > MANY_PRUNED * ended:
        yield _banner(
            f"{pruned} of {ended} points of the search were pruned",
            "They were given up on part of their seeds or epochs; the smoothed values rest on the others.",
        )
    errors = [noun(what) for what in tuned.objectives if what.name in CALIBRATION]
    if 0 < images < (SMALL_FOR_CALIBRATION if errors else SMALL_SPLIT):
        noise = f" Of fewer than {SMALL_FOR_CALIBRATION:,} images, {' and '.join(errors)} is mostly noise."
        yield _banner(
            "A small tuning split",
            f"It has {images:,} images: one image is {100 / images:.2g} points of "
            f"accuracy.{noise if errors else ''}",
        )
    if seeds < FEW_SEEDS_A_POINT:
        yield _banner(
            f"Fewer than {FEW_SEEDS_A_POINT} training runs per point of the search",
            f"There {'is one' if seeds == 1 else f'are {seeds}'}. The noise of a point's value is then "
            "hardly known, and the best of many such values is mostly luck. The re-test tells; more seeds "
            "per point would have chosen better.",
        )
