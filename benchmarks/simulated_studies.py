"""Simulated studies, judged by the functions that judge real ones: do the verdicts keep what they promise?

A study's comparisons are those of a declared one. Every arm's runs are its true mean plus luck, which
correlates with its baseline arm's by `rho`. Each row of the first table is one situation, simulated often:

- no arm differs: how often some claim is better or worse, and how often all intervals hold;
- all that is asked differs by the margin, up or down: how often some claim is equivalent, or of the wrong
  sign;
- by turns something differs by the margin and nothing does: how often some claim is false.

The second is about the seeds that an undecided study names: how often a new study of so many decides.

Run it with `python -m ablate bench statistics`, or `python -m benchmarks.simulated_studies --repeats 100`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ablate.stats.effect import Effect, paired_effect, verdict
from ablate.stats.power import confirmable_margin, pooled_sd, seeds_needed, seeds_range
from ablate.study import Study
from ablate.study.comparisons import Term, family_size, terms
from ablate.study.trials import Numerics, Plan, expand
from benchmarks import simulation

REPEATS = 10_000
DESIGNS = {
    "7 levels x 5 seeds": (7, 1, 5),
    "7 levels x 2 networks x 10 seeds": (7, 2, 10),
    "2 levels x 2 seeds": (2, 1, 2),
    "21 levels x 4 seeds": (21, 1, 4),
}
"""Levels of ε, networks, and seeds."""
NOISES = ("normal", "t, 3 df")
SPREADS = ("equal", "one arm 6 times", "half the arms 3 times")
RHOS = (0.0, -0.3)
ASKED: dict[str, tuple[Any, ...]] = {"arms": ("arms",), "trend, one arm": ("trend", {"epsilon": 0.05})}
FAMILIES = (("accuracy",), ("accuracy", "ece"))
PILOTS = (3, 5, 10)
"""Seeds of the studies that name how many seeds a new one needs."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Situation:
    """What is simulated.

    Attributes:
        design: one of DESIGNS.
        noise: one of NOISES, or "skewed arms": an exponential tail below in all arms but the baselines.
        spread: one of SPREADS, or "all arms twice": of the first of the compared arms, beside the baseline's.
        rho: correlation of each arm with its baseline arm over seeds.
        asked: one of ASKED.
        metrics: in the family, independent of each other.
        repeats: studies of each kind.
    """

    design: str
    noise: str
    spread: str
    rho: float
    asked: str
    metrics: int
    repeats: int = REPEATS


@dataclass(frozen=True)
class Outcome:
    """What came out, as shares of studies.

    Attributes:
        situation: what was simulated.
        false_claim: something is called better or worse, where nothing differs and no margin is declared.
        false_equivalent: something is called equivalent, where everything differs by the margin.
        false_word: some claim is false, where by turns something differs by the margin and nothing does.
        coverage: every interval holds its true difference. One that cannot be told is left out.
    """

    situation: Situation
    false_claim: float
    false_equivalent: float
    false_word: float
    coverage: float


def situations() -> Iterator[Situation]:
    """All rows of the first table."""
    for design in DESIGNS:
        for rest in itertools.product(NOISES, SPREADS, RHOS, ASKED, (1, 2)):
            yield Situation(design, *rest)
        yield Situation(design, "skewed arms", "all arms twice", 0.0, "arms", 1)


@functools.cache
def declared(design: str, asked: str, metrics: int) -> Plan:
    """The study, in full: levels of ε from 0 in steps of .05, against the first."""
    levels, networks, seeds = DESIGNS[design]
    study = Study(
        question="?", base={"data": "synthetic", "image_size": 16}, seeds=seeds,
        factors={
            "epsilon": tuple(round(0.05 * level, 2) for level in range(levels)),
            **({"arch": ("seed_cnn", "xresnet18")} if networks == 2 else {}),
        },
        baseline={"epsilon": 0.0}, comparisons=ASKED[asked], family=FAMILIES[metrics - 1],
    )  # fmt: skip
    numerics = Numerics(device="cpu", precision="float32", deterministic=True)
    return Plan(study=study, profile="made", reason="", trials=tuple(expand(study, str, lambda _: numerics)))


