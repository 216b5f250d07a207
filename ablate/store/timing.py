"""What a training step costs, measured apart from training: which steps differ, and their file."""

from collections.abc import Iterable

from pydantic import Field

from ablate.store.records import Environment
from ablate.store.results import ResultsFolder, read_sealed
from ablate.study.fields import Frozen
from ablate.study.trials import Trial, arm_name


class Case(Frozen):
    """All of a trial that decides which work a training step does; not ε, nor what else a loss is given."""

    arch: str
    arguments: str = Field(default="", description="of named code but loss and schedule, as 'arch.depth=4'")
    image_size: int
    decoded_size: int
    batch_size: int
    loss: str
    reduction: str
    optimizer: str
    clips: bool = Field(description="whether the gradient is clipped")
    crops: bool = Field(description="whether images are cropped at random")
    flips: bool = Field(description="whether images are mirrored at random")
    mixes: bool = Field(description="whether images are mixed")
    augmentation: str = "none"
    averages: bool = Field(default=False, description="whether the weights are averaged")
    device: str
    precision: str
    deterministic: bool
    data: str


class TimingPass(Frozen, allow_inf_nan=False):
    """One exclusive pass: each case's milliseconds per step in every round, and what else ran meanwhile."""

    cases: tuple[Case, ...]
    step_ms: tuple[tuple[float, ...], ...] = Field(
        description="[cases][rounds] mean milliseconds of a step; one round's values were taken in turn"
    )
    steps: tuple[int, ...] = Field(description="[cases] steps that each value is the mean of")
    environment: Environment
    others: float | None = Field(description="part of all cores that others used; None where unknown")


def case_of(trial: Trial) -> Case:
    """The case that a trial's steps are."""
    fields, names = trial.looped, set(Case.model_fields)
    of_code = fields.without_arguments("loss").without_arguments("schedule").__pydantic_extra__
    # What the arithmetic came to stands in place of what was asked for.
    return Case(
        **{**fields.model_dump(include=names), **trial.numerics.model_dump(include=names)},
        arguments=arm_name(of_code) if of_code else "",
        decoded_size=fields.decoded_size,
        clips=fields.clip_norm > 0,
        crops=fields.crop_area < 1,
        flips=fields.flip,
        mixes=fields.mixup > 0,
        averages=fields.ema > 0,
    )


def plain_case(case: Case) -> Case:
    """What a step is set beside: the same with torch's plain cross-entropy, averaged."""
    return case.model_copy(update={"loss": "cross_entropy", "reduction": "mean"})


def cases_of(trials: Iterable[Trial]) -> dict[Case, Trial]:
    """The cases of these trials, each with the first trial that it is of, and their plain ones."""
    cases: dict[Case, Trial] = {}
    for trial in trials:
        cases.setdefault(case_of(trial), trial)
    for case, trial in list(cases.items()):
        cases.setdefault(plain_case(case), trial)
    return cases


def read_timing(folder: ResultsFolder) -> TimingPass | None:
    """The pass that a results folder keeps, if any. A damaged file is a `RecordError`."""
    return read_sealed(TimingPass, folder.timing, "delete it, and the next run measures the step times again")
