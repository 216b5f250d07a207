"""Where arms stand in figures: which factor is the axis, which makes panels, and which arms matter most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ablate.analysis.arms import Arm, arm_label, arm_means, level_label, planned_arms
from ablate.analysis.floors import floor_bands, floor_of
from ablate.analysis.timing import Pass, arm_cases
from ablate.store.timing import Case
from ablate.study.trials import Plan
from ablate.tables.quantities import quantity


def axis_factor(plan: Plan) -> str:
    """The factor on the horizontal axis: a numeric one, of the baseline's if there is any, with most levels.

    Without numeric factors it is the first.
    """
    factors = plan.study.factors
    numeric = [name for name in factors if is_ordered(plan, name)]
    chosen = [name for name in numeric if name in plan.study.baseline] or numeric
    return max(chosen, key=lambda name: len(factors[name])) if chosen else next(iter(factors))


def panel_factor(plan: Plan) -> str | None:
    """The factor that has a panel per level, where two or more are beside the axis's: the one with fewest."""
    axis = axis_factor(plan)
    others = [name for name in plan.study.factors if name != axis]
    return min(reversed(others), key=lambda name: len(plan.study.factors[name])) if len(others) > 1 else None


def line_factors(plan: Plan) -> tuple[str, ...]:
    """The factors whose combinations have a line each."""
    return tuple(name for name in plan.study.factors if name not in (axis_factor(plan), panel_factor(plan)))


def is_ordered(plan: Plan, factor: str) -> bool:
    """Whether all of a factor's levels are numbers."""
    return all(_is_number(level) for level in plan.study.factors[factor])


def _is_number(level: Any) -> bool:
    return isinstance(level, (int, float)) and not isinstance(level, bool)


def placed(rows: pd.DataFrame, plan: Plan, *, panels: bool = True) -> pd.DataFrame:
    """Rows with `level` of the axis's factor, and `panel` and `line` in words.

    Args:
        rows: any table with an `arm` column.
        plan: the study's plan.
        panels: whether the panel's factor has panels; otherwise it is in the line's words.
    """
    axis, panel = axis_factor(plan), panel_factor(plan) if panels else None
    arms = planned_arms(plan)

    def words(arm: Arm, inside: bool) -> str:
        own = {
            name: level for name, level in arm.levels.items() if name != axis and (name == panel) is inside
        }
        return arm_label(own) if own else ""

    return rows.reset_index(drop=True).assign(
        level=[_axis_level(arms[name].levels[axis]) for name in rows["arm"]],
        panel=[words(arms[name], True) for name in rows["arm"]],
        line=[words(arms[name], False) for name in rows["arm"]],
    )


def _axis_level(level: Any) -> Any:
    return level if _is_number(level) else level_label(level)


def level_means(
    complete: pd.DataFrame,
    plan: Plan,
    metric: str,
    *,
    panels: bool = True,
    floors: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A row per arm: mean, low, high and n of a metric, its noise floor where it has one, and its place.

    With the table of floors also the ends of the noise floor's band, floor_low and floor_high.
    """
    arms = planned_arms(plan).values()
    means = placed(arm_means(complete, arms, metric), plan, panels=panels)
    floor = floor_of(metric, complete)
    if floor is None:
        return means
    means = means.assign(floor=arm_means(complete, arms, floor)["mean"])
    bands = floor_bands(floors, metric)
    ends = [bands.get(arm, (math.nan, math.nan)) for arm in means["arm"]]
    low, high = zip(*ends, strict=True)
    return means.assign(floor_low=low, floor_high=high) if bands else means


def best_arm(complete: pd.DataFrame, plan: Plan, arms: Mapping[str, Arm]) -> str | None:
    """Of these arms, the one with the best mean of the primary metric; None where no direction is better."""
    what = quantity(plan.study.primary)
    means = arm_means(complete, arms.values(), what.name).set_index("arm")["mean"].dropna()
    if means.empty or not what.better:
        return None
    return str(means.idxmax() if what.better == "higher" else means.idxmin())


def important_arms(complete: pd.DataFrame, plan: Plan) -> tuple[str, ...]:
    """The arms that no figure leaves out: the best one and its baseline, or the first baseline."""
    best = best_arm(complete, plan, planned_arms(plan))
    baseline = dict(plan.comparisons)
    found = [baseline.get(best or "") or next(iter(baseline.values()), None), best]
    return tuple(dict.fromkeys(arm for arm in found if arm is not None))


def confusion_arms(complete: pd.DataFrame, plan: Plan) -> tuple[str, ...]:
    """A baseline and the best other arm that is compared with it; without comparisons the best arm alone."""
    arms = planned_arms(plan)
    done = set(complete["arm"])
    pairs = [(arm, other) for arm, other in plan.comparisons if arm in done and other in done]
    best = best_arm(complete, plan, {arm: arms[arm] for arm, _ in pairs})
    if best is not None:
        return (dict(pairs)[best], best)
    return ((best_arm(complete, plan, arms) or next(arm for arm in arms if arm in done)),)


def case_labels(found: Pass, plan: Plan) -> dict[Case, str]:
    """The timed cases of the study's arms, each in the words that its arms share, in the study's order."""
    arms, members = planned_arms(plan), dict[Case, list[Arm]]()
    for name, case in arm_cases(plan).items():
        if case in found.times:
            members.setdefault(case, []).append(arms[name])
    return {case: _shared(own) for case, own in members.items()}


def _shared(arms: list[Arm]) -> str:
    first = arms[0].levels
    same = {name: level for name, level in first.items() if all(arm.levels[name] == level for arm in arms)}
    if len(arms) == 1 or not first:
        return arms[0].label
    return arm_label(same) if same else f"all {len(arms)} arms"


def confidence_optimum(plan: Plan, classes: int) -> dict[Any, float]:
    """ε to the confidence at which the smoothed loss is least, 1 − ε + ε/K.

    Empty where the axis is not ε, the loss is not label smoothing, or the number of classes is not known.
    """
    smoothed = all(trial.fields.loss == "label_smoothing" for trial in plan.trials)
    if not plan.study.factors or axis_factor(plan) != "epsilon" or not smoothed or classes < 2:
        return {}
    return {level: 1 - level + level / classes for level in plan.study.factors["epsilon"]}


def mean_of(complete: pd.DataFrame, plan: Plan, metric: str, name: str) -> pd.DataFrame:
    """A row per arm: arm, and a metric's mean and interval as columns `name`, `name`_low, `name`_high."""
    means = arm_means(complete, planned_arms(plan).values(), metric)
    return means[["arm", "mean", "low", "high"]].set_axis(
        ["arm", name, f"{name}_low", f"{name}_high"], axis=1
    )


def step_times_of(found: Pass | None, plan: Plan) -> dict[str, float]:
    """Arm to the median milliseconds of its step in the exclusive pass; without one, nothing."""
    if found is None:
        return {}
    times = {arm: found.times[case] for arm, case in arm_cases(plan).items() if case in found.times}
    return {arm: float(pd.Series(own).median()) for arm, own in times.items() if math.isfinite(own.sum())}
