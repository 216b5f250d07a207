"""What the driver takes besides training: its help, a study that is finished, and reading 5,000 records."""

from __future__ import annotations

from pathlib import Path

from ablate.store.records import read_records, record_bytes
from ablate.store.results import ResultsFolder
from benchmarks.conftest import Compare
from benchmarks.interleaved import Peer
from benchmarks.test_sweep import STUDY, python

RECORDS = 5000


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
