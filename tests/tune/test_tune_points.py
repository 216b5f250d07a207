"""Points of a search: what a stopped one asks for next, the grid, pruning, and what Optuna is shown."""

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from scipy.stats import wilcoxon

from ablate.study.fields import Levels
from ablate.study.search import FIRST_TUNING_SEED, Choice, Range, Search
from ablate.tuning.points import Points, quiet, sampler_of

LEARNING_RATES = Range(low=1e-4, high=1e-1, log=True, levels=13)
SPACE: dict[str, Range | Choice] = {
    "epsilon": Range(low=0.0, high=0.5, step=0.005),
    "lr": LEARNING_RATES,
    "arch": Choice(of=("seed_cnn", "vit_tiny")),
    "batch_size": Range(low=8, high=64, step=8, when={"arch": "vit_tiny"}),
}
BASELINE: Levels = {"epsilon": 0.1, "lr": 1e-2, "arch": "vit_tiny", "batch_size": 16}
ONE, TWO = ("accuracy",), ("accuracy", "ece")


def value_of(levels: Levels) -> float:
    """Best at ε = 0.12, lr = 0.01, of a vit_tiny with a batch of 32."""
    batch = abs(levels.get("batch_size", 0) - 32) / 32
    return float(-40 * (levels["epsilon"] - 0.12) ** 2 - abs(math.log10(levels["lr"]) + 2) - batch)


def search(sampler: str = "tpe", **settings: Any) -> Search:
    return Search(**{"space": SPACE, "points": 24, "sampler": sampler, **settings})


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


@pytest.fixture
def database() -> RDBStorage:
    return RDBStorage("sqlite://")


def ask(points: Points, number: int) -> None:
    points.ask("sampler" if number else "baseline", None if number else BASELINE)


def finish(points: Points, number: int) -> None:
    """Every seventh fails."""
    value = value_of(points.all()[number].levels)
    if number % 7 == 6:
        points.end(number, "failed", "It diverged.")
    else:
        points.end(number, "complete", values=(value, -value / 2)[: len(points.search.objective)])


def asked(declared: Search, storage: BaseStorage | None = None, stops: Sequence[int] = ()) -> list[Levels]:
    """The levels of all points, two at a time, stopped before those of some numbers."""
    points = Points(declared, storage)
    for number in range(declared.points):
        points = Points(declared, storage) if number in stops else points
        ask(points, number)
        if number % 2:
            finish(points, number - 1)
            finish(points, number)
    return [point.levels for point in points.all()]


@pytest.mark.parametrize(
    ("sampler", "objective", "points"),
    [
        ("tpe", ONE, 24),
        ("tpe", TWO, 24),
        pytest.param("gp", ONE, 10, marks=pytest.mark.slow),
        pytest.param("gp", TWO, 10, marks=pytest.mark.slow),
        ("random", ONE, 24),
        ("quasi_random", ONE, 24),
        ("nsga2", TWO, 30),
    ],
)
def test_a_stopped_search_asks_for_the_same_points(
    sampler: str, objective: tuple[str, ...], points: int, database: RDBStorage
) -> None:
    declared = search(sampler, objective=objective, points=points)
    whole = asked(declared)
    # Between batches, and within one: then the first of the two is running.
    assert asked(declared, database, stops=(2, *range(5, points, 3), points - 2)) == whole
    other = asked(declared.model_copy(update={"sampler_seed": 1}))
    assert other[0] == whole[0]  # given
    assert all(mine != theirs for mine, theirs in zip(whole[1:4], other[1:4], strict=True))
    assert len({json.dumps(levels) for levels in whole}) > points / 2
    for levels in whole:
        assert list(levels) == [name for name in SPACE if name in levels]
        assert ("batch_size" in levels) == (levels["arch"] == "vit_tiny")
        assert all(SPACE[name].holds(level) for name, level in levels.items())
        assert [type(level) for level in levels.values()] == [float, float, str, int][: len(levels)]
        assert LEARNING_RATES.nearest(levels["lr"]) == levels["lr"]


@pytest.mark.parametrize(
    ("dimension", "eighth"),
    [
        (SPACE["epsilon"], lambda level: int(level * 16)),
        (Range(low=100, high=25_600, log=True, levels=999), lambda level: int(math.log2(level / 100))),
    ],
)
def test_the_points_of_a_sequence_are_spread_evenly(dimension: Range, eighth: Callable[[Any], int]) -> None:
    points = Points(search("quasi_random", space={"lr": dimension}, points=33))
    points.ask("baseline", {"lr": dimension.low})
    eighths = [min(eighth(points.ask("sampler").levels["lr"]), 7) for _ in range(32)]
    assert all(3 <= eighths.count(place) <= 5 for place in range(8))  # drawn at random, seldom


