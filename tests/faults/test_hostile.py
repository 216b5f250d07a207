"""Networks that do harm in a whole run; tests/executors has what ends or outlives a process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.store.records import read_predictions, read_records
from ablate.store.results import ResultsFolder

NETWORK = """
import torch

def raises(error):
    raise error

def patch():
    torch.nn.functional.cross_entropy = torch.Tensor.backward = torch.optim.SGD.step = None

ACTIONS = {
    "nothing": lambda logits: logits,
    "wrong type": lambda logits: "logits",
    "wrong shape": lambda logits: logits[:1],
    "not a number": lambda logits: logits * float("nan"),
    "huge": lambda logits: torch.empty(2**52),
    "raise 20 MB": lambda logits: raises(ValueError("x" * 20_000_000)),
    "raise with escapes": lambda logits: raises(ValueError("\\x1b]0;owned\\x07<script>|\\r\\n")),
    "set type": lambda logits: torch.set_default_dtype(torch.float64) or logits,
    "patch torch": lambda logits: patch() or logits,
}

class Net(torch.nn.Module):
    def __init__(self, num_classes, image_size, what):
        super().__init__()
        self.what, self.layer = what, torch.nn.Linear(3 * image_size**2, num_classes)

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        return ACTIONS[self.what](logits) if self.training and len(images) == 32 else logits
"""
SAID = {
    "nothing": "", "wrong type": "str", "wrong shape": "expected class ids", "not a number": "not finite",
    "huge": "allocate memory", "raise 20 MB": r"ValueError: x{1000}",
    "raise with escapes": "ValueError: .*owned",
    "set type": "", "patch torch": "",
}  # fmt: skip
"""What is in the failure's message of each; nothing where the trial ends one way or the other."""
STUDY = f"""from ablate import Study
base = {{"data": "synthetic", "image_size": 16, "epochs": 2, "batch_size": 32, "arch": "hostile:Net"}}
study = Study(question="?", base=base, factors={{"arch.what": {(*SAID,)}}}, seeds=1)
"""


@pytest.mark.soak
def test_what_a_network_does_in_a_step_costs_its_own_trial_alone(tmp_path: Path) -> None:
    (tmp_path / "hostile.py").write_text(NETWORK)
    (tmp_path / "s.py").write_text(STUDY)
    folder, logits = ResultsFolder(tmp_path / "results" / "s" / "default"), list[bytes]()
    # The first is alone to begin with, and then one of many.
    for alone, status in ((["--set", "arch.what=nothing"], 0), (["--workers", "2"], 2)):
        command = [sys.executable, "-m", "ablate", "run", "s.py", "--no-timing", "--device", "cpu", *alone]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert (ended.returncode, "Traceback" in ended.stderr) == (status, False), ended.stderr
        read = read_records(folder).values()
        records = {str(record.trial.looped.arguments("arch")["what"]): record for record in read}
        logits.append(read_predictions(folder, records["nothing"]).logits.tobytes())
        if status == 0:
            folder.record_path(records["nothing"].trial_id).unlink()
    assert logits[0] == logits[1]
    assert records.keys() == SAID.keys()
    for what, said in SAID.items():
        failure = records[what].failure
        message = failure.message if failure else ""
        assert re.search(said, message), f"{what}: {message[:300]}"
        assert len(message) <= 2100, what
        assert message.isprintable() or what == "raise with escapes", what
    assert (tmp_path / "report" / "s" / "default" / "index.html").stat().st_size < 2e6
