"""What a search is settled to before anything trains: its first points, and what its re-test will be."""

from __future__ import annotations

from collections.abc import Sequence

from ablate.data import overlap, split_digest
from ablate.errors import ResultsError, StudyError
from ablate.execution.driver import Options, Settled, Watcher, ready_inputs, settle
from ablate.execution.prepare import Inputs
from ablate.metrics import METRICS
from ablate.store.points import Tuning
from ablate.study.fields import Fields, unknown_name
from ablate.study.search import FIRST_TUNING_SEED, Choice, Levels, Search
from ablate.study.study import Study
from ablate.study.trials import arm_name


def search_of(study: Study) -> Search:
    """The search of a study that has one, for metrics that have a better direction."""
    if study.search is None:
        raise StudyError(
            f"{study.name}: expected a study with a search, but it has none; add search=Search(...) to it, "
            "or use `python -m ablate run`"
        )
    for name in study.search.objective:
        if name not in METRICS:
            raise StudyError(f"objective: {unknown_name('metric', name, METRICS)}")
        if METRICS[name].higher_is_better is None:
            raise StudyError(
                f"objective: {name} has no better direction; take one that has, as accuracy or ece"
            )
    return study.search


def first_points(study: Study) -> list[Levels]:
    """The baseline, then the anchors, each complete, on the grid and once.

    With log, a value between the grid's stays: a baseline is what it is.
    """
    search = search_of(study)
    base = study.fields({}).model_dump()
    baseline = {name: study.baseline.get(name, base[name]) for name in search.space}
    for name, value in search.active(baseline).items():
        if not search.space[name].holds(value):
            raise StudyError(
                f"the baseline's {name}={value!r} is not among the values searched "
                f"({search.space[name].in_words()}): "
                f"set baseline={{{name!r}: ...}} to a value of it, or take that value into the range"
            )
    points = [search.active(baseline), *(search.active({**baseline, **anchor}) for anchor in search.anchors)]
    for anchor, point in zip(search.anchors, points[1:], strict=True):
        for name in anchor.keys() - point.keys():
            needs = ", ".join(f"{other}={value!r}" for other, value in search.space[name].when.items())
            raise StudyError(f"anchors: {anchor}: {name} is searched only with {needs}; name that in it too")
    for point in points:
        for name, level in point.items():
            dimension = search.space[name]
            if isinstance(dimension, Choice):
                point[name] = dimension.of[dimension.of.index(level)]
            elif not dimension.log:
                point[name] = dimension.nearest(level)
    points = [point for index, point in enumerate(points) if point not in points[:index]]
    if len(points) > search.points:
        raise StudyError(
            f"points: baseline and anchors alone are {len(points)}, but the budget is {search.points}; raise "
            "it, or take anchors away"
        )
    return points


def prepare_search(settled: Settled, options: Options, watcher: Watcher) -> tuple[Inputs, Tuning]:
    """What points are trained from, and the search of which nothing was run yet, with what it is judged on.

    Checked is all that the search may come to: points that have every value of every choice, and both ends
    of every range.
    """
    study, first = settled.study, first_points(settled.study)
    search = search_of(study)
    ends = [{**first[0], name: value} for name, found in search.space.items() for value in found.ends()]
    tried = [*first, *(search.active(point) for point in ends)]
    arms = [point_fields(study, levels) for levels in tried] + [study.fields(levels) for levels in tried]
    inputs = ready_inputs(settled, arms, options, watcher)
    seen: dict[str, Levels] = {}
    for levels in tried:
        trial_id = inputs.trial(levels, point_fields(study, levels), FIRST_TUNING_SEED).trial_id
        if seen.setdefault(trial_id, levels) != levels:
            raise StudyError(
                f"space: {arm_name(seen[trial_id])} and {arm_name(levels)} train the same network; leave "
                "out what changes nothing"
            )
    held, reported = (
        inputs.dataset(point_fields(study, first[0])),
        inputs.dataset(study.fields(first[0])).valid,
    )
    return inputs, Tuning(
        search=search,
        tuning_images=len(held.valid),
        train_images=len(held.train),
        tuning_digest=split_digest(held.valid),
        reported_digest=split_digest(reported),
        overlap=overlap(held.valid, reported),
    )


def point_fields(study: Study, levels: Levels) -> Fields:
    """The fields that a point is trained with: on what the tuning split leaves."""
    return study.fields({**levels, "tuning_part": search_of(study).tuning_part})


def check_same(known: Tuning, study: Study, inputs: Inputs, where: str) -> None:
    """Refuse to go on with another search (ResultsError); only the budget may be another."""
    first = first_points(study)
    was, now = _words(known.search), _words(search_of(study))
    changed = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    begun = [point.levels for point in known.points if point.source != "sampler"]
    if not changed and begun != first[: len(begun)]:
        changed = [f"baseline and anchors were {begun}, now {first}"]
    named = [point for point in known.points if point.trial_ids]  # one just asked for has no trials yet
    if not changed and named:
        fields = point_fields(study, named[0].levels)
        trial = inputs.trial(named[0].levels, fields, named[0].seeds[0])
        if trial.trial_id != named[0].trial_ids[0]:
            changed = [
                "what a point trains (its fields, data, arithmetic or the version of the training) differs"
            ]
    if changed:
        raise ResultsError(
            f"{where}: holds the points of another search: {'; '.join(changed)}. Points of two searches "
            "cannot be pooled: give the study another name, or --results another folder, or put that one away"
        )


def _words(search: Search) -> dict[str, str]:
    """The parts of a search that make it another one, as a reader compares them."""
    space = "; ".join(
        f"{name}: {dimension.in_words()}{f' when {dimension.when}' if dimension.when else ''}"
        for name, dimension in search.space.items()
    )
    parts = search.model_dump(exclude={"points", "batch", "space"})  # the first two may be given differently
    return {"space": space, **{name: str(value) for name, value in parts.items()}}


def budget_in_words(study: Study, options: Options) -> str:
    """What tuning a study trains: the search's points, then the re-test."""
    settled = settle(study, options)
    search, seeds = search_of(settled.study), len(settled.study.seed_list())
    arms = len(first_points(settled.study)) + len(search.objective)
    space = "; ".join(f"{name}: {dimension.in_words()}" for name, dimension in search.space.items())
    return (
        f"{settled.study.name}: {settled.reason}\n"
        f"searched: {space}\n"
        f"{search.points} points x {search.seeds} seeds = up to {search.points * search.seeds} trainings, "
        f"judged on {search.tuning_part:.1%} of the training images\n"
        f"then a re-test of up to {arms} arms x {seeds} fresh seeds = {arms * seeds} trainings, "
        "judged on the reported images"
    )


def retest_study(study: Study, winners: Sequence[Levels]) -> Study:
    """The study that judges winners: baseline, anchors and winners, fresh seeds, all training images."""
    search, first = search_of(study), first_points(study)
    base = study.fields({}).model_dump()
    chosen = [*first, *(winner for winner in winners if winner not in first)]
    arms = [{name: base[name] for name in search.space} | point for point in chosen]
    return study.replace(
        factors={name: tuple(dict.fromkeys(arm[name] for arm in arms)) for name in search.space},
        only=tuple(arms),
        baseline=arms[0],
        primary=search.objective[0],
        family=tuple(dict.fromkeys((*search.objective, *study.family))),
    )
