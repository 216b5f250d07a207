"""Several tuners on one search in a real PostgreSQL: every point once, whoever dies, whatever goes wrong."""

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psycopg
import pytest
from optuna.trial import FrozenTrial, TrialState
from postgresql_server import PASSWORD, PostgreSQL
from recorded_study import COST, CPU, environment

from ablate.errors import ResultsError, StudyError
from ablate.execution import Event
from ablate.execution.driver import Options
from ablate.execution.prepare import Inputs
from ablate.store.points import Point, Tuning, read_tuning, tuning_folder
from ablate.store.records import (
    Predictions,
    Record,
    read_predictions,
    read_record,
    read_records,
    write_record,
)
from ablate.store.results import ResultsFolder
from ablate.study.fields import resolve
from ablate.study.search import FIRST_TUNING_SEED, Levels, Range, Search
from ablate.study.study import Study, load_study
from ablate.study.trials import Plan, Trial, build_trial
from ablate.tables import objective_values
from ablate.tuning import shared, tune_study
from ablate.tuning.ledger import Ledger, OwnLedger, means_of
from ablate.tuning.settle import begin, resumed
from ablate.tuning.shared import SharedLedger
from ablate.tuning.storage import Storage

NAME = "tiny/default"
EPSILON = Range(low=0.0, high=0.5, step=0.005)
SEARCH = Search(space={"epsilon": EPSILON}, anchors=({"epsilon": 0.0},), points=6, seeds=2, batch=1)
FIRST: list[Levels] = [{"epsilon": 0.1}, {"epsilon": 0.0}]
BASE = {"data": "digits", "image_size": 8, "epochs": 1}
RAN_ON: dict[str, Any] = {}
"""What records say of the machine, besides the usual."""


def trials_in(url: str) -> list[FrozenTrial]:
    """The search as Optuna itself shows it to anybody."""
    options = {"creator": lambda: psycopg.connect(url)}
    storage = optuna.storages.RDBStorage("postgresql+psycopg://", options)
    try:
        return optuna.load_study(study_name=NAME, storage=storage).get_trials()
    finally:
        storage.remove_session()
        storage.engine.dispose()


def carried(trials: Sequence[FrozenTrial], kind: str = "record:") -> dict[str, str]:
    """What trials carry of a kind, by the name of the training run."""
    found = [(key, value) for trial in trials for key, value in trial.user_attrs.items()]
    return {key.removeprefix(kind): value for key, value in found if key.startswith(kind)}


def named(points: Iterable[Point]) -> set[str]:
    """The points' training runs."""
    return {name for point in points for name in point.trial_ids}


def point_in(trial: FrozenTrial) -> Point:
    return Point.model_validate(trial.user_attrs["point"])


# Tuners that train nothing: a ledger, with records made up from a point's values.


@pytest.fixture
def ledger(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SharedLedger]]:
    """Begin a tuner of the search in the storage, with a results folder of this name."""
    monkeypatch.setattr(shared, "POLL_SECONDS", 0.0)
    with contextlib.ExitStack() as sessions:

        def tuner(results: str, search: Search = SEARCH, name: str = NAME) -> SharedLedger:
            storage = Storage(database, name)
            sessions.callback(storage.close)
            return SharedLedger(
                storage,
                results_of(tmp_path / results),
                Tuning(search=search),
                FIRST,
                lambda stored: stored.model_copy(update={"search": search}),
            )

        yield tuner


def results_of(root: Path) -> ResultsFolder:
    folder = ResultsFolder(root)
    tuning_folder(folder).create()
    return folder


