"""A study expanded into its trials, each with an identity that follows from what it computes."""

import hashlib
import itertools
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ablate.errors import StudyError
from ablate.plugins import WEIGHT_FILES
from ablate.study.fields import LATER_FIELDS, SLOTS, Fields, FolderName, Frozen, layered
from ablate.study.own import OwnFields
from ablate.study.sources import Source, read_source
from ablate.study.study import Study, add_import_folder

TRAINING_VERSION = 2
"""Raised when a change to ablate alters the numbers that training gives; part of every trial's identity."""

NOT_IDENTITY = {
    "data", "decode_size", "resize", "tuning_part", "split", "precision", "deterministic", "recipe",
    "eval_batch_size",
}  # fmt: skip
"""Fields that do not decide a trial's numbers, or only through what else the identity holds."""
Sources = Mapping[str, Source]
"""Field to the user's code that it names."""
AnyFields = Fields | OwnFields
TrialId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""It becomes a file's name, wherever it comes from."""


class Numerics(Frozen):
    """The arithmetic that a trial's fields come to on a given device."""

    device: str = Field(description="device kind: cpu or cuda")
    precision: str = Field(description="float32 or bfloat16; own: that of one's own training code")
    deterministic: bool = Field(description="only deterministic algorithms")
    threads: int = Field(default=1, ge=1, description="CPU threads that compute; 1 on a GPU")


class Trial(Frozen):
    """One training run: an arm and a seed, with everything that decides its numbers."""

    trial_id: TrialId = Field(description="hash of the fields, seed, data, numerics and training version")
    arm: str = Field(description="the factor levels in words, e.g. 'epsilon=0.1, arch=xresnet18'")
    levels: dict[str, Any] = Field(description="factor name to this trial's level")
    fields: AnyFields = Field(description="every field, resolved", union_mode="left_to_right")
    seed: int = Field(description="the seed that all random streams derive from")
    repeat: int = Field(default=0, description="0, or the number of a deliberate second run")
    numerics: Numerics = Field(description="resolved arithmetic")
    fingerprint: str = Field(description="digest of the decoded images and labels; '' without ablate's data")
    sources: dict[str, Source] = Field(default={}, description="field to the user's code that it names")

    @property
    def looped(self) -> Fields:
        """The fields of a trial that ablate's own loop trains."""
        assert isinstance(self.fields, Fields)
        return self.fields


class Plan(Frozen):
    """A study as it is to run: what was declared, which profile and why, and every trial."""

    study: Study
    profile: FolderName = Field(description="name of the profile, which is also its results folder's name")
    reason: str = Field(description="why this profile: what the machine has, or that it was asked for")
    command: str = Field(default="", description="the command line that runs it")
    trials: tuple[Trial, ...] = Field(min_length=1)
    same_code: tuple[str, ...] = Field(default=(), description="why changed code computes the same")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        seen = {(trial.arm, trial.seed, trial.repeat) for trial in self.trials}
        named = {trial.trial_id for trial in self.trials}
        if not len(seen) == len(self.trials) == (len(self.trials) if self.study.chosen else len(named)):
            raise ValueError("trials: one is listed twice")
        if any(trial.arm != arm_name(layered(trial.levels)) for trial in self.trials):
            raise ValueError("trials: an arm is not called as its levels are")
        return self

    def disagreement(self, trial: Trial, recorded: Trial) -> str:
        """What the record of a planned trial says otherwise than the plan does; "" where they agree."""
        planned, ran = _told(trial), _told(recorded)
        levels = layered(self.study.set_by(trial.levels))
        for name, value in [*planned.items(), *levels.items()]:
            if name in planned and (name not in ran or ran[name] != value):
                return f"plan and record disagree: the plan has {name}={value}, the record {ran.get(name)}"
        return ""

    def find_own_modules(self) -> None:
        """Have modules found that stand beside the study's file, as the command names it, or here."""
        for file in map(Path, shlex.split(self.command)):
            if file.suffix == ".py" and file.is_file():
                add_import_folder(file.resolve().parent)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """The arms' names in the study's order."""
        return tuple(dict.fromkeys(trial.arm for trial in self.trials))

    @cached_property
    def comparisons(self) -> tuple[tuple[str, str], ...]:
        """Each arm with those that have the levels of its references and are otherwise the same, in order."""
        levels_of = {trial.arm: trial.levels for trial in self.trials}
        arm_of = {tuple(levels.items()): arm for arm, levels in levels_of.items()}
        others = [
            (arm, arm_of.get(tuple({**own, **reference}.items()), arm))
            for arm, own in levels_of.items()
            for reference in self.study.references(own)
        ]
        return tuple((arm, other) for arm, other in others if other != arm)


