"""What a tuned study searches: ranges of fields, the objective, the budget. `ablate.tuning` does it."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SkipValidation, field_validator, model_validator

from ablate.study.fields import Declaration, Frozen, Levels, Texts, canonical, repeated, several

FIRST_TUNING_SEED = 1_000_000
"""Points are trained with seeds from here on, so that the re-test's seeds are fresh."""
GRID_TOLERANCE = 1e-6
"""Of a step: values off the grid by less are on it."""
MOST_LEVELS = 100_001
LOG_LEVELS = 25
"""Of a range with log that does not say how many: over three decades eight a decade."""
TUNING, DECLARED, RETUNED = "tuning", "as declared", "re-tuned"
"""The factor that a study with `retune` is run with, and its levels."""
Condition = Annotated[dict[str, Any], Field(description="searched only where others have these values")]


class Range(Declaration):
    """Numbers from low to high: every `step` or, with `log`, so many `levels`; integers if these are."""

    low: int | float = Field(description="least value")
    high: int | float = Field(description="largest value, on the grid")
    step: int | float | None = Field(default=None, description="distance of neighbours; not with log")
    log: bool = Field(default=False, description="even in the logarithm: for learning rates and the like")
    levels: int | None = Field(
        default=None, ge=2, le=MOST_LEVELS, description=f"with log, how many values; otherwise {LOG_LEVELS}"
    )
    when: Condition = Field(default={})

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(**dict(zip(Range.model_fields, given, strict=False)), **named)

    @model_validator(mode="before")
    @classmethod
    def _usual_levels(cls, declared: Any) -> Any:
        levels = {"levels": declared.get("levels") or LOG_LEVELS} if declared.get("log") else {}
        return {**declared, **levels}

    def faults(self) -> Iterable[str]:
        """What is wrong with the ends, or with the grid between them."""
        if not -math.inf < self.low < self.high < math.inf:
            came = f"{self.low!r} to {self.high!r} came; a field with one value belongs into the study's base"
            yield f"expected a range with low < high, but {came}"
        elif self.log:
            if self.step is not None or self.low <= 0:
                yield f"low: expected a number above 0 with log, not {self.low!r}, and no step but levels"
        elif self.levels is not None or self.step is None or not 0 < self.step < math.inf:
            yield f"step: expected a distance above 0, but {self.step!r} came; levels are for log alone"
        elif (steps := (self.high - self.low) / self.step) >= MOST_LEVELS:
            yield f"step: {self.step!r} makes more than {MOST_LEVELS:,} values; take a larger one"
        elif abs(steps - round(steps)) > GRID_TOLERANCE:
            grid = f"{self.low!r}, {self.low + self.step!r}, ..."
            yield f"high: {self.high!r} is not on the grid {grid}; move it, or change the step"

    @property
    def is_integer(self) -> bool:
        """Whether the values are integers."""
        return all(isinstance(one, int) for one in (self.low, self.high, self.low if self.log else self.step))

    def nearest(self, value: float) -> int | float:
        """The value of the grid that is nearest to a number within the range."""
        if self.levels is not None:  # with log, as validated
            width = math.log(self.high / self.low) / (self.levels - 1)
            on_grid = self.low * math.exp(round(math.log(value / self.low) / width) * width)
        else:
            step = self.step or 1  # never 0, as validated
            on_grid = self.low + round((value - self.low) / step) * step
        return round(on_grid) if self.is_integer else float(canonical(float(on_grid)))

    def holds(self, value: Any) -> bool:
        """Whether a value is one that the search may come to; with log any number of the range is."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and self.low <= value <= self.high):
            return False
        return self.log or abs(self.nearest(value) - value) <= GRID_TOLERANCE * (self.step or 0)

    def ends(self) -> tuple[Any, ...]:
        """The values to try a field's limits with: both, and one from within."""
        return (self.low, self.high, self.nearest((self.low + self.high) / 2))

    def in_words(self) -> str:
        """The range as a reader writes it."""
        if self.log:
            return f"{self.low:g} to {self.high:g}, {self.levels} values even in the logarithm"
        return f"{self.low:g} to {self.high:g} by {self.step:g}"