def train(tuner: Ledger, point: Point, seeds: int | None = None) -> Point:
    """Record what a point's runs came to, as the loop does; of its first seeds only, where it is told so."""
    results: ResultsFolder = tuner.results  # type: ignore[attr-defined]
    fields = resolve(BASE, {**point.levels, "tuning_part": SEARCH.tuning_part})
    trials = [build_trial(point.levels, fields, seed, CPU, "images") for seed in point.seeds]
    point = point.model_copy(update={"trial_ids": tuple(trial.trial_id for trial in trials)})
    tuner.keep(point)
    folder = tuning_folder(results)
    for trial in trials[:seeds]:
        if not folder.record_path(trial.trial_id).exists():
            record = Record(trial=trial, status="complete", cost=COST, environment=environment(**RAN_ON))
            write_record(folder, record, guesses(trial))
            tuner.recorded(point)
    return point


def guesses(trial: Trial) -> Predictions:
    """Predictions that are the better, the nearer ε is to 0.2."""
    labels = np.arange(200) % 10
    noise = np.random.default_rng(int(trial.trial_id, 16)).normal(size=(200, 10))
    strength = 2 - 6 * abs(trial.fields.epsilon - 0.2)
    return Predictions((noise + strength * np.eye(10)[labels]).astype(np.float32), labels)


def complete(tuner: Ledger, point: Point) -> None:
    """Train a point, and end it."""
    point = train(tuner, point)
    results: ResultsFolder = tuner.results  # type: ignore[attr-defined]
    values = objective_values(results, point, tuner.tuning.search.objective)
    tuner.end(point.model_copy(update={"state": "complete"}), means_of(values))


def spend(tuner: Ledger) -> list[int]:
    """Do what is left of the budget; the points done."""
    done = []
    for _ in range(1000):
        for point in tuner.mine():
            complete(tuner, point)
            done.append(point.number)
        while points := tuner.begin():
            for point in points:
                complete(tuner, point)
                done.append(point.number)
        if tuner.is_over():
            return done
    raise AssertionError("the search does not end")


def asked(tuning: Tuning) -> list[tuple[Levels, tuple[int, ...], str]]:
    return [(point.levels, point.seeds, point.source) for point in tuning.points]


def two_objectives(sampler: str) -> Search:
    space = {"epsilon": EPSILON, "lr": Range(low=0.01, high=1.0, log=True, levels=9)}
    objective = ("accuracy", "ece") if sampler == "nsga2" else ("accuracy",)
    return Search(space=space, objective=objective, points=9, seeds=1, sampler=sampler)


@pytest.mark.parametrize(
    "search",
    [SEARCH, *map(two_objectives, ("tpe", "quasi_random", "nsga2"))],
    ids=lambda search: search.sampler,
)
def test_one_tuner_alone_asks_for_the_points_of_a_search_in_memory(
    ledger: Callable[..., SharedLedger], tmp_path: Path, search: Search
) -> None:
    first = FIRST if search is SEARCH else [{"epsilon": 0.1, "lr": 0.1}]
    own = OwnLedger(results_of(tmp_path / "own"), Tuning(search=search), first, NAME)
    spend(own)
    tuner = ledger("alone", search)
    tuner._first = first
    spend(tuner)
    assert len(own.tuning.points) == search.points
    assert tuner.tuning.model_dump() == own.tuning.model_dump()
    assert read_tuning(tuner.results) == read_tuning(own.results)


def test_tuners_divide_the_points_and_end_with_all_of_them(
    ledger: Callable[..., SharedLedger], database: str
) -> None:
    tuners = [ledger("a"), ledger("b"), ledger("c")]
    done: list[int] = []
    while claimed := [(tuner, point) for tuner in tuners for point in tuner.begin()]:
        for tuner, point in claimed:
            complete(tuner, point)
            done.append(point.number)
    assert sorted(done) == list(range(6))
    assert all(tuner.is_over() for tuner in tuners)
    trials = trials_in(database)
    for tuner in tuners:
        assert len(read_records(tuning_folder(tuner.results))) == 12
        assert [point_in(trial) for trial in trials] == list(tuner.tuning.points)
        assert tuner.tuning.is_spent
        assert read_tuning(tuner.results) == tuner.tuning


