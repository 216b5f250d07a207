"""`ablate run` from command to report with its workers on CUDA, the card real or pretended."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ablate.records import read_records
from ablate.results import ResultsFolder
from ablate.tables import read_tables

STUDY = '''"""Tiny."""
from ablate.study import Profile, Study
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


def ran_on(device: str, here: Path) -> ResultsFolder:
    """The results of the study, trained by the command on one kind of device."""
    here.mkdir()
    (here / "tiny.py").write_text(STUDY)
    options = ["--device", device, "--profile", "quick", "--no-timing"]
    result = subprocess.run(
        [sys.executable, "-m", "ablate", "run", "tiny.py", *options],
        cwd=here,
        env={**os.environ, "ABLATE_CACHE": str(here.parent / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (here / "report" / "tiny" / "quick" / "index.html").is_file()
    return ResultsFolder(here / "results" / "tiny" / "quick")


@pytest.mark.slow
@pytest.mark.cuda
def test_a_study_runs_on_cuda_to_its_report_as_on_the_cpu(tmp_path: Path) -> None:
    """At a small learning rate: at 0.05 the losses come apart by a percent, and why is not known yet."""
    folders = {device: ran_on(device, tmp_path / device) for device in ("cuda", "cpu")}
    for device, folder in folders.items():
        records = read_records(folder).values()
        assert [record.status for record in records] == ["complete"] * 2
        assert {record.trial.numerics.device for record in records} == {device}
    on_cuda, on_cpu = (read_tables(folder)["trials"].sort_values("epsilon") for folder in folders.values())
    np.testing.assert_allclose(on_cuda["nll"], on_cpu["nll"], rtol=1e-3)
    np.testing.assert_allclose(on_cuda["accuracy"], on_cpu["accuracy"], atol=0.01)
