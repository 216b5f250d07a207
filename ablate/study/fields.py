"""The fields of a trial: everything that can be set, swept or overridden, each with its range.

A recipe is a named, complete, frozen set of the training fields. A trial starts from its recipe; the
study's base, its profile, the arm's levels and the command line then change single fields, in that order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core.core_schema import CoreSchema, no_info_wrap_validator_function

from ablate.errors import StudyError, nearest
from ablate.study.recipes import RECIPES, Frozen, Recipe


class Fields(Recipe):
    """Every field of a trial. Any of them can be a factor of a study."""

    data: str = Field(min_length=1, description="dataset name, or folder:PATH with train/ and val/")
    image_size: int = Field(ge=4, le=1024, description="pixels a side of the square that the network sees")
    decode_size: int = Field(
        default=0,
        ge=0,
        le=2048,
        description="pixels a side that images are decoded at, cropped or shrunk to image_size; 0: the same",
    )
    resize: Literal["squash", "center_crop"] = Field(
        default="squash", description="how an image becomes a square; center_crop: its longer side is cut"
    )
    label_noise: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="part of the training labels that are wrong; none of the reported",
    )
    tuning_part: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="part of the training images held back and reported on instead of the reported split; "
        "0: none, as for every final number",
    )
    arch: str = Field(min_length=1, description="architecture name, or package.module:factory")
    loss: str = Field(min_length=1, description="loss name, or package.module:function")
    epsilon: float = Field(
        ge=0, le=1, description="label smoothing: 0 is plain cross-entropy, at 1 the label does not matter"
    )
    reduction: Literal["mean", "sum", "none"] = Field(
        description="how the loss reduces a batch; none: per-image losses that the loop averages"
    )
    lr_rule: Literal["fixed", "matched"] = Field(
        description="matched: a summed loss's step is divided by the batch's true size; fixed: it is not"
    )
    recipe: str = Field(description="name of the recipe that the unset training fields come from")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        description="arithmetic of the network; auto: bfloat16 where the processor has it, else float32"
    )
    deterministic: bool = Field(description="only deterministic algorithms (matters on CUDA)")

    @field_validator("recipe")
    @classmethod
    def _known_recipe(cls, name: str) -> str:
        if name not in RECIPES:
            raise ValueError(f"the known recipes are {', '.join(RECIPES)}")
        return name

    @model_validator(mode="after")
    def _shrinks_only(self) -> Fields:
        if 0 < self.decode_size < self.image_size:
            raise ValueError(
                f"decode_size: expected 0 or at least image_size ({self.image_size}), "
                f"but {self.decode_size} came"
            )
        return self

    @property
    def decoded_size(self) -> int:
        """Pixels a side that images are decoded at."""
        return self.decode_size or self.image_size


DEFAULTS: dict[str, Any] = {
    "arch": "seed_cnn",
    "loss": "label_smoothing",
    "epsilon": 0.1,
    "reduction": "mean",
    "lr_rule": "fixed",
    "recipe": "source",
    "precision": "auto",
    "deterministic": False,
}

FIELD_NAMES: tuple[str, ...] = tuple(Fields.model_fields)

LATER_FIELDS: dict[str, Any] = {
    name: field.default for name, field in Fields.model_fields.items() if not field.is_required()
}
"""Fields with a default, and the default: what training did before the field was there."""


def canonical(value: Any) -> Any:
    """One value for what a user writes in several ways, so that equal levels are one level.

    NumPy scalars become Python's, -0.0 becomes 0.0, and floats keep 12 significant digits (0.1 + 0.2 is 0.3).
    """
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.12g}") + 0.0
    return value


def resolve(*layers: Mapping[str, Any]) -> Fields:
    """The complete fields of a trial from layers (base, profile, arm, ...), of which the later ones win.

    Raises:
        StudyError: names every unknown, missing and wrong field in one message.
    """
    settings = dict(DEFAULTS)
    for layer in layers:
        settings |= {name: canonical(value) for name, value in layer.items()}
    # An unknown recipe is reported by the validation.
    recipe = RECIPES.get(str(settings["recipe"]), RECIPES["source"])
    try:
        return Fields.model_validate({**recipe.model_dump(), **settings})
    except ValidationError as error:
        raise StudyError("\n".join(problem(item) for item in error.errors())) from None


def problem(item: Mapping[str, Any]) -> str:
    """One fault in one line: the field, what was expected, what came, what to do."""
    name = ".".join(str(part) for part in item["loc"])
    if not name:  # about several fields, and names them itself
        return str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return unknown_name("field", name, FIELD_NAMES)
    if item["type"] == "missing":
        remedy = "add it to the study's base" if name in FIELD_NAMES else "give it one"
        return f"{name}: no value is set; {remedy}"
    came = item["input"]
    if callable(came):
        return (
            f"{name}: expected a name, but {came!r} itself came; name it by its import path, "
            f"'my_module:{getattr(came, '__name__', 'name')}', in a file that workers can import"
        )
    if item["type"] == "tuple_type" and "factors" in item["loc"]:
        return (
            f"{name}: expected a tuple or list of levels, but {came!r} ({type(came).__name__}) came; "
            f"for a single level write ({came!r},)"
        )
    message = item["msg"].removeprefix("Value error, ")
    choices = tuple(RECIPES) if name == "recipe" else ()
    if name in FIELD_NAMES:
        choices = choices or get_args(Fields.model_fields[name].annotation)
    hint = f".{nearest(came, choices)}" if isinstance(came, str) and choices else ""
    return f"{name}: {message[0].lower()}{message[1:]}, but {came!r} ({type(came).__name__}) came{hint}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is none of the known ones, with the nearest one first."""
    known = list(known)
    return f"{name}: unknown {kind}; known are {', '.join(known)}.{nearest(name, known)}"