class Choice(Declaration):
    """Values without an order, such as architectures. A plain tuple in a search's space is one."""

    of: tuple[Any, ...] = Field(description="the values")
    when: Condition = Field(default={})

    @field_validator("of")
    @classmethod
    def _different(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        values = several(values)
        if len(values) < 2 or repeated(values) or None in values:
            raise ValueError("expected at least two different values, none of them None")
        return values

    def holds(self, value: Any) -> bool:
        """Whether a value is one of these."""
        return value in self.of

    def ends(self) -> tuple[Any, ...]:
        """The values to try a field's limits with: all of them."""
        return self.of

    def in_words(self) -> str:
        """The values as a reader writes them."""
        return ", ".join(map(str, self.of))


def _dimension(values: Any) -> Range | Choice:
    if isinstance(values, (Range, Choice)):
        return values
    if isinstance(values, (tuple, list)):
        return Choice(of=tuple(values))
    if isinstance(values, Mapping):  # as a plan's file holds it
        return (Choice if "of" in values else Range).model_validate(values)
    raise ValueError("expected a Range, or a tuple of values")


Dimension = Annotated[SkipValidation[Range | Choice], BeforeValidator(_dimension)]
"""What one searched field may be."""


class Chosen(Frozen):
    """What the search of one arm came to."""

    arm: Levels = Field(description="the arm's levels")
    levels: Levels = Field(description="searched field to its value at the best point")
    value: float = Field(description="the best point's mean of the objective on the tuning split")
    declared: float | None = Field(description="the same of what the arm was declared with, if complete")
    complete: int = Field(description="how many points of the budget have a result")
    tuning_images: int = Field(description="images that points were judged on")
    overlap: int = Field(description="of these, how many are reported ones too")


class Search(Declaration):
    """What is searched, for what, with which budget. A point is one value for every searched field.

    Its value is its seeds' mean objective on the tuning split. Baseline and anchors are the first points.
    """

    space: dict[str, Dimension] = Field(description="field name to its range, or a tuple of its values")
    objective: Texts = Field(
        default=("accuracy",), description="the metric, or two together; each in the direction that is better"
    )
    anchors: tuple[Levels, ...] = Field(
        default=(), description="points tried first and re-tested with the winner; unnamed fields as in base"
    )
    points: int = Field(ge=1, description="the budget: how many points, anchors and baseline included")
    seeds: int = Field(default=3, ge=1, le=1000, description="training runs per point")
    sampler: Literal["tpe", "gp", "random", "quasi_random", "nsga2"] = Field(
        default="tpe", description="how Optuna chooses points; nsga2 is for two objectives"
    )
    sampler_seed: int = Field(default=0, ge=0, lt=2**31, description="of the sampler's own random numbers")
    pruning: Literal["none", "seeds", "hyperband", "median"] = Field(
        default="none",
        description="seeds: a point that loses on its first seeds (Wilcoxon) gets no more; "
        "hyperband, median: a point whose first seed lags behind while it trains is stopped",
    )
    batch: int = Field(default=2, ge=1, le=1000, description="points asked for and trained at a time")
    tuning_part: float = Field(default=0.125, gt=0, lt=1, description="part of training images to tune on")

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(**dict(zip(Search.model_fields, given, strict=False)), **named)

    def faults(self) -> Iterable[str]:
        """What is wrong with the space, and with what cannot search it."""
        if not self.space:
            yield "space: nothing to search; give at least one field a range"
        for place, (name, dimension) in enumerate(self.space.items()):
            if name in ("tuning_part", "split") or name.partition(".")[0] == "data":
                yield f"space: {name} cannot be searched: it decides which images points are judged on"
            for other, value in dimension.when.items():
                if other not in list(self.space)[:place]:
                    yield f"space: {name}: its condition is about {other}, which must be searched before it"
                elif not self.space[other].holds(value):
                    yield f"space: {name}: its condition asks for {other}={value!r}, which it never is"
        if not 1 <= len(self.objective) <= 2 or len(set(self.objective)) < len(self.objective):
            yield f"objective: expected one metric or two different ones, but {list(self.objective)} came"
        if self.sampler == "nsga2" and len(self.objective) != 2:
            yield "sampler: nsga2 is for two objectives; with one take tpe, gp, random or quasi_random"
        if self.pruning != "none" and len(self.objective) != 1:
            yield f"pruning: {self.pruning} needs one objective; two run unpruned, set pruning='none'"
        if self.pruning == "seeds" and self.seeds < 5:
            yield f"pruning: seeds judges from four seeds on, so a point needs at least 5, not {self.seeds}"
        if self.pruning in ("hyperband", "median") and not set(self.objective) <= {"accuracy", "nll"}:
            yield f"pruning: {self.pruning} knows accuracy and nll while a network trains, nothing else"
        for name, value in itertools.chain(*(anchor.items() for anchor in self.anchors)):
            if name not in self.space:
                yield f"anchors: {name}: is not searched; set it in the study's base"
            elif not self.space[name].holds(value):
                words = self.space[name].in_words()
                yield f"anchors: {name}: {value!r} is not among the values searched ({words})"

    def active(self, levels: Mapping[str, Any]) -> Levels:
        """Of a point's values those whose condition holds, in the space's order."""
        kept: Levels = {}
        for name, dimension in self.space.items():
            if name in levels and all(kept.get(other) == value for other, value in dimension.when.items()):
                kept[name] = canonical(levels[name])
        return kept
