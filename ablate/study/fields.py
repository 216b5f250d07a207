"""The fields of a trial: everything that can be set, swept or overridden, each with its range.

A trial starts from its recipe; base, profile, levels and command line change single fields, in that order.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import CoreSchema, no_info_wrap_validator_function

from ablate.errors import LIMITS, StudyError, beyond, nearest
from ablate.plugins import is_foreign


class Frozen(BaseModel):
    """Values that do not change once they are validated, with no others among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _named(*known: str) -> AfterValidator:
    """Checks that a text is one of these names, or the import path of code."""

    def check(name: str) -> str:
        if name not in known and not is_foreign(name):
            raise ValueError(f"expected {', '.join(known)}, or an import path as 'my_module:name'")
        return name

    return AfterValidator(check)


OPTIMIZERS = ("sgd", "adamw", "ranger")
SCHEDULES = ("constant", "one_cycle", "flat_cosine")
Part = Annotated[float, Field(ge=0, lt=1)]


class Recipe(Frozen, strict=True, allow_inf_nan=False):
    """How a network is trained, in full: optimiser, schedule, augmentation and batches.

    A field that came later has a default, which is what training did before: its trials keep their identity.
    """

    epochs: int = Field(ge=1, le=100_000, description="passes over the training images")
    batch_size: int = Field(ge=1, le=65_536, description="training images per step")
    eval_batch_size: int = Field(ge=1, le=65_536, description="images per evaluation batch")
    drop_last: bool = Field(description="drop the last, smaller training batch of an epoch")
    optimizer: Annotated[str, _named(*OPTIMIZERS)] = Field(
        description="sgd; adamw; ranger: rectified Adam with a look-ahead of six steps; or an import path"
    )
    lr: float = Field(gt=0, description="learning rate; with a schedule, its highest")
    momentum: Part = Field(description="momentum of sgd, beta1 of adamw and ranger; 0 is none")
    beta2: Part = Field(default=0.999, description="decay of squared gradients; not for sgd")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="added to the root of these; not for sgd")
    weight_decay: float = Field(ge=0, description="sgd: L2 penalty; adamw, ranger: decoupled; 0 is none")
    decay_norms: bool = Field(default=True, description="weight decay of biases and normalisation layers too")
    clip_norm: float = Field(default=0.0, ge=0, description="largest norm of the gradient; 0 does not clip")
    schedule: Annotated[str, _named(*SCHEDULES)] = Field(
        description="constant; one_cycle: a rise from lr/25 and a fall; flat_cosine: flat, then a fall; both "
        "are cosines and end at lr/100000; or an import path"
    )
    anneal_from: Part = Field(default=0.0, description="part of the steps after which the schedule falls")
    crop_area: float = Field(
        default=1.0, gt=0, le=1, description="smallest part of an image that a random crop keeps; 1: no crop"
    )
    flip: bool = Field(default=False, description="mirror every other training image, at random")
    mixup: float = Field(
        default=0.0, ge=0, description="alpha of the Beta distribution that mixes pairs of images; 0: none"
    )
    freeze: str = Field(
        default="none", description="what keeps its first weights, as layer1+layer2; body: all but the head"
    )
    head_lr: float = Field(default=1.0, gt=0, description="rate of the last linear layer, by that of others")
    augmentation: Annotated[str, _named("none")] = Field(
        default="none", description="import path of what else is done to training images, after crop and flip"
    )
    ema: Part = Field(default=0.0, description="decay of the average of weights that is evaluated; 0: none")


# Fields that are not named have their defaults.
RECIPES: dict[str, Recipe] = {
    # The course notebook that the suite reproduces: plain SGD at a constant rate, ragged last batch kept.
    "source": Recipe(
        epochs=11, batch_size=128, eval_batch_size=256, drop_last=False,
        optimizer="sgd", lr=0.4, momentum=0.0, weight_decay=0.0, schedule="constant",
    ),
    # What most would train a small residual network with today.
    "modern": Recipe(
        epochs=20, batch_size=64, eval_batch_size=256, drop_last=True,
        optimizer="adamw", lr=0.004, momentum=0.9, beta2=0.99, weight_decay=0.05, decay_norms=False,
        schedule="one_cycle", anneal_from=0.25, crop_area=0.35, flip=True,
    ),
    # The public Imagenette board's entries at 128 px with xse_resnext50 and ε = 0.1, 87.43 % (5 epochs) and
    # 91.57 % (20 epochs), mean of 5 runs each: https://github.com/fastai/imagenette. Theirs decode the 320 px
    # files; the 5-epoch one crops to the centre square (resize="center_crop").
    **{
        f"board_{epochs}": Recipe(
            epochs=epochs, batch_size=batch_size, eval_batch_size=128, drop_last=True,
            optimizer="ranger", lr=0.008, momentum=0.95, beta2=0.99, adam_epsilon=1e-6, weight_decay=0.01,
            decay_norms=False, schedule="flat_cosine", anneal_from=0.75, crop_area=crop_area, flip=True,
        )
        for epochs, batch_size, crop_area in ((5, 32, 1.0), (20, 64, 0.35))
    },
}  # fmt: skip


