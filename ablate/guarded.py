"""The user's code run in a forked child: whatever it does, this process goes on, and says what it was."""

import contextlib
import fcntl
import os
import pickle
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from functools import partial
from io import BytesIO, FileIO, TextIOWrapper
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from ablate.channel import Channel, channels
from ablate.errors import AblateError, StudyError

Given = TypeVar("Given")
FORKS: ContextVar[bool] = ContextVar("forks", default=False)
"""Whether this process may fork: that of a command, in which nobody's code ran and no thread computes."""
SILENCE = "ABLATE_SILENCE_SECONDS"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
HIGHEST_DESCRIPTOR = 4096
TICK = 0.5  # seconds
END_SECONDS = 5.0  # for a process that hung up, or is killed, to be gone
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
    before, printed, (output, printing) = children(), bytearray(), os.pipe()
    child, answers = forked(partial(_answer, function, arguments), printing)
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
        end_children(before)
        answers.close()
        os.close(output)
        if printed:
            print(printed.decode(errors="backslashreplace").rstrip("\n"), file=sys.stderr, flush=True)


def prctl(option: int, value: int) -> None:
    """Ask something of Linux about this process."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)


def forked(do: Callable[[Channel], None], output: int, *closed: Channel) -> tuple[int, Channel]:
    """Fork a child, which prints to a descriptor and ends with this process; its id, and a channel to it."""
    (ours, theirs), parent = channels(), os.getpid()
    with warnings.catch_warnings(action="ignore"):  # later Pythons warn of any thread
        child = os.fork()
    if child:
        theirs.close()
        return child, ours
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's to handle
        os.setpgid(0, 0)
        for end in (*closed, ours):
            end.close()
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
            os.dup2(descriptor, number)
        # Fresh ones: a thread of the parent may hold the lock of its own.
        sys.stdout, sys.stderr = (
            TextIOWrapper(FileIO(number, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
            for number in (1, 2)
        )
        # Where code that counts descriptors, or closes them, does not meet it.
        high = max(3, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], HIGHEST_DESCRIPTOR) - 16)
        if os.getppid() == parent:
            with theirs:
                end = Channel(fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, high))
            do(end)
            os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def end_children(kept: Collection[int] = ()) -> None:
    """Kill what is below this process, a subreaper, but for some children; what left its group as well."""
    deadline = time.monotonic() + END_SECONDS
    while (left := children() - {*kept}) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError, ChildProcessError):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, os.WNOHANG)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], answering: Channel) -> None:
    """In the child: run the function, and send what it tells, gave or fell with."""

    def send(kind: bytes, *message: Any) -> None:
        answering.put(kind, b"", pickle.dumps(message))

    answering = _watched(answering)
    FORKS.set(False)
    if torch := sys.modules.get("torch"):  # whose threads a fork does not have
        torch.set_num_threads(1)
    before = {*os.environ.items()}
    told = [partial(send, b"told", at) if callable(one) else one for at, one in enumerate(arguments)]
    try:
        given = function(*told)
    except AblateError as error:
        return send(b"fell", error)
    send(b"gave", given, dict(os.environ.items() - before), sys.path)


def _watched(answering: Channel) -> Channel:
    """Fork, and go on in the child; this process ends as it does, with all of it if the command is killed."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if not (child := os.fork()):
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        return Channel(answering.detach())
    answering.close()
    code = 1
    with contextlib.suppress(KeyboardInterrupt):
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    end_children()
    if code < 0:  # the command tells of the signal
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


def _heard(child: int, answers: Channel, output: int, printed: bytearray) -> Iterator[tuple[bytes, Any]]:
    """What a child sends, and last how it ended, which the process says and not the pipe."""
    if not (limit := os.environ.get(SILENCE, "1800")).isdecimal():
        raise StudyError(f"{SILENCE}: expected a number of seconds, but {limit!r} came")
    last, ended = time.monotonic(), ""
    while not ended:
        over = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if output in wait([output, answers], 0 if over else TICK):
            printed += os.read(output, PIPE)  # before what it sent then
        if len(printed) > 3 * SHOWN:
            printed[SHOWN:-SHOWN] = b"\n...\n"
        try:
            for kind, _, payload in answers.frames():
                last = time.monotonic()
                yield kind, Known(BytesIO(payload)).load()
        except EOFError:
            time.sleep(TICK / 10)
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


def children() -> set[int]:
    """The processes that this one started or inherited, as far as Linux tells."""
    with contextlib.suppress(OSError):
        threads = Path("/proc/self/task").iterdir()
        return {int(child) for one in threads for child in (one / "children").read_text().split()}
    return set()
