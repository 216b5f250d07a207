"""The points of a search: what was asked for, with which seeds, and what became of it.

`tuning/tuning.json` beside a study's results holds them; each is written before it is trained, so that a
stopped search goes on with the same points. Their values are not here: they follow from the records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ablate.errors import RecordError
from ablate.store.results import TUNING_FILE, ResultsFolder, write_atomically
from ablate.study.search import Levels, Search

Source = Literal["baseline", "anchor", "sampler"]
State = Literal["running", "complete", "pruned", "failed"]


class Point(BaseModel):
    """One point, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(description="0, 1, ... in the order they were asked for")
    levels: Levels = Field(description="searched field to value; a field whose condition fails is left out")
    source: Source = Field(description="where it came from")
    seeds: tuple[int, ...] = Field(
        description="a training run each; shared by points, fresh for a repeated one"
    )
    trial_ids: tuple[str, ...] = Field(description="the seeds' trials")
    state: State = Field(default="running", description="running is also what a stopped search leaves")
    reason: str = Field(default="", description="why it was pruned or failed")
    pruned_at: int | None = Field(
        default=None, description="after so many seeds, or epochs, as the rule counts"
    )
    intermediate: dict[int, float] = Field(
        default_factory=dict, description="what the pruner was told: seed or epoch to value"
    )
    attributes: dict[str, Any] = Field(default_factory=dict, description="what the sampler keeps with it")


class Importances(BaseModel):
    """How much each field decides whether a point is among the best."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: str
    evaluator: str = Field(description="Optuna's name of the method")
    shares: dict[str, float] = Field(description="field to its share; they sum to 1")


class Tuning(BaseModel):
    """A search as far as it is: its declaration and every point asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: Search
    points: tuple[Point, ...] = ()
    attributes: dict[str, Any] = Field(
        default_factory=dict, description="what the sampler keeps of the search"
    )
    importances: tuple[Importances, ...] = ()
    winners: tuple[int, ...] = Field(
        default=(), description="numbers of the points chosen to be re-tested, once the budget is spent"
    )
    retested: tuple[int, ...] = Field(
        default=(), description="winners of a smaller budget, which the re-test keeps, so that it counts them"
    )
    tuning_images: int = Field(default=0, description="images that points were judged on")
    train_images: int = Field(default=0, description="images that points were trained on")
    tuning_digest: str = Field(default="", description="of the tuning split's images and labels")
    reported_digest: str = Field(default="", description="of the reported split's")
    overlap: int = Field(
        default=0, description="tuning images whose exact pixels the reported split holds too"
    )

    @property
    def is_spent(self) -> bool:
        """Whether the whole budget is asked for and ended."""
        ended = sum(point.state != "running" for point in self.points)
        return ended >= self.search.points and ended == len(self.points)


def tuning_path(results: ResultsFolder) -> Path:
    """The file of a study's search."""
    return results.root / TUNING_FILE


def tuning_folder(results: ResultsFolder) -> ResultsFolder:
    """Where the records of a study's points are, apart from those of its re-test."""
    return ResultsFolder(tuning_path(results).parent)


def write_tuning(results: ResultsFolder, tuning: Tuning) -> None:
    """Store the search as far as it is."""
    write_atomically(tuning_path(results), (tuning.model_dump_json(indent=1) + "\n").encode())


def read_tuning(results: ResultsFolder) -> Tuning | None:
    """The search of a study's results; None where nothing was tuned.

    Raises:
        RecordError: the file is damaged.
    """
    path = tuning_path(results)
    try:
        return Tuning.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RecordError(
            f"{path}: damaged ({error.error_count()} faults); its trials' records stand beside it, but which "
            "points they belong to is lost: tune again under another --results"
        ) from None
