"""Arms of one run or of two, each beside what it is compared with: rows as in the effects table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ablate.analysis.arms import FLOOR, complete_trials, finite_numbers
from ablate.analysis.effects import effect_row
from ablate.errors import StudyError
from ablate.stats import independent_effect, mean_interval, paired_effect
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.fields import Fields, unknown_name
from ablate.study.trials import NOT_IDENTITY, Plan
from ablate.tables import build_tables, read_tables
from ablate.tables.quantities import number_columns

RECORDED = ("device", "device_name", "resolved_precision", "threads", "torch_version", "commit")
GRAVE = {
    "data fingerprint": "data",
    "device": "device",
    "device_name": "device",
    "resolved_precision": "precision",
    "torch_version": "torch version",
    "commit": "commit",
}
"""Facts that can cause a difference by themselves, and what a reader calls them."""
METRICS_SHOWN = ("accuracy", "nll", "ece")
SIDE = ("mean", "low", "high", "n")


@dataclass(frozen=True)
class Run:
    """One recorded study: where it is, what was planned, and its trials table."""

    folder: ResultsFolder
    plan: Plan
    trials: pd.DataFrame

    def by_seed(self, arm: str) -> pd.DataFrame:
        """The trials table over an arm's planned seeds; empty cells where a trial has no result."""
        complete = complete_trials(self.trials[self.trials["arm"] == arm])
        return complete.set_index(complete["seed"].astype(int)).reindex(sorted(self.plan.study.seed_list()))

    def statuses(self) -> Mapping[str, int]:
        """How many planned trials ended how: `complete`, `missing`, or the kind of failure."""
        return {str(name): int(count) for name, count in self.trials["status"].value_counts().items()}

    def __str__(self) -> str:
        """Its name, and how many of its trials are complete."""
        complete = f"{self.statuses().get('complete', 0)} of {len(self.plan.trials)} trials complete"
        return f"{self.plan.study.name}, profile {self.plan.profile}: {complete}"


def read_run(folder: ResultsFolder) -> Run:
    """A recorded study with its metrics; from the records where it has predictions, else from its tables.

    Raises:
        RecordError: nothing was run there, or what is stored is damaged.
    """
    plan = read_plan(folder)
    if folder.predictions.exists():
        trials = build_tables(folder, plan)["trials"]
    else:
        trials = read_tables(folder, names=["trials"])["trials"]
    # A table may change a name's line breaks; the plan's names are the ones that runs are joined by.
    arm_of = {trial.trial_id: trial.arm for trial in plan.trials}
    return Run(folder, plan, trials.assign(arm=trials["trial_id"].map(arm_of).astype("string")))


@dataclass(frozen=True)
class Comparison:
    """Arms of run `b` beside arms of run `a`, which can be the same run.

    Attributes:
        a: what is compared with.
        b: what is compared.
        pairs: an arm of `b`, and the arm of `a` that it is compared with.
        differences: for every metric and pair a row as in the effects table, and `method`: "paired" by seed,
            or "welch", independent samples, whose `n` is the trials of both; `comparisons`, whose intervals
            hold together; of either side its mean with its own 95 % interval, `a_mean`, `a_low`, `a_high`,
            `a_n`; and the noise floor of a metric that has one, `a_floor`.
    """

    a: Run
    b: Run
    pairs: tuple[tuple[str, str], ...]
    differences: pd.DataFrame

    @cached_property
    def rows(self) -> dict[tuple[str, str], Any]:
        """An arm of `b` and a metric to the row of its difference."""
        return {(str(row.term), str(row.metric)): row for row in self.differences.itertuples()}

    @property
    def alone(self) -> tuple[list[str], list[str]]:
        """Arms that only the first run has, and those that only the second has."""
        a, b = self.a.plan.arms, self.b.plan.arms
        return [arm for arm in a if arm not in b], [arm for arm in b if arm not in a]

    @cached_property
    def unlike(self) -> list[tuple[str, str, str]]:
        """What differs between the runs besides: its name, and its value in each."""
        a, b = _facts(self.a), _facts(self.b)
        sides = [(name, a.get(name, "none"), b.get(name, "none")) for name in {**a, **b}]
        return [side for side in sides if side[1] != side[2]]

    @property
    def caution(self) -> str:
        """A sentence on what differs that can cause a difference by itself; "" where nothing does."""
        grave = list(dict.fromkeys(GRAVE[name] for name, *_ in self.unlike if name in GRAVE))
        named = " and ".join(filter(None, [", ".join(grave[:-1]), *grave[-1:]]))
        return (
            f"Take care: the runs differ in {named}, and a difference may come from that alone."
            if grave
            else ""
        )


