"""Which points of a search there are: a database says it, SQLite or PostgreSQL; records hold their values."""

import contextlib
import functools
import re
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
import sqlalchemy
from optuna.exceptions import OptunaError

from ablate.errors import ResultsError, first_line
from ablate.store.points import Point, Source, State, Tuning, read_tuning, tuning_folder
from ablate.store.records import put_aside, read_records
from ablate.store.results import ResultsFolder, write_sealed
from ablate.study.fields import Levels
from ablate.study.options import Options
from ablate.tables.tuning import Values, objective_values, points_table, winners_of
from ablate.tuning.points import RUNNING, Points, quiet

Came = TypeVar("Came")
Method = TypeVar("Method", bound=Callable[..., Any])
POLL_SECONDS = 1.0
RESTART_SECONDS = 60.0  # how long a server that is gone is waited for
SEARCH = "search"  # the user attribute of Optuna's study that holds the search, all but its points
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
FORM = "postgresql://USER:PASSWORD@HOST/DATABASE"
SQLITE_SECONDS = 60.0  # how long another program that reads the file may keep it from being written
RETEST, STUDY, TUNER = -1, -2, -3  # numbers of advisory locks, beside those of the points
TABLES = zlib.crc32(b"ablate")  # an advisory lock of one number, for all studies
KEEPALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""The server drops the session of a machine that is gone without a word after a minute, not after hours."""


def lasting(method: Method) -> Method:
    """A method of a ledger, called again where the server of its database went away, and came back."""

    @functools.wraps(method)
    def again(self: Any, *given: Any) -> Any:
        return self.storage.lasting(partial(method, self, *given), self._mine)

    return cast(Method, again)


class Ledger:
    """The points of a search, in a database that several tuners may share; `tuning` is what was last seen.

    Opened with what this tuner declares, `first` being baseline and anchors; `check_same` raises where the
    search that is known is another one. Of `options`, retry_failed and retrain count.
    """

    def __init__(
        self,
        results: ResultsFolder,
        storage: "Storage",
        name: str,
        declared: Tuning,
        first: Sequence[Levels],
        check_same: Callable[[Tuning], None],
        options: Options,
    ) -> None:
        self.results, self.folder, self.storage = results, tuning_folder(results), storage
        self._name, self._first = name, first
        self._mine: set[int] = set()
        with storage.locked():
            self.points = Points(declared.search, storage.optuna, name)
            stored = self._stored()
            known = self._known(stored) or declared
            check_same(known)
            # What is asked for is not taken back; a tuner that came with a larger budget may be at work.
            least = known.search.points if storage.shared else len(known.points)
            budget = {"points": max(declared.search.points, least)}
            self.tuning = known.model_copy(update={"search": declared.search.model_copy(update=budget)})
            self.points.search = self.tuning.search
            self._match_records(stored.points if stored else (), options)
            self._declare()
            self._write()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Points]:
        """Alone with the points as others left them, in a budget that they may have raised; then stored."""
        with self.storage.locked():
            stored = self._stored()
            assert stored is not None  # declared when opened
            self.tuning, self.points.search = stored, stored.search
            yield self.points
            self._write()

    @lasting
    def change(self, act: Callable[..., Came], *given: Any) -> Came:
        """What a method of `Points` comes to."""
        with self._changing() as points:
            return act(points, *given)

    @lasting
    def next_points(self) -> list[Point]:
        """Points to train, stored as begun, a stopped tuner's first; none where the budget is spent."""
        while True:
            with self._changing():
                others = [point for point in self.tuning.running if point.number not in self._mine]
                points = [point for point in others if self.storage.claim(point.number)]
                count = self.tuning.search.batch
                if points:
                    # Killed while it asked for a batch, their tuner had asked for the rest at once.
                    halfway = not any(point.trial_ids for point in points)
                    count = -len(self.tuning.points) % count if halfway else 0
                begun = len(self.tuning.points)
                for number in range(begun, min(begun + count, self.tuning.search.points)):
                    first = self._first[number] if number < len(self._first) else None
                    source: Source = "sampler" if first is None else "anchor" if number else "baseline"
                    points.append(self.points.ask(source, first))
                    self.storage.claim(number)
            if points or not others:
                self._mine |= {point.number for point in points}
                return points
            time.sleep(POLL_SECONDS)

    @lasting
    def end(self, number: int, state: State, reason: str, values: Values = ()) -> None:
        """Store what became of a running point, with its values where it is complete."""
        with self._changing():
            if self.tuning.points[number].state == "running":  # else it was told just before the server went
                self.points.end(number, state, reason, values)
            self.storage.release(number)

    @lasting
    def conclude(self) -> None:
        """Store the search's importances and, once its budget is spent, its winners."""
        with self._changing():
            self._write()  # the points' table is made from it
            changes: dict[str, object] = {"importances": self.points.importances()}
            if self.tuning.is_spent:
                winners = winners_of(points_table(self.results))
                earlier = (*self.tuning.retested, *self.tuning.winners)
                retested = tuple(dict.fromkeys(number for number in earlier if number not in winners))
                changes |= {"winners": winners, "retested": retested}
            self.tuning = self.tuning.model_copy(update=changes)
            self._declare()

    def _write(self) -> None:
        """Have `tuning/tuning.json` say what the database does, for readers."""
        self.tuning = self.tuning.model_copy(update={"points": self.points.all()})
        write_sealed(self.results.tuning, self.tuning)

    def _declare(self) -> None:
        if self.points.study.directions != self.points.directions:
            raise OptunaError("the study there has other objectives")
        self.points.study.set_metric_names(list(self.tuning.search.objective))
        self.points.study.set_user_attr(SEARCH, self.tuning.model_dump(mode="json", exclude={"points"}))

    def _stored(self) -> Tuning | None:
        """The search in the database; None where it has none yet."""
        try:
            kept, points = self.points.study.user_attrs.get(SEARCH), self.points.all()
            if kept is None and not points:
                return None
            return Tuning.model_validate({**(kept or {}), "points": points})
        except (TypeError, ValueError):
            if not self.storage.shared:  # older versions wrote a copy for optuna-dashboard here
                self._empty()
                return None
            fault = f"study {self._name!r} there is not one that this version of ablate can read"
            raise ResultsError(f"{self.storage.words}: {fault}; take another database") from None

    def _empty(self) -> None:
        self.points.storage.delete_study(self.points.study._study_id)
        self.points = Points(self.points.search, self.storage.optuna, self._name)

    def _known(self, stored: Tuning | None) -> Tuning | None:
        """The search in the database, and what only the folder has: its database was lost, or is another."""
        here = read_tuning(self.results)
        if stored is None or here is None:
            return stored or here
        for mine, theirs in zip(here.points, stored.points, strict=False):
            if mine.trial_ids and theirs.trial_ids and mine.trial_ids != theirs.trial_ids:
                raise self._own_search()
        if self.storage.is_alone() and not all(point.seeds for point in stored.points):
            return here  # no tuner wrote all of these rows
        return stored.model_copy(update={"points": stored.points + here.points[len(stored.points) :]})

    def _own_search(self) -> ResultsError:
        fault = f"holds points of a search of its own, which {self.storage.words} does not have"
        return ResultsError(f"{self.folder.root}: {fault}; choose another folder with --results")

    def _match_records(self, stored: Sequence[Point], options: Options) -> None:
        """Have the database say what the records do: points that lack theirs run again, values follow."""
        known, objective = self.tuning.points, self.tuning.search.objective
        complete = [point for point in known if point.state == "complete"]
        means = {point.number: point_means(self.results, point, objective) for point in complete}
        values = {number: mean for number, mean in means.items() if mean}
        again, alone = means.keys() - values.keys(), self.storage.is_alone()
        if self.storage.shared and again and not (alone and values):
            lost = f"{len(again)} points are complete there, but their records are not in {self.folder.root}"
            raise ResultsError(f"{self.storage.words}: {lost}; all tuners need the same --results, shared")
        if options.retrain:  # those whose code is as it was are judged by their records at once
            again |= {point.number for point in known}
        if options.retry_failed:
            again |= {point.number for point in known if point.state == "failed"}
            for trial_id, record in read_records(self.folder).items():
                if record.status != "complete":
                    put_aside(self.folder, trial_id, "attempts")
        points = tuple(one.model_copy(update=RUNNING) if one.number in again else one for one in known)
        is_current = not alone or (values == self.points.values() and self.points.are_drawn_as_now())
        if points == tuple(stored) and is_current:
            return
        if not alone:
            raise self._own_search()
        # Optuna never changes a trial that ended: all are written anew, after the file that saves them.
        self.tuning = self.tuning.model_copy(update={"points": points})
        write_sealed(self.results.tuning, self.tuning)
        self._empty()
        self._declare()
        for point in points:
            self.points.add(point, values.get(point.number, ()))


