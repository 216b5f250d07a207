"""Simulated searches, by the sampler and the choice that real ones use: do they find what is there?

One trial field, ε on [0, 0.5] by 0.005, is searched with a budget of 40 points of three seeds each. A value
is the true one plus luck over seeds with a standard deviation of 0.4. Three truths:

- curve: the true value is −40 (ε − 0.12)², so the best ε is 0.12 and ε = 0 is 0.58 worse;
- two curves: a second objective, less is better, is 40 (ε − 0.2)²; every ε from 0.12 to 0.2 is on the front,
  and two points are chosen;
- flat: no ε differs from any other, so that whatever is called better is not.

Of some, a part of the range fails: from there on the true value is 80 lower, as where a learning rate
diverges, with a spread over seeds of its own.

The point that is chosen, the baseline 0 and the anchor 0.1 are run again with ten fresh seeds, and judged as
a study would.

Run it with `python -m ablate bench tune`, or `python -m benchmarks.simulated_searches --repeats 10`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ablate.stats.effect import paired_effect, verdict
from ablate.stats.surrogate import best_two, chosen_of_two, smoothed
from ablate.study.search import Range, Search
from ablate.tuning.points import Points, quiet
from benchmarks import simulation

REPEATS = 200
SLOW_REPEATS = 100
"""Of the GP sampler, which takes seconds for a search."""
FLAT_REPEATS = 1000
POINTS = 40
SEEDS = 3
FRESH_SEEDS = 10
SD = 0.4
MOST = 0.5
DROP = 80.0
CURVATURE = 40.0
BEST, SECOND_BEST = 0.12, 0.2
"""The best ε for each of two objectives; the front lies between them."""
NEAR = 0.04
BASELINE, ANCHOR = 0.0, 0.1

FloatArray = NDArray[np.float64]
SamplerName = Literal["tpe", "gp", "random", "quasi_random", "nsga2"]


@dataclass(frozen=True)
class Situation:
    """What is simulated.

    Attributes:
        name: "curve", "two curves" or "flat".
        sampler: by the name it has in a search.
        rule: what is chosen: the point with the best "smoothed" value, as in a study, or the best "raw" one.
        repeats: searches.
        fails: which part of the range, at its upper end, fails.
        spread: standard deviation over seeds there.
        seeds: of each point.
    """

    name: str
    sampler: SamplerName
    rule: str = "smoothed"
    repeats: int = REPEATS
    fails: float = 0.0
    spread: float = SD
    seeds: int = SEEDS


@dataclass(frozen=True)
class Outcome:
    """What came out; NaN where it does not apply.

    Attributes:
        situation: what was simulated.
        near: share of searches whose chosen ε is at most 0.04 from the best; of two, both from the front.
        distance: median distance, of two the larger.
        regret: median of how much worse the chosen ε truly is than the best; of two, the share of what the
            best two of the front dominate that the chosen two do not.
        tuning: mean value that the chosen points had while tuning, over their seeds; of the first objective.
        optimism: mean of that value less the true one.
        bias: mean of the value that they were chosen by, smoothed or not, less the true one.
        bias_se: its standard error.
        fresh: mean value of the chosen points over ten fresh seeds.
        better: share of searches whose chosen point is called better than the baseline in the re-test.
    """

    situation: Situation
    near: float
    distance: float
    regret: float
    tuning: float
    optimism: float
    bias: float
    bias_se: float
    fresh: float
    better: float


def situations() -> tuple[Situation, ...]:
    """All rows of the table."""
    return (
        Situation("curve", "tpe"),
        Situation("curve", "gp", repeats=SLOW_REPEATS),
        Situation("curve", "random"),
        Situation("curve", "random", "raw"),
        Situation("curve", "quasi_random"),
        Situation("two curves", "tpe"),
        Situation("two curves", "nsga2"),
        Situation("two curves", "random"),
        Situation("flat", "tpe", repeats=FLAT_REPEATS),
        *(
            Situation(name, "random", rule, fails=0.4)
            for name in ("flat", "curve")
            for rule in ("smoothed", "raw")
        ),
        *(Situation("flat", "random", fails=part) for part in (0.05, 0.8)),
        Situation("flat", "random", fails=0.4, spread=10.0),
        Situation("flat", "random", fails=0.4, seeds=1),
        Situation("flat", "tpe", fails=0.4),
    )


def true_values(situation: Situation, epsilon: float) -> FloatArray:
    """The true value of each objective at ε, [objectives]."""
    first = 0.0 if situation.name == "flat" else -CURVATURE * (epsilon - BEST) ** 2
    first -= DROP * _fails(situation, epsilon)
    if situation.name == "two curves":
        return np.array([first, CURVATURE * (epsilon - SECOND_BEST) ** 2])
    return np.array([first])


def _fails(situation: Situation, epsilon: float) -> bool:
    return epsilon > MOST * (1 - situation.fails) + 1e-9  # multiples of 0.005, apart by rounding


def simulate(situation: Situation) -> Outcome:
    """Search many times. A repeat has the same seeds in every situation."""
    searches = np.array([_searched(situation, repeat) for repeat in range(situation.repeats)])
    distance, regret, tuning, optimism, bias, fresh, better = searches.T
    applies = situation.name != "flat"
    return Outcome(
        situation=situation,
        # Distances are multiples of 0.005, and come out apart by rounding.
        near=float(np.mean(distance < NEAR + 1e-9)) if applies else math.nan,
        distance=float(np.median(distance)) if applies else math.nan,
        regret=float(np.median(regret)) if applies else math.nan,
        tuning=float(np.mean(tuning)),
        optimism=float(np.mean(optimism)),
        bias=float(np.mean(bias)),
        bias_se=float(np.std(bias) / math.sqrt(len(bias))),
        fresh=float(np.mean(fresh)),
        better=float(np.mean(better)) if situation.name != "two curves" else math.nan,
    )


def _searched(situation: Situation, repeat: int) -> tuple[float, ...]:
    """Of one search: distance, regret, tuning value, optimism, bias, fresh value, and if "better" is said."""
    rng = np.random.default_rng([0, repeat])
    epsilons, values = _tried(situation, repeat, rng)
    chosen, judged_by = _chosen(situation, epsilons, values)
    winners = epsilons[chosen]
    true_of = np.array([true_values(situation, epsilon) for epsilon in winners])
    true = true_of[:, 0]
    tuning = values[chosen, 0].mean(axis=1)
    fresh = true[:, None] + SD * rng.normal(size=(len(winners), FRESH_SEEDS))
    end = SECOND_BEST if situation.name == "two curves" else BEST
    distances = np.maximum(np.maximum(BEST - winners, winners - end), 0.0)
    return (
        float(distances.max()),
        float(-true.min()) if len(true_of[0]) == 1 else _missed(true_of),
        float(tuning.mean()),
        float((tuning - true).mean()),
        float((judged_by - true).mean()),
        float(fresh.mean()),
        float(_called_better(situation, float(winners[0]), fresh[0], rng)),
    )


def _missed(true: FloatArray) -> float:
    """Share of the hypervolume of the front's best two that up to two points do not reach; [m, 2] values."""
    case = Situation("two curves", "random")
    front = np.array([true_values(case, epsilon) for epsilon in np.arange(BEST, SECOND_BEST + 0.001, 0.005)])
    front[:, 1] *= -1  # of the second, less is better
    worst, extent = front.min(axis=0), np.ptp(front, axis=0)
    best = front[list(best_two(front))]
    return 1 - _dominated(true * (1, -1), worst, extent) / _dominated(best, worst, extent)


