"""The points of a search; Optuna's database holds them, and `tuning/tuning.json` a copy for readers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ablate.store.results import ResultsFolder, read_sealed
from ablate.study.fields import Frozen, Levels
from ablate.study.search import Search
from ablate.study.trials import TrialId

Source = Literal["baseline", "anchor", "sampler"]
State = Literal["running", "complete", "pruned", "failed"]


class Point(Frozen):
    """One point, and what became of it."""

    number: int = Field(description="0, 1, ... in the order they were asked for")
    levels: Levels = Field(description="searched field to value; a field whose condition fails is left out")
    source: Source = Field(description="baseline, anchor or sampler")
    seeds: tuple[int, ...] = Field(description="a training run each; fresh ones where a point is repeated")
    trial_ids: tuple[TrialId, ...] = Field(default=(), description="the seeds' trials; () until it is begun")
    state: State = Field(default="running", description="running (or stopped), complete, pruned or failed")
    reason: str = Field(default="", description="why it was pruned or failed")
    pruned_at: int | None = Field(default=None, description="after so many seeds or epochs, by the rule")
    intermediate: dict[int, float] = Field(default={}, description="its value at a seed or epoch")
    attributes: dict[str, Any] = Field(default={}, description="what Optuna keeps with it")


class Importances(Frozen):
    """How much each field decides whether a point is among the best."""

    objective: str = Field(description="the metric that was searched for")
    evaluator: str = Field(description="Optuna's name of the method")
    shares: dict[str, float] = Field(description="field to its share; they sum to 1")


class Tuning(Frozen, extra="ignore"):  # older files hold attributes of Optuna's study
    """A search as far as it is: its declaration and every point asked for."""

    search: Search
    points: tuple[Point, ...] = ()
    importances: tuple[Importances, ...] = ()
    winners: tuple[int, ...] = Field(default=(), description="points to re-test, once the budget is spent")
    retested: tuple[int, ...] = Field(default=(), description="winners of a smaller budget, re-tested too")
    tuning_images: int = Field(default=0, description="images that points were judged on, held back")
    train_images: int = Field(default=0, description="images that points were trained on")
    tuning_digest: str = Field(default="", description="digest of the tuning split's images and labels")
    reported_digest: str = Field(default="", description="digest of the reported split's")
    overlap: int = Field(default=0, description="tuning images that are, pixel by pixel, reported ones too")

    @model_validator(mode="after")
    def _agrees(self) -> Tuning:
        if not {*self.winners, *self.retested} <= {point.number for point in self.points}:
            raise ValueError("winners: expected numbers of its points")
        return self

    @property
    def running(self) -> list[Point]:
        """Points that were asked for and have not ended."""
        return [point for point in self.points if point.state == "running"]

    @property
    def is_spent(self) -> bool:
        """Whether the whole budget is asked for and ended."""
        return len(self.points) >= self.search.points and not self.running


def tuning_folder(results: ResultsFolder) -> ResultsFolder:
    """Where the records of a study's points are, apart from those of its re-test."""
    return ResultsFolder(results.tuning.parent)


def read_tuning(results: ResultsFolder) -> Tuning | None:
    """The search of a study's results; None where nothing was tuned. A damaged file is a `RecordError`."""
    remedy = "remove it, and the same `python -m ablate tune` writes it again from the search's database"
    return read_sealed(Tuning, results.tuning, remedy)
