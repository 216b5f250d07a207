"""Networks that misbehave as `what` says: while they are built, or in a training step."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TRAINED = 0


class Quit(BaseException):
    """Nothing that `except Exception` would catch."""


def crash() -> None:
    ctypes.string_at(0)


def hang() -> None:
    while True:
        time.sleep(0.1)


def spin() -> None:
    while True:
        pass


def raises(error: BaseException) -> None:
    raise error


def fork_and_crash() -> None:
    if os.fork() == 0:
        time.sleep(300)
        os._exit(0)
    crash()


def write_everywhere() -> None:
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\xff" * 11)


def print_much(bytes_: int) -> None:
    for _ in range(bytes_ // 9216):
        os.write(1, b"\xfe\x00 noise\n" * 1024)


def recurse() -> None:
    recurse()


def patch_torch() -> None:
    torch.nn.functional.cross_entropy = torch.Tensor.backward = torch.optim.SGD.step = None  # type: ignore[assignment, method-assign]


ACTIONS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    # An error, or an end, that is the trial's own.
    "raise": lambda: raises(ValueError("no such thing")),
    "raise no text": lambda: raises(ValueError("bad \udcff.png")),
    "raise 20 MB": lambda: raises(ValueError("x" * 20_000_000)),
    "raise with escapes": lambda: raises(ValueError("\x1b]0;owned\x07<script>|\r\n")),
    "raise interrupt": lambda: raises(KeyboardInterrupt()),
    "raise base": lambda: raises(Quit("over")),
    "raise reset": lambda: raises(ConnectionResetError("by its server")),
    "raise end of file": lambda: raises(EOFError("of a download")),
    "raise stop": lambda: raises(StopIteration()),
    "recurse": recurse,
    "exit 0": lambda: sys.exit(0),
    "exit 3": lambda: sys.exit(3),
    "die 0": lambda: os._exit(0),
    "die 7": lambda: os._exit(7),
    "crash": crash,
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "kill parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "kill group": lambda: os.killpg(os.getpgid(0), signal.SIGTERM),
    "hang": hang,
    "spin": spin,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "fork and crash": fork_and_crash,
    "fork returns": os.fork,
    "write everywhere": write_everywhere,
    "close everything": lambda: os.closerange(0, 256),
    "huge": lambda: torch.empty(2**52),
    "huge file": lambda: raises(OSError(27, "File too large")),
    # What is none of ablate's business, and must not be another trial's.
    "print 100 MB": lambda: print_much(100_000_000),
    "print": lambda: print("hello from the network"),
    "leave child": lambda: subprocess.Popen(["sleep", "297"]),
    "leave session": lambda: subprocess.Popen(["sleep", "298"], start_new_session=True),
    "leave thread": lambda: threading.Thread(target=hang, daemon=False).start(),
    "change folder": lambda: os.chdir("/"),
    "clear environment": os.environ.clear,
    "ignore signals": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "set type": lambda: torch.set_default_dtype(torch.float64),
    "patch torch": patch_torch,
    "no path": sys.path.clear,
    "no modules": lambda: [sys.modules.pop(name) for name in list(sys.modules) if name.startswith("ablate")],
    "leak": lambda: vars(torch).setdefault("leaks", []).append(torch.ones(1_000_000)),
}


class Net(torch.nn.Module):
    """A linear layer. `built` is done when it is made, `what` in a step with a batch of training images."""

    def __init__(
        self, *, num_classes: int, image_size: int, built: str = "nothing", what: str = "nothing"
    ) -> None:
        super().__init__()
        self.what = what
        self.layer = torch.nn.Linear(3 * image_size**2, num_classes)
        ACTIONS[built]()

    def forward(self, images: Tensor) -> Tensor:
        global TRAINED
        logits: Tensor = self.layer(images.flatten(1))
        if self.training and len(images) == 32:
            TRAINED += 1
            if self.what == "count":  # across trials of one process
                return logits * TRAINED
            if self.what == "wrong type":
                return "logits"  # type: ignore[return-value]
            if self.what == "wrong shape":
                return logits[:1]
            if self.what == "not a number":
                return logits * float("nan")
            if self.what == "late raise" and TRAINED == 4:
                raise ValueError("late")
            ACTIONS.get(self.what, ACTIONS["nothing"])()
        return logits


def not_a_network(*, num_classes: int, image_size: int) -> str:
    return "a network"