def test_optuna_shows_complete_trials_with_their_values(
    ledger: Callable[..., SharedLedger], database: str
) -> None:
    tuner = ledger("a")
    spend(tuner)
    trials = trials_in(database)
    assert [trial.number for trial in trials] == list(range(6))
    for trial, point in zip(trials, tuner.tuning.points, strict=True):
        assert trial.state is TrialState.COMPLETE
        assert trial.params == pytest.approx(point.levels)
        values = objective_values(tuner.results, point, ("accuracy",))
        assert trial.values == pytest.approx([np.mean([value for (value,) in values.values()])])
        json.dumps(trial.user_attrs, allow_nan=False)
        assert trial.datetime_complete is not None
    folder = tuning_folder(tuner.results)
    for name, text in carried(trials).items():
        assert folder.record_path(name).read_text() == text
        predictions = base64.b64decode(carried(trials, "predictions:")[name])
        assert folder.predictions_path(name).read_bytes() == predictions


def test_pruned_and_failed_points_are_so_for_optuna_and_all_tuners(
    ledger: Callable[..., SharedLedger], database: str
) -> None:
    tuner, other = ledger("a"), ledger("b")
    (pruned,) = tuner.begin()
    tuner.sampler.report(0, FIRST_TUNING_SEED, 0.5)
    changes = {"intermediate": {FIRST_TUNING_SEED: 0.5}, "pruned_at": 1, "reason": "Too low."}
    tuner.end(train(tuner, pruned, 1).model_copy(update={"state": "pruned", **changes}), ())
    (failed,) = tuner.begin()
    tuner.end(train(tuner, failed, 0).model_copy(update={"state": "failed", "reason": "It diverged."}), ())
    spend(other)
    assert [trial.state for trial in trials_in(database)[:2]] == [TrialState.PRUNED, TrialState.FAIL]
    assert [(point.state, point.reason) for point in other.tuning.points[:2]] == [
        ("pruned", "Too low."),
        ("failed", "It diverged."),
    ]
    assert len(other.tuning.points) == 6


def test_a_larger_budget_is_topped_up_exactly_and_a_smaller_one_asks_for_nothing(
    ledger: Callable[..., SharedLedger], database: str
) -> None:
    small, large = (SEARCH.model_copy(update={"points": points}) for points in (3, 5))
    first = ledger("a", small)
    complete(first, *first.begin())
    assert sorted([*spend(ledger("b", large)), 0]) == list(range(5))
    assert spend(first) == []  # the larger budget of the other is its own too
    assert first.tuning.search.points == 5
    assert first.tuning.is_spent
    assert spend(ledger("c", small)) == []
    assert len(trials_in(database)) == 5


# Tuners that die.


def test_what_a_dead_tuner_had_claimed_is_gone_on_with(ledger: Callable[..., SharedLedger]) -> None:
    dying, other = ledger("a"), ledger("b")
    (point,) = dying.begin()
    train(dying, point, 1)
    assert not other.is_over()
    assert list(other.mine()) == []
    dying.storage.close()
    assert not other.is_over()
    known = set(read_records(tuning_folder(other.results)))
    (taken,) = other.mine()
    assert taken.number == point.number
    assert known == {taken.trial_ids[0]}  # before the point is handed out: else it would be trained again
    assert list(other.mine()) == []
    again = ledger("a")
    assert list(again.mine()) == []  # it is the other's now


