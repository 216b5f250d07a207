"""Two runs joined by their arms, each difference with its interval and verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.analysis.arms import FLOOR
from ablate.compare.run import GRAVE, Run, Sample, unlike
from ablate.compare.welch import welch_effect, welch_verdict
from ablate.errors import StudyError
from ablate.stats import Interval, Verdict, mean_interval, paired_effect, verdict
from ablate.study.fields import Fields, unknown_name
from ablate.study.trials import NOT_IDENTITY, Trial
from ablate.tables.quantities import number_columns, quantity

METRICS_SHOWN = ("accuracy", "nll", "ece")


@dataclass(frozen=True)
class Difference:
    """One metric of one arm in two samples: of two runs, or of two arms of one run.

    Attributes:
        arm: its name.
        metric: a column of the trials table.
        a: mean of the first with its own 95 % interval.
        b: the same of the second.
        difference: b minus a, NaN where one has no value.
        low: lower end of its interval; NaN where it cannot be told.
        high: upper end.
        method: "paired" by seed, or "welch": two independent samples of unequal variance.
        n: pairs, or the trials of both.
        comparisons: differences whose intervals hold together with 95 % confidence.
        p: of the t test, uncorrected; NaN where it is undefined.
        margin: largest difference that does not matter; NaN where none is declared.
        verdict: what can be said of b against a.
    """

    arm: str
    metric: str
    a: Interval
    b: Interval
    difference: float
    low: float
    high: float
    method: str
    n: int
    comparisons: int
    p: float
    margin: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Attributes:
        a: the first run.
        b: the second.
        differences: for every arm that both have and every metric.
        floors: arm and metric to its noise floor in either run, for metrics that have one.
        only_a: arms that only the first has.
        only_b: arms that only the second has.
        unlike: what differs between the runs besides: its name, and its value in each.
    """

    a: Run
    b: Run
    differences: tuple[Difference, ...]
    floors: Mapping[tuple[str, str], tuple[float, float]]
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
    verdicts follow from them. A failed arm counts in it too, so that it never makes the others narrower.

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
    size = max(len(shared) * len(metrics), 1)
    return Comparison(
        a=a,
        b=b,
        differences=tuple(
            difference(a, b, arm, metric, comparisons=size) for metric in metrics for arm in shared
        ),
        floors={(arm, name): _floors(a, b, arm, name) for name in metrics if name in FLOOR for arm in shared},
        only_a=tuple(arm for arm in a.plan.arms if arm not in shared),
        only_b=tuple(arm for arm in b.plan.arms if arm not in shared),
        unlike=tuple(unlike(a, b)),
    )


def measured_columns() -> list[str]:
    """Columns of the trials table that hold a measured number, sorted."""
    return sorted(number_columns() - Fields.model_fields.keys())


def _floors(a: Run, b: Run, arm: str, metric: str) -> tuple[float, float]:
    first, second = (mean_interval(run.sample(arm, FLOOR[metric]).values).mean for run in (a, b))
    return first, second


def difference(a: Run, b: Run, arm: str, metric: str, *, comparisons: int = 1) -> Difference:
    """One metric of an arm that both runs have, by seed where the trials are the same but for the machine.

    Args:
        a: the first run.
        b: the second.
        arm: a common arm.
        metric: a number column of the trials table.
        comparisons: differences whose intervals are to hold together.
    """
    sides = a.sample(arm, metric), b.sample(arm, metric)
    margin = smaller_margin(a, b, metric)
    compared = paired if can_be_paired(a.planned(arm), b.planned(arm)) else independent
    return compared(arm, metric, *sides, margin=margin, comparisons=comparisons)


def smaller_margin(a: Run, b: Run, metric: str) -> float:
    """The smaller of the margins that the studies declare, so that neither can excuse more; NaN without."""
    first, second = (run.plan.study.all_margins.get(metric, math.nan) for run in (a, b))
    return float(np.fmin(first, second))


def paired(arm: str, metric: str, a: Sample, b: Sample, *, margin: float, comparisons: int) -> Difference:
    """Two samples over the same seeds, compared seed by seed."""
    found = paired_effect(b.values, a.values, comparisons=comparisons)
    judged = verdict(
        found,
        planned=len(a.seeds),
        higher_is_better=higher_is_better(metric),
        margin=margin,
        identical=a.same_predictions(b),
    )
    return Difference(
        arm=arm,
        metric=metric,
        a=mean_interval(a.values),
        b=mean_interval(b.values),
        difference=found.effect,
        low=found.low,
        high=found.high,
        method="paired",
        n=found.n,
        comparisons=comparisons,
        p=found.p,
        margin=margin,
        verdict=judged,
    )


def independent(
    arm: str, metric: str, a: Sample, b: Sample, *, margin: float, comparisons: int
) -> Difference:
    """Two samples that no seed joins."""
    found = welch_effect(a.values, b.values, comparisons=comparisons)
    judged = welch_verdict(
        found,
        planned=(len(a.seeds), len(b.seeds)),
        higher_is_better=higher_is_better(metric),
        margin=margin,
    )
    return Difference(
        arm=arm,
        metric=metric,
        a=mean_interval(a.values),
        b=mean_interval(b.values),
        difference=found.effect,
        low=found.low,
        high=found.high,
        method="welch",
        n=sum(found.n),
        comparisons=comparisons,
        p=found.p,
        margin=margin,
        verdict=judged,
    )


def higher_is_better(metric: str) -> bool | None:
    """A column's direction; None where it has none."""
    return {"higher": True, "lower": False}.get(quantity(metric).better)


def can_be_paired(a: Mapping[int, Trial], b: Mapping[int, Trial]) -> bool:
    """Whether an arm was trained in both runs on the same seeds, data and fields.

    Args:
        a: its trials in the first run, by seed.
        b: its trials in the second.
    """
    return a.keys() == b.keys() and all(_training(a[seed]) == _training(b[seed]) for seed in a)


def _training(trial: Trial) -> tuple[str, dict[str, Any]]:
    """What was trained, without the device and its arithmetic; the fingerprint stands for the data."""
    return trial.fingerprint, trial.fields.model_dump(exclude=NOT_IDENTITY)
