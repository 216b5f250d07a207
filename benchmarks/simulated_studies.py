"""Simulated studies, judged by the functions that judge real ones: do the verdicts keep what they promise?

A study has several arms and one baseline arm; each arm is compared with it over the same seeds. Every arm's
values are its true mean, plus luck over seeds, a share `rho` of whose variance the arms have in common. Each
row of the table is one situation, simulated many times:

- no arm differs, no margin: how often some arm is called better or worse, and how often all intervals hold;
- some arms differ by what the seeds should detect with 80 and with 50 % power: how many are called better;
- no arm differs, the margin is one that the seeds should confirm with 80 % power: how many are equivalent;
- all arms differ by just that margin, up or down: how many are called equivalent, which is always false.

Run it with `python -m ablate bench statistics`, or `python -m benchmarks.simulated_studies --repeats 100`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.optimize import brentq

from ablate.stats import (
    Effect,
    equivalence_power,
    minimal_detectable_effect,
    paired_effect,
    verdict,
)
from benchmarks import simulation

REPEATS = 10_000
ARMS = 6
POWER = 0.8
SEEDS = (3, 5, 10, 20)
RHOS = (0.0, 0.5)
SPREADS = (0.5, 0.5, 1.0, 1.0, 2.0, 2.0)
"""Standard deviations of the arms where they spread unequally; the baseline's is 1."""
MISSING = 0.1
"""Probability with which a trial of the first arm fails, where trials fail."""
SITUATIONS = ("normal", "unequal spread", "t, 3 df", "skewed arms", "failures")

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Situation:
    """What is simulated.

    Attributes:
        name: one of SITUATIONS. The luck is normal, but for "t, 3 df", and for "skewed arms", where that of
            the arms has an exponential tail below and twice the spread of the baseline's, which is normal. In
            "failures", trials of the first arm are missing at random.
        seeds: of each arm.
        rho: share of the luck's variance that the arms have in common.
        arms: compared with the baseline arm, at most six.
        repeats: studies of each kind.
    """

    name: str
    seeds: int
    rho: float
    arms: int = ARMS
    repeats: int = REPEATS


@dataclass(frozen=True)
class Outcome:
    """What came out, as shares in [0, 1]: of studies for the first four, and of arms for the others.

    Attributes:
        situation: what was simulated.
        false_claim: studies in which an arm is called better or worse, where none differs.
        false_beside: the same where four of six arms are better, of the other two; "worse" of the four counts
            too.
        coverage: studies in which every interval holds the true difference. An interval that cannot be told,
            as of one pair, is left out.
        false_equivalent: studies in which an arm is called equivalent, where all differ by the margin.
        false_equivalent_arm: the same for arms.
        power_80: arms called better, of those for which 80 % is promised; NaN without such arms.
        power_50: the same of those for which 50 % is.
        equivalent: arms called equivalent, where none differs.
        equivalent_promised: what the power of the equivalence test promises for that.
        undecided: arms left undecided, where none differs.
    """

    situation: Situation
    false_claim: float
    false_beside: float
    coverage: float
    false_equivalent: float
    false_equivalent_arm: float
    power_80: float
    power_50: float
    equivalent: float
    equivalent_promised: float
    undecided: float


def situations() -> Iterator[Situation]:
    """All rows of the table."""
    for name in SITUATIONS:
        for seeds in SEEDS:
            for rho in RHOS:
                yield Situation(name, seeds, rho)


def simulate(situation: Situation, rng: np.random.Generator) -> Outcome:
    """Judge many studies of one situation.

    Args:
        situation: what to simulate.
        rng: source of the luck, which the four kinds of study share.
    """
    luck = _luck(situation, rng)
    true, at_80, at_50 = _planted(situation)
    margin = confirmable_margin(situation)
    none = _effects(situation, luck, np.zeros(situation.arms))
    claims = _words(situation, none) != "undecided"
    beside = _words(situation, _effects(situation, luck, true))
    with_margin = _words(situation, none, margin)
    up_or_down = np.resize([margin, -margin], situation.arms)
    at_margin = _words(situation, _effects(situation, luck, up_or_down), margin)
    false = (beside == "worse") | ((beside == "better") & (true == 0))
    promised = [_equivalence_power(situation, margin, sd) for sd in _difference_sds(situation)]
    return Outcome(
        situation=situation,
        false_claim=_share(claims.any(axis=1)),
        false_beside=_share(false.any(axis=1)),
        coverage=_share(~((none.low > 0) | (none.high < 0)).any(axis=1)),
        false_equivalent=_share((at_margin == "equivalent").any(axis=1)),
        false_equivalent_arm=_share(at_margin == "equivalent"),
        power_80=_share(beside[:, at_80] == "better"),
        power_50=_share(beside[:, at_50] == "better"),
        equivalent=_share(with_margin == "equivalent"),
        equivalent_promised=float(np.mean(promised)),
        undecided=_share(with_margin == "undecided"),
    )


