"""Points of a search: what a stopped one asks for next, the grid, pruning, and the dashboard's file."""

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from scipy.stats import wilcoxon

from ablate.store.points import Point, Tuning
from ablate.study.search import Choice, Levels, Range, Search
from ablate.tuning.sampler import Sampler

SPACE: dict[str, Range | Choice] = {
    "epsilon": Range(low=0.0, high=0.5, step=0.005),
    "lr": Range(low=1e-4, high=1e-1, log=True, levels=13),
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
    declared: dict[str, Any] = {"space": SPACE, "points": 24, "sampler": sampler, **settings}
    return Search(**declared)


def new_sampler(declared: Search) -> Sampler:
    return Sampler(declared, higher_is_better=(True, False)[: len(declared.objective)], name="study")


class Run:
    """A search in batches, which can be stopped and built again from what would be stored."""

    def __init__(self, declared: Search) -> None:
        self.search, self.sampler = declared, new_sampler(declared)
        self.points: list[Point] = []
        self.values: dict[int, tuple[float, ...]] = {}

    def ask(self, levels: Levels | None = None) -> int:
        number = len(self.points)
        found, attributes = self.sampler.ask(number, levels)
        self.points.append(
            Point(
                number=number,
                levels=found,
                source="sampler",
                seeds=(),
                trial_ids=(),
                attributes=attributes,
            )
        )
        return number

    def report(self, number: int, step: int, value: float) -> str:
        reason = self.sampler.report(number, step, value)
        self._keep(number, intermediate={**self.points[number].intermediate, step: value})
        return reason

    def tell(self, number: int, state: str = "complete") -> None:
        value = value_of(self.points[number].levels)
        if state == "complete":
            self.values[number] = (value, -value / 2)[: len(self.search.objective)]
        self.sampler.tell(number, state, self.values.get(number, ()))  # type: ignore[arg-type]
        self._keep(number, state=state)

    def _keep(self, number: int, **changes: object) -> None:
        changes["attributes"] = self.sampler.attributes_of(number)
        self.points[number] = self.points[number].model_copy(update=changes)

    def stop_and_go_on(self) -> None:
        points = [Point.model_validate_json(point.model_dump_json()) for point in self.points]
        kept = Tuning(
            search=self.search,
            points=tuple(points),
            attributes=json.loads(json.dumps(self.sampler.attributes)),
        )
        self.sampler = new_sampler(self.search)
        self.sampler.restore(kept, self.values)


def asked(declared: Search, *, stops: Sequence[int] = ()) -> list[Levels]:
    """The levels of all points, two at a time; some fail. Stopped before the points of these numbers."""
    run = Run(declared)
    while len(run.points) < declared.points:
        batch = []
        for _ in range(2):
            if len(run.points) in stops:
                run.stop_and_go_on()
            batch.append(run.ask(None if run.points else BASELINE))
        for number in batch:
            run.tell(number, "failed" if number % 7 == 6 else "complete")
    return [point.levels for point in run.points]


@pytest.mark.parametrize(
    ("sampler", "objective", "points"),
    [
        ("tpe", ONE, 24),
        ("tpe", TWO, 24),
        ("gp", ONE, 10),
        pytest.param("gp", TWO, 10, marks=pytest.mark.slow),
        ("random", ONE, 24),
        ("quasi_random", ONE, 24),
        ("nsga2", TWO, 30),
    ],
)
def test_a_stopped_search_asks_for_the_same_points(
    sampler: str, objective: tuple[str, ...], points: int
) -> None:
    declared = search(sampler, objective=objective, points=points)
    whole = asked(declared)
    # Between batches, and within one: then the first of the two is running.
    assert asked(declared, stops=(2, 5, points - 3, points - 2)) == whole
    other = asked(declared.model_copy(update={"sampler_seed": 1}))
    assert other[0] == whole[0]  # given
    assert all(mine != theirs for mine, theirs in zip(whole[1:4], other[1:4], strict=True))
    drawn = {json.dumps(levels) for levels in whole}
    assert len(drawn) > points / 2


def test_the_points_of_a_sequence_are_spread_evenly() -> None:
    declared = search("quasi_random", space={"epsilon": SPACE["epsilon"]}, points=33)
    sampler = new_sampler(declared)
    drawn = [sampler.ask(number, None if number else {"epsilon": 0.0})[0] for number in range(33)]
    eighths = [min(int(levels["epsilon"] * 16), 7) for levels in drawn[1:]]
    assert all(3 <= eighths.count(place) <= 5 for place in range(8))  # drawn at random, seldom


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi_random"])
def test_drawn_levels_are_on_the_grid_and_active(sampler: str) -> None:
    for levels in asked(search(sampler)):
        assert list(levels) == [name for name in SPACE if name in levels]
        assert ("batch_size" in levels) == (levels["arch"] == "vit_tiny")
        for name, level in levels.items():
            dimension = SPACE[name]
            assert dimension.holds(level)
            if isinstance(dimension, Range):
                assert dimension.nearest(level) == level
                assert type(level) is (int if name == "batch_size" else float)


@given(
    low=st.floats(-10, 10, allow_subnormal=False),
    step=st.floats(1e-3, 3, allow_subnormal=False),
    steps=st.integers(1, 40),
    place=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_any_range_can_be_given_and_drawn_from(low: float, step: float, steps: int, place: int) -> None:
    dimension = Range(low=low, high=low + steps * step, step=step)
    level = dimension.nearest(low + min(place, steps) * step)
    if not dimension.holds(level):
        return  # an end that rounding moved out of the range
    sampler = new_sampler(search("random", space={"lr": dimension}))
    assert sampler.ask(0, {"lr": level})[0] == {"lr": level}
    drawn = sampler.ask(1)[0]["lr"]
    assert dimension.nearest(drawn) == drawn


def test_values_that_optuna_does_not_store_come_back_as_they_are() -> None:
    of = ((1, 2), (1, (2, 3)), True, "None")
    declared = search("tpe", space={"arch": Choice(of=of)}, points=30)
    run = Run(declared)
    for _ in range(20):
        run.sampler.tell(number := run.ask(), "complete", (0.0,))
        run.values[number] = (0.0,)
        run._keep(number, state="complete")
    assert {point.levels["arch"] for point in run.points} == set(of)
    run.stop_and_go_on()  # through JSON, which makes lists of tuples
    assert run.sampler.ask(20)[0]["arch"] in of


def test_a_given_point_keeps_what_it_is() -> None:
    sampler = new_sampler(search())
    levels = {"epsilon": 0.1 + 2e-10, "lr": 0.0123, "arch": "seed_cnn", "batch_size": 8}
    # On the grid where there are steps; the condition of batch_size fails.
    assert sampler.ask(0, levels)[0] == {"epsilon": 0.1, "lr": 0.0123, "arch": "seed_cnn"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epsilon": 0.7}, "epsilon: 0.7 is not in its range"),
        ({"lr": None}, "lr: missing"),
        ({"batch_size": 12}, "batch_size: 12 is not in its range"),
        ({"arch": "resnet"}, "arch: 'resnet' is not in its range"),
    ],
)
def test_a_given_point_outside_the_space_is_refused(changed: Levels, message: str) -> None:
    levels = {name: level for name, level in {**BASELINE, **changed}.items() if level is not None}
    with pytest.raises(ValueError, match=message):
        new_sampler(search()).ask(0, levels)


def test_numbers_without_gaps_and_values_that_fit() -> None:
    run = Run(search(objective=TWO))
    with pytest.raises(ValueError, match="Expected point 0, got 1"):
        run.sampler.ask(1)
    number = run.ask()
    for values in ((1.0,), (1.0, math.nan), (1.0, math.inf), ()):
        with pytest.raises(ValueError, match="Expected 2 finite values"):
            run.sampler.tell(number, "complete", values)
    with pytest.raises(ValueError, match="Expected 0 finite values"):
        run.sampler.tell(number, "failed", (1.0, 1.0))
    run.tell(number)
    kept = Tuning(search=run.search, points=tuple(run.points))
    with pytest.raises(ValueError, match="Expected point 1, got 0; restore all, once"):
        run.sampler.restore(kept, run.values)
    with pytest.raises(ValueError, match="Expected 2 finite values"):
        new_sampler(run.search).restore(kept, {})
    gap = Tuning(search=run.search, points=(run.points[0].model_copy(update={"number": 1}),))
    with pytest.raises(ValueError, match="Expected point 0, got 1"):
        new_sampler(run.search).restore(gap, {1: (0.0, 0.0)})


def test_a_point_that_loses_on_its_first_seeds_is_pruned() -> None:
    run = Run(search(pruning="seeds", seeds=6))
    best = [91.0, 92.0, 93.0, 94.0, 95.0, 96.0]
    first = run.ask(BASELINE)
    for seed, value in enumerate(best):
        assert not run.report(first, 1_000_000 + seed, value)
    run.sampler.tell(first, "complete", (93.5,))
    run.values[first] = (93.5,)
    run._keep(first, state="complete")
    losing, mixed = run.ask(), run.ask()
    for seed in range(3):
        assert not run.report(losing, 1_000_000 + seed, best[seed] - 1 - seed)
        assert not run.report(mixed, 1_000_000 + seed, best[seed] - 1 - seed)
    assert not run.report(mixed, 1_000_003, best[3] + 0.5)
    reason = run.report(losing, 1_000_003, best[3] - 4)
    assert reason == (
        "The mean over 4 seeds, 90, is below that of point 0 over the same seeds, 92.5 "
        "(Wilcoxon test, p < 0.1)."
    )
    assert wilcoxon([-1, -2, -3, -4], alternative="less").pvalue < 0.1
    assert wilcoxon([-1, -2, -3, 0.5], alternative="less").pvalue > 0.1
    run.tell(losing, "pruned")
    run.stop_and_go_on()
    # Samplers learn the mean over the seeds it had.
    known = run.sampler._study.get_trials()[losing]
    assert (known.state, known.value) == (TrialState.COMPLETE, 90.0)
    # What is running is reported again from its start.
    for seed in range(3):
        assert not run.sampler.report(mixed, 1_000_000 + seed, best[seed] - 1 - seed)


def curve(number: int, epoch: int) -> float:
    """Accuracy while point `number` trains: some are good, some bad, in an order without a pattern."""
    return (number * 7 % 11) / 11 * (1 - 0.7**epoch)


def ends(pruning: str, *, stops: Sequence[int] = ()) -> list[str]:
    """Why each of 20 points was pruned, one after the other; empty where it was not."""
    run, reasons = Run(search("random", pruning=pruning, points=20)), []
    for number in range(20):
        if number in stops:
            run.stop_and_go_on()
        run.ask()
        reason = ""
        for epoch in range(1, 10):
            reason = run.report(number, epoch, curve(number, epoch))
            if reason:
                break
            if number in stops and epoch == 5:
                run.stop_and_go_on()
                again = [run.sampler.report(number, past, curve(number, past)) for past in range(1, 6)]
                assert not any(again)
        reasons.append(reason)
        run.tell(number, "pruned" if reason else "complete")
    return reasons


@pytest.mark.parametrize("pruning", ["median", "hyperband"])
def test_points_that_lag_behind_are_pruned_in_a_stopped_search_too(pruning: str) -> None:
    whole = ends(pruning)
    assert not any(whole[:1])
    assert 4 <= sum(map(bool, whole)) <= 16
    assert not whole[3]  # the best of all
    # Before points and in the middle of those that are trained on; then what was reported is reported again.
    assert ends(pruning, stops=(3, 8, 9, 12, 14)) == whole


def test_the_reasons_hold_the_numbers() -> None:
    pruned = next(reason for reason in ends("median") if reason)
    number = next(place for place, reason in enumerate(ends("median")) if reason)
    complete = sorted(curve(other, 1) for other in range(number))
    assert number == 5  # Optuna waits for five complete points
    assert pruned == (
        f"The best value up to epoch 1, {curve(number, 1):.4g}, is below the median of the complete points "
        f"at that epoch, {complete[2]:.4g}."
    )
    hyperband = next(reason for reason in ends("hyperband") if reason)
    assert "is not in the best 1/3 of those that Hyperband compared it with" in hyperband


def test_the_exported_file_holds_the_search(tmp_path: Path) -> None:
    run = Run(search("tpe", pruning="seeds", seeds=6, points=12))
    for number in range(10):
        run.ask(None if number else BASELINE)
        for seed in range(4 if number == 5 else 0):
            run.report(number, seed, 90.0 + seed)
        run.tell(number, {5: "pruned", 6: "failed"}.get(number, "complete"))
    run.ask()
    path = tmp_path / "study.db"
    path.write_bytes(b"an older one")
    run.sampler.export(path)
    first = path.read_bytes()
    run.stop_and_go_on()
    run.sampler.export(path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = optuna.load_study(study_name="study", storage=storage)
    states = [trial.state.name for trial in study.trials]
    assert states == [*["COMPLETE"] * 5, "PRUNED", "FAIL", *["COMPLETE"] * 3, "RUNNING"]
    for trial, point in zip(study.trials, run.points, strict=True):
        assert trial.params == point.levels
        if point.state == "complete":
            assert trial.value == pytest.approx(value_of(point.levels))
    assert study.trials[5].intermediate_values == {seed: 90.0 + seed for seed in range(4)}
    assert study.direction.name == "MAXIMIZE"
    assert study.metric_names == ["accuracy"]
    storage.remove_session()
    storage.engine.dispose()


def spread(value: Callable[[Levels], tuple[float, ...]], points: int = 30, **settings: Any) -> Sampler:
    declared = search("random", points=points, **settings)
    sampler = new_sampler(declared)
    for number in range(points):
        levels, _ = sampler.ask(number)
        sampler.tell(number, "complete", value(levels))
    return sampler


def test_importances_tell_the_field_that_matters() -> None:
    def value(levels: Levels) -> tuple[float, ...]:
        return (-abs(math.log10(levels["lr"]) + 2), levels["epsilon"])

    accuracy, ece = spread(value, objective=TWO, points=60).importances()
    assert (accuracy.objective, ece.objective) == TWO
    assert accuracy.evaluator == ece.evaluator == "PED-ANOVA"
    assert max(accuracy.shares, key=lambda name: accuracy.shares[name]) == "lr"
    assert max(ece.shares, key=lambda name: ece.shares[name]) == "epsilon"
    for found in (accuracy, ece):
        assert set(found.shares) == set(SPACE)
        assert sum(found.shares.values()) == pytest.approx(1)


def test_importances_are_none_where_they_cannot_be_told() -> None:
    def value(levels: Levels) -> tuple[float, ...]:
        return (levels["epsilon"],)

    assert len(spread(value, points=10).importances()) == 1
    assert spread(value, points=9).importances() == ()
    assert spread(value, space={"epsilon": SPACE["epsilon"]}).importances() == ()
    assert spread(lambda levels: (1.0,)).importances() == ()


def test_given_points_become_parents_of_genetic_search() -> None:
    sampler = new_sampler(search("nsga2", space={"lr": SPACE["lr"]}, objective=TWO, points=24))
    for number in range(8):  # a population of four, and one that descends from it
        levels, attributes = sampler.ask(number, {"lr": 1e-2} if number < 4 else None)
        sampler.tell(number, "complete", (-levels["lr"], levels["lr"]))
        assert attributes["NSGAIISampler:generation"] == number // 4
    assert sorted(sampler.attributes["NSGAIISampler:parent:1"]) == [0, 1, 2, 3]


@pytest.mark.parametrize("sampler", ["quasi_random", "tpe"])
def test_nothing_of_optunas_is_heard(sampler: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    verbosity, filters = optuna.logging.get_verbosity(), list(warnings.filters)
    declared = search(sampler, pruning="seeds", seeds=6, points=12)
    run = Run(declared)
    for number in range(12):
        run.ask()
        run.report(number, number, 1.0)  # seeds that the best point has not: Optuna warns of that
        run.tell(number)
    run.sampler.importances()
    run.sampler.export(tmp_path / "study.db")
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity
    assert list(warnings.filters) == filters
