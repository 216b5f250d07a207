"""What a study has of its own: metrics, and code that trains, `train(trial, *, knobs)` or a command line."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from ablate.errors import StudyError
from ablate.plugins import explained, load_foreign
from ablate.study.fields import (
    FIELD_NAMES,
    Argument,
    DataFields,
    Declaration,
    canonical,
    in_plain_words,
    is_one,
    layered,
    unknown_name,
)
from ablate.study.sources import FILES

if TYPE_CHECKING:
    from ablate.study.study import Study

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
GIVEN = ("seed", "out", "tuning_part")
"""Placeholders of a command that ablate fills by itself."""
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
FORMS = (
    "'{out}/metrics.json:val.loss', '{out}/log.csv:column' (its last row) or 'log:val loss ([0-9.]+)', a "
    "regular expression with one group"
)


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


def _knob(name: str) -> str:
    if not name.removeprefix("data.").isidentifier():
        raise ValueError("expected the name of a knob of your own code, such as lr")
    return name


class OwnFields(DataFields, extra="allow"):
    """What a trial of one's own code is given: its knobs, each a field of its own, and maybe images."""

    __pydantic_extra__: dict[Annotated[str, AfterValidator(_knob)], Argument]

    data: str = Field(default="", description="the dataset that it can ask for; '' is none")
    image_size: int = Field(default=0, ge=0, le=1024, description="pixels a side of that dataset's images")
    trained_by: str = Field(min_length=1, description="import path of the function, or the command line")
    code: str = Field(description="import path of the code, or in lines the files that matter")
    defaults: dict[str, Any] = Field(default={}, description="knob to the value that the code itself gives")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A knob's value."""

    @property
    def knobs(self) -> dict[str, Any]:
        """Every knob's value."""
        return {name: value for name, value in self.__pydantic_extra__.items() if "." not in name}

    def identity(self) -> dict[str, Any]:
        """What decides the trial's numbers: what differs from the defaults, and no name of data."""
        usual = {name: field.default for name, field in OwnFields.model_fields.items()} | self.defaults
        own = self.model_dump(exclude={"data", "decode_size", "resize", "code", "defaults"})
        return {name: value for name, value in own.items() if name not in usual or usual[name] != value}


def own_fields(study: Study, *layers: Mapping[str, Any]) -> OwnFields:
    """The fields of a trial from layers of settings; what is wrong with them is one StudyError."""
    settings = layered(study.knobs, *layers)
    code = study.train or FILES + "\n".join(study.code)
    own = {"trained_by": study.trained_by, "code": code, "defaults": study.knobs}
    if taken := settings.keys() & own.keys():
        raise StudyError(f"{min(taken)}: ablate keeps something else under it; call the knob otherwise")
    try:
        fields = OwnFields.model_validate(settings | own)
    except ValidationError as error:
        raise in_plain_words(error, "knob", OwnFields.model_fields) from None
    about = [name for name in DataFields.model_fields if name in settings and name != "tuning_part"]
    if about and not (fields.data and fields.image_size):
        raise StudyError(f"{about[0]}: is about ablate's datasets; set data and image_size in the base too")
    return fields


def _words(command: Any) -> Any:
    if isinstance(command, str):
        raise ValueError(f"expected a list of words, which no shell reads: {shlex.split(command)}")
    return command if is_one(command) else tuple(map(str, command))


def _time(value: Any) -> Any:
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])?", str(value)):
        raise ValueError("expected a time with its unit, as '90s', '30m' or '2h'")
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Time = Annotated[str, BeforeValidator(_time)]


def seconds_of(time: str) -> float | None:
    """A time such as 30m in seconds; None of ''."""
    return float(time[:-1]) * SECONDS[time[-1]] if time else None


def result_name(result: str) -> str:
    """How a single result is called that no metric is declared for: by its path, or result."""
    name = "" if result.startswith("log:") else re.sub(r"\W", "_", result.rpartition(":")[2])
    is_free = name.isidentifier() and name not in (*FIELD_NAMES, "accuracy")
    return name if is_free else f"result_{name}".rstrip("_")


def own_faults(study: Study) -> Iterator[str]:
    """Faults of what a study says about its own training code or command."""
    if study.train and study.command:
        yield "train, command: a study has one of them; leave one out"
    if not study.command:
        for name in ("code", "result", "predictions"):
            if getattr(study, name):
                yield f"{name}: is about a command, and the study has none; give it command=[...]"
        if not study.train and not study.gpus:
            yield "gpus: is about training code of your own; ablate's loop takes --device cpu"
        return
    used = {name for word in study.command for name in PLACEHOLDER.findall(word)}
    searched = study.search.space if study.search else {}
    named = [fields for levels in study.named.values() for fields in levels.values()]
    known = {name for fields in (study.base, study.factors, searched, *named) for name in fields}
    known -= study.named.keys()
    for name in sorted(known):
        if name in (*GIVEN, *DataFields.model_fields):
            yield f"{name}: is ablate's to fill in; leave it out, or call the placeholder otherwise"
        elif name not in used:
            others = sorted(used.difference(GIVEN))
            yield f"{unknown_name('placeholder of the command', name, others)} Write it there as {{{name}}}"
    for name in sorted(used.difference(known, GIVEN)):
        yield f"command: {{{name}}} has no value; set {name} in base or factors"
    if "seed" not in used and len(study.seed_list()) > 1:
        yield "command: no word holds {seed}, so all seeds would be one run; add it, or set seeds=(0,)"
    if not study.code:
        scripts = tuple(word for word in study.command if word.endswith(".py")) or ("train.py", "src/**")
        yield f"code: expected the files that decide what the command does, as code={scripts}"
    if not study.result and not study.predictions:
        yield f"result: expected where the command leaves its number, as {FORMS}"
    for name, result in study.result.items():
        if not _is_result(result):
            yield f"result: {name}: expected {FORMS}, but {result!r} came"
        if name not in study.metrics or study.metrics[name].code:
            yield f"result: {unknown_name('metric', name, study.metrics)} Declare it in metrics"
    if study.predictions and not ("{out}" in study.predictions and study.predictions.endswith(".npz")):
        yield f"predictions: expected '{{out}}/predictions.npz', each trial's own, not {study.predictions!r}"


def _is_result(result: str) -> bool:
    with contextlib.suppress(re.error):
        if result.startswith("log:"):
            return re.compile(result[4:]).groups == 1
    return re.fullmatch(r".*\{out\}.*\.(json|csv):[^:]+", result) is not None