def point_means(results: ResultsFolder, point: Point, objective: Sequence[str]) -> Values:
    """The mean over a point's seeds of every objective, from its records; () unless all seeds have them."""
    values = objective_values(results, point, objective)
    if len(values) < len(point.seeds):
        return ()
    return tuple(sum(column) / len(column) for column in zip(*values.values(), strict=True))


class Storage:
    """The SQLite file of a search that one tuner works on, which holds the lock of the results folder."""

    shared = False
    remedy = "close what else uses it, or remove it: it is made again from tuning.json beside it"
    errors: tuple[type[Exception], ...] = (sqlalchemy.exc.SQLAlchemyError, OptunaError)

    def __init__(self, path: Path) -> None:
        self.words = str(path)
        with self.told():
            # By a function, here and below: SQLAlchemy reads some paths and URLs otherwise.
            creator = partial(sqlite3.connect, path, timeout=SQLITE_SECONDS, check_same_thread=False)
            self.optuna = optuna.storages.RDBStorage("sqlite://", {"creator": creator})

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turn what goes wrong with the database into a message."""
        try:
            with quiet():
                yield
        except self.errors as error:
            cause = first_line(error.__cause__ or error) or type(error).__name__
            then = f"What is recorded is kept; {self.remedy}, and run the same command"
            raise ResultsError(f"{self.words}: cannot be used ({cause}). {then}") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the study's trials; without the session, and so the claims, it gets no further."""
        with self.told():
            self._call("pg_advisory_lock", STUDY)
            try:
                yield
            finally:
                self._call("pg_advisory_unlock", STUDY)

    def lasting(self, act: Callable[[], Came], claims: Collection[int] = ()) -> Came:
        """What `act` returns; where its server goes away, it is called again once that is back."""
        return act()

    def is_alone(self) -> bool:
        """Whether no other tuner works on the search."""
        return self._call("pg_try_advisory_lock", TUNER) and self._call("pg_advisory_unlock", TUNER)

    def claim(self, number: int) -> bool:
        """Whether a running point, or RETEST, is this tuner's now: it was nobody's, or its tuner died."""
        return self._call("pg_try_advisory_lock", number)

    def release(self, number: int) -> None:
        """Give up the claim of a point that ended."""
        self._call("pg_advisory_unlock", number)

    def _call(self, function: str, lock: int) -> bool:
        return True  # there is nobody else

    def close(self) -> None:
        """Let go of the database."""
        with contextlib.suppress(Exception):
            self.optuna.remove_session()
            self.optuna.engine.dispose()