def test_a_tuner_that_waits_for_another_takes_in_nothing_until_it_is_needed(
    ledger: Callable[..., SharedLedger], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = SEARCH.model_copy(update={"points": 1})
    busy, waiting = ledger("a", one), ledger("b", one)
    (point,) = busy.begin()
    slept: list[float] = []
    monkeypatch.setattr("ablate.tuning.shared.time.sleep", slept.append)
    before = waiting.sampler
    assert list(waiting.begin()) == []
    assert not waiting.is_over()
    assert slept == [0.0]
    assert waiting.sampler is before
    complete(busy, point)
    assert waiting.is_over()
    assert slept == [0.0]
    assert [point.state for point in waiting.tuning.points] == ["complete"]


WRITES = ("set_trial_user_attr", "set_trial_param", "set_trial_state_values", "set_study_user_attr")


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


def die_at_write(tuner: SharedLedger, number: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the tuner die before its write of this number; the writes made before, as it makes them."""
    made: list[str] = []

    def dying(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any) -> Any:
            if len(made) == number:
                raise Killed
            made.append(name)
            return original(*arguments)

        return write

    for name in WRITES:
        monkeypatch.setattr(tuner.storage.trials, name, dying(name, getattr(tuner.storage.trials, name)))
    return made


def test_a_tuner_may_die_before_any_of_its_writes(
    ledger: Callable[..., SharedLedger], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = SEARCH.model_copy(update={"points": 1})
    for number in range(1000):
        name = f"tiny/{number}"
        dying = ledger(f"dying{number}", search, name)
        made = die_at_write(dying, number, monkeypatch)
        try:
            spend(dying)
        except Killed:
            known = read_tuning(dying.results)
            stored = [point_in(trial) for trial in dying._all() if "point" in trial.user_attrs]
            assert known is not None
            assert named(known.points) <= named(stored)  # else its folder would be taken for another search's
            dying.storage.close()
        else:
            break
        # By turns, another goes on with it first, or the same one once more.
        folders, found = (f"dying{number}", f"other{number}"), []
        for folder in folders if number % 2 else reversed(folders):
            tuner = ledger(folder, search, name)
            spend(tuner)
            check_one_point(tuner)
            tuner.storage.close()
            found.append(tuner.tuning)
        assert found[0] == found[1]
        assert found[0].is_spent
    assert set(made) == set(WRITES)
    assert len(made) > 10


def check_one_point(tuner: SharedLedger) -> None:
    """The only point is complete, for Optuna too, and all of its records are sound, and here."""
    (trial,) = tuner.storage.trials.get_all_trials(tuner._study_id)
    assert trial.state is TrialState.COMPLETE
    assert trial.params == pytest.approx(point_in(trial).levels)
    assert tuner.tuning.points == (point_in(trial),)
    folder = tuning_folder(tuner.results)
    records = carried([trial])
    assert len(records) == 2
    for name, text in records.items():
        assert folder.record_path(name).read_text() == text
        read_predictions(folder, read_record(folder.record_path(name)))


@pytest.mark.parametrize("ended", [False, True])
def test_a_tuner_thought_dead_overwrites_nothing(
    ledger: Callable[..., SharedLedger], database: str, ended: bool
) -> None:
    late, other = ledger("a"), ledger("b")
    (point,) = late.begin()
    began = train(late, point, 1)
    other.storage.trials.set_trial_user_attr(late._id(point.number), "owner", other.storage.tuner)
    other.storage.alive = lambda: {other.storage.tuner}  # type: ignore[method-assign]
    other.begin()  # what is waiting is claimed first, and what others store is taken in
    taken = train(other, other.tuning.points[0])
    values = means_of(objective_values(other.results, taken, ("accuracy",)))
    if ended:
        other.end(taken.model_copy(update={"state": "complete"}), values)

    before = trials_in(database)[0]
    late.keep(began.model_copy(update={"intermediate": {7: 0.5}}))
    late.recorded(began)
    late.end(began.model_copy(update={"state": "failed", "reason": "It is late."}), ())
    assert trials_in(database)[0] == before
    if not ended:
        other.end(taken.model_copy(update={"state": "complete"}), values)
    late.begin()
    trial = trials_in(database)[0]
    assert trial.state is TrialState.COMPLETE
    assert trial.values == pytest.approx(values)
    assert late.tuning.points[0] == point_in(trial)
    assert late.tuning.points[0].state == "complete"


def test_of_a_run_that_two_tuners_did_all_keep_the_one_that_is_carried(
    ledger: Callable[..., SharedLedger], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ledger("a"), ledger("b")
    (point,) = first.begin()
    monkeypatch.setattr(first, "recorded", lambda point: None)  # it dies just before
    began = train(first, point, 1)
    first.storage.close()
    monkeypatch.setitem(RAN_ON, "threads", 7)
    spend(second)
    spend(ledger("a"))
    (name, _) = began.trial_ids
    here, there = (tuning_folder(tuner.results) for tuner in (first, second))
    assert here.record_path(name).read_text() == carried(trials_in(database))[name]
    assert read_records(here) == read_records(there)


def test_a_tuner_whose_session_is_gone_says_so_and_loses_its_point(
    ledger: Callable[..., SharedLedger], postgresql: PostgreSQL
) -> None:
    cut, other = ledger("a"), ledger("b")
    (point,) = cut.begin()
    with psycopg.connect(postgresql.url("postgres"), autocommit=True) as connection:
        query = "SELECT pg_terminate_backend(%s)"
        connection.execute(query, (cut.storage._connection.info.backend_pid,))
    with pytest.raises(ResultsError, match=r"cannot be used \(.*run the same command"):
        complete(cut, point)
    assert spend(other) == [*range(1, 6), 0]


def test_only_one_tuner_at_a_time_tests_the_winner_again(ledger: Callable[..., SharedLedger]) -> None:
    first, second = ledger("a").storage, ledger("b").storage
    assert first.claim_retest()
    assert first.claim_retest()
    assert not second.claim_retest()
    first.close()
    assert second.claim_retest()


def test_a_point_without_trials_yet_does_not_decide_whether_it_is_the_same_search(
    ledger: Callable[..., SharedLedger], database: str, tmp_path: Path
) -> None:
    ledger("a").begin()
    told: list[Tuning] = []

    def agree(stored: Tuning) -> Tuning:
        told.append(stored)
        return stored

    with contextlib.closing(Storage(database, NAME)) as storage:
        SharedLedger(storage, results_of(tmp_path / "b"), Tuning(search=SEARCH), FIRST, agree)
    assert [tuning.points for tuning in told] == [()]


# Storages that cannot be used.


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me:geheim@host/db", "expected postgresql://.* but mysql://me@host/db came"),
        ("sqlite:///points.db", "expected postgresql://.* but sqlite:///points.db came"),
        ("points.db", "expected postgresql://.* but a text without :// came"),
        ("host=h password=geheim", "but a text without :// came"),
        ("mysql://host/db?password=geheim@x", "but mysql://host@x came"),
        ("postgresql://me:ge@heim@host/db", "cannot be read; write characters such as @"),
        ("postgresql://me:12/geheim@host/db", "cannot be read; write characters such as @"),
        ("postgresql://me:%geheim@host/db", "cannot be read; write characters such as @"),
        ("postgresql://me:geheim@host/db?nothing=1", "cannot be read"),
        (
            "postgresql://me:geheim@127.0.0.1:1/db",
            r"me@127.0.0.1:1/db: cannot be used \(.*refused.*check server",
        ),
        ("postgres://me@127.0.0.1:1/db?password=geheim", r"me@127.0.0.1:1/db: cannot be used \(.*refused"),
        ("postgresql://me:geheim@nowhere.invalid/db", r"cannot be used \(.*nowhere.invalid.*same command"),
        ("postgresql://me:geheim@127.0.0.1:x1/db", r"cannot be used \(.*port"),
    ],
)
def test_a_wrong_url_is_one_message_without_the_password(url: str, message: str) -> None:
    with pytest.raises(ResultsError, match=message) as raised:
        Storage(url, NAME)
    assert "geheim" not in str(raised.value)


def test_a_wrong_password_is_one_message_without_it(postgresql: PostgreSQL, database: str) -> None:
    wrong = database.replace(postgresql.url(""), postgresql.url("", "geheim"))
    assert wrong != database
    with pytest.raises(ResultsError, match=r"cannot be used \(.*authentication failed") as raised:
        Storage(wrong, NAME)
    assert "geheim" not in str(raised.value)
    assert PASSWORD not in str(raised.value)


def test_tuners_that_start_at_once_make_the_tables_together(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.tuning.storage.quiet", contextlib.nullcontext)  # it is not for threads
    with ThreadPoolExecutor(4) as at_once:
        storages = list(at_once.map(lambda number: Storage(database, f"tiny/{number % 2}"), range(4)))
    assert storages[0].alive() == {storages[0].tuner, storages[2].tuner}
    for storage in storages:
        storage.close()


def test_a_study_of_others_is_left_alone(ledger: Callable[..., SharedLedger], database: str) -> None:
    with contextlib.closing(Storage(database, "another")) as storage:
        made = optuna.create_study(study_name=NAME, storage=storage.trials)
        made.enqueue_trial({"x": 1})
    with pytest.raises(ResultsError, match=r"not one that this version of ablate can read; take another"):
        ledger("a")
    assert len(trials_in(database)) == 1


# Whole searches, trained.

STUDY = '''"""Tiny."""
from ablate.study.search import Range, Search
from ablate.study.study import Study
study = Study(
    question="Does it run?",
    base={"data": "digits", "image_size": 8, "epochs": 1, "batch_size": 64, "lr": 0.1},
    search=Search(
        space={"epsilon": Range(low=0.0, high=0.5, step=0.005)},
        anchors=({"epsilon": 0.0},),
        points=5,
        seeds=2,
        batch=1,
        tuning_part=0.33,
    ),
    baseline={"epsilon": 0.1},
    seeds=1,
)
'''


@pytest.fixture(scope="module", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        # Two tuners have more threads than there are cores; one that spins while it waits is in the way.
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        yield


@pytest.fixture
def tiny(tmp_path: Path) -> Study:
    (tmp_path / "tiny.py").write_text(STUDY)
    return load_study(tmp_path / "tiny.py")


class SearchEndedError(Exception):
    """The re-test would begin now; these tests are not about it."""


class Watching:
    """Notes what was trained, and does something after each training run."""

    def __init__(self, then: Callable[[int], None] = lambda count: None) -> None:
        self.trained: list[tuple[float, int]] = []
        self._then = then

    def preparing(self, label: str, done: int, total: int) -> None: ...
    def note(self, line: str) -> None: ...
    def searching(self, tuning: Tuning, name: str, reason: str) -> None: ...

    def planned(self, plan: Plan, waiting: Sequence[Trial]) -> None:
        raise SearchEndedError

    def happened(self, trial: Trial, event: Event, record: Record | None) -> None:
        if record is not None:
            assert record.status == "complete"
            self.trained.append((trial.fields.epsilon, trial.seed))
            self._then(len(self.trained))


def options(root: Path, **changes: Any) -> Options:
    return Options(device="cpu", workers=1, results=root, timing=False, **changes)


def search_only(
    study: Study, root: Path, url: str, then: Callable[[int], None] = lambda count: None, **changes: Any
) -> tuple[list[tuple[float, int]], Tuning]:
    """Tune up to the re-test: what was trained, and the search then."""
    watcher = Watching(then)
    with pytest.raises(SearchEndedError):
        tune_study(study, options(root), watcher, storage=url, **changes)
    found = read_tuning(ResultsFolder(root / study.name / "default"))
    assert found is not None
    return watcher.trained, found


def runs_of(tuning: Tuning) -> list[tuple[float, int]]:
    return [(point.levels["epsilon"], seed) for point in tuning.points for seed in point.seeds]


def changed(study: Study, **search: Any) -> Study:
    assert study.search is not None
    return study.replace(search=study.search.model_dump() | search)


def refused(study: Study, root: Path, url: str, message: str) -> None:
    """A search does not begin, for this reason, and trains nothing."""
    watcher = Watching()
    with pytest.raises(ResultsError, match=message):
        tune_study(study, options(root), watcher, storage=url)
    assert watcher.trained == []


def test_a_server_that_goes_away_costs_nothing_that_is_recorded(
    postgresql: PostgreSQL, database: str, tiny: Study, tmp_path: Path
) -> None:
    small = changed(tiny, points=3, seeds=1)
    stopped = Watching(lambda count: postgresql.stop() if count == 2 else None)
    with pytest.raises(
        ResultsError, match=r"cannot be used \(.*What is recorded is kept; .*the same command"
    ):
        tune_study(small, options(tmp_path / "a"), stopped, storage=database)
    assert len(stopped.trained) == 2
    refused(small, tmp_path / "a", database, r"cannot be used \(.*refused")

    postgresql.start()
    trained, tuning = search_only(small, tmp_path / "a", database)
    assert [point.state for point in tuning.points] == ["complete"] * 3
    assert len(trained) == 1
    assert [*stopped.trained, *trained] == runs_of(tuning)

    # What follows needs a search that is done: other tuners come to it.
    assert search_only(small, tmp_path / "b", database) == ([], tuning)
    assert search_only(small, tmp_path / "b", database, points=2) == ([], tuning)
    assert carried(trials_in(database)).keys() == named(tuning.points)

    wider = changed(small, space={"epsilon": Range(low=0.0, high=0.6, step=0.005)})
    refused(
        wider, tmp_path / "c", database, "points of another search: space was .* cannot be pooled: give the"
    )
    other = small.replace(base={**small.base, "lr": 0.2})
    refused(other, tmp_path / "d", database, "points of another search: what a point trains .* differs")
    empty = postgresql.new_database()
    refused(small, tmp_path / "b", empty, "holds 3 points of a search of its own, .* --results")
    assert search_only(small, tmp_path / "b", database) == ([], tuning)


def test_points_that_were_only_claimed_hinder_nobody(tiny: Study) -> None:
    inputs = Inputs("cpu", None, Watching().preparing)
    claimed = Point(
        number=0, levels={"epsilon": 0.1}, source="baseline", seeds=(FIRST_TUNING_SEED,), trial_ids=()
    )
    known = begin(tiny, inputs).model_copy(update={"points": (claimed,)})
    assert resumed(known, tiny, inputs, "there") == known


def test_failed_points_are_not_retried_for_all_tuners(tiny: Study, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="--retry-failed: not with --storage"):
        tune_study(tiny, options(tmp_path, retry_failed=True), Watching(), storage="postgresql://host/db")


def test_without_the_driver_it_says_what_to_install(
    tiny: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ablate.tuning.storage")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    refused(
        tiny,
        tmp_path,
        "postgresql://host/db",
        r"psycopg is missing; install it with `pip install 'ablate\[postgres\]'`",
    )


# Two tuners as a user starts them.


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    """Start a tuner of the study, with results and report of its own."""
    started = []

    def tuner(name: str, url: str) -> subprocess.Popen[str]:
        arguments = ["tiny.py", "--storage", url, "--results", name, "--report", f"{name}-report"]
        begun = subprocess.Popen(
            [sys.executable, "-m", "ablate", "tune", *arguments, "--workers", "1", "--no-timing"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", "ABLATE_TEST_MARK": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(begun)
        return begun

    yield tuner
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


HALF_WAY = """
    SELECT FROM trials JOIN trial_user_attributes AS owner USING (trial_id)
    JOIN pg_locks ON owner.value_json = objid::text JOIN pg_stat_activity USING (pid)
    WHERE trials.state = 'RUNNING' AND owner.key = 'owner' AND locktype = 'advisory'
    AND application_name = 'killed' AND 1 = (
        SELECT count(*) FROM trial_user_attributes AS carried
        WHERE carried.trial_id = trials.trial_id AND starts_with(carried.key, 'record:')
    )
"""
"""A point of the tuner with this name has one of its two runs carried."""


def kill_half_way(tuner: subprocess.Popen[str], url: str, results: ResultsFolder) -> dict[str, str]:
    """SIGKILL a tuner that is in the middle of a point; all runs that the storage carries then."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert tuner.poll() is None, tuner.communicate()[0]
        if is_half_way(url):
            os.killpg(tuner.pid, signal.SIGSTOP)
            here = {path.stem for path in tuning_folder(results).records.glob("*.json")}
            there = carried(trials_in(url))
            if is_half_way(url) and here <= there.keys():
                os.killpg(tuner.pid, signal.SIGKILL)
                return there
            os.killpg(tuner.pid, signal.SIGCONT)
        time.sleep(0.02)
    raise AssertionError("the tuner never was half-way")


def is_half_way(url: str) -> bool:
    with contextlib.suppress(psycopg.errors.UndefinedTable), psycopg.connect(url) as connection:
        return connection.execute(HALF_WAY).fetchone() is not None
    return False


def trained_lines(output: str) -> list[tuple[float, int]]:
    """Epsilon and seed of every run that a tuner says it trained for the search."""
    found = re.findall(r"^\[\d+/\d+\] epsilon=([\d.]+), seed (\d+): accuracy", output, flags=re.MULTILINE)
    return [(float(epsilon), int(seed)) for epsilon, seed in found if int(seed) >= FIRST_TUNING_SEED]


def marked(mark: Path) -> list[Path]:
    """Processes that were started with the tests' mark, tuners and their workers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"ABLATE_TEST_MARK={mark}".encode() in (process / "environ").read_bytes():
                found.append(process)
    return found


@pytest.mark.slow
def test_two_tuners_one_of_them_killed_meet_the_budget_and_train_nothing_twice(
    database: str, tiny: Study, tmp_path: Path, start: Callable[[str, str], subprocess.Popen[str]]
) -> None:
    killed = start("a", f"{database}?application_name=killed")
    other = start("b", database)
    there = ResultsFolder(tmp_path / "a" / "tiny" / "default")
    before = kill_half_way(killed, database, there)
    first_output = killed.communicate()[0]
    second_output = other.communicate(timeout=300)[0]
    assert other.returncode == 0, second_output

    trials = trials_in(database)
    points = [point_in(trial) for trial in trials]
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    assert [point.number for point in points] == list(range(5))
    assert len(named(points)) == 10

    first, second = trained_lines(first_output), trained_lines(second_output)
    assert first
    assert second
    wanted = [(point.levels["epsilon"], seed) for point in points for seed in point.seeds]
    assert sorted([*first, *second]) == sorted(wanted)

    records, predictions = carried(trials), carried(trials, "predictions:")
    assert before.items() <= records.items()
    here = ResultsFolder(tmp_path / "b" / "tiny" / "default")
    assert_same_as_carried(here, records, predictions)
    found = read_tuning(here)
    assert found is not None
    assert list(found.points) == points
    assert (tmp_path / "b-report" / "tiny" / "default" / "index.html").is_file()

    assert search_only(tiny, tmp_path / "a", database) == ([], found)
    assert_same_as_carried(there, records, predictions)
    assert carried(trials_in(database)) == records
    assert marked(tmp_path) == []


def assert_same_as_carried(
    results: ResultsFolder, records: dict[str, str], predictions: dict[str, str]
) -> None:
    folder = tuning_folder(results)
    assert {path.stem: path.read_text() for path in folder.records.iterdir()} == records
    stored = {path.stem: path.read_bytes() for path in folder.predictions.iterdir()}
    assert stored == {name: base64.b64decode(content) for name, content in predictions.items()}
    assert len(read_records(folder)) == 10
