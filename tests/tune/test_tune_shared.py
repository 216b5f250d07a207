"""Several tuners on one search in a real PostgreSQL: every point once, whoever dies, whatever goes wrong."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any

import optuna
import psycopg
import pytest
from made_records import NAME, SEARCH, Watching, asked, complete, declared, opened, spend, train, tuned
from postgresql_server import PostgreSQL

from ablate.bench import ROOT
from ablate.errors import ResultsError, StudyError
from ablate.store.points import Point, Tuning, read_tuning, tuning_folder
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from ablate.study.search import FIRST_TUNING_SEED, Search
from ablate.tuning.ledger import RETEST, Ledger, SharedStorage, Storage
from ablate.tuning.points import Points

pytestmark = pytest.mark.postgres

Open = Callable[..., Ledger]


@pytest.fixture
def tuner(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Begin one more tuner of the search; all share a results folder."""
    monkeypatch.setattr("ablate.tuning.ledger.POLL_SECONDS", 0.0)
    with contextlib.ExitStack() as sessions:

        def begin(search: Search = SEARCH, folder: str = "shared", name: str = NAME) -> Ledger:
            storage = sessions.enter_context(contextlib.closing(SharedStorage(database, name)))
            return opened(storage, ResultsFolder(tmp_path / folder), search)

        yield begin


def alone(root: Path) -> Tuning:
    """The same search by one tuner, whom nothing disturbs."""
    root.mkdir()
    with contextlib.closing(Storage(root / "optuna.sqlite3")) as storage:
        ledger = opened(storage, ResultsFolder(root), SEARCH)
        spend(ledger)
    return ledger.tuning


def test_tuners_divide_the_points_and_all_know_them(tuner: Open) -> None:
    tuners = [tuner() for _ in range(3)]
    assert not any(one.storage.is_alone() for one in tuners)
    begun = [(one, one.next_points()) for one in tuners]
    assert [complete(one, points) for one, points in begun] == [[0, 1], [2, 3], [4, 5]]
    assert not any(one.next_points() for one in tuners)
    for one in tuners:
        one.conclude()
        assert (one.tuning.is_spent, one.tuning) == (True, read_tuning(one.results))
    assert [one.storage.claim(RETEST) for one in tuners] == [True, False, False]


def test_a_larger_budget_is_that_of_all(tuner: Open) -> None:
    small, large = (SEARCH.model_copy(update={"points": points, "batch": 1}) for points in (3, 5))
    first = tuner(small)
    complete(first, first.next_points())
    second = tuner(large)
    assert tuner(small).tuning.search.points == 5
    assert spend(first) + spend(second) == [1, 2, 3, 4]


