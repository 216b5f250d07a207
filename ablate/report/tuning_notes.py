"""What could mislead in a search, and how it was done."""

from __future__ import annotations

import pandas as pd

from ablate.analysis.tuning import Tuned
from ablate.metrics import FLOORS
from ablate.tables.cells import Json, one_line
from ablate.tables.wording import noun

FEW_SEEDS = 3
MANY_LOST = 0.1
"""Part of the points that ended in failure above which the report warns."""
MANY_PRUNED = 0.5
SMALL_SPLIT = 500
"""Images of a tuning split below which the report warns."""
SMALL_FOR_CALIBRATION = 1000
"""The same where a calibration error is searched for."""
CALIBRATION = {*FLOORS, "ece_scaled", "ece_debiased"}
"""The calibration errors."""
MOST_REASONS = 4


def tuning_banners(tuned: Tuned) -> list[Json]:
    """Every warning about the search that applies, the gravest first."""
    warnings = (_overlap, _unspent, _lost, _pruned, _small_split, _few_seeds)
    found = [warning(tuned) for warning in warnings]
    return [banner for banner in found if banner]


def _banner(title: str, text: str, items: list[str] | None = None) -> Json:
    return {"title": title, "text": text, "items": items or []}


def _overlap(tuned: Tuned) -> Json | None:
    overlap, images = int(tuned.facts["overlap"]), int(tuned.facts["tuning_images"])
    if not overlap:
        return None
    text = (
        f"The exact pixels of {overlap} of {images:,} tuning images stand in the reported split too. So far "
        "the reported numbers are of images that tuning has seen, and a part of its luck may return in them."
    )
    return _banner("The tuning split and the reported split share images", text)


def _unspent(tuned: Tuned) -> Json | None:
    planned = int(tuned.facts["points_planned"])
    if tuned.is_spent:
        return None
    text = (
        f"{tuned.ended} of {planned} planned points have ended. What is chosen may change; the same command "
    )
    return _banner("The search's budget is not spent", text + "goes on.")


def _lost(tuned: Tuned) -> Json | None:
    failed = int(tuned.facts["points_failed"])
    if failed <= MANY_LOST * tuned.ended:
        return None
    text = "A failed point has no value and is never chosen. Where training fails more often in some part of "
    text += "the ranges, that part was hardly searched."
    return _banner(f"{failed} of {tuned.ended} points of the search failed", text, _reasons(tuned, "failed"))


def _reasons(tuned: Tuned, state: str) -> list[str]:
    own = tuned.points[tuned.points["state"] == state]
    lines = [
        f"{label}: {one_line(str(reason), 120)}"
        for label, reason in zip(own["label"], own["reason"], strict=True)
        if not pd.isna(reason)
    ]
    more = (
        [f"and {len(lines) - MOST_REASONS} more, in the table of points"] if len(lines) > MOST_REASONS else []
    )
    return [*lines[:MOST_REASONS], *more]


def _pruned(tuned: Tuned) -> Json | None:
    pruned = int(tuned.facts["points_pruned"])
    if pruned <= MANY_PRUNED * tuned.ended:
        return None
    text = "They were given up on part of their seeds or epochs; the smoothed values rest on the others."
    return _banner(f"{pruned} of {tuned.ended} points of the search were pruned", text)


def _small_split(tuned: Tuned) -> Json | None:
    images = int(tuned.facts["tuning_images"])
    errors = [what for what in tuned.objectives if what.name in CALIBRATION]
    if not 0 < images < (SMALL_FOR_CALIBRATION if errors else SMALL_SPLIT):
        return None
    text = f"It has {images:,} images: one image is {100 / images:.2g} points of accuracy."
    if errors:
        named = " and ".join(map(noun, errors))
        text += f" Of fewer than {SMALL_FOR_CALIBRATION:,} images, {named} is mostly noise."
    return _banner("A small tuning split", text)


def _few_seeds(tuned: Tuned) -> Json | None:
    seeds = int(tuned.facts["seeds"])
    if seeds >= FEW_SEEDS:
        return None
    text = (
        f"There {'is one' if seeds == 1 else f'are {seeds}'}. The noise of a point's value is then hardly "
        "known, and the best of many such values is mostly luck. The re-test tells; more seeds per point "
        "would have chosen better."
    )
    return _banner(f"Fewer than {FEW_SEEDS} training runs per point of the search", text)


def tuning_method(tuned: Tuned) -> Json:
    """How the search was done, in a paragraph."""
    search = tuned.search
    named = " and ".join(map(noun, tuned.objectives))
    runs = f"{search.seeds} training run{'' if search.seeds == 1 else 's'}"
    return {
        "title": "Tuning",
        "text": (
            f"A point is one value for every searched field, trained in {runs}. A tuning split, "
            f"{search.tuning_part:.3g} of the training images, is held back by class and file name; a "
            f"point's value is the mean of {named} on it after the last epoch. The reported split "
            "is not looked at. The baseline and the anchors come first; Optuna's sampler, told these values, "
            f"asks for the others. {_smoothing(len(tuned.objectives))} What is chosen, the baseline and the "
            "anchors are then trained again on all training images with seeds that no point had, and judged "
            "on the reported split like any study: these numbers, not those of the search, are the result. "
            "What does not show again of the advantage seen while tuning was luck of the search, belongs to "
            "its smaller training set and its other images, or is the noise of the fresh seeds. Levels that "
            "were asked for more than once are judged by all their runs."
        ),
    }


def _smoothing(objectives: int) -> str:
    if objectives == 1:
        choice = "the complete point with the best smoothed value is chosen, of equal ones the first"
    else:
        choice = (
            "of the complete points that no other beats in both smoothed values, those two are chosen that "
            "together dominate the largest area"
        )
    return (
        "Values are smoothed over neighbouring points by a Gaussian process, so that what a lucky seed gave "
        f"one point alone counts little: {choice}. The smoothed value is not free of that luck either."
    )
