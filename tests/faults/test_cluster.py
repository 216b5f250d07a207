"""A study on a Ray cluster gives the tables of one machine, whatever ends meanwhile; unlike nodes are refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from quick_study import tables_of
from test_kills import prepared

import ablate
from ablate.execution import cluster
from ablate.execution.cluster import RayExecutor, facts_of
from ablate.execution.driver import Watcher, run_settled, settle
from ablate.execution.executors import Job
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from ablate.study import Options, load_study

pytest.importorskip("ray")
soak = pytest.mark.soak
ROOT = Path("results", "s", "default")
LEAVES = """
from pathlib import Path
import quick
def train(trial, **knobs):
    (trial.out / "deep").mkdir()
    (trial.out / "deep" / "note.txt").write_text(f"{trial.seed} {knobs['lr']}")
    return quick.train(trial, **knobs)
"""
STUDY = """from ablate import Study
study = Study(question="?", train="leaves:train", factors={"lr": (0.1, 0.2, 0.3, 0.4)}, seeds=6,
              base={"seconds": 0.4}, baseline={"lr": 0.1})
"""


class Breaking(Watcher):
    """Does something when so many trials have ended, and keeps what it was told."""

    def __init__(self, at: int = 0, do: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.at, self.do, self.ended, self.notes = at, do, list[str](), list[str]()

    def note(self, line: str) -> None:
        self.notes.append(line)

    def happened(self, trial: Any, event: Any, record: Any) -> None:
        super().happened(trial, event, record)
        if record is not None:
            self.ended.append(trial.trial_id)
            if len(self.ended) == self.at:
                self.do()


def actors() -> list[int]:
    """The processes of this user that Ray calls slots."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [int(path.parent.name)] * path.read_bytes().startswith(b"ray::Slot")
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def three() -> Iterator[Any]:
    """A cluster of three nodes with a core each, beside its head."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made: Any = None
    for last in (False, False, True):
        try:
            made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
            break
        except Exception:
            if last:
                raise
    yield made
    made.shutdown()


@pytest.fixture
def nodes(three: Any) -> Iterator[Callable[..., Any]]:
    """Adds nodes that are gone after the test."""
    added = []

    def add(**given: Any) -> Any:
        added.append(three.add_node(num_cpus=1, **given))
        return added[-1]

    add.address = three.address  # type: ignore[attr-defined]
    add.remove = lambda node: (added.remove(node), three.remove_node(node, allow_graceful=False))  # type: ignore[attr-defined]
    yield add
    for node in added:
        three.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study run on this machine alone."""
    here = study_in(tmp_path_factory.mktemp("local") / "here")
    run(here, workers=2)
    return here


def study_in(here: Path, study: str = STUDY) -> Path:
    prepared(here, study)
    (here / "leaves.py").write_text(LEAVES)
    return here


def run(here: Path, watcher: Watcher | None = None, **options: Any) -> None:
    """Have a study trained, then its tables made."""
    given = {"results": here / "results", "report": here / "report", "device": "cpu", "timing": False}
    study = load_study(here / "s.py")
    made = Options(**given, **options)
    run_settled(settle(study, made), made, watcher or Watcher())
    ablate.run(study, workers=0, **given)


@soak
@pytest.mark.parametrize("fault", ["none", "node", "killed", "hung"])
@pytest.mark.usefixtures("quick")
def test_a_cluster_gives_the_tables_of_one_machine(
    fault: str, local: Path, nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SILENT_SECONDS", 4.0)
    here = study_in(tmp_path / "here")
    three = [nodes() for _ in range(3)]
    harm = {
        "none": lambda: None,
        "node": lambda: nodes.remove(three[0]),
        "killed": lambda: os.kill(actors()[0], signal.SIGKILL),
        "hung": lambda: os.kill(actors()[0], signal.SIGSTOP),
    }
    watcher = Breaking(5, harm[fault])
    began = time.monotonic()
    run(here, watcher, executor="ray", address=nodes.address)
    print(fault, time.monotonic() - began)
    assert len(watcher.ended) == len({*watcher.ended}) == 24
    records = read_records(ResultsFolder(here / ROOT))
    assert {record.status for record in records.values()} == {"complete"}
    assert (max(record.attempts for record in records.values()) > 1) == (fault != "none")
    assert tables_of(here / ROOT) == tables_of(local / ROOT)
    left, expected = (sorted((of / ROOT / "artefacts").rglob("note.txt")) for of in (here, local))
    assert [one.read_text() for one in left] == [one.read_text() for one in expected]
    assert len(left) == 24
    states = json.loads((here / ROOT / "logs/nodes.json").read_text())
    working = [one for one in states if one["state"] == "working"]
    assert (len(working), sum(one["trials"] for one in states)) == (2 if fault == "node" else 3, 24)
