"""What could mislead a reader: warnings that a study or its search calls for, each with its reasons."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ablate.analysis.arms import arm_interval, complete_trials, floor_bands, labels_of, split_sizes
from ablate.analysis.effects import claims, contrast_label
from ablate.analysis.tuning import Tuned
from ablate.metrics import FLOORS
from ablate.report.cells import Json
from ablate.report.pages import texts, titled
from ablate.stats.effect import smallest_sign_flip_p
from ablate.study.comparisons import family_size
from ablate.study.study import ExternalStudy
from ablate.study.trials import Plan
from ablate.tables.files import Tables
from ablate.tables.quantities import one_line, quantity, shown, shown_p

FEW_SEEDS, FEW_SEEDS_A_POINT = 5, 3
MOST_LINES = 6
ALPHA, MOST, WHOLLY_NORMAL = 0.05, 0.6, 3  # of other tests; a seed's part; seeds without spread
MANY_LOST, MANY_PRUNED = 0.1, 0.5  # parts of a search's points, failed and pruned, that are too many
SMALL_SPLIT, SMALL_FOR_CALIBRATION = 500, 1000  # tuning images; where a calibration error is sought
CALIBRATION = {*FLOORS, "ece_scaled", "ece_debiased"}
SMALL_DATA = ("digits", "synthetic")
POOLED = {
    "torch_version": "versions of torch",
    "resolved_precision": "precisions",
    "device": "kinds of device",
    "device_name": "processors or GPUs",
    "commit": "commits of ablate",
}


def banners(tables: Tables, plan: Plan, tuned: Tuned | None = None) -> list[Json]:
    """Every warning that applies, those about a search first, then the gravest."""
    of_search, trials = _of_search(tuned) if tuned else (), tables["trials"]
    of_claims = _of_claims(tables["effects"], plan) if "effects" in tables else ()
    of_metrics = _of_metrics(trials, plan, tables.get("floors"))
    return [*of_search, *_of_split(tables, plan), *_of_trials(trials, plan), *of_claims, *of_metrics]


def _banner(name: str, items: Sequence[str] = (), **values: Any) -> Json:
    more = [f"and {len(items) - MOST_LINES} more, in the tables"] if len(items) > MOST_LINES else []
    return {**titled(texts()[f"caution.{name}"].render(values)), "items": [*items[:MOST_LINES], *more]}


def _of_split(tables: Tables, plan: Plan) -> Iterator[Json]:
    """What so few images, or no arm that learned, leave of an accuracy."""
    what, complete = quantity("accuracy"), complete_trials(tables["trials"])
    images, classes = split_sizes(tables)
    found = [arm_interval(complete, arm, what.name, tables.get("new_images")) for arm in plan.arms]
    lows = [own.low if own.low > -math.inf else own.mean for own in found if own.n]
    if lows and classes and max(lows) <= 1 / classes:
        yield _banner("guessing", guess=shown(1 / classes, what), classes=classes)
    margin = plan.study.all_margins.get(what.name, math.inf)
    if images and 1 / min(images) > margin:
        one = {"one": shown(1 / min(images), what), "margin": shown(margin, what)}
        yield _banner("one_image", images=f"{min(images):,}", **one)


def _of_trials(trials: pd.DataFrame, plan: Plan) -> Iterator[Json]:
    ran, counted, labels = trials[trials["status"] == "complete"], complete_trials(trials), labels_of(plan)
    lost, planned = trials[trials["status"] != "complete"], trials["arm"].value_counts()
    if len(lost):
        items = [
            f"{label}: {len(rows)} of {planned[arm]} without a result ({_reasons(rows)})"
            for arm, label in labels.items()
            if len(rows := lost[lost["arm"] == arm])
        ]
        yield _banner("lost", items, lost=len(lost), trials=len(trials))
    runs = counted["arm"].value_counts().reindex(list(labels), fill_value=0)
    if few := int((runs < FEW_SEEDS).sum()):
        yield _banner("few_seeds", enough=FEW_SEEDS, few=few, arms=len(runs), least=runs.min())
    if isinstance(plan.study, ExternalStudy):
        if plan.study.differing:
            yield _banner("differing", plan.study.differing)
        if plan.study.only:
            yield _banner("no_grid", arms=len(plan.arms))
        return
    if plan.same_code:
        yield _banner("same_code", plan.same_code)
    for name in dict.fromkeys(trial.fields.data for trial in plan.trials):
        if name in SMALL_DATA:
            yield _banner(f"data.{name}")
    for column, what in POOLED.items():
        counts = ran[column].dropna().value_counts().sort_index()
        if len(counts) > 1:
            items = [f"{value}: {number} trials" for value, number in counts.items()]
            kinds = ran.groupby("seed")[column].nunique()
            yield _banner("pooled", items, what=what, mixed=(kinds > 1).sum(), seeds=len(kinds))
    commits = ran["commit"]
    if dirty := int(commits.fillna("").str.endswith("-dirty").sum()):
        yield _banner("uncommitted", count=dirty, complete=len(ran))
    elif unknown := int(commits.isna().sum()):
        yield _banner("unknown_commit", count=unknown, complete=len(ran))


def _reasons(rows: pd.DataFrame) -> str:
    reasons = []
    for status, own in rows.groupby("status", sort=False):
        state = "not run" if status == "missing" else str(status)
        said = list(dict.fromkeys(one_line(text, 120) for text in own["failure"].dropna()))
        more = f"; and {len(said) - 3} other reasons" if len(said) > 3 else ""
        why = f": {'; '.join(said[:3])}{more}" if said else ""
        reasons.append(f"{len(own)} {state}{why}")
    return ", ".join(reasons)


def _of_claims(effects: pd.DataFrame, plan: Plan) -> Iterator[Json]:
    """Decided claims that another test does not bear out, or that one seed or the assumed spread carries."""
    items, size = [], family_size(plan)
    for claim in claims(effects, plan):
        row, word = claim.row, claim.word
        n, flip, welch = int(row["n"]), row["p_sign_flip"], min(size * row["p_welch"], 1.0)
        tested = n > WHOLLY_NORMAL and word != "equivalent"
        doubts = {
            f"{n} seeds": n <= WHOLLY_NORMAL,
            f"sign-flip p {shown_p(flip)}": tested and smallest_sign_flip_p(n) <= ALPHA < flip,
            f"Welch's adjusted p {shown_p(welch)}": tested and welch > ALPHA,
            f"{100 * row['largest_share']:.0f} % of the squares in one seed": tested
            and row["largest_share"] > MOST,
        }
        if word != "undecided" and not row["reason"] and any(doubts.values()):
            why = ", ".join(doubt for doubt, holds in doubts.items() if holds)
            items.append(f"{claim.metric.label}, {contrast_label(claim.term)}, {word}: {why}")
    if items:
        yield _banner("fragile", items, fragile=len(items))


def _of_metrics(trials: pd.DataFrame, plan: Plan, floors: pd.DataFrame | None) -> Iterator[Json]:
    complete, items, banded = complete_trials(trials), list[str](), False
    for metric, floor_metric in FLOORS.items():
        what, bands = quantity(metric), floor_bands(floors, metric)
        for arm, label in labels_of(plan).items():
            value, has_band = arm_interval(complete, arm, metric).mean, arm in bands
            most = bands[arm][1] if has_band else arm_interval(complete, arm, floor_metric).mean
            if value <= most:
                banded = banded or has_band
                said = f"{'noise up to' if has_band else 'floor'} {shown(most, what)} %"
                items.append(f"{what.label}, {label}: {shown(value, what)} %, {said}")
    if items:
        yield _banner("in_the_band" if banded else "under_the_floor", items)
    family, primary = plan.study.comparison_family, plan.study.primary
    if primary not in family and plan.study.baseline:
        yield _banner("outside_family", family=family, primary=primary)


def _of_search(tuned: Tuned) -> Iterator[Json]:
    facts, ended = tuned.facts, tuned.ended
    overlap, images, seeds = facts[["overlap", "tuning_images", "seeds"]]
    failed, pruned = facts[["points_failed", "points_pruned"]]
    if overlap:
        yield _banner("overlap", overlap=overlap, images=f"{images:,}")
    if not tuned.is_spent:
        yield _banner("unspent", ended=ended, planned=facts["points_planned"])
    if failed > MANY_LOST * ended:
        rows = tuned.points[(tuned.points["state"] == "failed") & tuned.points["reason"].notna()]
        items = [f"{row['label']}: {one_line(row['reason'], 120)}" for _, row in rows.iterrows()]
        yield _banner("points_failed", items, failed=failed, ended=ended)
    if pruned > MANY_PRUNED * ended:
        yield _banner("points_pruned", pruned=pruned, ended=ended)
    errors = [what.noun for what in tuned.objectives if what.name in CALIBRATION]
    if 0 < images < (SMALL_FOR_CALIBRATION if errors else SMALL_SPLIT):
        many, one = f"{SMALL_FOR_CALIBRATION:,}", f"{100 / images:.2g}"
        yield _banner("small_split", images=f"{images:,}", one=one, errors=errors, many=many)
    if seeds < FEW_SEEDS_A_POINT:
        yield _banner("seeds_per_point", enough=FEW_SEEDS_A_POINT, seeds=seeds)
