"""Two runs joined by their arms: rows of the effects table whose one factor is the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablate.analysis.arms import FLOOR
from ablate.analysis.effects import effect_row
from ablate.errors import StudyError
from ablate.gate.runs import GRAVE, Run, unlike
from ablate.stats import independent_effect, mean_interval, paired_effect
from ablate.study.fields import Fields, unknown_name
from ablate.study.trials import NOT_IDENTITY, Trial
from ablate.tables.quantities import number_columns

METRICS_SHOWN = ("accuracy", "nll", "ece")


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Attributes:
        a: the first run.
        b: the second.
        differences: a row as `difference_row` makes it for every metric and every arm that both have.
        only_a: arms that only the first has.
        only_b: arms that only the second has.
        unlike: what differs between the runs besides: its name, and its value in each.
    """

    a: Run
    b: Run
    differences: pd.DataFrame
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unlike: tuple[tuple[str, str, str], ...]

    @property
    def grave(self) -> tuple[str, ...]:
        """What differs that can cause a difference by itself, such as the data or the device."""
        return tuple(dict.fromkeys(GRAVE[name] for name, _, _ in self.unlike if name in GRAVE))


def compare_runs(a: Run, b: Run, metrics: Sequence[str] = METRICS_SHOWN) -> Comparison:
    """Join two runs by the names of their arms.

    One family: the intervals of all common arms and all metrics hold together with 95 % confidence, and the
    verdicts follow from them. A failed arm counts in it too, so that it never makes the others narrower. An
    arm is compared by seed where the trials are the same but for the machine, else as two samples.

    Args:
        a: the first run.
        b: the second; differences are its values minus the first's.
        metrics: number columns of the trials table.

    Raises:
        StudyError: a metric is none of these columns.
    """
    measured = measured_columns()
    unknown = [unknown_name("metric", name, measured) for name in metrics if name not in measured]
    if unknown:
        raise StudyError("\n".join(f"--metric {line}" for line in unknown))
    shared = [arm for arm in a.plan.arms if arm in b.plan.arms]
    rows = []
    for metric in metrics:
        # The smaller of the margins that the studies declare, so that neither can excuse more.
        declared = [run.plan.study.all_margins.get(metric, math.nan) for run in (a, b)]
        margin, size = float(np.fmin(declared[0], declared[1])), len(shared) * len(metrics)
        rows += [
            difference_row((a, arm), (b, arm), metric, margin=margin, comparisons=size) for arm in shared
        ]
    return Comparison(
        a=a,
        b=b,
        differences=pd.DataFrame(rows),
        only_a=tuple(arm for arm in a.plan.arms if arm not in shared),
        only_b=tuple(arm for arm in b.plan.arms if arm not in shared),
        unlike=tuple(unlike(a, b)),
    )


def measured_columns() -> list[str]:
    """Columns of the trials table that hold a measured number, sorted."""
    return sorted(number_columns() - Fields.model_fields.keys())


def difference_row(
    a: tuple[Run, str], b: tuple[Run, str], metric: str, *, margin: float, comparisons: int
) -> dict[str, Any]:
    """One metric of an arm against that of another: of two runs, or of one.

    Args:
        a: the run and the arm that is compared with.
        b: the run and the arm that is compared.
        metric: a number column of the trials table.
        margin: largest difference that does not matter; NaN where none is declared.
        comparisons: differences whose intervals are to hold together.

    Returns:
        As in the effects table, and `method`: "paired" by seed, or "welch", independent samples, whose `n` is
        the trials of both; `comparisons`; of either side its mean with its own 95 % interval, `a_mean`,
        `a_low`, `a_high`, `a_n`; and the noise floor of a metric that has one, `a_floor`.
    """
    first, second = a[0].values(a[1], metric), b[0].values(b[1], metric)
    if a[0] is b[0] or _can_be_paired(a[0].planned(a[1]), b[0].planned(b[1])):
        digests, others = a[0].digests(a[1]), b[0].digests(b[1])
        effect = paired_effect(second, first, comparisons=comparisons)
        same = digests == others and all(digests)
        row = {"method": "paired"} | effect_row(
            metric, effect, planned=len(first), margin=margin, identical=same
        )
    else:
        row = {"method": "welch"} | _welch_row(metric, first, second, margin, comparisons)
    for side, (run, arm), values in (("a", a, first), ("b", b, second)):
        mean = mean_interval(values)
        row |= {f"{side}_{name}": getattr(mean, name) for name in SIDE}
        floor = run.values(arm, FLOOR[metric]) if metric in FLOOR else np.array([np.nan])
        row[f"{side}_floor"] = mean_interval(floor).mean
    return {"kind": "run", "term": b[1], "against": a[1], **row, "comparisons": comparisons}


SIDE = ("mean", "low", "high", "n")


def _welch_row(
    metric: str, a: NDArray[np.float64], b: NDArray[np.float64], margin: float, comparisons: int
) -> dict[str, Any]:
    """Two samples that no seed joins; either that lacks a trial leaves the difference undecided."""
    effect = independent_effect(b, a, comparisons=comparisons)
    present = [int(np.isfinite(side).sum()) for side in (a, b)]
    fewest = min(present)
    planned = fewest if present == [len(a), len(b)] else max(len(a), len(b), fewest + 1)
    return effect_row(metric, effect, planned=planned, margin=margin) | {"n": sum(present)}


def _can_be_paired(a: Mapping[int, Trial], b: Mapping[int, Trial]) -> bool:
    """Whether an arm's trials by seed were trained in both runs on the same seeds, data and fields."""
    return a.keys() == b.keys() and all(_training(a[seed]) == _training(b[seed]) for seed in a)


def _training(trial: Trial) -> tuple[str, dict[str, Any]]:
    """What was trained, without the device and its arithmetic; the fingerprint stands for the data."""
    return trial.fingerprint, trial.fields.model_dump(exclude=NOT_IDENTITY)
