"""How a study is run, as far as its file does not say: one declaration for the commands and for Python."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, Strict, field_validator

from ablate.study.fields import Declaration, FolderName, Seeds, canonical, is_one, one_or_several, several

Folder = Annotated[Path, Strict(False)]
REPEATED = {"profile", "settings", "seeds", "name", "device", "threads"}
"""The options that decide what is trained. Folders are not among them: elsewhere they mean nothing."""


class Options(Declaration, strict=True, allow_inf_nan=False):
    """How a study is run. The commands' options are made of these fields, and `ablate.run` takes them."""

    called: ClassVar[str] = "option"

    profile: str | None = Field(default=None, description="Profile to run; otherwise the hardware decides.")
    settings: dict[str, Annotated[tuple[Any, ...], BeforeValidator(one_or_several)]] = Field(
        default={}, description="Fix a field, or sweep it over values."
    )
    seeds: Seeds | None = Field(default=None, description="How many seeds, instead of the study's.")
    name: FolderName | None = Field(
        default=None, description="Name of the variation that settings and seeds make [default: of theirs]."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where to train.")
    workers: int | None = Field(
        default=None,
        ge=0,
        description="Trials at a time [default: one per GPU, or cores / threads]; 0: in this process.",
    )
    executor: Literal["local", "ray"] = Field(
        default="local", description="Train on this machine, or on a Ray cluster (docs/machines.md)."
    )
    address: str | None = Field(
        default=None,
        description="HOST:PORT of the Ray cluster's head [default: the one here, else a new one].",
    )
    threads: int = Field(default=1, ge=1, description="CPU threads of a trial; part of what it is.")
    data_dir: Folder | None = Field(default=None, description="Folder of the dataset's files; no download.")
    results: Folder = Field(default=Path("results"), description="Folder of the results.")
    report: Folder = Field(default=Path("report"), description="Folder of the reports.")
    engine: Literal["eager", "graph"] = Field(
        default="eager", description="On CUDA: hand steps over by operation, or captured as a whole."
    )
    timeout: float | None = Field(default=None, ge=0.001, description="Minutes that one trial may take.")
    stall: float | None = Field(
        default=None,
        ge=0,
        description="Minutes that a trial may be silent [default: 10; own code: any]; 0: any.",
    )
    retry_failed: bool = Field(default=False, description="Run failed trials again.")
    retrain: bool = Field(default=False, description="Train anew what was trained with other code.")
    same_code: str | None = Field(
        default=None, min_length=1, description="Why changed code computes the same; records are kept."
    )
    keep_weights: bool = Field(default=False, description="Keep trained networks, for `ablate.load_network`.")
    shard: str | None = Field(
        default=None, description="Train only a part of the trials, as the 3rd of 16: 3/16; no report."
    )
    timing: bool = Field(default=True, description="Time the training steps at the end, by themselves.")
    command: str = Field(default="", description="What to type to run this again, for the report.")

    @field_validator("seeds", "workers", "threads", "timeout", "stall", mode="before")
    @classmethod
    def _plain_numbers(cls, value: Any) -> Any:
        return canonical(value) if is_one(value) else several(value)

    @field_validator("shard")
    @classmethod
    def _part_of_parts(cls, value: str | None) -> str | None:
        found = re.fullmatch(
            r"0*([1-9]\d{0,4})/0*([1-9]\d{0,4})", "1/1" if value is None else value, re.ASCII
        )
        if not found or int(found[1]) > int(found[2]):
            raise ValueError("expected a part and how many there are, such as 3/16")
        return value

    def faults(self) -> Iterable[str]:
        """Options that exclude one another."""
        if self.workers == 0 and self.timeout is not None:
            yield "timeout: expected none where workers is 0, as nothing can stop this process"
        if self.workers == 0 and self.executor == "ray":
            yield "workers: expected 1 or more on a cluster, as 0 is this process; leave out it or executor"
        if self.address is not None and self.executor != "ray":
            yield "address: is a Ray cluster's; expected with executor='ray' alone"
        if self.retrain and self.same_code:
            yield "retrain: expected without same_code, which keeps what it would train anew"

    @property
    def part(self) -> tuple[int, int]:
        """Which part of the trials to train, from 1, of how many."""
        part, parts = (self.shard or "1/1").split("/")
        return int(part), int(parts)

    def repeated(self) -> dict[str, Any]:
        """What decides the trials and is not the default, for the line that runs them again."""
        return self.model_dump(include=REPEATED, exclude_defaults=True)
