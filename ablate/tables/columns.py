"""Every column of every table: name, kind, unit, direction, meaning. Nothing else names columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ablate.fields import Fields
from ablate.metrics import METRICS
from ablate.timing import Case

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

CASE = tuple(
    Column(name, _KINDS[field.annotation], field.description or f"the trial's {name}")
    for name, field in Case.model_fields.items()
)
"""All of a trial that decides which work a training step does."""

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
    "effects": (
        Column("arm", "text", "the arm that is compared"),
        Column("metric", "text", "a column of the trials table"),
        Column("baseline", "text", "the arm it is compared with"),
        Column("n_pairs", "integer", "seeds for which both arms are complete"),
        Column("effect", "number", "mean over seeds of arm minus baseline"),
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
            "equivalent, better, worse (higher, lower: no direction is better) or undecided",
        ),
        Column("reason", "text", "why without a test: incomplete, identical, too_few_seeds, no_spread"),
        Column("below_margin", "boolean", "equivalent, and yet surely different: by less than matters"),
        Column("seeds_needed", "integer", "where undecided: seeds of a new study that would likely decide"),
        Column("low_images", "number", "lower end of the interval for new images as well as new seeds"),
        Column(
            "high_images", "number", "upper end of the same; empty for metrics that are no mean over images"
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
    "contrasts": (
        Column("kind", "text", "main effect, or interaction of two factors"),
        Column("factor", "text", "the factor whose levels differ"),
        Column("level", "text", "the level that is compared"),
        Column("reference", "text", "the level that it is compared with: the baseline, or the first"),
        Column(
            "other_factor",
            "text",
            "for an interaction, the factor between whose levels the effect is compared",
        ),
        Column("other_level", "text", "its level"),
        Column("other_reference", "text", "its level that is compared with"),
        Column("metric", "text", "a column of the trials table"),
        Column("cells", "integer", "combinations of the other factors' levels that it is averaged over"),
        Column("cells_planned", "integer", "how many the study has"),
        Column("n_pairs", "integer", "seeds for which all of these arms are complete"),
        Column("effect", "number", "mean over seeds of the difference, or of the difference of differences"),
        Column(
            "low", "number", "lower end of the 95 % interval: of all the family's together, or of this alone"
        ),
        Column("high", "number", "upper end of the same"),
        Column("p", "number", "paired t test, uncorrected"),
        Column("p_adjusted", "number", "p times the family's contrasts"),
        Column("p_holm", "number", "Holm-corrected over the family; empty outside it"),
    ),
}
DERIVED = ("effects", "contrasts", "timing")
"""Tables that the report computes from the others."""
LATER = ("new_images", "confusion", "projection", "step_times", "timing", "contrasts")
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
