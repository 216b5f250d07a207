"""Several tuners on one search in a real PostgreSQL: every point once, whoever dies, whatever goes wrong."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
from made_records import NAME, SEARCH, asked, complete, opened, spend, train
from postgresql_server import PASSWORD, PostgreSQL

from ablate.errors import ResultsError, StudyError
from ablate.execution import Event
from ablate.execution.driver import Options, Watcher
from ablate.store.points import Point, read_tuning, tuning_folder
from ablate.store.records import Record, read_records
from ablate.store.results import ResultsFolder
from ablate.study.search import FIRST_TUNING_SEED, Search
from ablate.study.study import Study, load_study
from ablate.study.trials import Plan, Trial
from ablate.tuning import ledger as ledgers
from ablate.tuning import tune_study
from ablate.tuning.ledger import Ledger
from ablate.tuning.storage import RETEST, SharedStorage

pytestmark = pytest.mark.postgres

Open = Callable[..., Ledger]


@pytest.fixture
def tuner(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Begin one more tuner of the search; all share a results folder."""
    monkeypatch.setattr(ledgers, "POLL_SECONDS", 0.0)
    with contextlib.ExitStack() as sessions:

        def begin(search: Search = SEARCH, folder: str = "shared", name: str = NAME) -> Ledger:
            storage = sessions.enter_context(contextlib.closing(SharedStorage(database, name)))
            return opened(storage, ResultsFolder(tmp_path / folder), search)

        yield begin


def test_tuners_divide_the_points_and_all_know_them(tuner: Open) -> None:
    tuners = [tuner() for _ in range(3)]
    assert not any(one.storage.is_alone() for one in tuners)
    done: list[int] = []
    while begun := [(one, one.begin()) for one in tuners]:
        done += [number for one, points in begun for number in complete(one, points)]
        if not any(points for _, points in begun):
            break
    assert sorted(done) == list(range(6))
    assert not any(one.goes_on() for one in tuners)
    assert len(read_records(tuning_folder(tuners[0].results))) == 12
    for one in tuners:
        one.conclude()
        assert one.tuning == read_tuning(one.results)
        assert one.tuning.is_spent
    assert [one.storage.claim(RETEST) for one in tuners] == [True, False, False]


def test_a_larger_budget_is_that_of_all(tuner: Open) -> None:
    small, large = (SEARCH.model_copy(update={"points": points, "batch": 1}) for points in (3, 5))
    first = tuner(small)
    complete(first, first.begin())
    second = tuner(large)
    assert tuner(small).tuning.search.points == 5
    assert spend(first) + spend(second) == [1, 2, 3, 4]


