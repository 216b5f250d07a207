"""A sweep from command to end: two ε, two seeds, five epochs of digits.

Ours is `ablate run` without its timing pass: workers, records, predictions, tables and report. The textbook's
is a script of plain torch (`textbook.py`) that trains the same four networks one after the other and prints
accuracies, with 1 or 2 threads; the faster is what ours is divided by. Both include the start of Python and
torch. Their mean accuracies are compared too.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ablate.data import default_cache_dir, prepare
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from benchmarks import textbook
from benchmarks.conftest import Compare
from benchmarks.interleaved import Peer

ROOT = Path(__file__).parent.parent
ACCURACY_APART = 0.03
"""Largest difference of mean accuracies. Orders of images differ; over seeds, one training's accuracy has a
standard deviation of 0.009."""
STUDY = f"""
from ablate.study.study import Study

study = Study(
    name="sweep", question="Which ε?",
    base={{"data": "digits", "image_size": 8, "arch": "seed_cnn", "epochs": {textbook.SWEEP_EPOCHS},
          "batch_size": {textbook.SWEEP_BATCH}, "lr": {textbook.SWEEP_RATE}, "precision": "float32"}},
    factors={{"epsilon": {textbook.SWEEP_EPSILONS}}}, seeds={len(textbook.SWEEP_SEEDS)},
)
"""


def python(*words: str | Path, cwd: Path) -> str:
    """Run a module by this Python, and give what it printed."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_sweep(compare: Compare, tmp_path: Path) -> None:
    """From the command to the report, or to the printed accuracies."""
    (tmp_path / "sweep.py").write_text(STUDY, encoding="utf-8")
    torch.save(_tensors(), tmp_path / "digits.pt")
    fresh, printed = (f"run{number}" for number in itertools.count()), list[str]()

    def ablate() -> None:
        own = "--results", next(fresh)
        python("ablate", "run", "sweep.py", "--device", "cpu", "--no-timing", *own, cwd=tmp_path)

    def script(threads: int) -> None:
        printed.append(python("benchmarks.textbook", tmp_path / "digits.pt", str(threads), cwd=tmp_path))

    peers = {
        "ablate": Peer(ablate),
        "textbook, 1 thread": Peer(lambda: script(1)),
        "textbook, 2 threads": Peer(lambda: script(2)),
    }
    compare("sweep, 4 trainings on digits, float32", peers, list(peers)[1:], cpu=True)
    (folder,) = (tmp_path / "run0" / "sweep").iterdir()
    ours = [record.history[-1].valid_accuracy for record in read_records(ResultsFolder(folder)).values()]
    theirs = [float(word) for word in printed[0].split()]
    assert len(ours) == len(theirs)
    assert abs(np.mean(ours) - np.mean(theirs)) < ACCURACY_APART, f"accuracies: {ours} and {theirs}"


def _tensors() -> tuple[Tensor, ...]:
    """Images normalised, and labels, of both splits of the digits."""
    data = prepare("digits", image_size=8, cache_dir=default_cache_dir())
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    found: list[Tensor] = []
    for split in (data.train, data.valid):
        images = torch.from_numpy(np.array(split.images)).permute(0, 3, 1, 2) / 255
        found += [(images - mean) / std, torch.from_numpy(np.array(split.labels))]
    return tuple(found)
