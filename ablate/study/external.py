"""A study of runs that another tool made: any of their columns can be a factor or a metric."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from ablate.study.study import Study, declared_faults


class ExternalStudy(Study):
    """What is asked of runs that ablate did not train, and of which it knows no field."""

    seed: str = Field(default="", description="the column that pairs runs of different arms; '' is none")
    differing: tuple[str, ...] = Field(default=(), description="other columns in which runs differ, in words")

    def faults(self) -> Iterable[str]:
        """As of a study, but for its fields."""
        return declared_faults(self)

    @property
    def is_paired(self) -> bool:
        """Whether runs of different arms share a seed."""
        return bool(self.seed)

    @property
    def all_margins(self) -> dict[str, float]:
        """Those that are given: ablate's own are for fractions, and a column may be in percent."""
        return self.margins

    def usual(self, *names: str) -> tuple[str, ...]:
        """All of its metrics; ablate measured none."""
        return tuple(self.metrics)
