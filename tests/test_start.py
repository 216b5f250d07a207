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
from ablate.execution.driver import Options, run_settled, settle
from ablate.execution.progress import Watcher
from ablate.store.timing import read_timing
from ablate.study.study import Study

study = Study(
    name="tiny", question="?", seeds=2,
    base={"data": "synthetic", "image_size": 16, "epochs": 1, "batch_size": 32, "lr": 0.05},
)
opened, workers = Counter(), []

def audit(event, arguments):
    if event == "open" and "records/" in str(arguments[0]) and str(arguments[0]).endswith(".json"):
        opened[Path(str(arguments[0])).name] += 1
    if event == "subprocess.Popen" and "ablate.execution.worker" in arguments[1]:
        workers[-1] += 1

class Impatient(Watcher):
    def preparing(self, label, done, total):
        if "timing" in label:
            raise KeyboardInterrupt

def run(view=Watcher):
    workers.append(0)
    summary = run_settled(settle(study, options), options, view(Console(stderr=True)))
    return summary.ran, summary.interrupted, read_timing(summary.folder)

sys.addaudithook(audit)
options = Options(device="cpu", workers=1, results=Path(sys.argv[1]))
*first, timing = run()
environment = (timing.environment.engine, timing.environment.threads, timing.environment.workers)
opened.clear()
*second, kept = run()
read = list(opened.values())
heavy = sorted({"matplotlib", "pandas", "optuna", "torchvision", "sklearn"} & set(sys.modules))
(options.results / "tiny" / "default" / "timing.json").unlink()
third = run(Impatient)
print(json.dumps([workers, first, environment, second, kept == timing, read, heavy, third]))
"""


@pytest.mark.slow
def test_one_warm_worker_trains_and_times_and_a_finished_study_reads_each_record_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNTED, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    workers, first, environment, *second, third = json.loads(result.stdout)
    assert workers == [1, 0, 1]  # the last one for the timing pass alone, whose file had been deleted
    assert (first, environment) == ([2, False], ["eager", 1, 1])
    assert second == [[0, False], True, [1, 1], []]
    assert third == [0, True, None]
