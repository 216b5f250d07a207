"""Every column of every table: name, kind, meaning, unit, better direction, and how it is shown."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from ablate.errors import RecordError
from ablate.guarded import guarded
from ablate.metrics import METRICS
from ablate.store.points import Importances, Point, Tuning
from ablate.store.records import Environment, Record
from ablate.store.results import ResultsFolder, read_plan
from ablate.store.timing import Case
from ablate.study.fields import Fields, Frozen, is_field
from ablate.study.own import Metric
from ablate.study.search import Search
from ablate.study.study import Study
from ablate.study.trials import Plan, Trial

Given = TypeVar("Given")
Kind = Literal["text", "integer", "number", "boolean"]


@dataclass(frozen=True)
class Column:
    """One column of a table, in the file and as a reader sees it: a fraction in percent, so many `digits`.

    `better` is 'higher', 'lower' or ''; a `title` of "" follows from its name; `bounds` are possible ends.
    """

    kind: Kind
    name: str
    meaning: str
    stored_unit: str = ""
    better: str = ""
    title: str = ""
    digits: int = 2
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def unit(self) -> str:
        """As shown."""
        shown = {"fraction": "%", "ratio": "", "squared probability": ""}
        return shown.get(self.stored_unit, self.stored_unit)

    @property
    def factor(self) -> float:
        """By which a stored value is shown."""
        return 100.0 if self.stored_unit == "fraction" else 1.0

    @property
    def difference_unit(self) -> str:
        """Unit of a difference between two shown values."""
        return "points" if self.unit == "%" else self.unit

    @property
    def label(self) -> str:
        """Its name in words."""
        return self.title or self.name.replace("_", " ").capitalize()

    @property
    def axis(self) -> str:
        """Label with unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def noun(self) -> str:
        """Label within a sentence; abbreviations keep their capitals."""
        return self.label if self.label[:2].isupper() else self.label[0].lower() + self.label[1:]


text, integer = partial(Column, "text"), partial(Column, "integer")
number, boolean = partial(Column, "number"), partial(Column, "boolean")

_KINDS: dict[Any, Kind] = {int: "integer", int | None: "integer", float: "number", bool: "boolean"}
_METRICS = tuple(
    number(m.name, m.definition, m.unit, m.better, m.label, m.digits, m.bounds) for m in METRICS.values()
)


def _fields(model: type[Frozen], *names: str) -> tuple[Column, ...]:
    """Fields of what is stored, all or those named, as columns of their names."""
    known = {name: model.model_fields[name] for name in names or model.model_fields}
    return tuple(
        Column(_KINDS.get(field.annotation, "text"), name, field.description or f"the trial's {name}")
        for name, field in known.items()
    )


# Columns of several tables.

_ARM = text("arm", "the factor levels in words")
_KEY = (
    text("trial_id", "identity of the trial: a hash of everything that decides its numbers"),
    _ARM,
    integer("seed", "seed of the training run; arms of one seed are paired"),
)
_STATUS = text("status", "complete, diverged, oom, killed, timeout, error, missing (not run), unreadable")
_MACHINE = _fields(Environment, "threads", "device_name")
_HIGH = number("high", "upper end of the same")


def _scores(suffix: str, which: str) -> tuple[Column, ...]:
    """A point's columns for one objective, all in the objective's own unit."""
    return (
        text(f"objective{suffix}", f"the metric that is searched for{which}"),
        number(f"value{suffix}", "its mean over the point's seeds, tuning split; empty unless complete"),
        number(f"sd{suffix}", "standard deviation over the seeds"),
        number(f"low{suffix}", "lower end of the mean's 95 % interval over seeds"),
        number(f"high{suffix}", "upper end of the same"),
        number(f"smoothed{suffix}", "smoothed over neighbours, what choice rests on; empty below a cliff"),
        number(f"smoothed_sd{suffix}", "standard deviation of the smoothed value"),
    )


