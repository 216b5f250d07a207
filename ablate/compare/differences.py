"""Two runs joined by their arms, each difference with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ablate.compare.run import Run, unlike
from ablate.errors import StudyError
from ablate.fields import Fields, unknown_name
from ablate.report.quantities import number_columns
from ablate.stats import Interval, mean_interval, paired_effect
from ablate.trials import NOT_IDENTITY, Trial

METRICS_SHOWN = ("accuracy", "nll", "ece")


@dataclass(frozen=True)
class Difference:
    """One metric of one arm in both runs.

    Attributes:
        arm: its name, which both runs have.
        metric: a column of the trials table.
        a: mean of the first run with its 95 % interval.
        b: the same of the second.
        difference: b minus a, NaN where one has no value.
        low: lower end of its 95 % interval; NaN where it cannot be told.
        high: upper end.
        method: "paired" by seed, or "welch": two independent samples of unequal variance.
        n: pairs, or the trials of both.
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


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Attributes:
        a: the first run.
        b: the second.
        differences: for every arm that both have and every metric.
        only_a: arms that only the first has.
        only_b: arms that only the second has.
        unlike: what differs between the runs besides: its name, and its value in each.
    """

    a: Run
    b: Run
    differences: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    unlike: tuple[tuple[str, str, str], ...]


def compare_runs(a: Run, b: Run, metrics: Sequence[str] = METRICS_SHOWN) -> Comparison:
    """Join two runs by the names of their arms.

    Args:
        a: the first run.
        b: the second; differences are its values minus the first's.
        metrics: number columns of the trials table.

    Raises:
        StudyError: a metric is none of these columns.
    """
    measured = sorted(number_columns() - Fields.model_fields.keys())
    unknown = [unknown_name("metric", name, measured) for name in metrics if name not in measured]
    if unknown:
        raise StudyError("\n".join(f"--metric {line}" for line in unknown))
    shared = [arm for arm in a.plan.arms if arm in b.plan.arms]
    return Comparison(
        a=a,
        b=b,
        differences=tuple(difference(a, b, arm, metric) for metric in metrics for arm in shared),
        only_a=tuple(arm for arm in a.plan.arms if arm not in shared),
        only_b=tuple(arm for arm in b.plan.arms if arm not in shared),
        unlike=tuple(unlike(a, b)),
    )


def difference(a: Run, b: Run, arm: str, metric: str) -> Difference:
    """One metric of an arm that both runs have, by seed where the trials are the same but for the machine."""
    mine, theirs = a.values(arm, metric), b.values(arm, metric)
    sides = [np.array(list(values.values()), dtype=np.float64) for values in (mine, theirs)]
    means = mean_interval(sides[0]), mean_interval(sides[1])
    if can_be_paired(a.planned(arm), b.planned(arm)):
        seeds = sorted(a.planned(arm))
        first, second = (np.array([side.get(seed, math.nan) for seed in seeds]) for side in (mine, theirs))
        effect = paired_effect(second, first)
        return Difference(arm, metric, *means, effect.effect, effect.low, effect.high, "paired", n=effect.n)
    low, high = welch_interval(*sides)
    size = means[0].n + means[1].n
    return Difference(arm, metric, *means, means[1].mean - means[0].mean, low, high, "welch", n=size)


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


def welch_interval(
    a: NDArray[np.float64], b: NDArray[np.float64], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of mean(b) - mean(a) for independent samples whose variances may differ.

    Args:
        a: [n] values, NaN where one is missing.
        b: [m] values, likewise.
        confidence: coverage, in (0, 1).

    Returns:
        Its ends; NaN where a sample has fewer than two values, or neither varies.

    References:
        Welch 1947, The generalization of Student's problem, https://doi.org/10.1093/biomet/34.1-2.28
    """
    samples = [sample[~np.isnan(sample)] for sample in (a, b)]
    if min(len(sample) for sample in samples) < 2:
        return math.nan, math.nan
    parts = [float(np.var(sample, ddof=1)) / len(sample) for sample in samples]
    if not sum(parts) > 0:
        return math.nan, math.nan
    freedom = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, samples, strict=True))
    reach = -float(stdtrit(freedom, (1 - confidence) / 2)) * math.sqrt(sum(parts))
    centre = float(samples[1].mean() - samples[0].mean())
    return centre - reach, centre + reach
