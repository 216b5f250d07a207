"""`ablate run` from command to report with its workers on CUDA, the card real or pretended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from ablate.tables import read_tables

pytestmark = [pytest.mark.cuda, pytest.mark.slow]

STUDY = '''"""Tiny."""
from ablate.study.study import Profile, Study
study = Study(
    question="Does CUDA train as the CPU does?",
    base={"data": "digits", "image_size": 16, "epochs": 2, "batch_size": 64, "lr": 0.002,
          "precision": "float32"},
    factors={"epsilon": (0.0, 0.1)},
    baseline={"epsilon": 0.0},
    seeds=1,
    profiles={"quick": Profile(), "full": Profile()},
)
'''
TIMES = {"seconds", "step_ms", "step_ms_p20", "step_ms_p80", "images_per_second", "train_seconds"}
TIMES |= {"eval_seconds", "peak_memory_mb", "attempts"}


def started(here: Path, *options: str) -> subprocess.Popen[str]:
    here.mkdir(exist_ok=True)
    (here / "tiny.py").write_text(STUDY)
    return subprocess.Popen(
        [sys.executable, "-m", "ablate", "run", "tiny.py", "--profile", "quick", "--no-timing", *options],
        cwd=here,
        env={**os.environ, "ABLATE_CACHE": str(here.parent / "cache"), "ABLATE_CHECKPOINT_SECONDS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def ran(here: Path, *options: str) -> ResultsFolder:
    """The results of the study, trained by the command to its report."""
    process = started(here, *options)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert (here / "report" / "tiny" / "quick" / "index.html").is_file()
    return ResultsFolder(here / "results" / "tiny" / "quick")


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_a_study_runs_on_cuda_to_its_report_as_on_the_cpu(engine: str, tmp_path: Path) -> None:
    """At a small rate: at 0.05 this network, whose maps are single pixels here, makes rounding visible.

    The CPU multiplies fewer taps of a single pixel's convolution; the losses of ten steps at that rate then
    come apart by 1e-7 to 4e-2, and not at all where it is made to multiply all of them.
    """
    folders = {"cuda": ran(tmp_path / "cuda", "--device", "cuda", "--engine", engine)}
    folders["cpu"] = ran(tmp_path / "cpu", "--device", "cpu")
    for device, folder in folders.items():
        records = read_records(folder).values()
        assert [record.status for record in records] == ["complete"] * 2
        assert {record.trial.numerics.device for record in records} == {device}
        versions = {record.environment and record.environment.cuda_version for record in records}
        assert (None in versions) == (device == "cpu")
    on_cuda, on_cpu = (read_tables(folder)["trials"].sort_values("epsilon") for folder in folders.values())
    assert set(on_cuda["engine"]) == {engine}
    np.testing.assert_allclose(on_cuda["nll"], on_cpu["nll"], rtol=1e-3)
    np.testing.assert_allclose(on_cuda["accuracy"], on_cpu["accuracy"], atol=0.01)


def facts(value: Any) -> Any:
    """A record without what a clock, or a second start, changes in it."""
    if isinstance(value, dict):
        return {name: facts(item) for name, item in value.items() if name not in TIMES}
    return [facts(item) for item in value] if isinstance(value, (list, tuple)) else value


def test_a_captured_run_that_is_killed_between_epochs_goes_on_to_the_same_records(tmp_path: Path) -> None:
    options = ("--device", "cuda", "--engine", "graph", "--set", "epochs=8", "--set", "optimizer=ranger")
    whole = ran(tmp_path / "whole", *options)
    here = tmp_path / "killed"
    process, folder = started(here, *options), ResultsFolder(here / "results" / "tiny" / "quick")
    while not list(folder.root.glob("checkpoints/*.pt")) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(read_records(folder)) < 2
    ran(here, *options)
    first, second = (
        {name: facts(record.model_dump()) for name, record in read_records(results).items()}
        for results in (whole, folder)
    )
    assert first == second
