"""Trials of somebody's script: a command of its own words, its output in a log, its result from a file."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.errors import StudyError, first_line
from ablate.execution.executors import THEIRS
from ablate.execution.trial import Heartbeat
from ablate.execution.worker import last_line
from ablate.guarded import PR_SET_PDEATHSIG, prctl
from ablate.study.own import PLACEHOLDER
from ablate.study.study import Study
from ablate.study.trials import Trial

LOOK_SECONDS = 2.0


def run_command(
    study: Study, trial: Trial, out: Path, device: torch.device, tell: Callable[[Heartbeat], None]
) -> dict[str, Any]:
    """Run a study's command for a trial, and read what it left; a StudyError says what is wrong."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    values = {**trial.fields.model_dump(), "seed": trial.seed, "out": out}

    def filled(text: str) -> str:
        return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), text)

    words, log = [filled(word) for word in study.command], out.with_name(f"{out.name}.log")
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                words, cwd=study.folder, env=_environment(device, trial.numerics.threads),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                process_group=0, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )  # fmt: skip
        except OSError as error:
            raise StudyError(f"command: {words[0]!r} cannot be started ({error.strerror})") from None
    try:
        status, said = None, ""
        while status is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(LOOK_SECONDS)
            if (line := last_line(log)) != said:
                tell(Heartbeat(0, 0, note=(said := line)))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if status:
        ended = f"exited with status {status}" if status > 0 else f"was killed by signal {-status}"
        raise StudyError(f"the command {ended}; its last line: {last_line(log) or 'none'}")
    found: dict[str, Any] = {name: read_result(filled(of), log) for name, of in study.result.items()}
    if study.predictions:
        try:
            with np.load(filled(study.predictions), allow_pickle=False) as arrays:
                found |= {name: arrays[name] for name in ("logits", "labels")}
        except Exception as error:  # a damaged file raises as it likes
            raise StudyError(f"predictions: expected logits and labels: {first_line(error)}") from None
    return found


def _environment(device: torch.device, threads: int) -> dict[str, str]:
    """This Python's programs first, the trial's GPU the only one, and on a CPU as many threads as it has."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    own = {**os.environ, "PATH": path, "PYTHONPATH": os.environ.get(THEIRS, os.environ.get("PYTHONPATH", ""))}
    if device.type == "cuda":
        visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
        return own | {"CUDA_VISIBLE_DEVICES": visible[device.index] if visible else str(device.index)}
    return own | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}


def read_result(result: str, log: Path) -> float:
    """The number in a JSON file's path, a CSV's last row, or the log's last match; else a StudyError."""
    found: Any = "nothing that can be read"
    file, _, key = result.rpartition(":")
    try:
        if result.startswith("log:"):
            found = re.findall(result[4:], log.read_text(errors="replace"), re.MULTILINE)
            return float(found := found[-1])
        with open(file, encoding="utf-8", newline="") as text:
            found = json.load(text) if file.endswith(".json") else list(csv.DictReader(text))[-1]
        for part in key.split(".") if file.endswith(".json") else [key]:
            found = found[int(part) if isinstance(found, list) else part]
        return float(found)
    except OSError as error:
        raise StudyError(f"result: the command ended well but left no {file} ({error.strerror})") from None
    except (LookupError, ValueError, TypeError, csv.Error) as error:
        came = ", ".join(map(str, found)) if isinstance(found, Mapping) else repr(found)[:80]
        fault = f"{type(error).__name__}: {first_line(error)}"
        raise StudyError(f"result: {result}: expected a number there, but it has {came} ({fault})") from None
