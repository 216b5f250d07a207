"""`ablate run` from command to report with its workers on CUDA, the card real or pretended."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_main import STUDY

from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from ablate.tables import read_tables

pytestmark = [pytest.mark.cuda, pytest.mark.slow]

SETTINGS = ["data=digits", "batch_size=64", "lr=0.002", "precision=float32"]


def ran(here: Path, *options: str) -> ResultsFolder:
    """The results of the study, trained by the command to its report."""
    here.mkdir()
    (here / "tiny.py").write_text(STUDY)
    words = ["run", "tiny.py", "--profile", "quick", "--no-timing", "--seeds", "1", *options]
    words += itertools.chain(*(("--set", setting) for setting in SETTINGS))
    own = {**os.environ, "ABLATE_CACHE": str(here.parent / "cache")}
    command = [sys.executable, "-m", "ablate", *words]
    ended = subprocess.run(command, cwd=here, env=own, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
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