def _dominated(points: FloatArray, worst: FloatArray, extent: FloatArray) -> float:
    above = np.maximum((points - worst) / extent + 0.1, 0.0)
    return float(above.prod(axis=1).sum() - (above.min(axis=0).prod() if len(above) == 2 else 0.0))


@quiet()
def _tried(situation: Situation, repeat: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Run one search: ε [points], and values [points, objectives, seeds]."""
    objectives = len(true_values(situation, 0.0))
    search = Search(
        space={"epsilon": Range(low=0.0, high=MOST, step=0.005)},
        objective=("accuracy", "ece")[:objectives],
        points=POINTS,
        sampler=situation.sampler,
        sampler_seed=repeat,
    )
    points = Points(search)
    epsilons: list[float] = []
    values: list[FloatArray] = []
    while len(values) < POINTS:
        for _ in range(min(search.batch, POINTS - len(values))):
            given = (BASELINE, ANCHOR)[len(epsilons)] if len(epsilons) < 2 else None
            point = points.ask("sampler") if given is None else points.ask("anchor", {"epsilon": given})
            epsilons.append(float(point.levels["epsilon"]))
        for number in range(len(values), len(epsilons)):
            true = true_values(situation, epsilons[number])
            spread = situation.spread if _fails(situation, epsilons[number]) else SD
            values.append(true[:, None] + spread * rng.normal(size=(objectives, situation.seeds)))
            means = tuple(float(mean) for mean in values[number].mean(axis=1))
            points.end(number, "complete", values=means)
    return np.array(epsilons), np.array(values)


def _chosen(
    situation: Situation, epsilons: FloatArray, values: FloatArray
) -> tuple[NDArray[np.int64], FloatArray]:
    """Indices of the points to run again, one, or up to two of a front, and the first value that says so."""
    means = values.mean(axis=2)
    sds = np.zeros_like(means)
    if situation.rule == "smoothed":
        higher = (True, False)  # of the second, less is better
        of_each = zip(values.transpose(1, 0, 2), higher, strict=False)
        smooth = [smoothed(epsilons[:, None], list(of), higher_is_better=up) for of, up in of_each]
        means, sds = np.array(smooth).transpose(1, 2, 0)
    if means.shape[1] == 1:
        chosen = np.array([np.nanargmax(means[:, 0])])
    else:
        known = np.flatnonzero(np.isfinite(means).all(axis=1))
        chosen = known[list(chosen_of_two(means[known] * (1.0, -1.0), sds[known]))]
    return chosen, means[chosen, 0]


def _called_better(situation: Situation, winner: float, fresh: FloatArray, rng: np.random.Generator) -> bool:
    """Whether the re-test of one winner says so, in the family of winner and anchor."""
    if winner == BASELINE:
        return False
    baseline = true_values(situation, BASELINE)[0] + SD * rng.normal(size=FRESH_SEEDS)
    effect = paired_effect(fresh, baseline, comparisons=1 if winner == ANCHOR else 2)
    return bool(verdict(effect, planned=FRESH_SEEDS, better="higher").word == "better")


COLUMNS = (
    ("near", "near", ".1%"),
    ("distance", "distance", ".3f"),
    ("regret", "regret", ".4f"),
    ("tuning", "tuning", ".3f"),
    ("optimism", "optimism", "+.3f"),
    ("bias", "bias", "+.3f"),
    ("± se", "bias_se", ".3f"),
    ("fresh", "fresh", ".3f"),
    ("better", "better", ".1%"),
)
NOTES = (
    f"near: chosen ε within {NEAR} of the best, or of the front; at least 85 % for tpe on a curve",
    "distance: median; regret: median of the true loss, of two that of hypervolume, as a share",
    "tuning, fresh: mean values of what was chosen; optimism: tuning less true",
    "bias: the value it was chosen by less the true one; smoothed, at most 0.15",
    "better: said in the re-test of what was chosen; where the truth is flat, at most 5.5 %",
)


def run(console: Console, *, repeats: int | None = None) -> list[Any]:
    """Simulate every situation and print the table; gives the unrounded numbers."""
    cases = (replace(case, repeats=repeats or case.repeats) for case in situations())
    return simulation.run(console, map(simulate, cases), COLUMNS, NOTES)


if __name__ == "__main__":
    options = simulation.options(__doc__)
    simulation.write(options.json, run(Console(), repeats=options.repeats))