COLUMNS: dict[str, tuple[Column, ...]] = {
    "trials": (
        *_KEY,
        text("study", "name of the study"),
        text("profile", "profile of the study"),
        *_fields(Trial, "repeat"),
        _STATUS,
        *_fields(Fields),
        *_METRICS,
        number("step_ms", "median; other trials may share the machine", "ms", "lower", "Training step"),
        number("step_ms_p20", "20th percentile of the training steps", "ms", "lower"),
        number("step_ms_p80", "80th percentile of the training steps", "ms", "lower"),
        number("images_per_second", "training images per second of training", "1/s", "higher"),
        number("peak_memory_mb", "most memory held on CUDA; on a CPU, by its worker so far", "MB", "lower"),
        number("train_seconds", "training time, evaluation excluded", "s", "lower", "Training time"),
        number("eval_seconds", "evaluation time", "s", "lower"),
        *(
            number(
                f"scatter_{kind}{suffix}",
                f"penultimate layer, {split}: mean cosine distance {words}, Kornblith et al. 2021",
                "ratio",
                title=f"Scatter {kind} classes{f', {split}' if suffix else ''}",
                digits=4,
            )
            for suffix, split in (("", "reported split"), ("_train", "training images"))
            for kind, words in (("within", "inside a class"), ("between", "added by the classes"))
        ),
        *_fields(Record, "parameters", "macs"),
        text("device", "device kind that the trial ran on: cpu or cuda"),
        text("resolved_precision", "arithmetic that `precision` came to"),
        *_MACHINE,
        text("engine", "how steps reached the device: eager, graph, or eager and why not graph"),
        text("torch_version", "version of torch"),
        text("commit", "commit of ablate's source"),
        text("failure", "why there is no result"),
        text("predictions_sha256", "digest of the predictions; equal ones are the same to the last bit"),
    ),
    "epochs": (
        *_KEY,
        integer("epoch", "0 is the first"),
        number("train_loss", "mean training loss as trained (smoothed)", "nats", "lower", "Training loss", 4),
        number("train_accuracy", "on training batches as seen", "fraction", "higher", "Training accuracy"),
        number("valid_loss", "with the training loss (smoothed)", "nats", "lower", "Loss, reported split", 4),
        number("valid_accuracy", "share of right images", "fraction", "higher", "Accuracy, reported split"),
        number("valid_nll", "unsmoothed negative log-likelihood, reported split", "nats", "lower"),
        number("valid_ece", "expected calibration error, 15 bins, reported split", "fraction", "lower"),
        number("lr", "learning rate at the end of the epoch"),
        number("seconds", "training part of the epoch", "s", "lower"),
    ),
    "reliability": (
        *_KEY,
        integer("bin", "0 is the lowest confidence"),
        number("lower", "lower edge of the bin's confidence"),
        number("upper", "upper edge of the bin's confidence"),
        integer("count", "images in the bin"),
        number("confidence", "mean confidence of the bin's images; empty without images"),
        number("accuracy", "accuracy of the bin's images; empty without images"),
    ),
    "floors": (
        _ARM,
        text("metric", "a calibration error that has a noise floor"),
        integer("runs", "complete training runs of the arm; empty where only the first was measured"),
        number("low", "lower end of where 95 % of means over so many runs of calibrated networks lie"),
        number("high", "upper end of the same; a mean above it is miscalibration"),
    ),
    "effects": (
        text("kind", "arm, pair (without a baseline), main (effect of a factor), interaction, trend, or run"),
        text("term", "what is compared: an arm, or levels of which others are averaged over"),
        text("against", "what it is compared with; of a trend, the lowest level"),
        text("metric", "a column of the trials table"),
        integer("cells", "combinations of the other factors' levels that it is averaged over"),
        integer("cells_planned", "how many the study has"),
        integer("n", "seeds for which all of its arms are complete"),
        number("effect", "mean over seeds of term minus against; of a trend along the least-squares line"),
        number("low", "lower end of the 95 % interval: of all claims together, or for itself"),
        _HIGH,
        number("p", "t test, uncorrected: paired over seeds, or Welch's where no seed pairs runs"),
        number("p_adjusted", "p times the claims; the interval excludes 0 where it is <= 0.05"),
        number("rho", "correlation between the two arms over seeds; empty below three pairs"),
        number("margin", "largest difference that the study says does not matter"),
        number("p_equivalence", "equivalence test against the margin, corrected like p_adjusted"),
        text("verdict", "of a claim equivalent, better, worse, higher, lower or undecided; else exploratory"),
        text("reason", "why without a test: incomplete, identical, too_few_seeds, no_spread; bent: it turns"),
        boolean("below_margin", "equivalent, and yet surely different: by less than matters"),
        integer("seeds_from", "where undecided: seeds that decide with 80 % power if arms vary as measured"),
        integer("seeds_needed", "the same if they vary by as much as is likely; empty above 1,000"),
        number("low_images", "lower end of the interval for new images as well as new seeds"),
        number("high_images", "upper end of the same; empty for metrics that are no mean over images"),
        number("p_sign_flip", "exact sign-flip test, uncorrected; empty above 20 pairs; decides no verdict"),
        number("p_welch", "Welch's test of its two sides as if no seed paired them, uncorrected; as above"),
        number("largest_share", "part of the differences' sum of squares that a single seed has"),
        number("detectable", "smallest difference that so many pairs find with 80 % power, in the family"),
    ),
    "new_images": (
        text("arm", "the arm that is compared"),
        text("baseline", "the arm it is compared with; empty for the arm's own mean"),
        text("metric", "a column of the trials table that is a mean over images"),
        integer("comparisons", "intervals that hold together: the family's, or 1"),
        integer("n_pairs", "seeds for which both are complete"),
        integer("images", "images of the reported split"),
        number("effect", "mean over seeds and images of arm minus baseline, or of the arm alone"),
        number("low", "lower end of the 95 % interval for new images and new seeds"),
        _HIGH,
    ),
    "confusion": (
        _ARM,
        text("class", "the class that images are of"),
        text("predicted", "the class that they were taken for"),
        integer("count", "images, over all complete training runs of the arm"),
    ),
    "projection": (
        *_KEY,
        text("split", "train or valid"),
        text("class", "the image's class, one of the first three"),
        number("x", "penultimate layer in the plane of three templates, Müller et al. 2019; first run"),
        number("y", "second axis of the same"),
    ),
    "step_times": (
        *_fields(Case),
        integer("round", "cases of one round were timed in turn"),
        number("step_ms", "mean time of a training step in that turn", "ms", "lower"),
        integer("steps", "steps that it is the mean of"),
        *_MACHINE,
        number("others", "part of the machine's cores that other processes used meanwhile"),
    ),
    "timing": (
        *_fields(Case),
        boolean("plain", "the step with plain cross-entropy that the others are set beside"),
        number("step_ms", "median over rounds of a training step, nothing else running", "ms", "lower"),
        number("low", "lower end of the median's 95 % interval", "ms"),
        number("high", "upper end of the same", "ms"),
        number("ratio_to_plain", "median over rounds of the ratio to the plain step", "", "lower"),
        number("ratio_low", "lower end of its 95 % interval"),
        number("ratio_high", "upper end of the same"),
        integer("n", "rounds"),
        boolean("exclusive", "other processes used less than a tenth of the cores; empty where unknown"),
    ),
    "tuning": (
        integer("points_planned", "the budget: how many points are to be tried"),
        integer("points_done", "points of which every training run is complete"),
        integer("points_pruned", "points given up early"),
        integer("points_failed", "points of which a training run failed"),
        *_fields(Search, "seeds", "sampler", "pruning"),
        text("objective", "the metric that was searched for"),
        text("direction", "which direction of it is better: higher or lower"),
        text("objective_2", "the second one; empty with one objective"),
        text("direction_2", "its better direction"),
        *_fields(Tuning, "tuning_images", "train_images", "tuning_digest", "reported_digest", "overlap"),
        integer("trainings", "training runs that are recorded, whatever became of them"),
        number("seconds", "what they took, training and evaluation, summed over runs", "s"),
    ),
    "points": (
        *_fields(Point, "number", "source", "state", "reason", "pruned_at"),
        text("levels", "the searched fields' values in words; an unused conditional one is left out"),
        *_fields(Fields),
        integer("seeds_planned", "training runs asked for"),
        integer("seeds_done", "of these the complete ones"),
        *_scores("", ""),
        *_scores("_2", ", the second one; empty with one objective"),
        number("last_seen", "where pruned: mean of the complete seeds, or the last epoch's value"),
        boolean("on_front", "two objectives: no point is as good in both smoothed values and better in one"),
        boolean("winner", "chosen to be run again with fresh seeds"),
        number("seconds", "training and evaluation, summed over its runs", "s"),
    ),
    "point_values": (
        integer("number", "the point"),
        integer("seed", "seed of the training run"),
        text("trial_id", "identity of the trial, whose record lies under tuning/"),
        _STATUS,
        number("value", "the objective on the tuning split; empty unless complete"),
        number("value_2", "the second objective"),
    ),
    "importances": (
        *_fields(Importances, "objective", "evaluator"),
        text("field", "a searched field"),
        number("share", "how much it decides whether a point is among the best, of 1 over all fields"),
    ),
}
DECLARED: ContextVar[Mapping[str, Metric]] = ContextVar("declared", default=MappingProxyType({}))
"""The metrics that the studies at hand declare, by name."""


