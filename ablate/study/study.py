"""A study as a person declares it: one question, its factors, and how the answer will be judged."""

import importlib
import inspect
import itertools
import math
import os
import runpy
import shlex
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat, PrivateAttr, model_validator

from ablate.errors import FOREIGN_FAULTS, StudyError, beyond, nearest
from ablate.plugins import is_standard
from ablate.study.fields import (
    Declaration,
    Factors,
    Fields,
    FolderName,
    Frozen,
    Levels,
    Seeds,
    Texts,
    canonical,
    folder_name,
    is_field,
    repeated,
    resolve,
    unknown_name,
)
from ablate.study.own import Metric, OwnFields, Time, Words, own_faults, own_fields, result_name
from ablate.study.parts import BASELINES, PART, Design, part_levels
from ablate.study.search import FIRST_TUNING_SEED, RETUNED, TUNING, Chosen, Search

KINDS = {"arms": ("arm", "pair"), "trend": ("trend",), "main": ("main",), "interaction": ("interaction",)}
"""Names of what can be compared, and the kinds of effect that each is."""
DEFAULT_MARGINS: dict[str, float] = {"accuracy": 0.005, "nll": 0.02, "brier": 0.01, "ece": 0.01}

Margins = dict[str, Annotated[FiniteFloat, Field(gt=0)]]


class Published(Frozen):
    """Somebody else's table of the same run, set beside ours in the report."""

    source: str = Field(description="who published it, and where")
    data: str = Field(description="the dataset it is of; a profile on other data leaves the table out")
    epochs: tuple[dict[str, FiniteFloat], ...] = Field(
        description="one mapping per epoch, named as in the epochs table: epoch, train_loss, ..."
    )
    differences: str = Field(default="", description="what remains different from these runs, in sentences")


class Varied(Declaration):
    """What has factors; one whose levels set several fields is written {name: {level: {field: value}}}."""

    base: Levels = Field(default={}, description="field name to value; of a profile those set differently")
    factors: Factors = Field(
        default={}, description="field name to its levels, or a name to named levels that set several fields"
    )
    named: dict[str, dict[str, Levels]] = Field(default={}, description="taken from the factors")

    @model_validator(mode="before")
    @classmethod
    def _named_apart(cls, declared: Any) -> Any:
        factors = dict(declared.get("factors") or {})
        named = {name: levels for name, levels in factors.items() if isinstance(levels, Mapping)}
        factors |= {name: tuple(levels) for name, levels in named.items()}
        return {**declared, "factors": factors, "named": {**declared.get("named", {}), **named}}

    def settings(self, levels: Mapping[str, Any]) -> dict[str, Any]:
        """Levels as fields, those that named levels set among them."""
        fields = {name: level for name, level in levels.items() if name not in self.named}
        for name in levels.keys() & self.named.keys():
            if levels[name] not in self.named[name]:
                raise StudyError(unknown_name(f"level of {name}", str(levels[name]), self.named[name]))
            fields |= self.named[name][levels[name]]
        return fields


class Profile(Varied):
    """A named variant of a study: the fields, factors and seeds that it changes. The rest stays."""

    margins: Margins = Field(default={}, description="margins set differently")
    seeds: Seeds | None = Field(default=None, description="seeds of this profile")
    search: dict[str, Any] = Field(default={}, description="parts of the search that differ, as points=12")