STEPS = st.integers(1, 40)


@given(low=st.floats(-10, 10, allow_subnormal=False), step=st.floats(1e-3, 3), steps=STEPS, place=STEPS)
def test_any_range_can_be_given_and_drawn_from(low: float, step: float, steps: int, place: int) -> None:
    dimension = Range(low=low, high=low + steps * step, step=step)
    level = dimension.nearest(low + min(place, steps) * step)
    if not dimension.holds(level):
        return  # an end that rounding moved out of the range
    points = Points(search("random", space={"lr": dimension}))
    assert points.ask("baseline", {"lr": level}).levels == {"lr": level}
    drawn = points.ask("sampler").levels["lr"]
    assert dimension.nearest(drawn) == drawn


def test_values_that_optuna_does_not_store_come_back_as_json_has_them(database: RDBStorage) -> None:
    of = ((1, 2), (1, (2, 3)), True, "None")
    points = Points(search(space={"arch": Choice(of=of)}, seeds=1), database)
    for number in range(20):
        points.ask("sampler")
        points.end(number, "complete", values=(0.0,))
    drawn = [json.dumps(point.levels["arch"]) for point in Points(points.search, database).all()]
    assert set(drawn) == {json.dumps(value) for value in of}
    # Each repetition has seeds of its own.
    for point, level in zip(points.all(), drawn, strict=True):
        assert point.seeds == (FIRST_TUNING_SEED + drawn[: point.number].count(level),)


def test_a_point_that_loses_on_its_first_seeds_is_pruned(database: RDBStorage) -> None:
    points = Points(search(pruning="seeds", seeds=6), database)
    best = [91.0, 92.0, 93.0, 94.0, 95.0, 96.0]
    ask(points, 0)
    assert [points.report(0, seed, value) for seed, value in enumerate(best)] == [""] * 6
    points.end(0, "complete", values=(93.5,))
    points.ask("anchor", BASELINE)
    losing, mixed = points.ask("sampler").number, points.ask("sampler").number
    for seed in range(3):
        assert not any(points.report(number, seed, best[seed] - 1 - seed) for number in (1, losing, mixed))
    points = Points(points.search, database)  # stopped: what was reported need not be again
    assert not points.report(mixed, 3, best[3] + 0.5)
    reason = points.report(losing, 3, best[3] - 4)
    assert reason.startswith("The mean over 4 seeds, 90, is below that of point 0 over the same seeds, 92.5 ")
    assert not points.report(1, 3, best[3] - 4)  # anchors are what the others are compared with
    assert wilcoxon([-1, -2, -3, -4], alternative="less").pvalue < 0.1
    assert wilcoxon([-1, -2, -3, 0.5], alternative="less").pvalue > 0.1
    points.end(losing, "pruned", reason)
    trial, point = points.study.trials[losing], points.all()[losing]
    assert (point.state, point.pruned_at, point.reason) == ("pruned", 4, reason)
    # Samplers learn the mean over the seeds it had.
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 90.0)
    assert points.values() == {0: (93.5,)}


def curve(number: int, epoch: int) -> float:
    """Accuracy while point `number` trains: some are good, some bad, in an order without a pattern."""
    return (number * 7 % 11) / 11 * (1 - 0.7**epoch)


def ends(pruning: str, storage: BaseStorage | None = None, stops: Sequence[int] = ()) -> list[str]:
    """Why each of 20 points was pruned, one after the other; empty where it was not."""
    declared = search("random", pruning=pruning, points=20)
    points = Points(declared, storage)
    for number in range(20):
        points.ask("sampler")
        for epoch in range(1, 10):
            if number in stops and epoch in (1, 6):
                points = Points(declared, storage)
                assert not any(points.report(number, past, curve(number, past)) for past in range(1, epoch))
            if reason := points.report(number, epoch, curve(number, epoch)):
                points.end(number, "pruned", reason)
                break
        else:
            finish(points, number)
    return [point.reason for point in points.all()]


