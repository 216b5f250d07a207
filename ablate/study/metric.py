"""A metric of a study's own: a function of predictions, or a number that trials report themselves."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ablate.plugins import explained, load_foreign
from ablate.study.fields import Declaration, canonical


class Metric(Declaration):
    """A metric of a study, as `Metric("my_metrics:worst_class", better="higher")`, of saved predictions."""

    code: Annotated[str, BeforeValidator(canonical)] = Field(
        default="",
        description="a function of logits [N, K] (float64) and labels [N] (int64) that gives a number, or "
        "its import path; without one, trials report the number under the metric's name",
    )
    better: Literal["higher", "lower", "neither"] = Field(description="which direction is")
    unit: str = Field(default="", description="fraction: of 1, shown in percent; or any text, as % or ms")
    label: str = Field(default="", description="its name on pages and axes, otherwise that of its column")
    digits: int | None = Field(default=None, ge=0, le=12, description="shown after the point [%: 2, else 4]")
    margin: float | None = Field(
        default=None, gt=0, description="a difference that does not matter, in the unit of the number itself"
    )

    def __init__(self, code: Any = "", **declared: Any) -> None:
        """The code may be given by position."""
        super().__init__(**{"code": code, **declared})

    def score(self, name: str, logits: Any, labels: Any) -> float:
        """What the code gives for predictions, NaN included; what is no number is a StudyError."""
        code, given = load_foreign("metric", self.code), f"logits {logits.shape} and labels {labels.shape}"
        with explained(f"metrics.{name}", self.code, f"one number for {given}, NaN where there is none"):
            return float(code(logits.copy(), labels.copy()))