def declare(*studies: Study) -> None:
    """Have these studies' own metrics known; those of studies before are forgotten."""
    DECLARED.set({name: metric for study in studies for name, metric in study.metrics.items()})


def open_plan(folder: ResultsFolder) -> Plan:
    """The plan of a results folder, the metrics that it declares known and their code to be found."""
    plan = read_plan(folder)
    if not folder.records.is_dir():  # as of a variation that was copied without its study
        raise RecordError(f"{folder.records}: is missing, and with it what the tables tell of; restore it")
    declare(plan.study)
    plan.find_own_modules()
    return plan


def with_own_metrics(names: Collection[str], function: Callable[[], Given]) -> Given:
    """What a function gives that computes metrics of these names; a study's code in a child."""
    codes = [own.code for name, own in DECLARED.get().items() if name in names and own.code]
    return guarded(function, what=f"computing {', '.join(codes)}") if codes else function()


def metric_column(name: str, metric: Metric) -> Column:
    """The column of a metric that a study declares."""
    unit, better = metric.unit, metric.better.replace("neither", "")
    digits = (2 if unit in ("fraction", "%") else 4) if metric.digits is None else metric.digits
    origin = f"computed by {metric.code}" if metric.code else "as trials report it"
    return number(name, f"declared by the study, {origin}", unit, better, metric.label, digits)