def test_what_a_dead_tuner_had_claimed_is_gone_on_with(tuner: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    one = SEARCH.model_copy(update={"points": 2})
    dying, other = tuner(one), tuner(one)
    (first, second) = dying.next_points()
    train(dying, first, 1)
    complete(dying, [second])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            dying.storage.close()

    monkeypatch.setattr("ablate.tuning.ledger.time.sleep", sleep)
    (taken,) = other.next_points()  # having waited for it
    assert len(slept) >= 3
    assert taken.number == first.number
    recorded = set(read_records(tuning_folder(other.results)))
    assert recorded - {*other.tuning.points[1].trial_ids} < {*taken.trial_ids}
    assert not tuner(one).storage.claim(taken.number)  # it is the other's now
    assert complete(other, [taken]) == [first.number]
    assert other.next_points() == []


def test_a_tuner_thought_dead_overwrites_nothing(
    tuner: Open, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.tuning.ledger.RESTART_SECONDS", 0.0)
    late, other = tuner(), tuner()
    (point, _) = late.next_points()
    with psycopg.connect(database, autocommit=True) as server:
        held = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"
        server.execute(held, (point.number,))  # as where the network is gone
    taken = other.next_points()
    with pytest.raises(ResultsError, match=r"another tuner trains point \d now"):
        late.end(point.number, "failed", "Late.")
    assert point.number in complete(other, taken)
    before = other.tuning.points
    late.end(point.number, "failed", "Late.")
    with pytest.raises(ResultsError, match="cannot be used"):
        late.change(Points.name_trials, point.number, ())
    assert other.next_points()
    assert other.tuning.points[: len(before)] == before


def test_a_server_that_comes_back_costs_no_point(
    tuner: Open, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes after so many questions to it, each time at another moment, while two tuners work."""
    monkeypatch.setattr("ablate.tuning.ledger.POLL_SECONDS", 0.02)
    one, other = tuner(), tuner()
    asked_for = SharedStorage._call
    countdown = itertools.count(1)

    def restarting(storage: SharedStorage, function: str, lock: int) -> bool:
        came = asked_for(storage, function, lock)
        if next(countdown) % 7 == 0:
            postgresql.stop()
            Timer(0.2, postgresql.start).start()
        return came

    monkeypatch.setattr(SharedStorage, "_call", restarting)
    done = spend(one, 2) + spend(other, 2) + spend(one)
    assert sorted(done) == list(range(SEARCH.points))
    one.conclude()
    assert asked(one.tuning) == asked(alone(one.results.root / "alone"))


def test_tuners_without_the_same_results_folder_are_refused(tuner: Open) -> None:
    first = tuner()
    spend(first, 2)
    for _ in ("beside it", "after it"):
        with pytest.raises(ResultsError, match=r"2 points are complete there.* need the same --results"):
            tuner(folder="another")
        first.storage.close()


def test_points_of_a_search_that_was_alone_are_taken_along_or_refused(tuner: Open, database: str) -> None:
    lonely = tuner(name="alone/default")
    spend(lonely, 4)
    shared = tuner()
    assert asked(shared.tuning) == asked(lonely.tuning)
    shared.points.storage.delete_study(shared.points.study._study_id)
    busy = tuner(SEARCH.model_copy(update={"anchors": ()}), folder="another")
    busy.next_points()
    with pytest.raises(ResultsError, match=r"holds points of a search of its own, which .* does not have"):
        tuner()


def test_a_study_of_others_is_left_alone(tuner: Open, database: str) -> None:
    with contextlib.closing(SharedStorage(database, "another")) as storage:
        made = optuna.create_study(study_name=NAME, storage=storage.optuna)
        made.enqueue_trial({"x": 1})
        with pytest.raises(ResultsError, match="not one that this version of ablate can read; take another"):
            tuner()
        assert (made.metric_names, len(made.get_trials())) == (None, 1)


ALTERED = "UPDATE trial_user_attributes SET value_json = %s WHERE trial_id = %s"
ADDED = """INSERT INTO trials (number, study_id, state) SELECT count(*), study_id, 'COMPLETE' FROM trials
    WHERE study_id = (SELECT study_id FROM trials WHERE trial_id = %s) GROUP BY study_id"""


@pytest.mark.parametrize(
    "altered",
    [{"trial_ids": ["../../../victim"]}, {"seeds": [0, 1]}, {"levels": {"epsilon": 9}}, "\x1b]0;evil"],
)
def test_rows_of_somebody_else_are_nothing_but_failed_points(
    tuner: Open, database: str, tmp_path: Path, altered: Any
) -> None:
    first = tuner()
    spend(first, 2)
    first.storage.close()
    (victim := tmp_path / "victim.json").write_text("{}")
    with psycopg.connect(database, autocommit=True) as server:
        rows = server.execute("SELECT trial_id, value_json FROM trial_user_attributes ORDER BY trial_id")
        key, kept = rows.fetchall()[0]
        evil = {**json.loads(kept), **altered} if isinstance(altered, dict) else altered
        server.execute(ALTERED, (json.dumps(evil), key))
        for _ in range(3):
            server.execute(ADDED, (key,))
    again = tuner()
    spend(again)
    assert asked(again.tuning) == asked(alone(tmp_path / "alone"))
    assert victim.read_text() == "{}"
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "shared", "victim.json"}


@pytest.mark.parametrize(
    "altered",
    [
        "UPDATE study_user_attributes SET value_json = '['",
        """UPDATE trial_params SET distribution_json = '{"name": "os.system", "attributes": {}}'""",
        "UPDATE study_directions SET direction = 'MINIMIZE'",
    ],
)
def test_a_database_that_cannot_be_read_is_refused(tuner: Open, database: str, altered: Any) -> None:
    first = tuner()
    spend(first, 2)
    first.storage.close()
    with psycopg.connect(database, autocommit=True) as server:
        server.execute(altered)
    with pytest.raises(ResultsError, match=r"not one that this version|cannot be used \("):
        tuner()


def test_tuners_may_start_at_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.tuning.ledger.quiet", contextlib.nullcontext)  # it is not for threads
    with ThreadPoolExecutor(4) as at_once:
        storages = list(at_once.map(lambda number: SharedStorage(database, f"tiny/{number % 3}"), range(4)))
    assert [storage.is_alone() for storage in storages] == [False, True, True, False]
    for storage in storages:
        storage.close()


CANNOT_BE_READ = "expected postgresql://.*characters such as @ .* cannot be read so"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me:geheim@host/db", CANNOT_BE_READ),
        ("mysql://host/db?password=geheim@x", CANNOT_BE_READ),
        ("postgresql://me:ge@heim@host/db", CANNOT_BE_READ),
        ("postgresql://me:geheim@host/db?nothing=1", CANNOT_BE_READ),
        ("postgresql://me:geheim@127.0.0.1:1/db", r"me@127.0.0.1:1/db: cannot be used \(.*refused.*check"),
        ("postgres://me@127.0.0.1:1/db?password=geheim", r"me@127.0.0.1:1/db: cannot be used \(.*refused"),
        ("postgresql://me:geheim@127.0.0.1:x1/db", r"cannot be used \(.*port"),
        ("postgresql://tuner:geheim@127.0.0.1:PORT/postgres", r"cannot be used \(.*authentication failed"),
    ],
)
def test_a_wrong_url_is_told_without_its_password(postgresql: PostgreSQL, url: str, message: str) -> None:
    with pytest.raises(ResultsError, match=message) as raised:
        SharedStorage(url.replace("PORT", str(postgresql.port)), NAME)
    assert "geheim" not in str(raised.value)


# Whole searches, trained.


def runs_of(points: Sequence[Point]) -> list[tuple[float, int]]:
    """Epsilon and seed of each run that points ask for."""
    return [(point.levels["epsilon"], seed) for point in points for seed in point.seeds]


@pytest.mark.slow
def test_a_server_that_goes_costs_no_record(
    postgresql: PostgreSQL, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.tuning.ledger.RESTART_SECONDS", 0.0)
    small = {"points": 3, "seeds": 1, "batch": 1}
    study, other = (declared({**small, "sampler_seed": seed}, seeds=1) for seed in (0, 1))
    stopped = Watching(lambda count: postgresql.stop() if count == 2 else None)
    idle, again = Watching(), Watching()
    for watcher, message in (
        (stopped, r"cannot be used \(.*What is recorded is kept; .*same command"),
        (idle, r"cannot be used \(.*refused"),
    ):
        with pytest.raises(ResultsError, match=message):
            tuned(study, tmp_path, watcher, storage=database)
    postgresql.start()
    tuning = tuned(study, tmp_path, again, storage=database).tuning
    assert tuning.is_spent
    runs = [(trial.fields.epsilon, trial.seed) for trial in (*stopped.trained, *again.trained)]
    assert [run for run in runs if run[1] >= FIRST_TUNING_SEED] == runs_of(tuning.points)
    with pytest.raises(ResultsError, match="points of another search: sampler_seed was 0, now 1"):
        tuned(other, tmp_path, idle, storage=database)
    assert (len(stopped.trained), idle.trained) == (2, [])


def test_what_cannot_be_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, url = Watching(), "postgresql://host/db"
    with pytest.raises(StudyError, match="--retry-failed: not with --storage"):
        tuned(declared(), tmp_path, watcher, retry_failed=True, storage=url)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ResultsError, match=r"psycopg is missing; .*`pip install 'ablate\[postgres\]'`"):
        tuned(declared(), tmp_path, watcher, storage=url)
    assert watcher.trained == []


def told(output: str) -> list[tuple[float, int]]:
    """Epsilon and seed of every run that a tuner says it trained for the search."""
    found = re.findall(r"^\[\d+/\d+\] epsilon=([\d.]+), seed (\d{7}): accuracy", output, flags=re.MULTILINE)
    return [(float(epsilon), int(seed)) for epsilon, seed in found]


@pytest.mark.soak
@pytest.mark.slow
def test_two_tuners_one_of_them_killed_train_nothing_twice(tmp_path: Path, database: str) -> None:
    words = f"tune {ROOT}/studies/eps_tune.py --profile quick --set epochs=1 --points 5 --seeds 1 --no-timing"
    command = [sys.executable, "-u", "-m", "ablate", *words.split(), "--workers", "1", "--storage", database]
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    piped |= {"cwd": tmp_path, "env": {**os.environ, "COLUMNS": "200"}, "start_new_session": True}
    killed, other = (subprocess.Popen(command, **piped) for _ in range(2))
    try:
        first = ""
        while not told(first) and killed.stdout is not None and (line := killed.stdout.readline()):
            first += line  # until it has trained the first of a point's three seeds
        os.killpg(killed.pid, signal.SIGKILL)
        first += killed.communicate()[0]
        second = other.communicate(timeout=300)[0]
    finally:
        for tuner in (killed, other):
            tuner.kill()
    assert other.returncode == 0, second
    results = ResultsFolder(tmp_path / "results" / "eps_tune" / "quick")
    tuning = read_tuning(results)
    assert tuning is not None
    assert [point.state for point in tuning.points] == ["complete"] * 5
    of_killed, of_other = told(first), told(second)
    assert min(len(of_killed), len(of_other)) > 0
    assert sorted({*of_killed, *of_other}) == sorted(runs_of(tuning.points))
    # What is recorded a moment before the kill may not have been said any more, nor is it trained again.
    assert len(of_killed) + len(of_other) == len(read_records(tuning_folder(results))) == 15
    assert (tmp_path / "report" / "eps_tune" / "quick" / "index.html").is_file()