def _known_recipe(name: str) -> str:
    if name not in RECIPES:
        raise ValueError(f"the known recipes are {', '.join(RECIPES)}")
    return name


SLOTS = ("data", "augmentation", "arch", "loss", "optimizer", "schedule")
"""Fields that name code; `slot.argument` is a keyword argument of what they name, and a field like any."""


def is_field(name: str) -> bool:
    """Whether a trial has a field of this name, or code that may take an argument of it."""
    slot, _, argument = name.partition(".")
    return name in Fields.model_fields or (slot in SLOTS and argument.isidentifier())


def _known_field(name: str) -> str:
    if not is_field(name):
        raise PydanticCustomError("extra_forbidden", "unknown")
    return name


def argument_value(value: Any) -> Any:
    """A value of an argument in its one form; a ValueError where a record could not hold it."""
    value = canonical(value)
    for one in flat(value):
        is_finite = not isinstance(one, float) or math.isfinite(one)
        if not (is_finite and isinstance(one, int | float | str | None)):
            raise ValueError("expected None, a truth value, a finite number, a text, or a tuple of these")
    return value


Argument = Annotated[Any, AfterValidator(argument_value)]


class DataFields(Frozen, strict=True, allow_inf_nan=False):
    """Which images a trial trains on, and which it reports on."""

    data: str = Field(min_length=1, description="dataset name, folder:PATH, or package.module:function")
    image_size: int = Field(ge=4, le=1024, description="pixels a side of the square that the network sees")
    decode_size: int = Field(
        default=0, ge=0, le=2048, description="side as decoded, cropped or shrunk later; 0: image_size"
    )
    resize: Literal["squash", "center_crop"] = Field(
        default="squash", description="how an image becomes a square; center_crop: its longer side is cut"
    )
    label_noise: Part = Field(default=0.0, description="part of training labels that are wrong, no others")
    tuning_part: Part = Field(
        default=0.0, description="part of training images to report on instead; 0: for final numbers"
    )
    split: Part = Field(
        default=0.0, description="part of each class in folder:PATH to report on; 0: PATH has train/ and val/"
    )

    @model_validator(mode="after")
    def _shrinks_only(self) -> Self:
        if 0 < self.decode_size < self.image_size:
            raise ValueError(
                f"decode_size: expected 0, or image_size ({self.image_size}) or more, not {self.decode_size}"
            )
        return self

    @property
    def decoded_size(self) -> int:
        """Pixels a side that images are decoded at."""
        return self.decode_size or self.image_size

    def arguments(self, slot: str) -> dict[str, Any]:
        """What is set of the keyword arguments of the code that a slot names."""
        return {
            name.partition(".")[2]: value
            for name, value in (self.__pydantic_extra__ or {}).items()
            if name.startswith(f"{slot}.")
        }


class Fields(DataFields, Recipe, extra="allow"):
    """Every field of a trial, and `slot.argument` for those of code that are set. Any can be a factor."""

    __pydantic_extra__: dict[Annotated[str, AfterValidator(_known_field)], Argument]

    arch: str = Field(min_length=1, description="architecture name, or package.module:factory")
    weights: str = Field(
        default="fresh", description="to start from: fresh, a file, or pretrained or another published name"
    )
    loss: str = Field(min_length=1, description="loss name, or package.module:function")
    epsilon: float = Field(ge=0, le=1, description="label smoothing; 0: cross-entropy; 1: labels do nothing")
    reduction: Literal["mean", "sum", "none"] = Field(
        description="how the loss reduces a batch; none: per-image losses that the loop averages"
    )
    lr_rule: Literal["fixed", "matched"] = Field(
        description="matched: a summed loss's step is divided by the batch's true size; fixed: it is not"
    )
    recipe: Annotated[str, AfterValidator(_known_recipe)] = Field(
        description="name of the recipe that the unset training fields come from"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        description="arithmetic of the network; auto: bfloat16 where the processor has it, else float32"
    )
    deterministic: bool = Field(description="only deterministic algorithms (matters on CUDA)")

    def without_arguments(self, slot: str) -> Self:
        """The same with no keyword argument of what a slot names."""
        return self.model_validate({name: of for name, of in self if not name.startswith(f"{slot}.")})


