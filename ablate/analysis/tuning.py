"""A search as the report knows it: its points, and what those that were run again came to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from ablate.analysis.arms import Arm, arm_interval, arm_label, complete_trials, plain_name, planned_arms
from ablate.stats.intervals import Interval, mean_interval
from ablate.study.fields import Levels
from ablate.study.search import Choice, Search
from ablate.study.trials import Plan, arm_name
from ablate.tables.files import Tables
from ablate.tables.quantities import Quantity, quantity
from ablate.tables.tuning import SUFFIXES as SUFFIXES


@dataclass(frozen=True)
class Tuned:
    """A search: its declaration, the row of the `tuning` table, and the other tables.

    `points` have besides `label` (levels in words), `role` (winner, or their source), `arm` (of the re-test).
    """

    search: Search
    facts: pd.Series[Any]
    points: pd.DataFrame
    values: pd.DataFrame
    importances: pd.DataFrame

    @cached_property
    def objectives(self) -> tuple[Quantity, ...]:
        """What was searched for."""
        return tuple(quantity(name) for name in self.search.objective)

    def scored(self, points: pd.DataFrame, suffix: str) -> Interval:
        """Mean and interval of one objective over every complete run of some points."""
        runs = self.values[self.values["number"].isin(points["number"])]
        once = runs.drop_duplicates("trial_id")  # points of equal levels may share a run
        values = once[f"value{suffix}"].to_numpy(dtype="float64", na_value=math.nan)
        return mean_interval(values, bounds=self.objectives[SUFFIXES.index(suffix)].bounds)

    @property
    def ended(self) -> int:
        """How many points have ended."""
        return int(sum(self.facts[f"points_{state}"] for state in ("done", "pruned", "failed")))

    @property
    def is_spent(self) -> bool:
        """Whether the budget is."""
        return self.ended >= int(self.facts["points_planned"])

    @property
    def winners(self) -> pd.DataFrame:
        """The points that were chosen."""
        return self.points[self.points["winner"].fillna(False)]


def levels_of(search: Search, row: pd.Series[Any]) -> Levels:
    """A point's searched fields that are used, as declared, whatever types their columns have."""
    columns = {name: f"train.{name}" if f"train.{name}" in row else name for name in search.space}
    levels: Levels = {name: row[own] for name, own in columns.items() if not pd.isna(row[own])}
    for name, value in levels.items():
        dimension = search.space[name]
        if isinstance(dimension, Choice):
            declared = {plain_name(str(known)): known for known in dimension.of}
            levels[name] = declared.get(plain_name(str(value)), value)
    return search.active(levels)


def read_search(tables: Tables, plan: Plan) -> Tuned | None:
    """The search that a study's tables hold; None where nothing was tuned."""
    search, facts = plan.study.search, tables.get("tuning")
    if search is None or facts is None or facts.empty:
        return None
    points = tables["points"]
    labels = [arm_label(levels_of(search, row)) for _, row in points.iterrows()]
    # A CSV may change a name's line breaks.
    arm_of = {plain_name(arm_name(search.active(trial.levels))): trial.arm for trial in plan.trials}
    named = points.assign(
        label=pd.Series(labels, index=points.index, dtype="string"),
        role=points["source"].mask(points["winner"].fillna(False), "winner"),
        arm=points["levels"].map(plain_name).map(arm_of).astype("string"),
    )
    return Tuned(search, facts.iloc[0], named, tables["point_values"], tables["importances"])


@dataclass(frozen=True)
class Outcome:
    """One objective of a re-tested point, in the tables' unit.

    `tuned` and `smoothed` are of the tuning split, `seen` that minus the baseline's (NaN without one),
    `fresh` of fresh seeds on the reported split; `effect`, an effects table's row, is None for a baseline.
    """

    what: Quantity
    tuned: Interval
    smoothed: float
    seen: float
    seen_smoothed: float
    fresh: Interval
    effect: pd.Series[Any] | None

    @property
    def drop(self) -> float:
        """How much better than the baseline it looked while tuning, less how much it is with fresh seeds."""
        fresh = math.nan if self.effect is None else float(self.effect["effect"])
        return (self.seen - fresh) * (1.0 if self.what.better == "higher" else -1.0)

    @property
    def verdict(self) -> str:
        """What the fresh seeds say; "" without them."""
        return "" if self.effect is None else str(self.effect["verdict"])


@dataclass(frozen=True)
class Retested:
    """An arm of the re-test: the point for its levels, numbers and roles of all such, and the outcomes."""

    arm: Arm
    point: pd.Series[Any]
    numbers: tuple[int, ...]
    roles: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def is_baseline(self) -> bool:
        """Whether the baseline is among them."""
        return "baseline" in self.roles


def retested(tuned: Tuned, trials: pd.DataFrame, effects: pd.DataFrame, plan: Plan) -> list[Retested]:
    """The arms of the re-test that are points of the search, the winners first; trials are of the re-test."""
    complete, known = complete_trials(trials), tuned.points
    # All points of an arm's levels, as a sampler may repeat one; first the one they go by.
    order = known.assign(other=~known["winner"].fillna(False), lost=known["value"].isna())
    groups = dict(list(known.loc[order.sort_values(["other", "lost", "number"]).index].groupby("arm")))
    points_of = {arm: groups[arm] for arm in plan.arms if arm in groups}
    baseline = next((own for own in points_of.values() if "baseline" in set(own["source"])), None)
    arms = effects[effects["kind"] == "arm"]
    rows = {(row["term"], row["metric"]): row for _, row in arms.iterrows()}
    retests = []
    for name, points in points_of.items():
        outcomes = []
        for what, suffix in zip(tuned.objectives, SUFFIXES, strict=False):
            scored, smoothed = tuned.scored(points, suffix), float(points[f"smoothed{suffix}"].iloc[0])
            seen, seen_smoothed = math.nan, math.nan
            if baseline is not None:
                seen = scored.mean - tuned.scored(baseline, suffix).mean
                seen_smoothed = smoothed - float(baseline[f"smoothed{suffix}"].iloc[0])
            fresh, effect = arm_interval(complete, name, what.name), rows.get((name, what.name))
            outcomes.append(Outcome(what, scored, smoothed, seen, seen_smoothed, fresh, effect))
        roles_of = {*points["role"], *points["source"]}
        roles = tuple(role for role in ("winner", "baseline", "anchor") if role in roles_of)
        numbers = tuple(points["number"].map(int))
        retests.append(Retested(planned_arms(plan)[name], points.iloc[0], numbers, roles, tuple(outcomes)))
    return sorted(retests, key=lambda one: "winner" not in one.roles)