def _luck(situation: Situation, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Values less true means, of the arms [repeats, arms, seeds] and the baseline [repeats, 1, seeds]."""
    shape = situation.repeats, situation.arms + 1, situation.seeds
    if situation.name == "t, 3 df":
        draws = rng.standard_t(3, size=(2, *shape)) / math.sqrt(3)
    else:
        draws = rng.normal(size=(2, *shape))
    independent, shared = draws[0], draws[1, :, :1]
    if situation.name == "skewed arms":
        independent[:, 1:] = 1 - rng.exponential(size=independent[:, 1:].shape)
    values = math.sqrt(situation.rho) * shared + math.sqrt(1 - situation.rho) * independent
    arms, baseline = values[:, 1:] * _spreads(situation)[:, None], values[:, :1]
    if situation.name == "failures":
        arms[:, 0][rng.random(arms[:, 0].shape) < MISSING] = np.nan
    return arms, baseline


def _spreads(situation: Situation) -> FloatArray:
    """Standard deviation of each arm, [arms]."""
    if situation.name == "unequal spread":
        return np.array(SPREADS[: situation.arms])
    return np.full(situation.arms, 2.0 if situation.name == "skewed arms" else 1.0)


def _difference_sds(situation: Situation) -> FloatArray:
    """Standard deviation of each arm's paired differences, [arms]."""
    spreads = _spreads(situation)
    return np.sqrt(spreads**2 + 1 - 2 * situation.rho * spreads)


def _planted(situation: Situation) -> tuple[FloatArray, BoolArray, BoolArray]:
    """True differences, [arms]: by turns one found with 80 % power, one with 50 %, and none."""
    turn = np.arange(situation.arms) % 3
    true = np.zeros(situation.arms)
    for arm, sd in enumerate(_difference_sds(situation)):
        if turn[arm] < 2:
            true[arm] = minimal_detectable_effect(
                situation.seeds,
                sd=sd,
                power=(0.8, 0.5)[turn[arm]],
                comparisons=situation.arms,
            )
    return true, turn == 0, turn == 1


def confirmable_margin(situation: Situation) -> float:
    """Margin within which arms that do not differ are equivalent with 80 % power, if they spread the most."""
    sd = float(_difference_sds(situation).max())
    upper = sd
    while _equivalence_power(situation, upper, sd) < POWER:
        upper *= 2
    return float(brentq(lambda margin: _equivalence_power(situation, margin, sd) - POWER, upper / 2, upper))


def _equivalence_power(situation: Situation, margin: float, sd: float) -> float:
    return equivalence_power(margin, situation.seeds, sd=sd, comparisons=situation.arms)


def _effects(situation: Situation, luck: tuple[FloatArray, FloatArray], true: FloatArray) -> Effect:
    arms, baseline = luck
    return paired_effect(arms + true[:, None], baseline, comparisons=situation.arms)


def _words(situation: Situation, effects: Effect, margin: float = math.nan) -> NDArray[np.str_]:
    return verdict(effects, planned=situation.seeds, higher_is_better=True, margin=margin).word


def _share(cases: NDArray[np.bool_] | np.bool) -> float:
    return float(np.mean(cases)) if cases.size else math.nan


COLUMNS = (
    ("false claim", "false_claim", ".1%"),
    ("beside true", "false_beside", ".1%"),
    ("coverage", "coverage", ".1%"),
    ("power of 80", "power_80", ".1%"),
    ("power of 50", "power_50", ".1%"),
    ("equivalent", "equivalent", ".1%"),
    ("promised", "equivalent_promised", ".1%"),
    ("false equivalent", "false_equivalent", ".1%"),
    ("of the arms", "false_equivalent_arm", ".1%"),
    ("undecided", "undecided", ".1%"),
)
NOTES = (
    f"parts of {ARMS}-arm studies, or of arms; at most 5 % should be a false claim or falsely equivalent",
    "no promise covers noise that is not normal; with failures, the arm that has some stays undecided",
)


def run(console: Console, *, repeats: int | None = None) -> list[Any]:
    """Simulate every situation and print the table; gives the unrounded shares."""
    cases = (replace(case, repeats=repeats or case.repeats) for case in situations())
    outcomes = (simulate(case, np.random.default_rng([0, number])) for number, case in enumerate(cases))
    return simulation.run(console, outcomes, COLUMNS, NOTES)


if __name__ == "__main__":
    options = simulation.options(__doc__)
    simulation.write(options.json, run(Console(), repeats=options.repeats))
