"""A search as the report knows it: its points, and what those that were run again came to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from ablate.analysis.arms import (
    Arm,
    arm_interval,
    arm_label,
    complete_trials,
    planned_arms,
)
from ablate.stats import Interval, mean_interval
from ablate.study.search import Choice, Levels, Range, Search
from ablate.study.trials import Plan, arm_name
from ablate.tables import Tables
from ablate.tables.quantities import Quantity, quantity

SUFFIXES = ("", "_2")
"""Of the first and the second objective's columns in the table of points."""
EPOCH_RULES = ("hyperband", "median")
"""Pruning rules that stop a training run; the other one only asks for no further seed."""
SCORES = ("value", "sd", "low", "high", "smoothed", "smoothed_sd")


@dataclass(frozen=True)
class Tuned:
    """A search and what it tried.

    Attributes:
        search: its declaration.
        facts: the row of the `tuning` table.
        points: the `points` table, with `label` (the levels as a reader writes them), `role` (winner, or the
            point's source) and `arm` (that of the re-test with the same levels; empty where it has none).
        values: the `point_values` table.
        importances: the `importances` table.
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
        """Mean and t interval of one objective over every complete run of some points."""
        own = self.values[self.values["number"].isin(points["number"])]
        once = own.drop_duplicates("trial_id")  # points of equal levels may share a run
        return mean_interval(once[f"value{suffix}"].to_numpy(dtype="float64", na_value=math.nan))

    @property
    def ended(self) -> int:
        """How many points have ended."""
        return int(sum(self.facts[f"points_{state}"] for state in ("done", "pruned", "failed")))

    @property
    def stopped_early(self) -> int:
        """Training runs that pruning stopped before their last epoch, of which no record is kept."""
        if self.search.pruning not in EPOCH_RULES:
            return 0
        return int(((self.points["state"] == "pruned") & (self.points["seeds_done"] == 0)).sum())

    @property
    def is_spent(self) -> bool:
        """Whether the budget is."""
        return self.ended >= int(self.facts["points_planned"])

    @property
    def winners(self) -> pd.DataFrame:
        """The points that were chosen."""
        return self.points[self.points["winner"].fillna(False)]

    def scores(self, place: int) -> pd.DataFrame:
        """The points with one objective's columns under plain names."""
        suffix = SUFFIXES[place]
        return self.points.assign(**{name: self.points[f"{name}{suffix}"] for name in SCORES})

    def levels(self, row: pd.Series[Any]) -> Levels:
        """A point's searched fields that are used."""
        return _levels(self.search, row)


def read_search(tables: Tables, plan: Plan) -> Tuned | None:
    """The search that a study's tables hold; None where nothing was tuned."""
    search, facts = plan.study.search, tables.get("tuning")
    if search is None or facts is None or facts.empty:
        return None
    points = tables["points"]
    labels = [arm_label(_levels(search, row)) for _, row in points.iterrows()]
    # A CSV may change a name's line breaks.
    arm_of = {_plain(arm_name(search.active(trial.levels))): trial.arm for trial in plan.trials}
    chosen = points["winner"].fillna(False)
    named = points.assign(
        label=pd.Series(labels, index=points.index, dtype="string"),
        role=points["source"].mask(chosen, "winner"),
        arm=points["levels"].map(_plain).map(arm_of).astype("string"),
    )
    return Tuned(search, facts.iloc[0], named, tables["point_values"], tables["importances"])


def _levels(search: Search, row: pd.Series[Any]) -> Levels:
    known = {name: row[name] for name in search.space if not pd.isna(row[name])}
    return search.active({name: _declared(search.space[name], value) for name, value in known.items()})


def _declared(dimension: Range | Choice, value: Any) -> Any:
    """A value as it was declared, whatever type its column has."""
    if isinstance(dimension, Range):
        return value
    return {_plain(str(known)): known for known in dimension.of}.get(_plain(str(value)), value)


def _plain(words: str) -> str:
    return "\n".join(words.splitlines())


