"""A PostgreSQL server for all tests of tuners that share a search."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgresql_server import PostgreSQL


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        # Two tuners have more threads than there are cores; one that spins while it waits is in the way.
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        yield


@pytest.fixture(scope="session")
def _server() -> Iterator[PostgreSQL]:
    # Not below pytest's own folder, into which only its own user can look.
    with tempfile.TemporaryDirectory(prefix="ablate-postgresql-", ignore_cleanup_errors=True) as folder:
        try:
            server = PostgreSQL(Path(folder))
            server.start()
        except OSError as error:
            pytest.skip(f"no PostgreSQL server: {error}")
        yield server
        server.stop()


@pytest.fixture
def postgresql(_server: PostgreSQL) -> PostgreSQL:
    """The server, running."""
    _server.start()
    return _server


@pytest.fixture
def database(postgresql: PostgreSQL) -> str:
    """The URL of an empty database."""
    return postgresql.new_database()