def is_argument(name: str) -> bool:
    """Whether a column is of an argument of code that a study names, as arch.dropout."""
    return "." in name and (is_field(name) or name.startswith("train."))


def columns_of(table: str, arguments: Mapping[str, Iterable[str]]) -> tuple[Column, ...]:
    """A table's columns, a study's metrics and arguments of code with them, whose values tell the kind."""
    columns = list(COLUMNS[table])
    if table in ("trials", "points"):
        after = columns.index(_fields(Fields)[-1]) + 1
        forms: dict[Kind, str] = {"integer": r"-?\d{1,18}", "number": r"-?\d+(\.\d*)?(e[+-]?\d+)?"}
        about, own = "an argument of the code that the study names", list[Column]()
        for name, texts in arguments.items():
            fits = (kind for kind, form in forms.items() if all(re.fullmatch(form, text) for text in texts))
            own.append(Column(next(fits, "text"), name, about))
        columns[after:after] = own
    if table == "trials":
        after = columns.index(_METRICS[-1]) + 1
        columns[after:after] = [metric_column(name, own) for name, own in DECLARED.get().items()]
    return tuple(columns)


TUNING = ("tuning", "points", "point_values", "importances")  # of a study that was tuned
DERIVED = ("effects", "timing")  # tables that the report computes from the others
RECORDED = tuple(name for name in COLUMNS if name not in DERIVED)
FIRST = ("trials", "epochs", "reliability", "effects")  # what every version wrote; another may be missing
RETIRED = {"floors": ("trial_id", "seed"), "effects": ("p_holm",)}  # of earlier versions