class SharedStorage(Storage):
    """A session with a PostgreSQL server; a point is its tuner's while the session, with its lock, lives."""

    shared = True
    remedy = "check server, name and password"

    def __init__(self, url: str, name: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ResultsError(
                f"--storage: {error.name} is missing; `pip install 'ablate[postgres]'`"
            ) from None
        self.errors = (*self.errors, psycopg.Error)
        self._connect = partial(psycopg.connect, _checked(url), connect_timeout=10, autocommit=True)
        user, at, place = url.partition("://")[2].rpartition("@")
        self.words = f"--storage postgresql://{re.split('[:/?]', user)[0]}{at}{place.partition('?')[0]}"
        key = zlib.crc32(name.encode())
        self._key = key - 2**32 if key >= 2**31 else key  # signed, as PostgreSQL takes it
        self._seen = 0.0
        with self.told(), contextlib.ExitStack() as undo:
            self._begin(())
            undo.callback(self._session.close)
            # Optuna's tables are made by one tuner at a time, also of other studies.
            self._session.execute("SELECT pg_advisory_lock(%s)", (TABLES,))
            pool = {"creator": partial(self._connect, autocommit=False), "pool_pre_ping": True}
            self.optuna = optuna.storages.RDBStorage("postgresql+psycopg://", pool)
            self._session.execute("SELECT pg_advisory_unlock(%s)", (TABLES,))
            undo.pop_all()

    def _begin(self, claims: Collection[int]) -> None:
        """Begin a session with the claims that one before it had."""
        with self.told():
            self._session = self._connect()
            for setting in KEEPALIVE.items():
                self._session.execute("SELECT set_config(%s, %s, false)", setting)
        self._call("pg_advisory_lock_shared", TUNER)
        for number in claims:
            if not self._call("pg_try_advisory_lock", number):
                self._session.close()
                raise ResultsError(f"{self.words}: was gone, and another tuner trains point {number} now")

    def lasting(self, act: Callable[[], Came], claims: Collection[int] = ()) -> Came:
        """The same, if the server is back soon, and nobody took the claims, which end with a session."""
        begun = time.monotonic()
        while True:
            try:
                if not self._answers():
                    self._begin(claims)
                return act()
            except ResultsError:
                if self._answers() or time.monotonic() > max(begun, self._seen) + RESTART_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)

    def _answers(self) -> bool:
        with contextlib.suppress(*self.errors):
            return bool(self._session.execute("SELECT 1").rowcount)
        return False

    def close(self) -> None:
        """End the session, and with it all its locks."""
        super().close()
        with contextlib.suppress(Exception), self._session:
            # The server takes a moment to notice a closed connection.
            self._session.execute("SELECT pg_advisory_unlock_all()")

    def _call(self, function: str, lock: int) -> bool:
        with self.told():
            row = self._session.execute(f"SELECT {function}(%s::int, %s::int)", (self._key, lock)).fetchone()
        self._seen = time.monotonic()
        return row is not None and row[0] is True


def _checked(url: str) -> str:
    """A URL that PostgreSQL's own library reads. One that it cannot read is not told: a password is in it."""
    import psycopg

    scheme, _, rest = url.partition("://")
    with contextlib.suppress(psycopg.ProgrammingError):
        psycopg.conninfo.conninfo_to_dict(f"postgresql://{rest}")
        if scheme in SCHEMES and rest.count("@") == re.split("[/?]", rest)[0].count("@") <= 1:
            return f"postgresql://{rest}"
    raise ResultsError(
        f"--storage: expected {FORM}, characters such as @ / ? % in a user or password written as "
        "%40 %2F %3F %25, but what came cannot be read so; on one machine leave it out"
    )
