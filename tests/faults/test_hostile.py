"""Networks that do harm in a whole run; tests/executors has what else ends or outlives a process."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_main import processes_with

from ablate.store.records import read_predictions, read_records
from ablate.store.results import ResultsFolder

OWN, HARMLESS = "own", "harmless"
WHILE_TRAINED = {
    # What is in its failure's message; or that the trial ends well, and computes what the first one does.
    "nothing": HARMLESS,
    "raise": r"ValueError: no such thing \(in .*hostile",
    "raise 20 MB": r"ValueError: x{1000}",
    "raise with escapes": r"ValueError: .*owned",
    "raise stop": "StopIteration",
    "recurse": "RecursionError",
    "abort": "SIGABRT",
    "kill parent": ".",
    "kill group": ".",
    "spin": "longer than",
    "huge": "allocate memory",
    "wrong type": ".",
    "wrong shape": ".",
    "not a number": "not finite",
    # Its own modules are gone: it ends one way or the other, with its own numbers.
    "set type": OWN,
    "patch torch": OWN,
    "no path": OWN,
    "no modules": OWN,
    "leave child": HARMLESS,
    "leave thread": HARMLESS,
    "change folder": HARMLESS,
    "clear environment": HARMLESS,
    "ignore signals": HARMLESS,
}
STUDY = f"""from ablate import Study
base = {{"data": "synthetic", "image_size": 16, "epochs": 2, "batch_size": 32, "arch": "hostile:Net"}}
study = Study(question="?", base=base, factors={{"arch.what": {(*WHILE_TRAINED,)}}}, seeds=1)
"""


@pytest.mark.soak
def test_what_a_network_does_in_a_step_costs_its_own_trial_alone(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("hostile.py"), tmp_path)
    (tmp_path / "s.py").write_text(STUDY)
    own = {**os.environ, "ABLATE_MARK": str(tmp_path), "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}

    def ablate(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ablate", "run", "s.py", "--no-timing", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=own)

    # The first is alone to begin with.
    ended = ablate("--set", "arch.what=nothing")
    assert ended.returncode == 0, ended.stderr
    ended = ablate("--workers", "2", "--timeout", "0.2")
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    folder = ResultsFolder(tmp_path / "results" / "s" / "default")
    read = read_records(folder).values()
    records = {record.trial.looped.arguments("arch").get("what", ""): record for record in read}
    assert records.keys() == WHILE_TRAINED.keys()
    whole = read_predictions(folder, records["nothing"]).logits.tobytes()
    for what, expected in WHILE_TRAINED.items():
        record = records[what]
        message = record.failure.message if record.failure else ""
        assert len(message) <= 2100, what
        assert message.isprintable() or what == "raise with escapes", what
        if expected == HARMLESS:
            assert record.status == "complete", f"{what}: {message}"
            assert read_predictions(folder, record).logits.tobytes() == whole, what
        elif expected != OWN:
            assert record.status != "complete", what
            assert re.search(expected, message), f"{what}: {record.status}: {message[:300]}"
    page = tmp_path / "report" / "s" / "default" / "index.html"
    assert page.stat().st_size < 2e6
    time.sleep(1)
    assert processes_with(f"ABLATE_MARK={tmp_path}".encode()) == []
