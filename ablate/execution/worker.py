"""What does the jobs of a slot: a supervisor, which the driver starts, and the child that it forks."""

import contextlib
import gc
import importlib
import os
import pickle
import re
import signal
import sys
from multiprocessing.connection import wait
from pathlib import Path

from ablate.channel import LONGEST, Channel
from ablate.errors import StoppedError, first_line
from ablate.execution.executors import KEPT, POLL_SECONDS, Done, Event, Lost, Work, do_job
from ablate.guarded import END_SECONDS, PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, end_children, forked, prctl
from ablate.store.provenance import source_commit

LOG_BYTES = 16_000_000
TAIL = 4096  # bytes at a log's end in which its last line is looked for


class Supervisor:
    """Forks a child for jobs, tells how it ended, and ends all it left; it runs nobody's code, and no GPU."""

    def __init__(self, driver: Channel, slot: int, log: Path, work: Work) -> None:
        self.driver, self.slot, self.log, self.work = driver, slot, log, work
        self.child: Channel | None = None
        self.process, self.pidfd, self.mark, self.fresh, self.since = 0, 0, b"", False, 0
        self.code: int | None = None

    def serve(self, parent: int) -> None:
        """Have jobs done, one after the other, until the driver hangs up or dies."""
        try:
            while os.getppid() == parent:
                child = [self.child, self.pidfd or self.child] if self.child else []
                wait([self.driver, *child], POLL_SECONDS)
                for kind, mark, payload in self.driver.frames():
                    self._begin(mark, payload, fresh=kind == b"once")
                if self.child is not None:
                    self._hear(self.child)
        except (EOFError, ConnectionError):
            pass  # the driver has gone
        except OSError as error:
            with contextlib.suppress(OSError):
                self.driver.put(b"stop", self.mark, f"a worker failed ({error}): {KEPT}".encode())
        finally:
            self._end()

    def _begin(self, mark: bytes, payload: bytes, *, fresh: bool) -> None:
        """Hand a job to a child, a new one where it is to be fresh or the last one ended."""
        self._reap()
        if fresh or self.code is not None:
            self._end()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.mark, self.fresh, self.since = mark, fresh, log.tell()
            if self.child is None:
                self.process, self.child = forked(self._do_jobs, log.fileno(), self.driver)
                with contextlib.suppress(OSError, AttributeError):  # without it, it is looked at now and then
                    self.pidfd = os.pidfd_open(self.process)
        with contextlib.suppress(BrokenPipeError):  # it ended: heard of soon
            self.child.put(b"job ", mark, payload)
        self.driver.put(b"went", mark, b"")

    def _do_jobs(self, supervisor: Channel) -> None:
        """In the child: do jobs, one after the other."""
        while True:
            wait([supervisor])
            for _, mark, payload in supervisor.frames():
                sys.path[:], job, number = pickle.loads(payload)
                os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))

                def tell(event: Event, mark: bytes = mark) -> None:
                    supervisor.put(b"told", mark, pickle.dumps(event))

                try:
                    ended = do_job(self.work, job, number, self.slot, tell, BaseException)
                    outcome = pickle.dumps(ended)
                    if len(outcome) > LONGEST:
                        raise ValueError(f"expected at most {LONGEST:,} bytes, not {len(outcome):,}")
                except StoppedError as error:
                    supervisor.put(b"stop", mark, str(error).encode(errors="backslashreplace"))
                    continue
                except Exception as error:
                    reason = f"its outcome cannot be sent: {first_line(error)}"
                    ended = Lost(job.name, "error", reason, number)
                    outcome = pickle.dumps(ended)
                supervisor.put(b"done" if isinstance(ended, Done) else b"lost", mark, outcome)

    def _hear(self, child: Channel) -> None:
        """Hand on what the child says; where it, or the need for it, has ended, see to all that is left."""
        self._reap()  # before what it sent is read, so that this is all
        over, fault = self.code is not None, ""
        try:
            for kind, mark, payload in child.frames():
                if mark != self.mark:
                    raise ValueError("its results came from another job")
                self.driver.put(kind, mark, payload)
                if kind != b"told":
                    self.mark, over = b"", over or self.fresh or kind != b"done"
        except EOFError:  # the process, not the pipe, says how it ended
            wait([self.pidfd] if self.pidfd else [], END_SECONDS)
            self._reap()
            over, fault = True, "it closed what its results go through"
        except ValueError as error:
            over, fault = True, str(error)
        if over:
            if self.mark:
                said = last_line(self.log, self.since)
                self.driver.put(b"gone", self.mark, pickle.dumps((self.code, fault, said)))
            self._end()
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_BYTES:
                os.truncate(self.log, 0)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.process:
                    self.code = os.waitstatus_to_exitcode(found[1])

    def _end(self) -> None:
        """Kill all that is below this process: also what left its group or session becomes its child."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process, signal.SIGKILL)  # all there is to know where this is not Linux
            self.child.close()
        end_children()
        if self.pidfd:
            os.close(self.pidfd)
        self.child, self.process, self.pidfd, self.mark, self.code = None, 0, 0, b"", None


def last_line(log: Path, since: int = 0) -> str:
    """The last line of a log, from a byte on, that holds something, without unprintable characters."""
    lines = list[str]()
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        size = log.stat().st_size
        file.seek(max(0, size - TAIL, since if since < size else 0))
        lines = re.split(r"[\r\n]+", file.read().decode(errors="replace"))
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def main() -> None:
    """Supervise for the driver that started this process, and do not outlive it."""
    descriptor, slot, parent, log, module, function, *imports = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(int(descriptor), False)
    for name in (*imports, module):
        importlib.import_module(name)
    source_commit()  # of what is imported here, for every child
    gc.freeze()  # so that children share what is imported
    prctl(PR_SET_PDEATHSIG, 0)  # from here on it looks for itself, and ends what it started
    work: Work = getattr(sys.modules[module], function)
    Supervisor(Channel(int(descriptor)), int(slot), Path(log), work).serve(int(parent))


if __name__ == "__main__":
    main()
