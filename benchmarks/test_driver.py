"""What the driver takes besides training: its help, a study that is finished, and reading 5,000 records."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ablate.store.records import read_records, record_bytes
from ablate.store.results import ResultsFolder
from benchmarks.conftest import Compare
from benchmarks.interleaved import Peer
from benchmarks.test_sweep import STUDY, python

RECORDS = 5000
QUICK = """import numpy as np
from ablate import Study

def train(trial, lr=0.1):
    random = np.random.default_rng(trial.seed)
    return {"logits": random.normal(size=(40, 3)), "labels": np.arange(40) % 3}

study = Study(question="?", train="quick:train", factors={"lr": (0.1, 0.2, 0.3, 0.4)}, seeds=6,
              baseline={"lr": 0.1})
"""


def test_driver(compare: Compare, tmp_path: Path) -> None:
    """Wall and CPU time of each; there is no peer to divide by."""
    (tmp_path / "sweep.py").write_text(STUDY, encoding="utf-8")
    run = "ablate", "run", "sweep.py", "--device", "cpu", "--no-timing", "--set", "epochs=1"
    assert "4 trials run" in python(*run, cwd=tmp_path)
    assert "0 trials run" in python(*run, cwd=tmp_path)
    (recorded,) = (tmp_path / "results" / "sweep").iterdir()
    many = ResultsFolder(tmp_path / "many")
    many.create()
    record = next(iter(read_records(ResultsFolder(recorded)).values()))
    for seed in range(RECORDS):
        trial = record.trial.model_copy(update={"seed": seed, "trial_id": f"{seed:016x}"})
        copy = record.model_copy(update={"trial": trial})
        many.record_path(copy.trial_id).write_bytes(record_bytes(copy))
    assert len(read_records(many)) == RECORDS
    peers = {
        "python -m ablate --help": Peer(lambda: python("ablate", "--help", cwd=tmp_path)),
        "ablate run, finished": Peer(lambda: python(*run, cwd=tmp_path)),
        f"{RECORDS} records read": Peer(lambda: read_records(many)),
    }
    compare("driver", peers, cpu=True)


def test_cluster(compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 24 trials that take no time: on a cluster, which is one node here, beside workers here."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    (tmp_path / "quick.py").write_text(QUICK, encoding="utf-8")
    cluster, numbers = (
        Cluster(True, head_node_args={"num_cpus": 2, "include_dashboard": False}),
        itertools.count(),
    )

    def run(*options: str) -> None:
        fresh = "--results", f"results-{next(numbers)}"
        ran = python(
            "ablate", "run", "quick.py", "--device", "cpu", "--workers", "2", *fresh, *options, cwd=tmp_path
        )
        assert "24 trials run" in ran

    here, there = "24 trials, workers here", "24 trials, one node's workers"
    on = "--executor", "ray", "--address", cluster.address
    try:
        compare("cluster", {here: Peer(run), there: Peer(lambda: run(*on))}, [here])
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
