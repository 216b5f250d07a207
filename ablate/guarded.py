"""The user's code run in a forked child: whatever it does, this process goes on, and says what it was."""

from __future__ import annotations

import binascii
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
    (answers, answering), (output, printing) = os.pipe(), os.pipe()
    before, token, printed = _children(), binascii.hexlify(os.urandom(8)), bytearray()
    with warnings.catch_warnings(action="ignore"):  # later Pythons warn of any thread
        child = os.fork()
    if not child:
        _answer(function, arguments, answering, printing, token)
    os.close(answering)
    os.close(printing)
    try:
        for kind, message in _heard(child, answers, output, token, printed):
            if kind == "gave":
                given, environment, sys.path[:] = message
                os.environ.update(environment)
                return given  # type: ignore[no-any-return]
            if kind == "raised":
                raise message[0]
            if kind != "ended":
                arguments[kind](*message)
        last = printed.decode(errors="backslashreplace").strip().rpartition("\n")[2]
        said = f"; the last it printed: {last[:200]!r}" if last else ""
        remedy = "Mend or leave out what does that; `run --workers 0` lets a debugger follow it"
        raise StudyError(f"{what}: {message[0]}{said}. {remedy}")
    finally:
        left = {child}
        while left:
            for process in left:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
            left = _children() - before
        os.close(answers)
        os.close(output)
        print(printed.decode(errors="backslashreplace"), end="", file=sys.stderr, flush=True)


def prctl(option: int, value: int) -> None:
    """Ask something of Linux about this process."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)


def _answer(
    function: Callable[..., Any], arguments: tuple[Any, ...], answering: int, printing: int, token: bytes
) -> NoReturn:
    """In the child: run the function, and send lines of the token, what each is of, and what it says."""
    own = os.getpid()

    def send(kind: Any, *message: Any) -> None:
        line = b"\n" + token + binascii.b2a_base64(pickle.dumps((kind, message)))
        while line and os.getpid() == own:  # a fork of the child, which comes here as well, has no say
            line = line[os.write(answering, line) :]

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
        told = [partial(send, at) if callable(one) else one for at, one in enumerate(arguments)]
        try:
            end: Any = "gave", function(*told), dict(os.environ.items() - before), sys.path
        except AblateError as error:
            end = "raised", error
        out.flush()
        send(*end)
    except BaseException as error:
        traceback.print_exc() if isinstance(error, Exception) else print(repr(error))
        os._exit(1)
    os._exit(0)


def _heard(
    child: int, answers: int, output: int, token: bytes, printed: bytearray
) -> Iterator[tuple[Any, Any]]:
    """What a child sends, and last how it ended, which the process says and not the pipe."""
    if not (limit := os.environ.get(SILENCE, "1800")).isdecimal():
        raise StudyError(f"{SILENCE}: expected a number of seconds, but {limit!r} came")
    last, sent = time.monotonic(), bytearray()
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(answers, select.POLLIN)
    while True:
        over = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        ready = dict(poll.poll(0 if over else TICK))
        for descriptor, into in ((output, printed), (answers, sent)):  # what it printed before it sent
            if descriptor in ready:
                into += (chunk := os.read(descriptor, PIPE))
                if not chunk:
                    poll.unregister(descriptor)
        if len(printed) > 3 * SHOWN:
            printed[SHOWN:-SHOWN] = b"\n...\n"
        *lines, sent[:] = sent.split(b"\n") if sent.endswith(b"\n") else [sent]
        for line in lines:
            if line.startswith(token):  # otherwise the code wrote there
                last = time.monotonic()
                yield Known(BytesIO(binascii.a2b_base64(line[len(token) :]))).load()
        ended = ""
        if over:
            exited = over.si_code == os.CLD_EXITED
            how = f"status {over.si_status}" if exited else signal.strsignal(over.si_status)
            ended = f"it ended its process ({how}) before it was done"
        elif time.monotonic() - last > int(limit):
            ended = f"it took longer than {limit} s, which {SILENCE} can raise"
        if ended:
            return (yield "ended", [ended])


class Known(pickle.Unpickler):
    """Unpickles what modules define that are imported here; those of the user's are not."""

    def find_class(self, module: str, name: str) -> Any:
        """What a module defines, or a StudyError."""
        if module in sys.modules:
            return super().find_class(module, name)
        raise StudyError(f"{module}.{name}: expected plain values (numbers, texts), but a {name} came")


def _children() -> set[int]:
    """The processes that this one started or inherited."""
    found = set[int]()
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found |= set(map(int, (thread / "children").read_text().split()))
    return found
