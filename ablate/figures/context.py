"""What every figure is drawn from: a study's tables and plan, and what follows from both for all figures."""

import math
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd

from ablate.analysis import arms
from ablate.analysis.arms import Arm
from ablate.analysis.timing import arm_cases, timing_pass
from ablate.analysis.tuning import Tuned, read_search
from ablate.store.timing import Case
from ablate.study.trials import Plan
from ablate.tables.files import Tables
from ablate.tables.quantities import Quantity, clean, quantity

Item = TypeVar("Item")


def spread(items: Sequence[Item], limit: int, always: Collection[Item] = ()) -> tuple[list[Item], list[Item]]:
    """At most `limit` items in their order, and those left out: `always` come first, the rest are spread."""
    kept = [index for index, item in enumerate(items) if item in always][:limit]
    free = [index for index in range(len(items)) if index not in kept]
    room = min(limit - len(kept), len(free))
    kept += [free[round(step * (len(free) - 1) / max(room - 1, 1))] for step in range(room)]
    return [items[at] for at in sorted(kept)], [item for at, item in enumerate(items) if at not in kept]


def is_number(level: Any) -> bool:
    """Whether a level is a number, so that an axis can show where it lies."""
    return isinstance(level, (int, float)) and not isinstance(level, bool)


class Context:
    """A study as its figures see it."""

    def __init__(self, tables: Tables, plan: Plan) -> None:
        self.tables, self.plan, self.factors = tables, plan, plan.study.factors
        self.arms: dict[str, Arm] = arms.planned_arms(plan)
        self.labels = {name: arm.label for name, arm in self.arms.items()}
        # The factor on horizontal axes: a numeric one, of the baseline's if there is any, with most levels.
        numeric = [name for name in self.factors if self.is_ordered(name)]
        of_baseline = [name for name in numeric if name in plan.study.baseline]
        chosen = of_baseline or numeric or list(self.factors)[:1]
        self.axis = max(chosen, key=lambda name: len(self.factors[name]), default="")
        # With two factors or more beside the axis's, the one with fewest levels has a panel per level.
        others = [name for name in self.factors if name != self.axis]
        fewest = min(reversed(others), key=lambda name: len(self.factors[name])) if len(others) > 1 else ""
        self.panel, self.line = fewest, [name for name in others if name != fewest]
        # The words of an arm's line in figures by level, and those of its panel there.
        self.line_of = {arm: self.words_of(arm, self.line) for arm in self.arms}
        self.panel_of = {arm: self.words_of(arm, [self.panel]) for arm in self.arms}

    def is_ordered(self, factor: str) -> bool:
        """Whether all of a factor's levels are numbers."""
        return all(map(is_number, self.factors[factor]))

    @cached_property
    def complete(self) -> pd.DataFrame:
        """The training runs that count."""
        return arms.complete_trials(self.tables["trials"])

    def rows(self, table: str) -> pd.DataFrame:
        """The rows of a table that are of these runs; none where the study lacks the table."""
        rows = self.tables.get(table, pd.DataFrame())
        if self.complete.empty or rows.empty:
            return rows[:0]
        return rows[rows["trial_id"].isin(self.complete["trial_id"])] if "trial_id" in rows else rows

    def fitting(self, rows: pd.DataFrame, most: int) -> tuple[list[str], list[str]]:
        """The arms that some rows are of, so many of them in the study's order; the others' labels."""
        found = set(rows["arm"])
        kept, others = spread([arm for arm in self.arms if arm in found], most, self.important)
        return kept, [self.labels[arm] for arm in others]

    @cached_property
    def words(self) -> str:
        """All names that figures may show."""
        names = [*self.labels.values(), *self.factors]
        for table, column in (("confusion", "class"), ("projection", "class"), ("points", "levels")):
            names += map(str, self.tables[table][column].unique() if table in self.tables else [])
        return clean("".join(names))

    def level(self, arm: str) -> Any:
        """An arm's level of the axis's factor: a number, or words."""
        level = self.arms[arm].levels[self.axis]
        return level if self.is_ordered(self.axis) else arms.level_label(level)

    def words_of(self, arm: str, factors: Collection[str]) -> str:
        """An arm's levels of some factors; "" of none."""
        own = {name: level for name, level in self.arms[arm].levels.items() if name in factors}
        return arms.arm_label(own) if own else ""

    @cached_property
    def has_lines(self) -> bool:
        """Whether several arms share a line's colour: in a grid of several factors."""
        return len(set(self.line_of.values())) > 1 and not self.plan.study.only

    @cached_property
    def colors(self) -> dict[str, str]:
        """Arm to its colour, the same in every figure: its line's in a grid, otherwise its own."""
        from ablate.figures.theme import level_colors

        factors = self.line if self.has_lines else list(self.factors)
        keys = self.line_of if self.has_lines else {arm: arm for arm in self.arms}
        ordered = len(set(keys.values())) > 2 and len(factors) == 1 and self.is_ordered(factors[0])
        in_order = sorted(keys, key=lambda arm: self.arms[arm].levels[factors[0]]) if ordered else keys
        names = list(dict.fromkeys(keys[arm] for arm in in_order))
        color = dict(zip(names, level_colors(len(names), ordered=ordered), strict=True))
        return {arm: color[key] for arm, key in keys.items()}

    def best_of(self, names: Collection[str]) -> str | None:
        """The arm with the best mean of the primary metric; None where no direction is better."""
        metric = quantity(self.plan.study.primary)
        table = arms.arm_means(self.complete, [self.arms[arm] for arm in names], metric.name)
        return arms.best_of(table.set_index("arm")["mean"].dropna(), metric)

    @cached_property
    def important(self) -> tuple[str, ...]:
        """The arms that no figure leaves out: the best one and its baseline, or the first baseline."""
        best, baseline = self.best_of(self.arms), dict(self.plan.comparisons)
        first = baseline.get(best or "") or next(iter(baseline.values()), None)
        return tuple(dict.fromkeys(arm for arm in (first, best) if arm is not None))

    @cached_property
    def contrasted(self) -> tuple[str, ...]:
        """A baseline and the best arm compared with it; without comparisons the best arm alone."""
        done = set(self.complete["arm"])
        pairs = {arm: other for arm, other in self.plan.comparisons if arm in done and other in done}
        if best := self.best_of(pairs):
            return (pairs[best], best)
        return (self.best_of(self.arms) or next(arm for arm in self.arms if arm in done),)

    def means(self, metric: Quantity) -> pd.DataFrame:
        """A row per arm with a value, as shown: arm, mean, low, high, n; floor, floor_low, floor_high."""
        floor, known = arms.FLOORS.get(metric.name), self.arms.values()
        bands = arms.floor_bands(self.tables.get("floors"), metric.name)
        means = arms.arm_means(self.complete, known, metric.name, self.tables.get("new_images"))
        means["floor"] = arms.arm_means(self.complete, known, floor)["mean"] if floor else math.nan
        means[["floor_low", "floor_high"]] = [bands.get(arm, (math.nan, math.nan)) for arm in means["arm"]]
        means[["mean", "low", "high", "floor", "floor_low", "floor_high"]] *= metric.factor
        return means[means["mean"].notna()]

    def runs(self, metric: Quantity) -> pd.DataFrame:
        """A row per training run with a value: arm, seed, value in the shown unit."""
        values = metric.factor * self.complete[metric.name].astype("float64")
        return self.complete[["arm", "seed"]].assign(value=values).dropna(subset=["value"])

    @cached_property
    def timing(self) -> Any:
        """The exclusive timing pass, `analysis.timing.Pass`, or None."""
        return timing_pass(self.tables.get("step_times"))

    @cached_property
    def cases(self) -> dict[str, Case]:
        """Arm to its timed case, in the study's order; empty without a pass."""
        times = self.timing.times if self.timing else {}
        return {arm: case for arm, case in arm_cases(self.plan).items() if case in times}

    @cached_property
    def tuned(self) -> Tuned | None:
        """The search, where there was one that has a value."""
        tuned = read_search(self.tables, self.plan)
        return tuned if tuned is not None and tuned.points["value"].notna().any() else None
