"""The process that does jobs one after the other: `python -m ablate.execution.worker FD SLOT PARENT`."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
from multiprocessing.connection import Connection

from ablate.execution.executors import do_job

PR_SET_PDEATHSIG = 1


def serve(connection: Connection, slot: int) -> None:
    """Take the import path, what to import and the work function, then jobs, until the driver hangs up."""
    sys.path[:], imports, (module, function) = connection.recv()
    for name in imports:
        importlib.import_module(name)
    work = getattr(importlib.import_module(module), function)
    while True:
        try:
            job, number = connection.recv()
        except (EOFError, ConnectionError):
            return
        connection.send(do_job(work, job, number, slot, connection.send))


def die_with_parent() -> None:
    """On Linux the kernel kills this process with the one that started it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve the driver that started this process, and do not outlive it."""
    descriptor, slot, parent = (int(argument) for argument in sys.argv[1:4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    die_with_parent()
    with contextlib.suppress(ConnectionError):
        if os.getppid() == parent:
            return serve(Connection(descriptor), slot)
    sys.exit("the driver is gone")


if __name__ == "__main__":
    main()
