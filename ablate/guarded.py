"""The user's code run in a forked child: whatever it does, this process goes on, and says what it was."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ablate.channel import Channel, channels
from ablate.errors import AblateError, StudyError

Given = TypeVar("Given")
FORKS: ContextVar[bool] = ContextVar("forks", default=False)
"""Whether this process may fork: that of a command, in which nobody's code ran and no thread computes."""
SILENCE = "ABLATE_SILENCE_SECONDS"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
TICK = 500  # ms
SHOWN = 4096  # bytes of what is printed, of its beginning and of its end
PIPE = 1 << 20  # bytes, more than a pipe holds


def guarded(function: Callable[..., Given], *arguments: Any, what: str) -> Given:
    """What a function gives that runs code of the user's; of a command, in a child of this process.

    Functions among the arguments are called here with what the child hands them. What it gives is pickled, an
    AblateError is raised here, and sys.path and the environment become the child's. One that ends before it,
    or is silent for half an hour (or `SILENCE`), is a StudyError that begins with `what`. What it printed
    goes to stderr, and all that it started is killed.
    """
    if not (FORKS.get() and sys.platform == "linux"):
        return function(*arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the child leaves behind is this process's
    (answers, answering), (output, printing) = channels(), os.pipe()
    before, printed = set(children(os.getpid())), bytearray()
    with warnings.catch_warnings(action="ignore"):  # later Pythons warn of any thread
        child = os.fork()
    if not child:
        _answer(function, arguments, answering, printing)
    answering.close()
    os.close(printing)
    try:
        for kind, message in _heard(child, answers, output, printed):
            if kind == b"gave":
                given, environment, sys.path[:] = message
                os.environ.update(environment)
                return given  # type: ignore[no-any-return]
            if kind == b"fell":
                raise message[0]
            if kind == b"told":
                arguments[message[0]](*message[1:])
        last = printed.decode(errors="backslashreplace").strip().rpartition("\n")[2]
        said = f"; the last it printed: {last[:200]!r}" if last else ""
        remedy = "Mend or leave out what does that; `run --workers 0` lets a debugger follow it"
        raise StudyError(f"{what}: {message}{said}. {remedy}")
    finally:
        left = {child}
        while left:
            for process in left:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
            left = set(children(os.getpid())) - before
        answers.close()
        os.close(output)
        if printed:
            print(printed.decode(errors="backslashreplace").rstrip("\n"), file=sys.stderr, flush=True)


def prctl(option: int, value: int) -> None:
    """Ask something of Linux about this process."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)


def _answer(
    function: Callable[..., Any], arguments: tuple[Any, ...], answering: Channel, printing: int
) -> NoReturn:
    """In the child: run the function, and send what it tells, gave or fell with."""
    own = os.getpid()

    def send(kind: bytes, *message: Any) -> None:
        if os.getpid() == own:  # a fork of the child, which comes here as well, has no say
            answering.put(kind, b"", pickle.dumps(message))

    try:
        FORKS.set(False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), printing, printing)):
            os.dup2(descriptor, number)
        # Fresh ones: a thread of the parent may hold the lock of its own.
        sys.stdout = out = os.fdopen(1, "w", 1, errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
        if "torch" in sys.modules:  # whose threads a fork does not have
            sys.modules["torch"].set_num_threads(1)
        before = {*os.environ.items()}
        told = [partial(send, b"told", at) if callable(one) else one for at, one in enumerate(arguments)]
        try:
            end: Any = b"gave", function(*told), dict(os.environ.items() - before), sys.path
        except AblateError as error:
            end = b"fell", error
        out.flush()
        send(*end)
    except BaseException as error:
        traceback.print_exc() if isinstance(error, Exception) else print(repr(error))
        os._exit(1)
    os._exit(0)


def _heard(child: int, answers: Channel, output: int, printed: bytearray) -> Iterator[tuple[bytes, Any]]:
    """What a child sends, and last how it ended, which the process says and not the pipe."""
    if not (limit := os.environ.get(SILENCE, "1800")).isdecimal():
        raise StudyError(f"{SILENCE}: expected a number of seconds, but {limit!r} came")
    poll, last, ended = select.poll(), time.monotonic(), ""
    poll.register(output, select.POLLIN)
    poll.register(answers, select.POLLIN)
    while not ended:
        over = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if output in dict(poll.poll(0 if over else TICK)):
            printed += os.read(output, PIPE)  # before what it sent then
        if len(printed) > 3 * SHOWN:
            printed[SHOWN:-SHOWN] = b"\n...\n"
        try:
            for kind, _, payload in answers.frames():
                last = time.monotonic()
                yield kind, Known(BytesIO(payload)).load()
        except EOFError:
            time.sleep(TICK / 10_000)
        except Exception as error:  # of what is no frame, or no pickle
            ended = str(error)
        if over:
            exited = over.si_code == os.CLD_EXITED
            how = f"status {over.si_status}" if exited else signal.strsignal(over.si_status)
            ended = f"it ended its process ({how}) before it was done"
        elif time.monotonic() - last > int(limit):
            ended = f"it took longer than {limit} s, which {SILENCE} can raise"
    yield b"over", ended


class Known(pickle.Unpickler):
    """Unpickles what modules define that are imported here; those of the user's are not."""

    def find_class(self, module: str, name: str) -> Any:
        """What a module defines, or a StudyError."""
        if module in sys.modules:
            return super().find_class(module, name)
        raise StudyError(f"{module}.{name}: expected plain values (numbers, texts), but a {name} came")


def children(process: int) -> list[int]:
    """The processes that one started or inherited, as far as Linux tells."""
    found = list[int]()
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def family(process: int) -> list[int]:
    """A process and all below it, whose groups may be their own."""
    return [process, *(one for child in children(process) for one in family(child))]
