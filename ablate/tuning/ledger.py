"""Who says which points there are: on one machine, the search's own file and Optuna's study in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ablate.store.points import Point, Source, Tuning, write_tuning
from ablate.store.results import ResultsFolder
from ablate.study.search import FIRST_TUNING_SEED, Levels
from ablate.tables import objective_values
from ablate.tuning.sampler import Sampler
from ablate.tuning.settle import directions

Values = tuple[float, ...]


class Ledger(Protocol):
    """The points of a search as a loop needs them. `tuning` is all that is known of them."""

    tuning: Tuning
    sampler: Sampler

    def mine(self) -> Sequence[Point]:
        """Running points that this process is to go on with."""

    def begin(self) -> Sequence[Point]:
        """The next points to train, stored before any of them is; none where the budget is given out."""

    def keep(self, point: Point) -> None:
        """Store a change of a running point."""

    def recorded(self, point: Point) -> None:
        """A training run of a running point is recorded."""

    def end(self, point: Point, values: Values) -> None:
        """Store a point that is over, with its values where it is complete."""

    def is_over(self) -> bool:
        """Whether no point is left, here or elsewhere. May wait a little for others."""


class OwnLedger:
    """The points of a search that this process alone works on.

    Args:
        results: the study's results.
        tuning: the search as far as it is.
        first: the baseline and the anchors.
        name: of the study, for optuna-dashboard.
    """

    def __init__(self, results: ResultsFolder, tuning: Tuning, first: Sequence[Levels], name: str) -> None:
        self.results, self.tuning, self._first = results, tuning, first
        self.sampler = restored_sampler(results, tuning, name)
        write_tuning(results, tuning)

    def mine(self) -> Sequence[Point]:
        """All points that a stopped search left."""
        return [point for point in self.tuning.points if point.state == "running"]

    def begin(self) -> Sequence[Point]:
        """The next batch."""
        begun, asked = len(self.tuning.points), self.tuning
        for _ in range(begun, min(begun + asked.search.batch, asked.search.points)):
            point = asked_point(asked, self.sampler, self._first)
            asked = asked.model_copy(update={"points": (*asked.points, point)})
        if len(asked.points) > begun:
            self._store(asked.points)  # at once, so that a batch is never asked for in parts
        return self.tuning.points[begun:]

    def keep(self, point: Point) -> None:
        """Store a change of a running point."""
        self._store(with_point(self.tuning, point).points)

    def recorded(self, point: Point) -> None:
        """The record itself is all that is needed."""

    def end(self, point: Point, values: Values) -> None:
        """Tell the sampler, and store the point."""
        self.sampler.tell(point.number, point.state, values)
        self.keep(point.model_copy(update={"attributes": self.sampler.attributes_of(point.number)}))

    def is_over(self) -> bool:
        """Nobody else works on it."""
        return True

    def _store(self, points: Sequence[Point]) -> None:
        changes = {"points": tuple(points), "attributes": self.sampler.attributes}
        self.tuning = self.tuning.model_copy(update=changes)
        write_tuning(self.results, self.tuning)


def restored_sampler(results: ResultsFolder, tuning: Tuning, name: str) -> Sampler:
    """A sampler that was told all of a search's points."""
    sampler = Sampler(tuning.search, higher_is_better=directions(tuning.search), name=name)
    sampler.restore(tuning, point_means(results, tuning))
    return sampler


def point_means(results: ResultsFolder, tuning: Tuning) -> dict[int, Values]:
    """The mean over seeds of every objective, for each complete point."""
    complete = [point for point in tuning.points if point.state == "complete"]
    found = {point.number: objective_values(results, point, tuning.search.objective) for point in complete}
    return {number: means_of(values) for number, values in found.items()}


def means_of(values: Mapping[int, Values]) -> Values:
    """The mean over seeds of every objective."""
    return tuple(sum(column) / len(column) for column in zip(*values.values(), strict=True))


def asked_point(tuning: Tuning, sampler: Sampler, first: Sequence[Levels]) -> Point:
    """The next point: of the baseline and the anchors, then of the sampler."""
    number = len(tuning.points)
    levels, attributes = sampler.ask(number, first[number] if number < len(first) else None)
    source: Source = "sampler" if number >= len(first) else "anchor" if number else "baseline"
    seeds = fresh_seeds(tuning, levels)
    return Point(
        number=number, levels=levels, source=source, seeds=seeds, trial_ids=(), attributes=attributes
    )


def fresh_seeds(tuning: Tuning, levels: Levels) -> tuple[int, ...]:
    """The seeds that all points share; for a point that repeats another, seeds that it has not had."""
    before = sum(point.levels == levels for point in tuning.points)
    start = FIRST_TUNING_SEED + before * tuning.search.seeds
    return tuple(range(start, start + tuning.search.seeds))


def with_point(tuning: Tuning, point: Point) -> Tuning:
    """The search with one of its points changed."""
    points = list(tuning.points)
    points[point.number] = point
    return tuning.model_copy(update={"points": tuple(points)})