@dataclass(frozen=True)
class Outcome:
    """One objective of a re-tested point, in the tables' unit.

    Attributes:
        what: the objective.
        tuned: mean over every complete run with the point's levels on the tuning split, with its interval.
        smoothed: its smoothed value.
        seen: the mean of tuned minus the baseline's; NaN without one.
        seen_smoothed: the same of the smoothed values.
        fresh: mean over fresh seeds on the reported split.
        effect: the row of the `effects` table; None for the baseline itself, or without one.
    """

    what: Quantity
    tuned: Interval
    smoothed: float
    seen: float
    seen_smoothed: float
    fresh: Interval
    effect: pd.Series[Any] | None

    @property
    def advantage(self) -> float:
        """How much better than the baseline it looked while tuning; below 0 is worse."""
        return self.seen * self._sign

    @property
    def drop(self) -> float:
        """The advantage less that of the fresh seeds; NaN where one of the two is not known."""
        found = math.nan if self.effect is None else float(self.effect["effect"])
        return self.advantage - self._sign * found

    @property
    def verdict(self) -> str:
        """What the fresh seeds say; "" without them."""
        return "" if self.effect is None else str(self.effect["verdict"])

    @property
    def is_confirmed(self) -> bool:
        """Whether fresh seeds show it to be better."""
        return self.verdict in ("better", self.what.better)

    @property
    def _sign(self) -> float:
        return 1.0 if self.what.better == "higher" else -1.0


@dataclass(frozen=True)
class Retested:
    """An arm of the re-test: which point it is, and what became of each objective.

    Attributes:
        arm: the arm.
        point: the point that stands for its levels.
        numbers: of all points of these levels, that one's first.
        roles: what they are.
        is_baseline: whether the baseline is among them.
        outcomes: per objective, over the runs of all of them.
    """

    arm: Arm
    point: pd.Series[Any]
    numbers: tuple[int, ...]
    roles: tuple[str, ...]
    is_baseline: bool
    outcomes: tuple[Outcome, ...]


def retested(tuned: Tuned, trials: pd.DataFrame, effects: pd.DataFrame, plan: Plan) -> list[Retested]:
    """The arms of the re-test that are points of the search, the winners first.

    Args:
        tuned: the search.
        trials: the trials table, of the re-test.
        effects: the effects table.
        plan: the re-test.
    """
    complete, rows = complete_trials(trials), list(_standing_for(tuned, plan))
    baseline = next((own for _, own in rows if "baseline" in set(own["source"])), None)
    arms = effects[effects["kind"] == "arm"]
    by_key = {(row["term"], row["metric"]): row for _, row in arms.iterrows()}
    found = []
    for arm, own in rows:
        outcomes = [
            _outcome(tuned, what, suffix, own, baseline, arm_interval(complete, arm.name, what.name),
                     by_key.get((arm.name, what.name)))
            for what, suffix in zip(tuned.objectives, SUFFIXES, strict=False)
        ]  # fmt: skip
        roles = tuple(
            role for role in ("winner", "baseline", "anchor") if role in {*own["role"], *own["source"]}
        )
        found.append(
            Retested(
                arm, own.iloc[0], tuple(own["number"].map(int)), roles, "baseline" in roles, tuple(outcomes)
            )
        )
    return sorted(found, key=lambda one: "winner" not in one.roles)


def _standing_for(tuned: Tuned, plan: Plan) -> Iterator[tuple[Arm, pd.DataFrame]]:
    """Each arm with all points of its levels, as a sampler may repeat one; first the one they go by."""
    for arm in planned_arms(plan).values():
        own = tuned.points[(tuned.points["arm"] == arm.name).fillna(False)]
        if len(own):
            order = own.assign(other=~own["winner"].fillna(False), lost=own["value"].isna())
            yield arm, own.loc[order.sort_values(["other", "lost", "number"]).index]


def _outcome(
    tuned: Tuned,
    what: Quantity,
    suffix: str,
    own: pd.DataFrame,
    baseline: pd.DataFrame | None,
    fresh: Interval,
    effect: pd.Series[Any] | None,
) -> Outcome:
    found, smoothed = tuned.scored(own, suffix), float(own[f"smoothed{suffix}"].iloc[0])
    seen, seen_smoothed = math.nan, math.nan
    if baseline is not None:
        seen = found.mean - tuned.scored(baseline, suffix).mean
        seen_smoothed = smoothed - float(baseline[f"smoothed{suffix}"].iloc[0])
    return Outcome(what, found, smoothed, seen, seen_smoothed, fresh, effect)
