"""Results folders of tuned studies as a search leaves them, made from seeded synthetic predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    choose: bool = True,
    **facts: Any,
) -> Tuning:
    """Records, predictions and tuning.json of a search whose points are these."""
    folder = tuning_folder(results)
    folder.create()

    def made(trial: Trial) -> Predictions:
        levels = trial.levels
        return guess(trial, strength(levels), scale=scale(levels), stream=stream, images=images)

    points = []
    for number, one in enumerate(asked):
        # A repeated point has seeds of its own.
        repeat = sum(other.levels == one.levels for other in asked[:number])
        first = FIRST_TUNING_SEED + repeat * search.seeds
        seeds = range(first, first + search.seeds)
        fields = resolve(BASE, {**one.levels, "tuning_part": search.tuning_part})
        trials = [build_trial(one.levels, fields, seed, CPU, "tuned") for seed in seeds]
        done = len(trials) if one.done is None else one.done
        for trial in trials[:done]:
            write_trial(folder, trial, "complete", made, epochs=2)
        for trial in trials[done : done + 1] if one.state == "failed" else ():
            write_trial(folder, trial, ("diverged", "the loss is not finite"), made, epochs=2)
        told = {name: value for name, value in vars(one).items() if name != "done"}
        ids = tuple(trial.trial_id for trial in trials)
        points.append(Point(number=number, seeds=tuple(seeds), trial_ids=ids, **told))
    shares = dict.fromkeys(search.space, 1 / len(search.space))
    evaluator = "PedAnovaImportanceEvaluator"
    known = {
        "tuning_images": images, "train_images": 1200,
        "tuning_digest": "ab" * 32, "reported_digest": "cd" * 32,
        "importances": tuple(
            Importances(objective=name, evaluator=evaluator, shares=shares) for name in search.objective
        ),
    }  # fmt: skip
    tuning = Tuning(search=search, points=tuple(points), **{**known, **facts})
    write_tuning(results, tuning)
    if choose:
        tuning = tuning.model_copy(update={"winners": winners_of(points_table(results))})
        write_tuning(results, tuning)
    return tuning


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
