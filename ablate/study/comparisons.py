"""What a study compares: effects as weighted sums over its arms, and which of them it asks about.

An effect is computed within each seed, so that the seeds' shared luck cancels, and judged over seeds:

- *arm*: an arm against its baseline arm; *pair*: two arms of a study that declares no baseline;
- *main*: two levels of a factor, averaged over the levels of the others;
- *interaction*: how much such a difference changes between two levels of another factor;
- *trend*: the same along the least-squares line from the lowest to the highest of three or more levels.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.study.search import RETUNED, TUNING
from ablate.study.study import KINDS, Study
from ablate.study.trials import Plan, arm_name

MOST_PAIRS = 300
"""Pairs of arms above which a study without a baseline describes its arms and compares none."""
SIDES = np.array([1.0, -1.0])


@dataclass(frozen=True)
class Term:
    """One effect: of `term`, an arm's name or levels of which others are averaged over, `against` another."""

    kind: str
    term: str
    against: str
    levels: Mapping[str, Any]
    """Factor to level of `term`; `reference` is the same of `against`."""
    reference: Mapping[str, Any]
    arms: NDArray[np.int64]
    """[T, C] indices of the plan's arms: T that are weighed, in C combinations that are averaged over."""
    weights: NDArray[np.float64]
    """[T], of which those above 0 are of `term`."""
    asked: bool
    """Whether the study asks about it; what it does not ask about is exploratory."""

    @property
    def scale(self) -> float:
        """Standard deviation of the effect, of arms that vary by 1 from seed to seed, each for itself."""
        return math.sqrt(float((self.weights**2).sum()) / self.arms.shape[1])

    def is_identical(self, alike: NDArray[np.int64]) -> bool:
        """Whether the levels predict the same; arms that do on all seeds have one number in `alike`."""
        groups = alike[self.arms]
        if self.kind == "interaction":  # nothing, where one of the two factors does nothing
            groups = groups.reshape(2, 2, -1)
            return bool((groups[0] == groups[1]).all() or (groups[:, 0] == groups[:, 1]).all())
        return bool((groups == groups[0]).all())


def terms(plan: Plan) -> list[Term]:
    """Every effect: between arms, and of a grid, which listed arms are not, main, interactions, trends."""
    of_arms = _between_arms(plan)
    return of_arms if plan.study.only else [*of_arms, *_averages(plan.study), *_trends(plan.study)]


def family_size(plan: Plan) -> int:
    """How many intervals hold together: of each effect that is asked about, on each metric of the family."""
    return max(sum(term.asked for term in terms(plan)) * len(plan.study.comparison_family), 1)


def _between_arms(plan: Plan) -> list[Term]:
    index = {arm: number for number, arm in enumerate(plan.arms)}
    levels = {trial.arm: trial.levels for trial in plan.trials}
    kind, pairs = "arm", plan.comparisons
    if not plan.study.baseline and len(index) * (len(index) - 1) // 2 <= MOST_PAIRS:
        kind, pairs = "pair", tuple((arm, other) for other, arm in itertools.combinations(plan.arms, 2))
    return [
        Term(
            kind, arm, other, levels[arm], levels[other], np.array([[index[arm]], [index[other]]]), SIDES,
            _is_asked(plan.study, kind, levels[arm]),
        )
        for arm, other in pairs
        if not plan.study.chosen or levels[arm][TUNING] == levels[other][TUNING]
    ]  # fmt: skip


def _is_asked(study: Study, kind: str, levels: Mapping[str, Any]) -> bool:
    """Whether a study asks about an effect: by its kind, or by its levels, factors of one level aside."""
    # Of arms that are re-tuned too, what is asked is asked of these.
    if study.chosen and (levels.get(TUNING) == RETUNED) != (kind in ("arm", "pair")):
        return False
    own = {name: level for name, level in levels.items() if name in study.varied}
    for asked in study.comparisons or ("arms",):
        if isinstance(asked, str):
            if kind in KINDS[asked]:
                return True
        elif kind in ("arm", "main") and {name: asked[name] for name in study.varied if name in asked} == own:
            return True
    return False


def _averages(study: Study) -> Iterator[Term]:
    """Main effects, then interactions, each of a factor's levels against its baseline level or its first."""
    steps: dict[str, list[tuple[int, int]]] = {}
    for factor, levels in study.factors.items():
        reference = levels.index(study.baseline.get(factor, levels[0]))
        if len(levels) > 1:
            steps[factor] = [(at, reference) for at in range(len(levels)) if at != reference]
    if len(steps) < 2:
        return
    for factor in steps:
        if study.varied == [factor]:  # between re-tuned arms, as above
            continue
        for level, reference in steps[factor]:
            yield _term("main", study, [{factor: level}, {factor: reference}], SIDES)
    for one, other in itertools.combinations(steps, 2):
        for (level, reference), (far, near) in itertools.product(steps[one], steps[other]):
            corners = [{one: at, other: beside} for beside in (far, near) for at in (level, reference)]
            yield _term("interaction", study, corners, np.array([1.0, -1.0, -1.0, 1.0]))


def _trends(study: Study) -> Iterator[Term]:
    for factor, levels in study.factors.items():
        if len(levels) >= 3 and all(type(level) in (int, float) for level in levels):
            lowest, highest = min(levels), max(levels)
            line = [(level - lowest) / (highest - lowest) for level in levels]
            # The slope is linear in the values: its weights are the slopes of lines through 1 and 0s.
            weights = np.polyfit(line, np.eye(len(levels)), 1)[0]
            fixed = [{factor: at} for at in range(len(levels))]
            ends = fixed[levels.index(highest)], fixed[levels.index(lowest)]
            yield _term("trend", study, fixed, weights, ends)


def _term(
    kind: str,
    study: Study,
    fixed: list[dict[str, int]],
    weights: NDArray[np.float64],
    ends: tuple[dict[str, int], dict[str, int]] | None = None,
) -> Term:
    """A term over the arms at fixed indices of some factors' levels; named by two ends, or first and last."""
    shape = [len(levels) for levels in study.factors.values()]
    grid = np.arange(math.prod(shape)).reshape(shape)
    every: dict[str, Any] = dict.fromkeys(study.factors, slice(None))
    if study.chosen:
        every[TUNING] = study.factors[TUNING].index(RETUNED)
    arms = [grid[tuple({**every, **at}.values())].ravel() for at in fixed]
    level, reference = (
        {name: study.factors[name][at] for name, at in end.items()} for end in ends or (fixed[0], fixed[-1])
    )
    asked = _is_asked(study, kind, level)
    return Term(kind, arm_name(level), arm_name(reference), level, reference, np.stack(arms), weights, asked)
