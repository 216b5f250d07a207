"""A real PostgreSQL on this machine, with its files in a folder of its own, for tests. Gone when they end."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psycopg

PASSWORD = "pa@ss/w%rd{x}"
"""With characters that a URL needs written otherwise."""
IN_URL = "pa%40ss%2Fw%25rd%7Bx%7D"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "40",
    "shared_buffers": "16MB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}
STARTING_SECONDS = 30.0
# The server goes when this process lets go of its input, however it ended.
GUARD = 'exec 3<&0; "$@" </dev/null & read -r line <&3; kill -QUIT $!; wait $!'


class CannotStartError(Exception):
    """Why there is no server."""


class PostgreSQL:
    """A server with its files in a folder of its own. It can be stopped, as by a crash, and started again.

    Args:
        folder: a folder that is there, and that the server's user can reach.
    """

    def __init__(self, folder: Path) -> None:
        self._programs, self._folder = _programs(), folder
        self._user = _user() if os.getuid() == 0 else None  # the server refuses to run as root
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._names = (f"test_{number}" for number in itertools.count())
        self._guard: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        secret = folder / "password"
        secret.write_text(PASSWORD)
        words = f"--no-locale -U tuner -A scram-sha-256 -N -E UTF8 --pwfile={secret} -D {folder / 'data'}"
        with (folder / "log").open("wb") as log:
            created = self._popen(str(self._programs / "initdb"), *words.split(), log=log.fileno())
            created.communicate()
        if created.returncode != 0:
            raise CannotStartError(f"initdb failed: {self._last_words()}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {**SETTINGS, "port": str(self.port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            server = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), *options]
            self._guard = self._popen("sh", "-c", GUARD, "sh", *server, log=log.fileno())
        deadline = time.monotonic() + STARTING_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                self.stop()
                raise CannotStartError(f"it does not answer: {self._last_words()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once: no session is ended in good order."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait(timeout=60)
            self._guard = None

    @property
    def runs(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._guard is not None

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://tuner:{IN_URL}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database, and return its URL."""
        name = next(self._names)
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def _popen(self, *command: str, log: int) -> subprocess.Popen[bytes]:
        user, group = (self._user.pw_uid, self._user.pw_gid) if self._user else (None, None)
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=self._folder,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            start_new_session=True,  # Ctrl-C in the tests' terminal is not for it
        )

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres")):
            return True
        return False

    def _last_words(self) -> str:
        lines = (self._folder / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it says nothing"


def _programs() -> Path:
    """The folder of the newest server's programs."""
    on_path = shutil.which("postgres")
    folders = [Path(on_path).parent] if on_path else []
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(installed, key=lambda folder: folder.parent.name.zfill(4), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists():
            return folder
    raise CannotStartError("none is installed (Debian: apt-get install postgresql)")


def _user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise CannotStartError("it refuses to run as root, and there is no user postgres or nobody")
