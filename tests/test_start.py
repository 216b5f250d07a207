"""What a run costs beside its training steps, in counts that no clock decides."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COUNTED = """
import json, sys
from collections import Counter
from pathlib import Path
from rich.console import Console
from ablate.execution.driver import Options, run_study
from ablate.execution.progress import ProgressView
from ablate.study.study import Study

study = Study(
    name="tiny", question="?", seeds=2,
    base={"data": "synthetic", "image_size": 16, "epochs": 1, "batch_size": 32, "lr": 0.05},
)
opened, started = Counter(), Counter()

def audit(event, arguments):
    if event == "open" and "records/" in str(arguments[0]) and str(arguments[0]).endswith(".json"):
        opened[Path(str(arguments[0])).name] += 1
    if event == "subprocess.Popen" and "ablate.execution.worker" in arguments[1]:
        started["workers"] += 1

options = Options(device="cpu", results=Path(sys.argv[1]), timing=False)
first = run_study(study, options, ProgressView(Console(stderr=True)))
sys.addaudithook(audit)
second = run_study(study, options, ProgressView(Console(stderr=True)))
heavy = sorted({"matplotlib", "pandas", "optuna", "torchvision", "sklearn"} & set(sys.modules))
print(json.dumps([first.ran, second.ran, list(opened.values()), started["workers"], heavy]))
"""


@pytest.mark.slow
def test_a_finished_study_reads_each_record_once_and_starts_no_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNTED, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [2, 0, [1, 1], 0, []]
