"""A real PostgreSQL on this machine, with its files in a folder of its own, for tests. Gone when they end."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import psycopg

PASSWORD, IN_URL = "pa@ss/w%rd{x}", "pa%40ss%2Fw%25rd%7Bx%7D"
OPTIONS = (
    "-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=40 "
    "-c shared_buffers=16MB -c fsync=off -c full_page_writes=off -c autovacuum=off"
)


class PostgreSQL:
    """A server with its files in a folder. It can be stopped, as by a crash, and started again."""

    def __init__(self, folder: Path) -> None:
        self._programs, self._folder, self.runs = _programs(), folder, False
        self._runs_as: dict[str, Any] = {}
        if os.getuid() == 0:  # the server refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._runs_as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._names = (f"test_{number}" for number in itertools.count())
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        (secret := folder / "password").write_text(PASSWORD)
        words = "--no-locale -U tuner -A scram-sha-256 -N -E UTF8"
        self._run("initdb", *words.split(), f"--pwfile={secret}")

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if not self.runs:
            log, options = str(self._folder / "server.log"), f"{OPTIONS} -c port={self.port}"
            self._run("pg_ctl", "start", "-w", "-l", log, "-o", options)
            self.runs = True

    def stop(self) -> None:
        """Stop it at once: no session is ended in good order."""
        if self.runs:
            self._run("pg_ctl", "stop", "-w", "-m", "immediate")
            self.runs = False

    def new_database(self) -> str:
        """Make an empty database, and return its URL."""
        url, name = f"postgresql://tuner:{IN_URL}@127.0.0.1:{self.port}", next(self._names)
        with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"{url}/{name}"

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), "-D", str(self._folder / "data"), *words]
        none: dict[str, Any] = dict.fromkeys(("stdin", "stdout"), subprocess.DEVNULL) | self._runs_as
        ended: Any = subprocess.run(command, cwd=self._folder, check=False, stderr=subprocess.PIPE, **none)
        if ended.returncode != 0:
            raise OSError(f"{program} failed: {ended.stderr.decode(errors='replace').strip()}")


def _programs() -> Path:
    """The folder of the newest server's programs."""
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(installed, key=lambda program: int(program.parts[-3]), default=None)
    if (found := shutil.which("initdb") or newest) is None:
        raise OSError("none is installed (Debian: apt-get install postgresql)")
    return Path(found).parent