def _told(trial: Trial) -> dict[str, Any]:
    """What a plan and a record of one trial must agree in; not the names of files and of data."""
    dumped = trial.fields.model_dump(exclude=NOT_IDENTITY | {"defaults", "code"})
    if str(dumped.get("weights")).endswith(WEIGHT_FILES):
        del dumped["weights"]
    fields = {name: value for name, value in layered(dumped).items() if not name.startswith("data.")}
    return {**fields, **trial.model_dump(include={"seed", "repeat", "numerics", "fingerprint"})}


def arm_name(levels: Mapping[str, Any]) -> str:
    """An arm's levels in words; the one arm of a study without factors is 'all'."""
    return ", ".join(f"{name}={level}" for name, level in levels.items()) or "all"


def stream_seed(seed: int, stream: str) -> int:
    """The seed of a trial's random stream, in [0, 2**63). No level enters it: arms of one seed are paired."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "big") >> 1


def code_names(fields: AnyFields) -> dict[str, str]:
    """The fields that name code by its import path, with that. Of data the fingerprint says enough."""
    if isinstance(fields, OwnFields):
        return {"code": fields.code}
    named = {slot: str(getattr(fields, slot)) for slot in SLOTS if slot != "data"}
    return {slot: name for slot, name in named.items() if ":" in name}


def sources_now(fields: AnyFields, read: Callable[[str], Source] = read_source) -> Sources:
    """The user's code that a trial's fields name, as it is now."""
    return {slot: read(name) for slot, name in code_names(fields).items()}


def expand(
    study: Study,
    fingerprint_of: Callable[[AnyFields], str],
    numerics_of: Callable[[AnyFields], Numerics],
    sources_of: Callable[[AnyFields], Sources] = sources_now,
) -> list[Trial]:
    """All trials, seed by seed, so that a stopped study has whole sets of arms; twins are a StudyError."""
    arms = [(levels, fields := study.fields(levels), sources_of(fields)) for levels in study.arms()]
    seen: dict[str, str] = {}
    trials = []
    for seed, (levels, fields, sources) in itertools.product(study.seed_list(), arms):
        numerics, fingerprint = numerics_of(fields), fingerprint_of(fields)
        trial = build_trial(levels, fields, seed, numerics, fingerprint, sources=sources)
        # An arm may be tuned to what it was declared with.
        if seen.setdefault(trial.trial_id, trial.arm) != trial.arm and not study.chosen:
            raise StudyError(
                f"the arms {seen[trial.trial_id]!r} and {trial.arm!r} train the same network: their "
                "levels come to the same data and arithmetic here; leave one of them out"
            )
        trials.append(trial)
    return trials


def build_trial(
    levels: Mapping[str, Any],
    fields: AnyFields,
    seed: int,
    numerics: Numerics,
    fingerprint: str,
    repeat: int = 0,
    sources: Sources | None = None,
) -> Trial:
    """One trial with its identity computed; without `sources` the code is as it is now."""
    trial = Trial(
        trial_id="0" * 16, arm=arm_name(levels), levels=dict(levels), fields=fields, seed=seed, repeat=repeat,
        numerics=numerics, fingerprint=fingerprint,
        sources=sources_now(fields) if sources is None else dict(sources),
    )  # fmt: skip
    return trial.model_copy(update={"trial_id": identity_of(trial)})


def deciding(fields: AnyFields) -> dict[str, Any]:
    """The fields that decide a trial's numbers; those of its data do it through the fingerprint."""
    named = fields.identity() if isinstance(fields, OwnFields) else fields.model_dump(exclude=NOT_IDENTITY)
    return {name: value for name, value in named.items() if not name.startswith("data.")}


def identity_of(trial: Trial) -> str:
    """The hash of what a trial computes, its name."""
    canonical = json.dumps(_identity(trial), sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _identity(trial: Trial) -> dict[str, Any]:
    """What a trial computes: no path, host, study or profile name."""
    named = deciding(trial.fields)
    sources = {slot: own.digest for slot, own in trial.sources.items()}
    identity: dict[str, Any] = {"seed": trial.seed, "repeat": trial.repeat, "data": trial.fingerprint}
    identity |= {"numerics": trial.numerics.model_dump(), "fields": named, "sources": sources}
    if isinstance(trial.fields, Fields):
        named["weights"] = weights_digest(trial.fields.weights)
        # A later field at its default is left out: trials recorded before it keep their names.
        kept = {name: value for name, value in named.items() if (name, value) not in LATER_FIELDS.items()}
        # Ablate's own networks and losses have a version, and no digest.
        identity |= {"fields": kept, "sources": {"arch": "", "loss": ""} | sources}
        identity["training_version"] = TRAINING_VERSION
    return identity


def weights_digest(weights: str) -> str:
    """Digest of a file of weights; published ones, and none, are their name."""
    if not weights.endswith(WEIGHT_FILES):
        return weights
    try:
        with Path(weights).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StudyError(f"weights {weights!r}: the file cannot be read ({error.strerror})") from None