class Declaration(Frozen):
    """Something that a user declares. What is wrong with it is one `StudyError`, with a line per fault."""

    called: ClassVar[str] = ""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Around all other validators, those of the subclass included."""
        return no_info_wrap_validator_function(cls._in_plain_words, handler(source))

    @classmethod
    def _in_plain_words(cls, declaration: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            return validate(declaration)
        except ValidationError as error:
            lines = []
            for item in error.errors():
                if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
                    kind = cls.called or f"part of a {cls.__name__}"
                    lines.append(unknown_name(kind, str(item["loc"][0]), cls.model_fields))
                else:
                    lines.append(problem(item))
            raise StudyError("\n".join(lines)) from None


def is_one(value: Any) -> bool:
    """Whether a value is one: a number or text, and no list, tuple or array of them."""
    return isinstance(value, (str, bytes)) or not hasattr(value, "__iter__")


def _canonical_factors(factors: Any) -> Any:
    if not isinstance(factors, Mapping):
        return factors
    return {
        name: levels if is_one(levels) else tuple(canonical(level) for level in levels)
        for name, levels in factors.items()
    }


def _canonical_levels(levels: dict[str, Any]) -> dict[str, Any]:
    return {name: canonical(level) for name, level in levels.items()}


def _checked_seeds(seeds: Any, validate: Callable[[Any], Any]) -> Any:
    try:
        return validate(seeds)
    except ValidationError:
        raise ValueError("expected how many seeds, as 5, or which, as (3, 4)") from None


Factors = Annotated[dict[str, tuple[Any, ...]], BeforeValidator(_canonical_factors)]
"""Field name to the levels it is swept over."""
Levels = Annotated[dict[str, Any], AfterValidator(_canonical_levels)]
"""Field name to value: an arm, or a point of a searched space."""
Seeds = Annotated[int | tuple[int, ...], WrapValidator(_checked_seeds)]
"""How many seeds (0, 1, ...), or which."""
