"""Networks that misbehave in a training step as `what` says."""

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


def hang() -> None:
    while True:
        time.sleep(0.1)


def spin() -> None:
    while True:
        pass


def raises(error: BaseException) -> None:
    raise error


def recurse() -> None:
    recurse()


def patch_torch() -> None:
    torch.nn.functional.cross_entropy = torch.Tensor.backward = torch.optim.SGD.step = None  # type: ignore[assignment, method-assign]


ACTIONS: dict[str, Callable[[], Any]] = {
    # An error, or an end, that is the trial's own.
    "raise": lambda: raises(ValueError("no such thing")),
    "raise 20 MB": lambda: raises(ValueError("x" * 20_000_000)),
    "raise with escapes": lambda: raises(ValueError("\x1b]0;owned\x07<script>|\r\n")),
    "raise stop": lambda: raises(StopIteration()),
    "recurse": recurse,
    "abort": os.abort,
    "kill parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "kill group": lambda: os.killpg(os.getpgid(0), signal.SIGTERM),
    "spin": spin,
    "huge": lambda: torch.empty(2**52),
    # What is none of ablate's business, and must not be another trial's.
    "leave child": lambda: subprocess.Popen(["sleep", "297"]),
    "leave thread": lambda: threading.Thread(target=hang, daemon=False).start(),
    "change folder": lambda: os.chdir("/"),
    "clear environment": os.environ.clear,
    "ignore signals": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "set type": lambda: torch.set_default_dtype(torch.float64),
    "patch torch": patch_torch,
    "no path": sys.path.clear,
    "no modules": lambda: [sys.modules.pop(name) for name in list(sys.modules) if name.startswith("ablate")],
}


class Net(torch.nn.Module):
    """A linear layer. `what` is done in a step with a batch of training images."""

    def __init__(self, *, num_classes: int, image_size: int, what: str = "nothing") -> None:
        super().__init__()
        self.what = what
        self.layer = torch.nn.Linear(3 * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        if self.training and len(images) == 32:
            if self.what == "wrong type":
                return "logits"  # type: ignore[return-value]
            if self.what == "wrong shape":
                return logits[:1]
            if self.what == "not a number":
                return logits * float("nan")
            ACTIONS.get(self.what, lambda: None)()
        return logits
