"""A session with the PostgreSQL server that holds a search, and the locks that go with it."""

from __future__ import annotations

import contextlib
import re
import secrets
import zlib
from collections.abc import Iterator
from typing import Any

import optuna
import psycopg
import sqlalchemy

from ablate.errors import ResultsError
from ablate.tuning.sampler import quiet

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
FORM = "postgresql://USER:PASSWORD@HOST/DATABASE"
STUDY_LOCK, RETEST_LOCK, FIRST_TUNER = 0, 1, 2
"""What the second number of an advisory lock stands for; the first is the study's."""
TABLES_LOCK = zlib.crc32(b"ablate")
"""An advisory lock of one number, for all studies."""
KEEPALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""The server drops the session of a machine that is gone without a word after a minute, not after hours."""


class Storage:
    """A session with the server that holds a search, and the locks that go with it.

    A lock is the session's: the server frees it when the process is gone, however it ended.

    Args:
        url: of a PostgreSQL database, postgresql://USER:PASSWORD@HOST:PORT/DATABASE.
        name: of the study there.

    Raises:
        ResultsError: it is no such URL, or the server cannot be reached.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = _checked(url)
        self.name, self.words = name, _masked(url)
        self._key = zlib.crc32(name.encode())
        self.tuner = secrets.randbelow(2**31 - FIRST_TUNER) + FIRST_TUNER
        with self.told(), contextlib.ExitStack() as undo:
            self._connection = self._connect()
            undo.callback(self._connection.close)
            self._connection.autocommit = True
            for setting in KEEPALIVE.items():
                self._connection.execute("SELECT set_config(%s, %s, false)", setting)
            self.trials = self._tables()
            self._lock("pg_advisory_lock", self.tuner)
            undo.pop_all()

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turn what goes wrong with the server into a message."""
        try:
            with quiet():
                yield
        except (
            psycopg.Error,
            sqlalchemy.exc.SQLAlchemyError,
            optuna.exceptions.StorageInternalError,
        ) as error:
            cause = str(error.__cause__ or error).strip().splitlines()
            raise ResultsError(
                f"--storage {self.words}: cannot be used ({cause[0] if cause else type(error).__name__}). "
                "What is recorded is kept; check server, name and password, and run the same command"
            ) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the study's trials."""
        with self.told():
            self._lock("pg_advisory_lock", STUDY_LOCK)
            try:
                yield
            finally:
                self._lock("pg_advisory_unlock", STUDY_LOCK)

    def claim_retest(self) -> bool:
        """Whether nobody else re-tests the winner now; if so, nobody else can until this process ends."""
        with self.told():
            return self._lock("pg_try_advisory_lock", RETEST_LOCK)

    def alive(self) -> set[int]:
        """The tuners that have a session."""
        query = (
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
            "AND classid = %s::bigint::oid"
        )
        return {int(row[0]) for row in self._connection.execute(query, (self._key,))}

    def close(self) -> None:
        """End the session, and with it all its locks."""
        with contextlib.suppress(Exception):
            self.trials.remove_session()
            self.trials.engine.dispose()
        with contextlib.suppress(psycopg.Error), self._connection:
            # The server takes a moment to notice a closed connection.
            self._connection.execute("SELECT pg_advisory_unlock_all()")

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url, connect_timeout=10)

    def _tables(self) -> optuna.storages.RDBStorage:
        """Optuna's tables, made where they are not there: by one tuner at a time, also of other studies."""
        self._connection.execute("SELECT pg_advisory_lock(%s)", (TABLES_LOCK,))
        try:
            # Through a function: Optuna and SQLAlchemy read some URLs otherwise than PostgreSQL does.
            return optuna.storages.RDBStorage("postgresql+psycopg://", {"creator": self._connect})
        finally:
            self._connection.execute("SELECT pg_advisory_unlock(%s)", (TABLES_LOCK,))

    def _lock(self, function: str, what: int) -> bool:
        signed = self._key - 2**32 if self._key >= 2**31 else self._key
        row = self._connection.execute(f"SELECT {function}(%s::int, %s::int)", (signed, what)).fetchone()
        return row is not None and row[0] is True


def _checked(url: str) -> str:
    """A URL that PostgreSQL's own library reads. One that it cannot read is not told: a password is in it."""
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