class Study(Varied):
    """One question put to a grid of training runs, or a search for the best setting.

    Arms are all combinations of levels, trained once per seed; each is compared with the one that differs by
    the `baseline` levels alone. With a `search`, arms are the baseline, the anchors and the winner.
    """

    question: str = Field(min_length=1, description="the question, in a sentence")
    parts: dict[str, Annotated[Levels, Field(min_length=1)]] = Field(
        default={}, description="part of base to its value when off; or a name to fields with theirs"
    )
    design: Design = Field(default="without", description="arms of parts: all but each, only each, or both")
    baseline: Levels = Field(default={}, description="the factor levels that others are compared with")
    only: tuple[Levels, ...] = Field(default=(), description="those combinations that are arms; () is all")
    search: Search | None = Field(default=None, description="ranges of fields to tune, instead of factors")
    retune: Search | None = Field(default=None, description="tunes every arm first, with one budget each")
    chosen: tuple[Chosen, ...] = Field(default=(), description="set by the run: what the searches chose")
    comparisons: tuple[str | Levels, ...] = Field(
        default=(),
        description="what is asked: arms (each against its baseline; the default), trend, main, interaction, "
        "or levels: those of an arm, or of one factor, averaged over the others. The rest is exploratory",
    )
    primary: str = Field(default="accuracy", description="the metric that the answer is about")
    family: tuple[str, ...] = Field(default=(), description="metrics that are asked about; () is the primary")
    margins: Margins = Field(default={}, description="per metric, a difference that does not matter")
    metrics: dict[str, Metric] = Field(default={}, description="metrics of its own, by name")
    seeds: Seeds = Field(default=5, description="how many seeds (0, 1, ...), or which")
    profiles: dict[FolderName, Profile] = Field(default={}, description="named variants")
    published: Published | None = Field(default=None, description="a published table of the same run")
    train: Annotated[str, BeforeValidator(canonical)] = Field(
        default="", description="a function train(trial, *, knobs) that trains instead of ablate's loop"
    )
    command: Words = Field(
        default=(), description="words of a command that trains instead; {knob}, {seed}, {out} are filled in"
    )
    code: Texts = Field(default=(), description="files that decide what the command does, as 'src/**'")
    result: dict[str, str] = Field(
        default={}, description="metric name to where the command leaves it; of a single one, where"
    )
    predictions: str | None = Field(default=None, description="logits and labels, as '{out}/predictions.npz'")
    gpus: int = Field(default=1, ge=0, le=1, description="0: one's own code trains on the CPU, GPU or not")
    timeout: Time = Field(default="", description="what one trial may take, as '2h', '30m' or '90s'")
    warm: bool = Field(default=False, description="own code needs no fresh process per trial, to save time")
    knobs: dict[str, Any] = Field(default={}, description="taken from the training code: its own defaults")
    name: Annotated[str, AfterValidator(lambda name: name and folder_name(name))] = Field(
        default="", description="set from the file's name"
    )
    description: str = Field(default="", description="set from the file's docstring")
    _folder: Path | None = PrivateAttr(default=None)
    _numbers_alone: bool = PrivateAttr(default=False)

    @model_validator(mode="before")
    @classmethod
    def _named_results(cls, declared: Any) -> Any:
        """A result has the only metric's name, or its own; what code of one's own has first is primary."""
        result, metrics = declared.get("result") or {}, declared.get("metrics") or {}
        if isinstance(result, str):
            result = {next(iter(metrics)) if len(metrics) == 1 else result_name(result): result}
        if declared.get("train") or declared.get("command"):
            metrics = {**dict.fromkeys(result, Metric(better="neither")), **metrics}
            declared = {**({"primary": next(iter(metrics))} if metrics else {}), **declared}
        return {**declared, "metrics": metrics, "result": result}

    @model_validator(mode="before")
    @classmethod
    def _parts_as_levels(cls, declared: Any) -> Any:
        given, known, factors = (declared.get(name) or {} for name in ("parts", "named", "factors"))
        if not isinstance(given, Mapping) or not given or PART in known:
            return declared
        if PART in factors:
            raise ValueError(f"factors.{PART}: parts make a factor of this name; give it another")
        parts = {name: dict(off) if isinstance(off, Mapping) else {name: off} for name, off in given.items()}
        design = declared.get("design", "without")
        baseline = {PART: BASELINES.get(design)} | (declared.get("baseline") or {})
        made = {"factors": {**factors, PART: part_levels(parts, design)[0]}, "baseline": baseline}
        return {**declared, "parts": parts, **made}

    def faults(self) -> Iterable[str]:
        """What is wrong with its own code, any level of a factor, or the question."""
        arms = len(self.only) or math.prod(map(len, self.factors.values()))
        seeds = self.seeds if isinstance(self.seeds, int) else len(self.seeds)
        if fault := beyond("trials of a study", arms * seeds):
            return [f"{fault}, but {arms * seeds:,} came"]
        return itertools.chain(own_faults(self), _field_faults(self), _declared_faults(self))

    def find_own_modules(self) -> None:
        """Have the modules that stand beside this study's file found before any other of their names."""
        if self._folder is not None:
            add_import_folder(self._folder)

    @property
    def trained_by(self) -> str:
        """What trains instead of ablate's loop: an import path or a command line; '' where nothing does."""
        return self.train or shlex.join(self.command)

    @property
    def folder(self) -> Path:
        """Where the study's file stands, or here."""
        return self._folder or Path.cwd()

    @property
    def is_paired(self) -> bool:
        """Whether runs of different arms share a seed."""
        return True

    @property
    def comparison_family(self) -> tuple[str, ...]:
        """The metrics that are asked about, whose comparisons share one error rate."""
        return self.family or (self.primary,)

    @property
    def all_margins(self) -> dict[str, float]:
        """Margins of every metric that has one: the study's own over the defaults."""
        own = {name: metric.margin for name, metric in self.metrics.items() if metric.margin is not None}
        return {**DEFAULT_MARGINS, **own, **self.margins}

    def usual(self, *names: str) -> tuple[str, ...]:
        """What is shown beside what the study is about: its own metrics, and these of ablate's."""
        return (*self.metrics, *(() if self._numbers_alone else names))

    def of_numbers_alone(self) -> Self:
        """This study as one whose runs left no predictions, so that none of ablate's metrics is known."""
        copy = self.model_copy()
        copy._numbers_alone = True
        return copy

    def seed_list(self) -> tuple[int, ...]:
        """The seeds, one training run per arm each."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    def arms(self) -> list[dict[str, Any]]:
        """All combinations of the factors' levels, the first factor varying slowest; or those of `only`."""
        names = list(self.factors)
        if self.only:
            return [{name: arm[name] for name in names} for arm in self.only]
        return [dict(zip(names, levels, strict=True)) for levels in itertools.product(*self.factors.values())]

    def references(self, arm: Mapping[str, Any]) -> list[Levels]:
        """The levels that an arm is compared at: the baseline's; of parts, the ends of its design."""
        ends = part_levels(self.parts, self.design)[1].get(arm.get(PART, ""), ()) if self.parts else ()
        return [self.baseline | {PART: end} for end in ends] or [self.baseline]

    def fields(self, arm: Mapping[str, Any]) -> Fields | OwnFields:
        """The complete fields of one arm."""
        return self._resolved(self.base, arm, self._tuned_to(arm))

    def set_by(self, arm: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that an arm's levels set, and what it was re-tuned to."""
        return self.settings(arm) | self._tuned_to(arm)

    def _tuned_to(self, arm: Mapping[str, Any]) -> Levels:
        if not self.chosen or arm.get(TUNING) != RETUNED:
            return {}
        own = {name: level for name, level in arm.items() if name != TUNING}
        return next(one.levels for one in self.chosen if one.arm == own)

    def _resolved(self, *layers: Mapping[str, Any]) -> Fields | OwnFields:
        settings = map(self.settings, layers)
        return own_fields(self, *settings) if self.trained_by else resolve(*settings)

    @property
    def varied(self) -> list[str]:
        """The factors of several levels, but for the one that says whether an arm is re-tuned."""
        several = [name for name, levels in self.factors.items() if len(levels) > 1]
        return [name for name in several if not (self.chosen and name == TUNING)]

    def with_profile(self, name: str) -> Self:
        """This study with the named profile's changes made."""
        if name not in self.profiles:
            raise StudyError(f"--profile {unknown_name('profile', name, self.profiles)}")
        profile = self.profiles[name]
        search = self.retune or self.search
        changed = (search.model_dump() if search else {}) | profile.search or None
        return self.replace(
            base=self.base | profile.base,
            factors=self.factors | profile.factors,
            named=self.named | profile.named,
            margins=self.margins | profile.margins,
            seeds=self.seeds if profile.seeds is None else profile.seeds,
            **{"retune" if self.retune else "search": changed},
        )

    def with_settings(self, settings: Mapping[str, Sequence[Any]]) -> Self:
        """This study with fields overridden: one value fixes a field, several sweep it."""
        fixed = {name: values[0] for name, values in settings.items() if len(values) == 1}
        swept = {name: tuple(values) for name, values in settings.items() if name not in fixed}
        factors = {name: levels for name, levels in (self.factors | swept).items() if name not in fixed}
        baseline = {name: level for name, level in self.baseline.items() if name not in fixed}
        # What names a level that is no more is not asked any more.
        comparisons = tuple(
            asked
            for asked in self.comparisons
            if isinstance(asked, str) or all(level in factors.get(name, ()) for name, level in asked.items())
        )
        base = self.base | fixed
        return self.replace(base=base, factors=factors, baseline=baseline, comparisons=comparisons)

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some of its declarations changed."""
        copy = type(self)(**{**self.model_dump(), **changes})
        copy._folder = self._folder
        return copy


class ExternalStudy(Study):
    """A study of runs that another tool made: any of their columns can be a factor or a metric."""

    seed: str = Field(default="", description="the column that pairs runs of different arms; '' is none")
    differing: tuple[str, ...] = Field(default=(), description="other columns in which runs differ, in words")
    _numbers_alone: bool = PrivateAttr(default=True)

    def faults(self) -> Iterable[str]:
        """As of a study, but for its fields, of which ablate knows none."""
        return _declared_faults(self)

    @property
    def is_paired(self) -> bool:
        """Whether runs of different arms share a seed."""
        return bool(self.seed)

    @property
    def all_margins(self) -> dict[str, float]:
        """Those that are given: ablate's own are for fractions, and a column may be in percent."""
        return self.margins


def _field_faults(study: Study) -> list[str]:
    """Faults of the base and of every level, each level tried alone so that all are named at once."""
    searched = study.search.space if study.search else {}
    swept = {**study.factors, **{name: dimension.ends() for name, dimension in searched.items()}}
    required = {name: levels[0] for name, levels in swept.items()}
    found: dict[str, None] = {}
    for changes in [{}, *({name: level} for name, levels in swept.items() for level in levels)]:
        try:
            study._resolved(study.base, required, changes)
        except StudyError as error:
            found |= dict.fromkeys(str(error).splitlines())
    return list(found)


def _declared_faults(study: Study) -> Iterator[str]:
    """Faults of the factors' levels, the arms that are listed, the baseline, seeds and search."""
    for name, levels in study.factors.items():
        yield from (f"factors.{name}: level {twin!r} is given twice; remove one" for twin in repeated(levels))
    for arm in study.only:
        known = all(level in study.factors.get(name, ()) for name, level in arm.items())
        if not known or len(arm) < len(study.factors):
            yield f"only: expected a level for each of {', '.join(study.factors)}, but {arm} came"
    if repeated(study.only):
        yield "only: an arm is named twice; remove one"
    searched = study.search.space if study.search else {}
    for name, level in study.baseline.items():
        if name in study.factors:
            if level not in (levels := study.factors[name]):
                yield f"baseline.{name}: {level!r} is not among its levels {list(levels)}; add it to them"
        elif name not in searched:
            yield f"baseline.{name}: is not a factor"
        elif not searched[name].holds(level):
            words = searched[name].in_words()
            yield f"baseline.{name}: {level!r} is not among the values searched ({words})"
    if study.design != "without" and not study.parts:
        yield "design: is that of parts; name them, as parts={'mixup': 0.0}, or leave design out"
    yield from _named_faults(study)
    for asked in study.comparisons:
        if isinstance(asked, str):
            if asked not in KINDS:
                yield f"comparisons: {unknown_name('kind', asked, KINDS)}"
            continue
        known = all(level in study.factors.get(name, ()) for name, level in asked.items())
        if not known or len(asked.keys() & study.varied) not in {1, len(study.varied)}:
            each = ", ".join(study.varied)
            yield f"comparisons: expected a level of one factor or of each of {each}, but {asked} came"
        elif not asked.items() - study.baseline.items():
            yield f"comparisons: {asked} is the baseline itself; name what is compared with it"
    seeds = study.seed_list()
    if not seeds or repeated(seeds) or min(seeds) < 0 or max(seeds) >= 2**63:
        yield f"seeds: expected at least one, each once and within 0 to 2**63 - 1, but {study.seeds} came"
    elif (study.search or study.retune) and max(seeds) >= FIRST_TUNING_SEED:
        yield f"seeds: those from {FIRST_TUNING_SEED:,} on are for tuning, and the re-test's must be others"
    if study.search and study.factors and not study.only:
        names = ", ".join(study.factors)
        yield f"search: a study is swept or searched, not both; move {names} into the space, or to base"
    if study.search and "tuning_part" in study.base:
        yield "base.tuning_part: of a study with a search it is the search's; set tuning_part there"
    if (retune := study.retune) is None:
        return
    if study.search or not study.factors:
        yield "retune: is of a study's arms; give it factors or parts, and no search, which makes its own"
    if TUNING in study.factors and not study.chosen:
        yield f"factors.{TUNING}: re-tuning makes a factor of this name; give it another"
    varied = study.factors.keys() | {name for off in study.parts.values() for name in off}
    for name in varied & retune.space.keys():
        yield f"retune: {name} is what the arms differ in; leave it out of the space"
    if len(retune.objective) > 1:
        yield "retune: expected one objective, by which each arm has a best point; leave the other out"


def _named_faults(study: Study) -> Iterator[str]:
    """Faults of named levels: a name that is a field's, and a field that something else sets too."""
    setters: dict[str, list[str]] = {name: [name] for name in study.factors.keys() - study.named.keys()}
    for factor, levels in study.named.items():
        if is_field(factor) and not study.trained_by:
            yield f"factors.{factor}: is a field; give the factor of named levels a name of its own"
        for name in dict.fromkeys(name for fields in levels.values() for name in fields):
            setters.setdefault(name, []).append(factor)
    for name, factors in setters.items():
        if len(factors) > 1:
            yield f"factors: {name} is set by {' and by '.join(factors)}; leave it to one of them"


def load_study(path: str | Path) -> Study:
    """Run a study file, or one of ablate's by name, and return its `study`; modules beside it are found."""
    asked, inside = Path(path), Path(__file__).parents[1] / "studies"  # in a wheel; in a source tree above
    shipped = inside if inside.is_dir() else inside.parents[1] / "studies"
    files = (asked, Path(f"{asked}.py"), shipped / f"{asked}.py")
    path = next((file for file in files if file.is_file()), asked)
    if not path.is_file():
        known = [str(file) for folder in (path.parent, Path("studies")) for file in folder.glob("*.py")]
        ours = sorted(file.stem for file in shipped.glob("*.py"))
        raise StudyError(
            f"{path}: no such study file; give the path of a Python file that defines `study`, or the name "
            f"of one that comes with ablate: {', '.join(ours)}.{nearest(str(path), [*known, *ours])}"
        )
    add_import_folder(path.resolve().parent)
    try:  # under a name that does not stand for a module of Python's
        name = path.name if path.stem in sys.stdlib_module_names else path.stem
        names = runpy.run_path(str(path), run_name=name)
    except StudyError as error:
        raise StudyError(f"{path}: the study is not valid:\n{textwrap.indent(str(error), '  ')}") from None
    except FOREIGN_FAULTS as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        place, kind = f"{path}, line {frames[-1].lineno}" if frames else path, type(error).__name__
        raise StudyError(f"{place}: running the study file fails: {kind}: {error}") from error
    study = names.get("study")
    if not isinstance(study, Study):
        came = f"a {type(study).__name__}" if study is not None else "nothing of that name"
        raise StudyError(f"{path}: expected `study = Study(...)` at the top level, but {came} came")
    description = inspect.cleandoc(names.get("__doc__") or "")
    loaded = study.model_copy(update={"name": study.name or path.stem, "description": description})
    loaded._folder = path.resolve().parent
    return loaded


_STUDY_FOLDERS: set[Path] = set()
STANDARD = [entry for entry in sys.path if is_standard(Path(entry))]
NEEDED = (
    "ablate", "filelock", "jinja2", "joblib", "matplotlib", "numpy", "optuna", "packaging", "pandas", "PIL",
    "pydantic", "rich", "safetensors", "scipy", "seaborn", "sklearn", "threadpoolctl", "torch", "torchvision",
    "typer",
)  # fmt: skip


def add_import_folder(folder: Path) -> None:
    """Look for modules here before all but Python's own; another study's of that name are forgotten."""
    for name in NEEDED:
        for file in (folder / f"{name}.py", folder / name / "__init__.py"):
            if file.is_file() and file != Path(__file__).parents[1] / "__init__.py":
                raise StudyError(f"{file}: ablate needs {name}, and would import this instead; rename it")
    others = [entry for entry in sys.path if entry not in {*STANDARD, str(folder)}]
    others.sort(key=lambda entry: entry not in ("", os.getcwd()))
    sys.path[:] = [*STANDARD, str(folder), *others]
    _STUDY_FOLDERS.add(folder)
    for name, module in list(sys.modules.items()):
        origin = Path(getattr(module, "__file__", None) or "/")
        elsewhere = {origin.parent, origin.parent.parent} & _STUDY_FOLDERS - {folder}
        here = (folder / f"{name}.py").exists() or (folder / name).is_dir()
        if elsewhere and here and "." not in name:
            del sys.modules[name]
    importlib.invalidate_caches()