@pytest.mark.parametrize("pruning", ["median", "hyperband"])
def test_laggards_are_pruned_in_a_stopped_search_too(pruning: str, database: RDBStorage) -> None:
    whole = ends(pruning)
    assert 4 <= sum(map(bool, whole)) <= 16
    assert not whole[3]  # the best of all
    # Before points and in the middle of those that are trained on; then what was reported is reported again.
    assert ends(pruning, database, stops=(3, 8, 9, 12, 14)) == whole
    first, reason = next((number, reason) for number, reason in enumerate(whole) if reason)
    if pruning == "hyperband":
        assert "is not in the best 1/3 of those that Hyperband compared it with" in reason
        return
    median = sorted(curve(other, 1) for other in range(5))[2]  # Optuna waits for five complete points
    assert (first, re.findall(r"0\.\d+", reason)) == (5, [f"{curve(5, 1):.4g}", f"{median:.4g}"])


def test_optuna_shows_the_search_and_a_copy_is_the_same(database: RDBStorage) -> None:
    points = Points(search(pruning="median", points=12), database)
    for number in range(11):
        ask(points, number)
        if number == 5:
            points.report(number, 1, 90.0)
            points.end(number, "pruned", "Too low.")
        elif number < 10:
            finish(points, number)
    copy = Points(points.search)
    for point in points.all():
        copy.add(point, points.values().get(point.number, ()))
    assert (copy.all(), copy.values()) == (points.all(), points.values())
    for study in (optuna.load_study(study_name="search", storage=database), copy.study):
        states = [trial.state.name for trial in study.trials]
        assert states == [*["COMPLETE"] * 5, "PRUNED", "FAIL", *["COMPLETE"] * 3, "RUNNING"]
        assert [trial.params for trial in study.trials] == [point.levels for point in points.all()]
        assert (study.trials[5].intermediate_values, study.trials[5].value) == ({1: 90.0}, 90.0)
        assert study.best_value == max(value for (value,) in points.values().values())
    assert copy.ask("sampler").levels == points.ask("sampler").levels


def spread(value: Callable[[Levels], tuple[float, ...]], points: int, **settings: Any) -> Points:
    asked = Points(search("random", points=points, **settings))
    for number in range(points):
        asked.end(number, "complete", values=value(asked.ask("sampler").levels))
    return asked


def test_importances_tell_the_field_that_matters_or_nothing() -> None:
    def two(levels: Levels) -> tuple[float, ...]:
        return (-abs(math.log10(levels["lr"]) + 2), levels.get("epsilon", 0))

    found = spread(two, 60, objective=TWO).importances()
    assert [(of.objective, of.evaluator) for of in found] == [("accuracy", "PED-ANOVA"), ("ece", "PED-ANOVA")]
    for of, field in zip(found, ("lr", "epsilon"), strict=True):
        assert (max(of.shares, key=of.shares.__getitem__), set(of.shares)) == (field, set(SPACE))
        assert sum(of.shares.values()) == pytest.approx(1)
    few, enough = (spread(lambda levels: (levels["epsilon"],), points) for points in (9, 10))
    assert (few.importances(), len(enough.importances())) == ((), 1)
    assert spread(two, 30, objective=TWO, space={"lr": LEARNING_RATES}).importances() == ()
    assert spread(lambda levels: (1.0,), 30).importances() == ()


def test_given_points_become_parents_of_genetic_search() -> None:
    points = Points(search("nsga2", space={"lr": SPACE["lr"]}, objective=TWO, points=24))
    for number in range(8):  # a population of four, and one that descends from it
        point = points.ask("sampler") if number >= 4 else points.ask("anchor", {"lr": 1e-2})
        points.end(number, "complete", values=(-point.levels["lr"], point.levels["lr"]))
        assert point.attributes["NSGAIISampler:generation"] == number // 4
    sampler: Any = sampler_of(points.search, 8, 8)
    parents = sampler.get_parent_population(points.study, 1)
    assert sorted(parent.number for parent in parents) == [0, 1, 2, 3]


@pytest.mark.parametrize("sampler", ["quasi_random", "tpe"])
def test_nothing_of_optunas_is_heard(sampler: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity(), list(warnings.filters)
    with quiet():
        points = Points(search(sampler, pruning="seeds", seeds=6, points=12))
        for number in range(12):
            points.ask("sampler")
            points.report(number, number, 1.0)  # seeds that the best point has not: Optuna warns of that
            finish(points, number)
        points.importances()
    after = optuna.logging.get_verbosity(), list(warnings.filters)
    assert (capfd.readouterr(), after) == (("", ""), before)
