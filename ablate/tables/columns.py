"""Every column of every table: name, kind, unit, direction, meaning. Nothing else names columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ablate.metrics import METRICS
from ablate.store.timing import Case
from ablate.study.fields import Fields

Kind = Literal["text", "integer", "number", "boolean"]


@dataclass(frozen=True)
class Column:
    """One column of a table: its name, kind, unit, better direction ('higher', 'lower' or '') and meaning."""

    name: str
    kind: Kind
    description: str
    unit: str = ""
    better: str = ""


def _metric_columns() -> tuple[Column, ...]:
    direction = {True: "higher", False: "lower", None: ""}
    return tuple(
        Column(m.name, "number", m.definition, m.unit, direction[m.higher_is_better])
        for m in METRICS.values()
    )


_KINDS: dict[Any, Kind] = {int: "integer", float: "number", bool: "boolean", str: "text"}


def _field_columns() -> tuple[Column, ...]:
    return tuple(
        Column(name, _KINDS.get(field.annotation, "text"), field.description or "")
        for name, field in Fields.model_fields.items()
    )


TRIAL_KEY = (
    Column("trial_id", "text", "identity of the trial: a hash of everything that decides its numbers"),
    Column("arm", "text", "the factor levels in words"),
    Column("seed", "integer", "seed of the training run; arms of one seed are paired"),
)

MISSING = "missing"
"""Status, in tables only, of a planned trial that has no record."""
UNREADABLE = "unreadable"
"""Status, in tables only, of a planned trial whose record or predictions are damaged."""

CASE = tuple(
    Column(name, _KINDS[field.annotation], field.description or f"the trial's {name}")
    for name, field in Case.model_fields.items()
)
"""All of a trial that decides which work a training step does."""


def _scores(suffix: str, which: str) -> tuple[Column, ...]:
    """A point's columns for one objective, all in the objective's own unit."""
    return (
        Column(f"objective{suffix}", "text", f"the metric that is searched for{which}"),
        Column(
            f"value{suffix}",
            "number",
            "mean of the objective over the point's seeds, tuning split; empty unless all are complete",
        ),
        Column(f"sd{suffix}", "number", "standard deviation over the seeds"),
        Column(f"low{suffix}", "number", "lower end of the mean's 95 % t interval over seeds"),
        Column(f"high{suffix}", "number", "upper end of the same"),
        Column(
            f"smoothed{suffix}",
            "number",
            "the value smoothed over neighbouring points, which choice rests on",
        ),
        Column(f"smoothed_sd{suffix}", "number", "standard deviation of the smoothed value"),
    )


COLUMNS: dict[str, tuple[Column, ...]] = {
    "trials": (
        *TRIAL_KEY,
        Column("study", "text", "name of the study"),
        Column("profile", "text", "profile of the study"),
        Column("repeat", "integer", "0, or the number of a deliberate second run"),
        Column(
            "status", "text", "complete, diverged, oom, killed, timeout, error, missing (not run), unreadable"
        ),
        *_field_columns(),
        *_metric_columns(),
        Column(
            "step_ms",
            "number",
            "median training step; other trials may have shared the machine",
            "ms",
            "lower",
        ),
        Column("step_ms_p20", "number", "20th percentile of the training steps", "ms", "lower"),
        Column("step_ms_p80", "number", "80th percentile of the training steps", "ms", "lower"),
        Column("images_per_second", "number", "training images per second of training", "1/s", "higher"),
        Column(
            "peak_memory_mb",
            "number",
            "most memory held on CUDA; on a CPU, by its worker so far",
            "MB",
            "lower",
        ),
        Column("train_seconds", "number", "training time, evaluation excluded", "s", "lower"),
        Column("eval_seconds", "number", "evaluation time", "s", "lower"),
        *(
            Column(
                f"scatter_{kind}{suffix}",
                "number",
                f"penultimate layer, {split}: mean cosine distance {words}, Kornblith et al. 2021",
                "ratio",
            )
            for suffix, split in (("", "reported split"), ("_train", "training images"))
            for kind, words in (("within", "inside a class"), ("between", "added by the classes"))
        ),
        Column("parameters", "integer", "trainable parameters of the network"),
        Column("macs", "integer", "multiply-adds of one image's forward pass"),
        Column("device", "text", "device kind that the trial ran on: cpu or cuda"),
        Column("device_name", "text", "processor or GPU model"),
        Column("resolved_precision", "text", "arithmetic that `precision` came to"),
        Column("threads", "integer", "CPU threads of the trial"),
        Column("engine", "text", "how steps reached the device: eager, graph, or eager and why not graph"),
        Column("torch_version", "text", "version of torch"),
        Column("commit", "text", "commit of ablate's source"),
        Column("failure", "text", "why there is no result"),
        Column(
            "predictions_sha256", "text", "digest of the predictions; equal ones are the same to the last bit"
        ),
    ),
    "epochs": (
        *TRIAL_KEY,
        Column("epoch", "integer", "0 is the first"),
        Column("train_loss", "number", "mean training loss as trained (smoothed)", "nats", "lower"),
        Column("train_accuracy", "number", "accuracy on training batches as they were seen", "", "higher"),
        Column("valid_loss", "number", "reported split, with the training loss (smoothed)", "nats", "lower"),
        Column("valid_accuracy", "number", "accuracy on the reported split", "", "higher"),
        Column("valid_nll", "number", "unsmoothed negative log-likelihood, reported split", "nats", "lower"),
        Column("valid_ece", "number", "expected calibration error, 15 bins, reported split", "", "lower"),
        Column("lr", "number", "learning rate at the end of the epoch"),
        Column("seconds", "number", "training part of the epoch", "s", "lower"),
    ),
    "reliability": (
        *TRIAL_KEY,
        Column("bin", "integer", "0 is the lowest confidence"),
        Column("lower", "number", "lower edge of the bin's confidence"),
        Column("upper", "number", "upper edge of the bin's confidence"),
        Column("count", "integer", "images in the bin"),
        Column("confidence", "number", "mean confidence of the bin's images; empty without images"),
        Column("accuracy", "number", "accuracy of the bin's images; empty without images"),
    ),
    "floors": (
        Column("trial_id", "text", "the arm's first complete trial, the only one measured, to save time"),
        *TRIAL_KEY[1:],
        Column("metric", "text", "a calibration error that has a noise floor"),
        Column(
            "low",
            "number",
            "lower end of where 95 % of perfectly calibrated networks with its probabilities would score",
        ),
        Column("high", "number", "upper end of the same; an error above it is miscalibration"),
    ),
    "effects": (
        Column("kind", "text", "arm, main (effect of a factor), interaction, trend, or run (of another run)"),
        Column("term", "text", "what is compared: an arm, or levels of which others are averaged over"),
        Column("against", "text", "what it is compared with; of a trend, the lowest level"),
        Column("metric", "text", "a column of the trials table"),
        Column("cells", "integer", "combinations of the other factors' levels that it is averaged over"),
        Column("cells_planned", "integer", "how many the study has"),
        Column("n", "integer", "seeds for which all of its arms are complete"),
        Column(
            "effect",
            "number",
            "mean over seeds of term minus against: of an interaction a difference of two differences, of a "
            "trend the change from the lowest to the highest level along the least-squares line",
        ),
        Column(
            "low", "number", "lower end of the 95 % interval: of all the family's together, or of this alone"
        ),
        Column("high", "number", "upper end of the same"),
        Column("p", "number", "paired t test, uncorrected"),
        Column(
            "p_adjusted",
            "number",
            "p times the family's comparisons; the interval excludes 0 where it is <= 0.05",
        ),
        Column(
            "p_holm", "number", "Holm-corrected over the family; empty outside it; no verdict rests on it"
        ),
        Column("rho", "number", "correlation between the two arms over seeds; empty below three pairs"),
        Column("margin", "number", "largest difference that the study says does not matter"),
        Column("p_equivalence", "number", "equivalence test against the margin, corrected like p_adjusted"),
        Column(
            "verdict",
            "text",
            "equivalent, better, worse (higher, lower: no direction is better, or interaction) or undecided",
        ),
        Column("reason", "text", "why without a test: incomplete, identical, too_few_seeds, no_spread"),
        Column("below_margin", "boolean", "equivalent, and yet surely different: by less than matters"),
        Column("seeds_needed", "integer", "where undecided: seeds of a new study that would likely decide"),
        Column("low_images", "number", "lower end of the interval for new images as well as new seeds"),
        Column(
            "high_images", "number", "upper end of the same; empty for metrics that are no mean over images"
        ),
        Column(
            "p_sign_flip",
            "number",
            "exact sign-flip test, uncorrected; empty above 20 pairs; no verdict rests on it",
        ),
        Column(
            "detectable",
            "number",
            "smallest true difference that so many pairs of this spread find with 80 % power, in the family",
        ),
    ),
    "new_images": (
        Column("arm", "text", "the arm that is compared"),
        Column("baseline", "text", "the arm it is compared with"),
        Column("metric", "text", "a column of the trials table that is a mean over images"),
        Column("comparisons", "integer", "intervals that hold together: the family's, or 1"),
        Column("n_pairs", "integer", "seeds for which both arms are complete"),
        Column("images", "integer", "images of the reported split"),
        Column("effect", "number", "mean over seeds and images of arm minus baseline"),
        Column("low", "number", "lower end of the 95 % interval for new images and new seeds"),
        Column("high", "number", "upper end of the same"),
    ),
    "confusion": (
        Column("arm", "text", "the factor levels in words"),
        Column("class", "text", "the class that images are of"),
        Column("predicted", "text", "the class that they were taken for"),
        Column("count", "integer", "images, over all complete training runs of the arm"),
    ),
    "projection": (
        *TRIAL_KEY,
        Column("split", "text", "train or valid"),
        Column("class", "text", "the image's class, one of the first three"),
        Column(
            "x",
            "number",
            "penultimate layer in the plane of three templates, Müller et al. 2019; an arm's first run",
        ),
        Column("y", "number", "second axis of the same"),
    ),
    "step_times": (
        *CASE,
        Column("round", "integer", "cases of one round were timed in turn"),
        Column("step_ms", "number", "mean time of a training step in that turn", "ms", "lower"),
        Column("steps", "integer", "steps that it is the mean of"),
        Column("threads", "integer", "CPU threads"),
        Column("device_name", "text", "processor or GPU model"),
        Column("others", "number", "part of the machine's cores that other processes used meanwhile"),
    ),
    "timing": (
        *CASE,
        Column("plain", "boolean", "the step with plain cross-entropy that the others are set beside"),
        Column(
            "step_ms", "number", "median over rounds of a training step, nothing else running", "ms", "lower"
        ),
        Column("low", "number", "lower end of the median's 95 % interval", "ms"),
        Column("high", "number", "upper end of the same", "ms"),
        Column("ratio_to_plain", "number", "median over rounds of the ratio to the plain step", "", "lower"),
        Column("ratio_low", "number", "lower end of its 95 % interval"),
        Column("ratio_high", "number", "upper end of the same"),
        Column("n", "integer", "rounds"),
        Column(
            "exclusive", "boolean", "other processes used less than a tenth of the cores; empty where unknown"
        ),
    ),
    "tuning": (
        Column("points_planned", "integer", "the budget: how many points are to be tried"),
        Column("points_done", "integer", "points of which every training run is complete"),
        Column("points_pruned", "integer", "points given up early"),
        Column("points_failed", "integer", "points of which a training run failed"),
        Column("seeds", "integer", "training runs planned per point"),
        Column("sampler", "text", "how points were chosen"),
        Column("pruning", "text", "which rule gave points up early, or none"),
        Column("objective", "text", "the metric that was searched for"),
        Column("direction", "text", "which direction of it is better: higher or lower"),
        Column("objective_2", "text", "the second one; empty with one objective"),
        Column("direction_2", "text", "its better direction"),
        Column("tuning_images", "integer", "images that points were judged on, held back from training"),
        Column("train_images", "integer", "images that points were trained on"),
        Column("tuning_digest", "text", "digest of the tuning split's images and labels"),
        Column("reported_digest", "text", "digest of the reported split's"),
        Column("overlap", "integer", "tuning images whose exact pixels the reported split holds too"),
        Column("trainings", "integer", "training runs that are recorded, whatever became of them"),
        Column("seconds", "number", "what they took, training and evaluation, summed over runs", "s"),
    ),
    "points": (
        Column("number", "integer", "0, 1, ... in the order the points were asked for"),
        Column("source", "text", "baseline, anchor or sampler"),
        Column("state", "text", "running (not ended), complete, pruned or failed"),
        Column("reason", "text", "why it was pruned or failed"),
        Column("pruned_at", "integer", "after so many seeds, or epochs, as the rule counts"),
        Column(
            "levels", "text", "the searched fields' values in words; an unused conditional one is left out"
        ),
        *_field_columns(),
        Column("seeds_planned", "integer", "training runs asked for"),
        Column("seeds_done", "integer", "of these the complete ones"),
        *_scores("", ""),
        *_scores("_2", ", the second one; empty with one objective"),
        Column("last_seen", "number", "where pruned: mean of the complete seeds, or the last epoch's value"),
        Column(
            "on_front",
            "boolean",
            "with two objectives: no point is at least as good in both smoothed values and better in one",
        ),
        Column("winner", "boolean", "chosen to be run again with fresh seeds"),
        Column("seconds", "number", "training and evaluation, summed over its runs", "s"),
    ),
    "point_values": (
        Column("number", "integer", "the point"),
        Column("seed", "integer", "seed of the training run"),
        Column("trial_id", "text", "identity of the trial, whose record lies under tuning/"),
        Column(
            "status", "text", "complete, diverged, oom, killed, timeout, error, missing (not run), unreadable"
        ),
        Column("value", "number", "the objective on the tuning split; empty unless complete"),
        Column("value_2", "number", "the second objective"),
    ),
    "importances": (
        Column("objective", "text", "the metric that was searched for"),
        Column("evaluator", "text", "method that the shares come from"),
        Column("field", "text", "a searched field"),
        Column(
            "share", "number", "how much it decides whether a point is among the best, of 1 over all fields"
        ),
    ),
}
TUNING = ("tuning", "points", "point_values", "importances")
"""Tables of a search. Only a study that was tuned has them."""
DERIVED = ("effects", "timing")
"""Tables that the report computes from the others."""
LATER = (
    "new_images",
    "confusion",
    "projection",
    "step_times",
    "timing",
    "floors",
    *TUNING,
)
"""Tables that came later: where they are missing, an earlier version wrote the rest."""


def data_dictionary() -> str:
    """results/README.md: every table and column with unit, direction and meaning, from the code."""
    lines = [
        "# Tables",
        "",
        "What the CSV files beside the records hold, and what `ablate.load_tables` returns.",
        "Numbers are unrounded; accuracies, confidences and calibration errors are fractions of 1.",
        "This page is generated from the code.",
    ]
    for table, columns in COLUMNS.items():
        lines += [
            "",
            f"## {table}",
            "",
            "| column | kind | unit | better | meaning |",
            "|---|---|---|---|---|",
        ]
        lines += [f"| `{c.name}` | {c.kind} | {c.unit} | {c.better} | {c.description} |" for c in columns]
    return "\n".join(lines) + "\n"