def compare_runs(a: Run, b: Run, metrics: Sequence[str] = METRICS_SHOWN) -> Comparison:
    """Join two runs by the names of their arms; differences are the second's values minus the first's.

    One family: the intervals of all common arms and all metrics hold together with 95 % confidence, and the
    verdicts follow from them. A failed arm counts in it too, so that it never makes the others narrower. An
    arm is compared by seed where the trials are the same but for the machine, else as two samples.

    Raises:
        StudyError: a metric is no measured column of the trials table.
    """
    measured = measured_columns()
    unknown = [unknown_name("metric", name, measured) for name in metrics if name not in measured]
    if unknown:
        raise StudyError("\n".join(f"--metric {line}" for line in unknown))
    shared = [(arm, arm) for arm in a.plan.arms if arm in b.plan.arms]
    return _comparison(a, b, shared, metrics, lambda metric: len(shared) * len(metrics))


def compare_arms(run: Run, metrics: Sequence[str]) -> Comparison:
    """Each arm of a study beside its baseline arm.

    The families are the report's; a metric outside, uncorrected there, is corrected over the arms, as any of
    them can fail a gate.
    """
    study, pairs = run.plan.study, run.plan.comparisons
    return _comparison(run, run, pairs, metrics, lambda metric: len(pairs) * study.family_size(metric, 1))


def measured_columns() -> list[str]:
    """Columns of the trials table that hold a measured number, sorted."""
    return sorted(number_columns() - Fields.model_fields.keys())


def _comparison(
    a: Run,
    b: Run,
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    comparisons: Callable[[str], int],
) -> Comparison:
    rows = [_difference(a, b, pair, metric, comparisons(metric)) for metric in metrics for pair in pairs]
    return Comparison(a, b, tuple(pairs), pd.DataFrame(rows))


def _difference(a: Run, b: Run, pair: tuple[str, str], metric: str, comparisons: int) -> dict[str, Any]:
    arm, against = pair
    sides = {"a": a.by_seed(against), "b": b.by_seed(arm)}
    first, second = (finite_numbers(rows[metric]) for rows in sides.values())
    # The smaller of the margins that the studies declare, so that neither can excuse more.
    margin = float(np.fmin.reduce([run.plan.study.all_margins.get(metric, np.nan) for run in (a, b)]))
    if a is b or _trained(a, against) == _trained(b, arm):
        digests, others = (list(rows["predictions_sha256"].fillna("")) for rows in sides.values())
        row = {"method": "paired"} | effect_row(
            metric,
            paired_effect(second, first, comparisons=comparisons),
            planned=len(first),
            margin=margin,
            identical=digests == others and all(digests),
        )
    else:
        present = [int(np.isfinite(values).sum()) for values in (first, second)]
        whole = present == [len(first), len(second)]  # otherwise the difference stays undecided
        row = {"method": "welch"} | effect_row(
            metric,
            independent_effect(second, first, comparisons=comparisons),
            planned=min(present) if whole else max(len(first), len(second)),
            margin=margin,
        )
        row["n"] = sum(present)
    for side, rows in sides.items():
        mean = mean_interval(finite_numbers(rows[metric]))
        row |= {f"{side}_{name}": getattr(mean, name) for name in SIDE}
        floor = finite_numbers(rows[FLOOR[metric]]) if metric in FLOOR else np.array([np.nan])
        row[f"{side}_floor"] = mean_interval(floor).mean
    return {"kind": "run", "term": arm, "against": against, **row, "comparisons": comparisons}


def _trained(run: Run, arm: str) -> dict[int, tuple[str, dict[str, Any]]]:
    """What was trained on each seed, but for the device and its arithmetic; a fingerprint is of the data."""
    return {
        trial.seed: (trial.fingerprint, trial.fields.model_dump(exclude=NOT_IDENTITY))
        for trial in run.plan.trials
        if trial.arm == arm and trial.repeat == 0
    }


def _facts(run: Run) -> dict[str, str]:
    """What can differ between runs besides their arms."""

    def listed(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(value) for value in values})) or "not recorded"

    fields = [trial.fields.model_dump() for trial in run.plan.trials]
    return {
        "study": run.plan.study.name,
        "profile": run.plan.profile,
        **{name: listed(run.trials[name].dropna()) for name in RECORDED},
        "data fingerprint": listed(trial.fingerprint[:12] for trial in run.plan.trials),
        "seeds": listed(run.plan.study.seed_list()),
        **{f"margin of {name}": f"{margin:g}" for name, margin in run.plan.study.all_margins.items()},
        **{f"field {name}": listed(values[name] for values in fields) for name in Fields.model_fields},
    }
