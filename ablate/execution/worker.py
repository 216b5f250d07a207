"""A slot's processes: a supervisor, `python -m ablate.execution.worker FD SLOT PARENT`, and what it forks."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import os
import pickle
import re
import resource
import signal
import socket
import sys
import time
import traceback
from multiprocessing.connection import wait
from pathlib import Path
from typing import NoReturn

from ablate.errors import StoppedError, first_line
from ablate.execution.channel import (
    BEGUN,
    DONE,
    FRESH,
    GONE,
    LONGEST,
    LOST,
    SETUP,
    STOP,
    TOLD,
    Channel,
    Frame,
    family,
)
from ablate.execution.executors import KEPT, POLL_SECONDS, Lost, do_job

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
HIGHEST_DESCRIPTOR = 4096
LOG_BYTES = 16_000_000
END_SECONDS = 5.0  # for what is killed to be gone
TAIL = 4096  # bytes at a log's end in which its last line is looked for


def prctl(option: int, value: int) -> None:
    """Set something of this process, where this is Linux."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)


def die_with_parent() -> None:
    """On Linux the kernel kills this process with the one that started it."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def last_line(log: Path, since: int = 0) -> str:
    """The last line of a log, from a byte on, that holds something, without unprintable characters."""
    with log.open("rb") as file:
        size = log.stat().st_size
        file.seek(max(0, size - TAIL, since if since < size else 0))
        lines = re.split(r"[\r\n]+", file.read().decode(errors="replace"))
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


class Supervisor:
    """Forks a child to do jobs, tells the driver what it says and how it ends, and ends all that it left.

    It has imported what jobs need, but runs nobody's code, computes nothing and touches no GPU.
    """

    def __init__(self, driver: Channel, slot: int) -> None:
        self.driver, self.slot = driver, slot
        self.child = 0
        self.code: int | None = None
        self.channel: Channel | None = None
        self.pidfd = self.log = -1
        self.about, self.fresh, self.since = b"", False, 0

    def serve(self, parent: int) -> None:
        """Have jobs done, one after the other, until the driver hangs up or dies."""
        try:
            while os.getppid() == parent:
                signs = [one for one in (self.channel, self.pidfd) if one not in (None, -1)]
                wait([self.driver, *signs], POLL_SECONDS)  # type: ignore[list-item]
                for frame in self.driver.receive():
                    self._take(frame)
                if self.child:
                    self._hear()
                if self.log >= 0 and os.fstat(self.log).st_size > LOG_BYTES:
                    os.ftruncate(self.log, 0)
        except (EOFError, ConnectionError):
            pass  # the driver's end
        finally:
            self._end()

    def _take(self, frame: Frame) -> None:
        """Learn what jobs are, or hand one to the child, where it may have done others, or to a new one."""
        if frame.kind == SETUP:
            self.paths, imports, (module, function), self.log_path = pickle.loads(frame.payload)
            for name in imports:
                importlib.import_module(name)
            self.work = getattr(importlib.import_module(module), function)
            gc.freeze()  # so that children share what is imported
            return
        self._reap()
        if frame.kind == FRESH or self.code is not None:
            self._end()
        try:
            if not self.child:
                self._fork()
            assert self.channel is not None
            self.about, self.fresh, self.since = frame.about, frame.kind == FRESH, os.fstat(self.log).st_size
            self.channel.send(*frame)
        except BrokenPipeError:
            pass  # heard of soon
        except OSError as error:
            self.driver.send(STOP, frame.about, f"a worker cannot be started ({error}): {KEPT}".encode())
            return
        self.driver.send(BEGUN, frame.about, str(self.child).encode())

    def _fork(self) -> None:
        if self.log < 0:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            self.log = os.open(self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        ours, theirs = socket.socketpair()
        parent, self.code = os.getpid(), None
        self.child = os.fork()
        if not self.child:
            ours.close()
            self._work(theirs, parent)
        theirs.close()
        self.channel = Channel(ours)
        with contextlib.suppress(OSError, AttributeError):  # elsewhere it is asked again and again
            self.pidfd = os.pidfd_open(self.child)

    def _work(self, end: socket.socket, parent: int) -> NoReturn:
        """In the child: do jobs until the supervisor hangs up."""
        status = 1
        try:
            die_with_parent()
            os.setpgid(0, 0)
            if os.getppid() == parent:
                self.driver.end.close()
                os.dup2(self.log, 1)
                os.dup2(self.log, 2)
                sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
                sys.path[:] = self.paths
                os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
                # Where code that counts or closes descriptors does not meet it.
                high = max(3, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], HIGHEST_DESCRIPTOR) - 16)
                moved = socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, high))
                end.close()
                with contextlib.suppress(EOFError):
                    self._do_jobs(Channel(moved))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _do_jobs(self, supervisor: Channel) -> None:
        own = os.getpid()

        about = b""

        def send(kind: bytes, payload: bytes) -> None:
            if os.getpid() != own:
                os._exit(0)  # a copy that the code forked has no say
            supervisor.send(kind, about, payload)

        while True:
            wait([supervisor])  # type: ignore[list-item]
            for _, about, payload in supervisor.receive():  # noqa: B007
                job, number = pickle.loads(payload)
                try:
                    tell = lambda event: send(TOLD, pickle.dumps(event))  # noqa: E731
                    end = do_job(self.work, job, number, self.slot, tell, BaseException)
                    payload = pickle.dumps(end)
                    if len(payload) > LONGEST:
                        raise ValueError(f"expected at most {LONGEST:,} bytes, not {len(payload):,}")
                except StoppedError as error:
                    send(STOP, str(error).encode(errors="backslashreplace"))
                    continue
                except Exception as error:
                    end = Lost(job.name, "error", f"its outcome cannot be sent: {first_line(error)}", number)
                    payload = pickle.dumps(end)
                send(LOST if isinstance(end, Lost) else DONE, payload)

    def _hear(self) -> None:
        """Hand on what the child says; where its job is over, or it is, see to its end."""
        self._reap()  # before what it sent is read, which then is there
        over, fault = self.code is not None, ""
        try:
            for frame in self.channel.receive() if self.channel else ():
                if frame.about != self.about or frame.kind not in (TOLD, DONE, LOST, STOP):
                    raise ValueError("its results came from another job")
                self.driver.send(*frame)
                if frame.kind != TOLD:
                    self.about = b""
                    over = over or self.fresh or frame.kind != DONE
        except EOFError:  # but the process, not the pipe, says who lives
            self.channel = None
        except ValueError as error:
            over, fault = True, str(error)
        if over:
            if self.about:
                said = last_line(self.log_path, self.since)
                self.driver.send(GONE, self.about, pickle.dumps((self.code, said, fault)))
            self._end()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.child:
                    self.code = os.waitstatus_to_exitcode(found[1])

    def _end(self) -> None:
        """Kill all that is below this process, also what left its group or session: that is handed to it."""
        deadline = time.monotonic() + END_SECONDS
        if self.child and self.code is None:
            os.kill(self.child, signal.SIGKILL)
        while (below := family(os.getpid())[1:]) and time.monotonic() < deadline:
            for process in below:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
            self._reap()
            time.sleep(0.001)
        if self.pidfd >= 0:
            os.close(self.pidfd)
        if self.channel is not None:
            self.channel.close()
        self.child, self.code, self.channel, self.pidfd, self.about = 0, None, None, -1, b""


def main() -> None:
    """Serve the driver that started this process, and do not outlive it."""
    descriptor, slot, parent = (int(argument) for argument in sys.argv[1:4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(descriptor, False)
    Supervisor(Channel(socket.socket(fileno=descriptor)), slot).serve(parent)


if __name__ == "__main__":
    main()