DEFAULTS: dict[str, Any] = {
    "arch": "seed_cnn", "loss": "label_smoothing", "epsilon": 0.1, "reduction": "mean", "lr_rule": "fixed",
    "recipe": "source", "precision": "auto", "deterministic": False,
}  # fmt: skip
FIELD_NAMES: tuple[str, ...] = tuple(Fields.model_fields)
LATER_FIELDS: dict[str, Any] = {
    name: field.default for name, field in Fields.model_fields.items() if not field.is_required()
}
"""Fields with a default, and the default: what training did before the field was there."""
CHOICES = {name: get_args(field.annotation) for name, field in Fields.model_fields.items()}
CHOICES |= {"recipe": tuple(RECIPES), "augmentation": ("none",)}
CHOICES |= {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
"""Field name to the texts that it may be, import paths aside; () where any text, or none, may do."""


def describe_fields() -> dict[str, dict[str, Any]]:
    """Every field's values, default (without one it must be given), meaning, and what recipes set it to."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    defaults = {**LATER_FIELDS, **RECIPES["source"].model_dump(), **DEFAULTS}
    described = {}
    for name, schema in Fields.model_json_schema()["properties"].items():
        bounds = {sign: schema[bound] for bound, sign in signs.items() if bound in schema}
        words = CHOICES[name] or (schema["type"], *(f"{sign} {end:g}" for sign, end in bounds.items()))
        recipes = {of: getattr(values, name) for of, values in RECIPES.items() if name in Recipe.model_fields}
        facts = {"values": ", ".join(words), "type": schema["type"], "bounds": bounds, "recipes": recipes}
        facts |= {"default": defaults[name]} if name in defaults else {}
        described[name] = facts | {"meaning": schema["description"]}
    return described


def is_one(value: Any) -> bool:
    """Whether a value is one: a number or text, and no list, tuple or array of them."""
    return isinstance(value, (str, bytes)) or not hasattr(value, "__iter__")


def canonical(value: Any) -> Any:
    """One value for what a user writes in several ways, so that equal levels are one level.

    NumPy scalars become Python's, -0.0 becomes 0.0, and floats keep 12 significant digits (0.1 + 0.2 is 0.3).
    A list becomes a tuple; a function or class becomes its import path, a ValueError where workers find none.
    """
    if callable(value):
        return import_path(value)
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.12g}") + 0.0
    return tuple(map(canonical, value)) if isinstance(value, (list, tuple)) else value


def import_path(code: Any) -> str:
    """The name by which a worker finds a function or class, as package.module:name."""
    module, name = getattr(code, "__module__", None), getattr(code, "__qualname__", "")
    if module in (None, "__main__", "builtins") or not name.isidentifier():
        raise ValueError(
            "expected code that workers can import: a function or class at the top level of a file, itself "
            "or as 'my_module:name', and its arguments as fields, as in {'arch': Net, 'arch.dropout': 0.1}"
        )
    return f"{module}:{name}"


def flat(value: Any) -> list[Any]:
    """A value on its own, or those of a tuple and of the tuples in it."""
    return [one for inner in value for one in flat(inner)] if isinstance(value, tuple) else [value]


def several(values: Any) -> Any:
    """A list or array as the tuple of its values, each in its one form; a value on its own as it is."""
    if is_one(values):
        return values
    several = tuple(map(canonical, itertools.islice(values, LIMITS["values in a list"] + 1)))
    if fault := beyond("values in a list", len(several)):
        raise ValueError(fault)
    return several


def one_or_several(values: Any) -> Any:
    """As `several`; a value on its own is the only one."""
    return (values,) if is_one(values) else several(values)


def repeated(values: Sequence[Any]) -> list[Any]:
    """Values that stand in a sequence before; not all of them can be hashed."""
    return [value for place, value in enumerate(values) if value in values[:place]]


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Layers of settings in one, each value in its one form; later ones win."""
    return {name: canonical(value) for layer in layers for name, value in layer.items()}


def resolve(*layers: Mapping[str, Any]) -> Fields:
    """The fields of a trial from layers (base, profile, arm, ...); later ones win. Else a StudyError."""
    settings = layered(DEFAULTS, *layers)
    # An unknown recipe is reported by the validation.
    recipe = RECIPES.get(str(settings["recipe"]), RECIPES["source"])
    try:
        return Fields.model_validate({**recipe.model_dump(), **settings})
    except ValidationError as error:
        raise in_plain_words(error, "field", FIELD_NAMES) from None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is none of the known ones, with the nearest one first."""
    known = list(known)
    hint, listed = nearest(name, known), ", ".join(known)
    if kind != "field":
        return f"{name}: unknown {kind}; known are {listed}.{hint}"
    # It may be meant for one's own code.
    slot = next((slot for slot in SLOTS if name.startswith(f"{slot}_")), "arch")
    argument = "NAME" if name.endswith(("args", "params", "arguments")) else name.rpartition(".")[2]
    return (
        f"{name}: unknown field.{hint} An argument of your own code is a field with its slot before it: "
        f"'{slot}.{argument}': VALUE (slots are {', '.join(SLOTS)}). Known are {listed}."
    )


def in_plain_words(error: ValidationError, kind: str, known: Iterable[str]) -> StudyError:
    """A line per fault: the field, what was expected, what came, what to do."""
    lines = []
    unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
    for item in error.errors():
        if item["loc"] in unknown and item["type"] != "extra_forbidden":
            continue
        name, came = ".".join(map(str, item["loc"])), item["input"]
        message = item["msg"].removeprefix("Value error, ")
        if not name:  # about several fields, and names them itself
            line = message
        elif item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            line = unknown_name(kind, name, known)
        elif item["type"] == "missing":
            remedy = "add it to the study's base" if name in FIELD_NAMES else "give it one"
            line = f"{name}: no value is set; {remedy}"
        else:
            choices = CHOICES.get(name) if isinstance(came, str) else ()
            hint = f".{nearest(came, choices)}" if choices else ""
            if item["type"] == "tuple_type" and "factors" in item["loc"]:
                message, hint = "expected a tuple or list of levels", f"; for one level write ({came!r},)"
            message = message[0].lower() + message[1:]
            line = f"{name}: {message}, but {came!r} ({type(came).__name__}) came{hint}"
        lines.append(line)
    return StudyError("\n".join(lines))


class Declaration(Frozen):
    """Something that a user declares. What is wrong with it is one `StudyError`, with a line per fault."""

    called: ClassVar[str] = ""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Around all other validators, those of the subclass included."""

        def checked(declaration: Any, validate: Callable[[Any], Any]) -> Any:
            try:
                return validate(declaration)
            except ValidationError as error:
                kind = cls.called or f"part of a {cls.__name__}"
                raise in_plain_words(error, kind, cls.model_fields) from None

        return no_info_wrap_validator_function(checked, handler(source))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if faults := "\n".join(self.faults()):
            raise ValueError(faults)
        return self

    def faults(self) -> Iterable[str]:
        """What is wrong with values each of which could be right, a line each."""
        return ()


def _checked_seeds(seeds: Any, validate: Callable[[Any], Any]) -> Any:
    seeds = several(seeds)
    try:
        return validate(seeds)
    except ValidationError:
        raise ValueError("expected how many seeds, as 5, or which, as (3, 4)") from None


def folder_name(name: str) -> str:
    """The name, if a folder can have it that stays where it is put; else a ValueError."""
    sound = name.isprintable() and not name.startswith(".") and not {*name} & {"/", "\\"}
    if not sound or not 0 < len(name.encode()) <= 200:
        raise ValueError("expected a plain folder name such as 'my_study'")
    return name


FolderName = Annotated[str, AfterValidator(folder_name)]
Texts = Annotated[tuple[str, ...], BeforeValidator(one_or_several)]
Factors = dict[str, Annotated[tuple[Any, ...], BeforeValidator(several), Field(min_length=1)]]
"""Field name to the levels it is swept over."""
Levels = dict[str, Annotated[Any, AfterValidator(canonical)]]
"""Field name to value: an arm, or a point of a searched space."""
Seeds = Annotated[int | tuple[int, ...], WrapValidator(_checked_seeds)]
"""How many seeds (0, 1, ...), or which."""