def test_what_a_dead_tuner_had_claimed_is_gone_on_with(tuner: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    one = SEARCH.model_copy(update={"points": 2})
    dying, other = tuner(one), tuner(one)
    (first, second) = dying.begin()
    train(dying, first, 1)
    complete(dying, [second])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            dying.storage.close()

    monkeypatch.setattr("ablate.tuning.ledger.time.sleep", sleep)
    assert other.goes_on()  # having waited for it
    assert len(slept) >= 3
    (taken,) = other.take_over()
    assert taken.number == first.number
    assert set(taken.trial_ids) > set(read_records(tuning_folder(other.results))) - set(
        other.tuning.points[1].trial_ids
    )
    assert tuner(one).take_over() == []  # it is the other's now
    complete(other, [taken])
    assert not other.goes_on()


def test_a_tuner_thought_dead_overwrites_nothing(tuner: Open, database: str) -> None:
    late, other = tuner(), tuner()
    (point, _) = late.begin()
    with psycopg.connect(database, autocommit=True) as server:
        held = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"
        server.execute(held, (point.number,))  # as where the network is gone
    assert other.goes_on()
    assert point.number in complete(other, other.take_over())
    before = other.tuning
    for change in (
        lambda: late.report(point.number, 1, 0.5),
        lambda: late.end(point.number, "failed", "It is late."),
        late.begin,
    ):
        with pytest.raises(ResultsError, match="cannot be used"):
            change()
    assert other.goes_on()
    assert other.tuning.points[: len(before.points)] == before.points


def test_tuners_without_the_same_results_folder_are_refused(tuner: Open) -> None:
    first = tuner()
    spend(first, 2)
    with pytest.raises(ResultsError, match=r"2 points are complete there, but .* need the same --results"):
        tuner(folder="another")
    first.storage.close()
    with pytest.raises(ResultsError, match="need the same --results"):
        tuner(folder="another")


def test_points_of_a_search_that_was_alone_are_taken_along_or_refused(tuner: Open, database: str) -> None:
    alone = tuner(name="alone/default")
    spend(alone, 4)
    shared = tuner()
    assert asked(shared.tuning) == asked(alone.tuning)
    shared.points.storage.delete_study(shared.points.study._study_id)
    busy = tuner(SEARCH.model_copy(update={"anchors": ()}), folder="another")
    busy.begin()
    with pytest.raises(ResultsError, match=r"holds points of a search of its own, which .* does not have"):
        tuner()


def test_a_study_of_others_is_left_alone(tuner: Open, database: str) -> None:
    with contextlib.closing(SharedStorage(database, "another")) as storage:
        made = optuna.create_study(study_name=NAME, storage=storage.optuna)
        made.enqueue_trial({"x": 1})
        with pytest.raises(ResultsError, match=r"not one that this version of ablate can read; take another"):
            tuner()
        assert (made.metric_names, len(made.get_trials())) == (None, 1)


def test_tuners_that_start_at_once_make_the_tables_together(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.tuning.storage.quiet", contextlib.nullcontext)  # it is not for threads
    with ThreadPoolExecutor(4) as at_once:
        storages = list(at_once.map(lambda number: SharedStorage(database, f"tiny/{number % 3}"), range(4)))
    assert [storage.is_alone() for storage in storages] == [False, True, True, False]
    for storage in storages:
        storage.close()


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
        SharedStorage(url, NAME)
    assert "geheim" not in str(raised.value)


def test_a_wrong_password_is_one_message_without_it(postgresql: PostgreSQL, database: str) -> None:
    wrong = database.replace(postgresql.url(""), postgresql.url("", "geheim"))
    assert wrong != database
    with pytest.raises(ResultsError, match=r"cannot be used \(.*authentication failed") as raised:
        SharedStorage(wrong, NAME)
    assert "geheim" not in str(raised.value)
    assert PASSWORD not in str(raised.value)


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


@pytest.fixture
def tiny(tmp_path: Path) -> Study:
    (tmp_path / "tiny.py").write_text(STUDY)
    return load_study(tmp_path / "tiny.py")


class SearchEndedError(Exception):
    """The re-test would begin now; these tests are not about it."""


class Watching(Watcher):
    """Notes what was trained, and does something after each training run."""

    def __init__(self, then: Callable[[int], None] = lambda count: None) -> None:
        self.trained: list[tuple[float, int]] = []
        self._then = then

    def planned(self, plan: Plan, waiting: Sequence[Trial]) -> None:
        raise SearchEndedError

    def happened(self, trial: Trial, event: Event, record: Record | None) -> None:
        if record is not None:
            assert record.status == "complete"
            self.trained.append((trial.fields.epsilon, trial.seed))
            self._then(len(self.trained))


def options(root: Path, **changes: Any) -> Options:
    return Options(device="cpu", workers=1, results=root, timing=False, **changes)


def refused(study: Study, root: Path, url: str, message: str) -> None:
    """A search does not begin, for this reason, and trains nothing."""
    watcher = Watching()
    with pytest.raises(ResultsError, match=message):
        tune_study(study, options(root), watcher, storage=url)
    assert watcher.trained == []


@pytest.mark.slow
def test_a_server_that_goes_away_costs_nothing_that_is_recorded(
    postgresql: PostgreSQL, database: str, tiny: Study, tmp_path: Path
) -> None:
    assert tiny.search is not None
    small = tiny.replace(search=tiny.search.model_dump() | {"points": 3, "seeds": 1})
    stopped, root = Watching(lambda count: postgresql.stop() if count == 2 else None), tmp_path / "a"
    with pytest.raises(
        ResultsError, match=r"cannot be used \(.*What is recorded is kept; .*the same command"
    ):
        tune_study(small, options(root), stopped, storage=database)
    refused(small, root, database, r"cannot be used \(.*refused")
    postgresql.start()
    again = Watching()
    with pytest.raises(SearchEndedError):
        tune_study(small, options(root), again, storage=database)
    tuning = read_tuning(ResultsFolder(root / "tiny" / "default"))
    assert tuning is not None
    assert tuning.is_spent
    assert (len(stopped.trained), len(again.trained)) == (2, 1)
    assert [*stopped.trained, *again.trained] == runs_of(tuning.points)

    wider = tiny.search.model_dump() | {"points": 3, "seeds": 1, "sampler_seed": 1}
    refused(tiny.replace(search=wider), root, database, "points of another search: sampler_seed was 0, now 1")


def test_failed_points_are_not_retried_for_all_tuners(tiny: Study, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="--retry-failed: not with --storage"):
        tune_study(tiny, options(tmp_path, retry_failed=True), Watching(), storage="postgresql://host/db")


def test_without_the_driver_it_says_what_to_install(
    tiny: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    refused(
        tiny, tmp_path, "postgresql://host/db", r"psycopg is missing; .*`pip install 'ablate\[postgres\]'`"
    )


# Two tuners as a user starts them.


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a tuner of the study."""
    started = []

    def tuner(url: str) -> subprocess.Popen[str]:
        begun = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ablate",
                "tune",
                "tiny.py",
                "--storage",
                url,
                "--workers",
                "1",
                "--no-timing",
            ],
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


def runs_of(points: Sequence[Point]) -> list[tuple[float, int]]:
    return [(point.levels["epsilon"], seed) for point in points for seed in point.seeds]


def killed_half_way(tuner: subprocess.Popen[str]) -> str:
    """SIGKILL a tuner that has trained the first of a point's two seeds; what it said until then."""
    said = ""
    assert tuner.stdout is not None
    for line in tuner.stdout:
        said += line
        if len(trained_lines(said)) == 1:
            os.killpg(tuner.pid, signal.SIGKILL)
            break
    return said + tuner.communicate()[0]


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


@pytest.mark.soak
@pytest.mark.slow
def test_two_tuners_one_of_them_killed_meet_the_budget_and_train_nothing_twice(
    database: str, tmp_path: Path, tiny: Study, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    killed, other = start(database), start(database)
    first_output = killed_half_way(killed)
    second_output = other.communicate(timeout=300)[0]
    assert other.returncode == 0, second_output
    results = ResultsFolder(tmp_path / "results" / "tiny" / "default")
    tuning = read_tuning(results)
    assert tuning is not None
    assert [point.state for point in tuning.points] == ["complete"] * 5
    first, second = trained_lines(first_output), trained_lines(second_output)
    assert first
    assert second
    assert sorted({*first, *second}) == sorted(runs_of(tuning.points))
    # What is recorded a moment before the kill may not have been said any more, nor is it trained again.
    assert len(first) + len(second) == len(read_records(tuning_folder(results))) == 10
    assert (tmp_path / "report" / "tiny" / "default" / "index.html").is_file()
    deadline = time.monotonic() + 10
    while marked(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marked(tmp_path) == []
