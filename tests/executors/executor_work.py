"""Work for the executor's tests; a worker process imports it by name."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def do(task: dict[str, Any], slot: int, tell: Callable[[Any], None]) -> Any:
    """Do what the task says, leaving a line in its log."""
    log, action = Path(task["log"]), task["do"]
    with log.open("a") as file:
        file.write(f"{action}\n")
    tries = len(log.read_text().splitlines())
    tell(f"begun {action}")
    if action == "kill" and tries <= task["times"]:
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise ValueError("no such thing")
    elif action == "reset":  # as a network that talks to a server may: the driver's pipe is whole
        raise ConnectionResetError("by its server")
    elif action == "exit":
        sys.exit(3)
    elif action == "die":
        os._exit(3)
    elif action == "sleep":
        child = subprocess.Popen(["sleep", "300"])
        log.with_suffix(".child").write_text(f"{child.pid} {os.getpid()}")
        time.sleep(300)
    elif action == "interval":
        begun = time.monotonic()
        time.sleep(0.2)
        return begun, time.monotonic(), os.getpid()
    return f"alive at try {tries}"