def luck(situation: Situation, seeds: int, rng: np.random.Generator) -> FloatArray:
    """Runs less true means, [repeats, metrics, arms, seeds]."""
    levels, networks, _ = DESIGNS[situation.design]
    shape = situation.repeats, situation.metrics, levels, networks, seeds
    if situation.noise == "t, 3 df":
        values = rng.standard_t(3, size=shape) / math.sqrt(3)
    else:
        values = rng.normal(size=shape)
    if situation.noise == "skewed arms":
        values[:, :, 1:] = 1 - rng.exponential(size=values[:, :, 1:].shape)
    values[:, :, 1:] *= math.sqrt(1 - situation.rho**2)
    values[:, :, 1:] += situation.rho * values[:, :, :1]
    return (values * spreads(situation)[:, :, None]).reshape(*shape[:2], levels * networks, seeds)


def spreads(situation: Situation) -> FloatArray:
    """Standard deviation of each arm, [levels, networks]; a baseline's is 1."""
    levels, networks, _ = DESIGNS[situation.design]
    wide = np.ones(levels * networks)
    compared = (levels - 1) * networks
    if situation.spread == "one arm 6 times":
        wide[networks] = 6
    elif situation.spread == "all arms twice":
        wide[networks:] = 2
    elif situation.spread == "half the arms 3 times":
        wide[networks : networks + (compared + 1) // 2] = 3
    return wide.reshape(levels, networks)


def sides(asked: list[Term], values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both sides of each term, each [..., terms, seeds], of values [..., arms, seeds]."""
    means = [values[..., term.arms, :].mean(axis=-2) for term in asked]
    positive, negative = (
        np.stack(
            [np.maximum(sign * term.weights, 0) @ mean for term, mean in zip(asked, means, strict=True)], -2
        )
        for sign in (1, -1)
    )
    return positive, negative


def judged(
    plan: Plan, values: FloatArray, true: FloatArray, margin: float
) -> tuple[Effect, NDArray[np.str_]]:
    """Effects and words [repeats, metrics, terms], once what is asked differs by `true` [terms]."""
    asked = [term for term in terms(plan) if term.asked]
    values_of, reference = sides(asked, values)
    effects = paired_effect(values_of + true[:, None], reference, comparisons=family_size(plan))
    seeds = len(plan.study.seed_list())
    return effects, verdict(effects, planned=seeds, better="higher", margin=margin).word


def simulate(situation: Situation, rng: np.random.Generator) -> Outcome:
    """Judge many studies of one situation."""
    plan = declared(situation.design, situation.asked, situation.metrics)
    asked, values = (
        [term for term in terms(plan) if term.asked],
        luck(situation, DESIGNS[situation.design][2], rng),
    )
    none = np.zeros(len(asked))
    effects, words = judged(plan, values, none, math.nan)
    sd = max(float(np.sqrt(np.mean(effects.sd[..., term] ** 2))) for term in range(len(asked)))
    margin = confirmable_margin(values.shape[-1], sd=sd, comparisons=family_size(plan))
    up_or_down = np.resize([margin, -margin], len(asked))
    _, at_margin = judged(plan, values, up_or_down, margin)
    by_turns = np.where(np.arange(len(asked)) % 2 == 0, margin, 0.0)
    _, mixed = judged(plan, values, by_turns, margin)
    return Outcome(
        situation=situation,
        false_claim=_any(words != "undecided"),
        false_equivalent=_any(_is_false(at_margin, up_or_down)),
        false_word=_any(_is_false(mixed, by_turns)),
        coverage=1 - _any((effects.low > 0) | (effects.high < 0)),
    )


def _is_false(words: NDArray[np.str_], true: FloatArray) -> NDArray[np.bool_]:
    """Of differences that are 0 or the margin, up or down."""
    right = np.select([true > 0, true < 0], ["better", "worse"], "equivalent")
    return np.asarray((words != "undecided") & (words != right))


def _any(false: NDArray[np.bool_]) -> float:
    return float(np.mean(false.any(axis=(1, 2))))


@dataclass(frozen=True)
class PilotSituation:
    """Studies of `comparisons` arms against one baseline arm or two, which name the seeds of a new study."""

    comparisons: int
    noise: str
    spread: str
    pilot: int
    repeats: int = REPEATS // 5


@dataclass(frozen=True)
class PilotOutcome:
    """What became of the new studies.

    Attributes:
        situation: what was simulated.
        at_0: comparisons of new studies of the upper number that are equivalent, where nothing differs.
        at_twice: those that are better, where all differ by twice the margin.
        widest_at_0: as `at_0`, of the arm that varies most.
        known: seeds that decide with 80 %, were it known how much the comparisons vary on average.
        few: the lower number, and
        many: the upper one of the median study;
        most: upper number that one study in ten exceeds.
        beyond: studies whose upper number is above 1,000; no new one of theirs is among the first three.
    """

    situation: PilotSituation
    at_0: float
    at_twice: float
    widest_at_0: float
    known: float
    few: float
    many: float
    most: float
    beyond: float


def pilot_situations() -> Iterator[PilotSituation]:
    """All rows of the second table."""
    for rest in itertools.product((6, 12), NOISES, SPREADS, PILOTS):
        yield PilotSituation(*rest)


def simulate_pilots(situation: PilotSituation, rng: np.random.Generator) -> PilotOutcome:
    """Have studies name seeds, and new ones of the upper number judged; the margin is a baseline run's sd."""
    design = next(
        name for name, (levels, by, _) in DESIGNS.items() if (levels - 1) * by == situation.comparisons
    )
    plan = declared(design, "arms", 1)
    asked, size = [term for term in terms(plan) if term.asked], family_size(plan)
    of_arms = Situation(design, situation.noise, situation.spread, 0.0, "arms", 1, situation.repeats)

    def studies(repeats: int, seeds: int) -> tuple[FloatArray, FloatArray]:
        return sides(asked, luck(replace(of_arms, repeats=repeats), seeds, rng)[:, 0])

    scale, pilots = np.array([term.scale for term in asked]), studies(situation.repeats, situation.pilot)
    named = []
    for values, reference in zip(*pilots, strict=True):
        sd, freedom = pooled_sd(paired_effect(values, reference), scale)
        named.append(_seeds(float(f"{sd * scale[0]:.2e}"), freedom, size))
    few, many = np.array(named).T
    decided = []
    for seeds in np.unique(many[np.isfinite(many)]).astype(int):
        values, reference = studies(int((many == seeds).sum()), seeds)
        effects = (paired_effect(values + true, reference, comparisons=size) for true in (0.0, 2.0))
        words = [verdict(of, planned=seeds, better="higher", margin=1.0).word for of in effects]
        decided.append([words[0] == "equivalent", words[1] == "better"])
    at_0, at_twice = np.concatenate(decided, axis=1)
    known = float(np.sqrt(np.mean(paired_effect(*pilots).sd ** 2)))
    return PilotOutcome(
        situation=situation,
        at_0=float(at_0.mean()),
        at_twice=float(at_twice.mean()),
        widest_at_0=float(at_0[:, 0].mean()),
        known=seeds_needed(1.0, sd=known, comparisons=size) or math.inf,
        few=float(np.quantile(few, 0.5, method="higher")),
        many=float(np.quantile(many, 0.5, method="higher")),
        most=float(np.quantile(many, 0.9, method="higher")),
        beyond=float(np.mean(~np.isfinite(many))),
    )


@functools.cache
def _seeds(sd: float, freedom: float, size: int) -> tuple[float, float]:
    few, many = seeds_range(1.0, sd=sd, freedom=freedom, comparisons=size)
    return few or math.inf, many or math.inf


COLUMNS = (
    ("false claim", "false_claim", ".1%"),
    ("false equivalent", "false_equivalent", ".1%"),
    ("false word", "false_word", ".1%"),
    ("coverage", "coverage", ".1%"),
)
NOTES = ("shares of studies; at most 5 % should hold a false claim, and at least 95 % cover",)
PILOT_COLUMNS = (
    ("equivalent at 0", "at_0", ".1%"),
    ("different at twice the margin", "at_twice", ".1%"),
    ("widest arm at 0", "widest_at_0", ".1%"),
    ("seeds if known", "known", ".0f"),
    ("from", "few", ".0f"),
    ("to", "many", ".0f"),
    ("to, at most in 90 %", "most", ".0f"),
    ("above 1,000", "beyond", ".1%"),
)
PILOT_NOTES = ("comparisons of new studies of the upper number of seeds; 80 % or more should be decided",)


def run(console: Console, *, repeats: int | None = None) -> list[Any]:
    """Simulate every situation and print both tables; gives the unrounded shares."""
    studies = [replace(case, repeats=repeats or case.repeats) for case in situations()]
    pilots = [replace(case, repeats=repeats or case.repeats) for case in pilot_situations()]
    outcomes = (simulate(case, np.random.default_rng([0, number])) for number, case in enumerate(studies))
    named = (simulate_pilots(case, np.random.default_rng([1, number])) for number, case in enumerate(pilots))
    stored = simulation.run(console, outcomes, COLUMNS, NOTES)
    return stored + simulation.run(console, named, PILOT_COLUMNS, PILOT_NOTES)


if __name__ == "__main__":
    options = simulation.options(__doc__)
    simulation.write(options.json, run(Console(), repeats=options.repeats))
