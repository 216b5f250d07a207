"""Results folders of tuned studies as a search leaves them, made from seeded synthetic predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from report_results import BASE, CPU, declare, number_of, write_trial

from ablate.store.points import Importances, Point, Source, State, Tuning, tuning_folder, write_tuning
from ablate.store.records import Predictions
from ablate.store.results import ResultsFolder
from ablate.study.fields import resolve
from ablate.study.search import FIRST_TUNING_SEED, Levels, Range, Search
from ablate.study.study import Study
from ablate.study.trials import Trial, build_trial
from ablate.tables import points_table, winners_of

Strength = Callable[[Levels], float]
"""How far the right class's logit stands out at a point; the accuracy follows from it."""
Stream = Callable[[Trial], Sequence[int]]
"""What a trial's random numbers follow from."""


def of_trial(trial: Trial) -> Sequence[int]:
    return [number_of(trial)]


@dataclass(frozen=True)
class Asked:
    """A point to be made: its levels, what becomes of it, and how many of its seeds get that far."""

    levels: Levels
    source: Source = "sampler"
    state: State = "complete"
    reason: str = ""
    pruned_at: int | None = None
    done: int | None = None
    intermediate: dict[int, float] = field(default_factory=dict)


def guess(
    trial: Trial, strength: float, *, images: int = 240, scale: float = 1.0, stream: Stream = of_trial
) -> Predictions:
    """Logits of ten classes; the more `strength`, the more of them are right."""
    labels = np.arange(images) % 10
    rng = np.random.default_rng([*stream(trial), images])
    logits = rng.normal(size=(images, 10)) + strength * np.eye(10)[labels]
    return Predictions((scale * logits).astype(np.float32), labels)


def write_search(
    results: ResultsFolder,
    search: Search,
    asked: Sequence[Asked],
    *,
    strength: Strength,
    scale: Strength = lambda levels: 1.0,
    stream: Stream = of_trial,
    images: int = 240,
    base: Mapping[str, Any] = BASE,
    choose: bool = True,
    **facts: Any,
) -> Tuning:
    """Records, predictions and tuning.json of a search whose points are these."""
    folder = tuning_folder(results)
    folder.create()

    def made(trial: Trial) -> Predictions:
        levels = trial.levels
        return guess(trial, strength(levels), scale=scale(levels), stream=stream, images=images)

    # A repeated point has seeds of its own.
    repeats = [sum(other.levels == one.levels for other in asked[:place]) for place, one in enumerate(asked)]
    points = tuple(
        _write_point(folder, search, number, repeat, one, base, made)
        for number, (one, repeat) in enumerate(zip(asked, repeats, strict=True))
    )
    known: dict[str, Any] = {"tuning_images": images, "train_images": 1200}
    known |= {"tuning_digest": "ab" * 32, "reported_digest": "cd" * 32}
    shares = {name: 1 / len(search.space) for name in search.space}
    importances = tuple(
        Importances(objective=name, evaluator="PedAnovaImportanceEvaluator", shares=shares)
        for name in search.objective
    )
    tuning = Tuning(search=search, points=points, importances=importances, **{**known, **facts})
    write_tuning(results, tuning)
    if choose:
        tuning = tuning.model_copy(update={"winners": winners_of(points_table(results))})
        write_tuning(results, tuning)
    return tuning


def _write_point(
    folder: ResultsFolder,
    search: Search,
    number: int,
    repeat: int,
    asked: Asked,
    base: Mapping[str, Any],
    made: Callable[[Trial], Predictions],
) -> Point:
    fields = resolve(base, {**asked.levels, "tuning_part": search.tuning_part})
    start = FIRST_TUNING_SEED + repeat * search.seeds
    seeds = range(start, start + search.seeds)
    trials = [build_trial(asked.levels, fields, seed, CPU, "tuned") for seed in seeds]
    done = len(trials) if asked.done is None else asked.done
    for place, trial in enumerate(trials):
        if place < done:
            write_trial(folder, trial, "complete", made, epochs=2)
        elif place == done and asked.state == "failed":
            write_trial(folder, trial, ("diverged", "the loss is not finite"), made, epochs=2)
    told = {
        name: getattr(asked, name)
        for name in ("levels", "source", "state", "reason", "pruned_at", "intermediate")
    }
    ids = tuple(trial.trial_id for trial in trials)
    return Point(number=number, seeds=tuple(seeds), trial_ids=ids, **told)


def retest_study(search: Search, arms: Sequence[Levels], *, seeds: int = 5, **declared: Any) -> Study:
    """The study that judges these arms, the first of which is the baseline, as `ablate.tuning` makes it."""
    factors = {name: tuple(dict.fromkeys(arm[name] for arm in arms)) for name in search.space}
    return declare(
        factors=factors,
        only=tuple(arms),
        baseline=arms[0],
        search=search,
        primary=search.objective[0],
        family=search.objective,
        seeds=seeds,
        **declared,
    )


def hump(levels: Levels) -> float:
    """Best at an epsilon of 0.12, as far as accuracy goes."""
    return 2.4 - 8 * (float(levels["epsilon"]) - 0.12) ** 2


EPSILON = Search(
    space={"epsilon": Range(low=0.0, high=0.5, step=0.005)},
    anchors=({"epsilon": 0.1},),
    points=14,
    seeds=5,
    pruning="seeds",
)


def epsilon_points() -> list[Asked]:
    """Baseline, anchor, ten points of a sampler, of which one is pruned, and one that fails."""
    drawn = (0.5, 0.25, 0.135, 0.16, 0.37, 0.04, 0.12, 0.2, 0.105)
    return [
        Asked({"epsilon": 0.0}, "baseline"),
        Asked({"epsilon": 0.1}, "anchor"),
        *(Asked({"epsilon": value}) for value in drawn),
        Asked({"epsilon": 0.45}, state="pruned", reason="Worse than point 4.", pruned_at=4, done=4),
        Asked({"epsilon": 0.3}, state="failed", reason="seed 1000001: diverged: not finite", done=1),
        Asked({"epsilon": 0.135}),
    ]
