"""Arms in words, their means over training runs, and which of them ended alike."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ablate.errors import RecordError
from ablate.metrics import FLOORS as FLOORS
from ablate.stats.intervals import FloatArray, Interval, mean_interval
from ablate.study.parts import PART
from ablate.study.trials import Plan
from ablate.tables.columns import TUNING
from ablate.tables.files import Tables, frame
from ablate.tables.quantities import Quantity, clean, one_line, quantity


@dataclass(frozen=True)
class Arm:
    """One combination of levels: its names in the tables and in the report, its planned training runs."""

    name: str
    label: str
    levels: Mapping[str, Any]
    planned: int


def planned_arms(plan: Plan) -> dict[str, Arm]:
    """The arms by name, in the study's order."""
    planned = Counter(trial.arm for trial in plan.trials if trial.repeat == 0)
    levels = {trial.arm: trial.levels for trial in plan.trials}
    return {arm: Arm(arm, arm_label(levels[arm]), levels[arm], planned[arm]) for arm in plan.arms}


def arm_label(levels: Mapping[str, Any]) -> str:
    """An arm's levels as a reader writes them: ε=0.1, arch=xresnet18; of parts, without ema."""
    parts = [
        level_label(level) if name == PART else f"{factor_label(name)}={level_label(level)}"
        for name, level in levels.items()
    ]
    return ", ".join(parts) or "all runs"


def factor_label(name: str) -> str:
    """A factor as a reader writes it."""
    return "ε" if name == "epsilon" else name


def level_label(level: Any) -> str:
    """A level as a reader writes it."""
    text = f"{level:.12g}" if isinstance(level, float) else str(level)
    return one_line(str(clean(text)), longest=80)


def labels_of(plan: Plan) -> dict[str, str]:
    """Arm name to label, in the study's order."""
    return {name: arm.label for name, arm in planned_arms(plan).items()}


def of_plan(tables: Tables, plan: Plan) -> Tables:
    """The tables, or a RecordError if they are of other trials, with each arm as the plan names it."""
    trials = tables["trials"]
    rows = trials[["trial_id", "arm", "seed"]].astype(str).to_numpy().tolist()
    found = [[trial_id, plain_name(arm), seed] for trial_id, arm, seed in rows]
    planned = [[trial.trial_id, plain_name(trial.arm), str(trial.seed)] for trial in plan.trials]
    if found != planned or trials["status"].isna().any():
        raise RecordError(
            "the tables hold other trials than study.json plans; write them again with "
            "`python -m ablate report`"
        )
    plain, named = {plain_name(arm): arm for arm in plan.arms}, dict(tables)
    for name in tables.keys() - set(TUNING):  # whose trials are not the plan's
        for side in {"arm", "baseline"} & set(tables[name]):
            arms = tables[name][side].map(plain_name, na_action="ignore").map(plain)
            named[name] = named[name].assign(**{side: arms.astype("string")})
    return named


def as_recorded(plan: Plan, trials: pd.DataFrame) -> Plan:
    """The plan; of training code that left no predictions, without the metrics that follow from these."""
    if plan.study.trained_by and trials["predictions_sha256"].isna().all():
        return plan.model_copy(update={"study": plan.study.of_numbers_alone()})
    return plan


def plain_name(name: str) -> str:
    """A name with the line breaks that a CSV leaves it."""
    return "\n".join(name.splitlines())


def complete_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The training runs that count: complete, and not a deliberate second run of another."""
    return trials[(trials["status"] == "complete") & (trials["repeat"] == 0)].copy()


def arm_interval(
    complete: pd.DataFrame, arm: str, metric: str, new_images: pd.DataFrame | None = None
) -> Interval:
    """Mean of an arm's training runs with its 95 % interval, that of `new_images` where this has one."""
    values = finite_numbers(complete.loc[complete["arm"] == arm, metric])
    over_seeds = mean_interval(values, bounds=quantity(metric).bounds)
    if new_images is None or not over_seeds.sd > 0:
        return over_seeds
    own = (new_images["arm"] == arm) & (new_images["metric"] == metric) & new_images["baseline"].isna()
    ends = new_images.loc[own, ["low", "high"]].dropna().itertuples(index=False)
    return next((dataclasses.replace(over_seeds, low=low, high=high) for low, high in ends), over_seeds)


def finite_numbers(values: "pd.Series[Any]") -> FloatArray:
    """A column as float64, NaN where it has no finite number."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def arm_means(
    complete: pd.DataFrame, arms: Iterable[Arm], metric: str, new_images: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per arm: arm, mean, low, high, n of a metric."""
    rows = [{"arm": arm.name, **vars(arm_interval(complete, arm.name, metric, new_images))} for arm in arms]
    return pd.DataFrame(rows, columns=["arm", "mean", "low", "high", "n"])


def best_of(means: "pd.Series[Any]", what: Quantity) -> str | None:
    """The best of means by arm; None where there is none, or no direction is better."""
    if means.empty or not what.better:
        return None
    return str(means.idxmax() if what.better == "higher" else means.idxmin())


def identical_arms(trials: pd.DataFrame, plan: Plan) -> list[list[str]]:
    """Groups of arms whose predictions have the same digest on every planned seed, in the study's order."""
    digests = complete_trials(trials).pivot(index="arm", columns="seed", values="predictions_sha256")
    whole = digests.reindex(index=plan.arms, columns=plan.study.seed_list()).dropna().apply(tuple, axis=1)
    groups = whole.groupby(whole, sort=False).groups.values() if len(whole) else ()
    return [list(arms) for arms in groups if len(arms) > 1]


def split_sizes(tables: Tables) -> tuple[list[int], int]:
    """Images of the reported split, each number that a trial has, and its classes, 0 where none tells."""
    bins = tables.get("reliability", frame("reliability", []))
    named = tables.get("confusion", frame("confusion", []))
    return bins.groupby("trial_id")["count"].sum().unique().tolist(), named["class"].nunique()


def floor_bands(floors: pd.DataFrame | None, metric: str) -> dict[str, tuple[float, float]]:
    """Arm to the ends between which 95 % of means over its runs of a perfectly calibrated network lie."""
    rows = frame("floors", []) if floors is None else floors[floors["metric"] == metric]
    return dict(zip(rows["arm"], zip(rows["low"], rows["high"], strict=True), strict=True))
