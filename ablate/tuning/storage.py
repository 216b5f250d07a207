"""Where Optuna keeps a search: an SQLite file of one tuner, or a PostgreSQL server that several share."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import optuna
import sqlalchemy

from ablate.errors import ResultsError
from ablate.tuning.points import quiet

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
FORM = "postgresql://USER:PASSWORD@HOST/DATABASE"
SQLITE_SECONDS = 60.0
"""How long another program that reads the file may keep it from being written."""
RETEST, STUDY, TUNER = -1, -2, -3
"""The second number of an advisory lock, beside those of the points; the first is the study's."""
TABLES = zlib.crc32(b"ablate")
"""An advisory lock of one number, for all studies."""
KEEPALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""The server drops the session of a machine that is gone without a word after a minute, not after hours."""


class Storage:
    """The SQLite file of a search that one tuner works on, which holds the lock of the results folder."""

    shared = False
    remedy = "close what else uses it, or remove it: it is made again from tuning.json beside it"
    errors: tuple[type[Exception], ...] = (
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.StorageInternalError,
    )

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
            cause = str(error.__cause__ or error).strip().splitlines()
            raise ResultsError(
                f"{self.words}: cannot be used ({cause[0] if cause else type(error).__name__}). "
                f"What is recorded is kept; {self.remedy}, and run the same command"
            ) from None

    locked = told
    """Alone with the study's trials."""

    def is_alone(self) -> bool:
        """Whether no other tuner works on the search."""
        return True

    def claim(self, number: int) -> bool:
        """Whether a running point, or RETEST, is this tuner's now: it was nobody's, or its tuner died."""
        return True

    def release(self, number: int) -> None:
        """Give up the claim of a point that ended."""

    def close(self) -> None:
        """Let go of the database."""
        with contextlib.suppress(Exception):
            self.optuna.remove_session()
            self.optuna.engine.dispose()


class SharedStorage(Storage):
    """A session with the PostgreSQL server that holds a search, and the locks that go with it.

    A point is its tuner's as long as that has the lock of the point's number. A lock is the session's: the
    server frees it when the process is gone, however it ended.

    Raises:
        ResultsError: it is no such URL, psycopg is not installed, or the server cannot be reached.
    """

    shared = True
    remedy = "check server, name and password"

    def __init__(self, url: str, name: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ResultsError(
                f"--storage: {error.name} is missing; install it with `pip install 'ablate[postgres]'`"
            ) from None
        self.errors = (*self.errors, psycopg.Error)
        self.words = f"--storage {_masked(url)}"
        key = zlib.crc32(name.encode())
        self._key = key - 2**32 if key >= 2**31 else key  # signed, as PostgreSQL takes it
        connect = partial(psycopg.connect, _checked(url), connect_timeout=10)
        with self.told(), contextlib.ExitStack() as undo:
            self._session = connect()
            undo.callback(self._session.close)
            self._session.autocommit = True
            for setting in KEEPALIVE.items():
                self._session.execute("SELECT set_config(%s, %s, false)", setting)
            # Optuna's tables are made by one tuner at a time, also of other studies.
            self._session.execute("SELECT pg_advisory_lock(%s)", (TABLES,))
            self.optuna = optuna.storages.RDBStorage("postgresql+psycopg://", {"creator": connect})
            self._session.execute("SELECT pg_advisory_unlock(%s)", (TABLES,))
            self._call("pg_advisory_lock_shared", TUNER)
            undo.pop_all()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the study's trials; without the session, and so the claims, it gets no further."""
        with self.told():
            self._call("pg_advisory_lock", STUDY)
            try:
                yield
            finally:
                self._call("pg_advisory_unlock", STUDY)

    def is_alone(self) -> bool:
        """Whether no other tuner works on the search."""
        return self._call("pg_try_advisory_lock", TUNER) and self._call("pg_advisory_unlock", TUNER)

    def claim(self, number: int) -> bool:
        """Whether a running point, or RETEST, is this tuner's now."""
        return self._call("pg_try_advisory_lock", number)

    def release(self, number: int) -> None:
        """Give up the claim of a point that ended."""
        self._call("pg_advisory_unlock", number)

    def close(self) -> None:
        """End the session, and with it all its locks."""
        super().close()
        with contextlib.suppress(Exception), self._session:
            # The server takes a moment to notice a closed connection.
            self._session.execute("SELECT pg_advisory_unlock_all()")

    def _call(self, function: str, lock: int) -> bool:
        with self.told():
            row = self._session.execute(f"SELECT {function}(%s::int, %s::int)", (self._key, lock)).fetchone()
        return row is not None and row[0] is True


def _checked(url: str) -> str:
    """A URL that PostgreSQL's own library reads. One that it cannot read is not told: a password is in it."""
    import psycopg

    scheme, separator, rest = url.partition("://")
    if scheme not in SCHEMES or not separator:
        raise ResultsError(
            f"--storage: expected {FORM}, but {_masked(url)} came; on one machine leave it out"
        )
    with contextlib.suppress(psycopg.ProgrammingError):
        psycopg.conninfo.conninfo_to_dict(f"postgresql://{rest}")
        if rest.count("@") == re.split("[/?]", rest)[0].count("@") <= 1:
            return f"postgresql://{rest}"
    raise ResultsError(
        f"--storage: expected {FORM}, but the URL that came cannot be read; write characters such as @ / ? % "
        "in a user or password as %40 %2F %3F %25"
    )


def _masked(url: str) -> str:
    """A URL without its password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "a text without ://"
    user, at, place = rest.rpartition("@")
    return f"{scheme}://{re.split('[:/?]', user)[0]}{at}{place.partition('?')[0]}"
