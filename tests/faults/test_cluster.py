"""On a cluster a study has the tables of one machine, whatever ends meanwhile; unlike nodes are refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from quick_study import tables_of
from rich.console import Console
from test_kills import prepared

import ablate
from ablate.errors import StoppedError, StudyError
from ablate.execution import cluster
from ablate.execution.driver import Watcher, run_settled, settle, trial_executor
from ablate.execution.executors import Job
from ablate.status import show_status
from ablate.store.records import Record, read_records
from ablate.store.results import ResultsFolder
from ablate.study import Options, Study, load_study

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)
soak = pytest.mark.soak
ROOT = Path("results", "s", "default")
LEAVES = """
import quick
def train(trial, **knobs):
    (trial.out / "deep").mkdir()
    (trial.out / "deep" / "note.txt").write_text(f"{trial.seed} {knobs['lr']}")
    (trial.out / "latest").symlink_to("/nowhere")
    return quick.train(trial, **knobs)
"""
OWN = """from ablate import Study
study = Study(question="?", train="leaves:train", factors={"lr": (0.1, 0.2, 0.3, 0.4)}, seeds=6,
              base={"seconds": 0.4}, baseline={"lr": 0.1})
"""
SCRIPT = """import json, sys, time
lr, seed, out = sys.argv[1:]
time.sleep(0.5)
json.dump({"cost": float(lr) * int(seed)}, open(f"{out}/m.json", "w"))
"""
COMMAND = """from ablate import Metric, Study
study = Study(question="?", command=["python", "script.py", "{lr}", "{seed}", "{out}"], code=("script.py",),
              metrics={"cost": Metric(better="lower")}, result={"cost": "{out}/m.json:cost"}, primary="cost",
              factors={"lr": (0.1, 0.2)}, seeds=4, baseline={"lr": 0.1}, margins={"cost": 0.1})
"""
TRAINED = """from ablate import Study
study = Study(question="?", factors={"epsilon": (0.0, 0.2)}, seeds=2, baseline={"epsilon": 0.0},
              base={"data": "synthetic", "image_size": 16, "epochs": 2, "batch_size": 32, "lr": 0.05})
"""
TUNED = """from ablate import Range, Search, Study
study = Study(question="?", train="quick:train", primary="accuracy", baseline={"lr": 0.1}, seeds=2,
              base={"lr": 0.1},
              search=Search({"lr": Range(0.05, 0.4, log=True)}, "accuracy", points=4, seeds=1))
"""


class Breaking(Watcher):
    """Does harm when so many trials have ended, and keeps what it was told."""

    def __init__(self, harm: Mapping[int, Callable[[], object]]) -> None:
        super().__init__()
        self.harm, self.ended, self.notes = harm, list[str](), list[str]()

    def note(self, line: str) -> None:
        self.notes.append(line)

    def happened(self, trial: Any, event: Any, record: Record | None) -> None:
        super().happened(trial, event, record)
        if record is not None:
            self.ended.append(trial.trial_id)
            self.harm.get(len(self.ended), lambda: None)()


def actors() -> list[int]:
    """The processes of ablate's that Ray has started here."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [int(path.parent.name)] * path.read_bytes().startswith(b"ray::Slot")
        except OSError:  # it has just ended
            continue
    return sorted(found)


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """A cluster, as yet without nodes that train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        arguments = {"num_cpus": 0, "include_dashboard": False}
        try:
            made = Cluster(initialize_head=True, head_node_args=arguments)
        except Exception:  # a busy machine may be too slow to start it
            made = Cluster(initialize_head=True, head_node_args=arguments)
        yield made
        made.shutdown()  # type: ignore[no-untyped-call]


class Nodes:
    """Nodes of one core each."""

    def __init__(self, head: Any) -> None:
        self.head, self.there = head, list[Any]()

    def add(self, **environment: str) -> None:
        self.there.append(self.head.add_node(num_cpus=1, env_vars=environment))

    def kill(self) -> None:
        self.head.remove_node(self.there.pop(0), allow_graceful=False)


@pytest.fixture
def nodes(head: Any) -> Iterator[Nodes]:
    made = Nodes(head)
    yield made
    while made.there:
        made.kill()


@pytest.fixture
def odd(tmp_path: Path) -> str:
    """The import path of an ablate with another comment."""
    copy = tmp_path / "odd" / "ablate"
    shutil.copytree(Path(ablate.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "losses" / "cross_entropy.py").open("a") as file:
        file.write("# another comment\n")
    return str(copy.parent)


def study_in(here: Path, study: str) -> Path:
    prepared(here, study)
    (here / "leaves.py").write_text(LEAVES)
    (here / "script.py").write_text(SCRIPT)
    return here


def run(here: Path, watcher: Watcher | None = None, **options: Any) -> None:
    """Have a study trained, then its tables made."""
    given = {"results": here / "results", "report": here / "report", "device": "cpu"}
    study, asked = load_study(here / "s.py"), Options(**{**given, "timing": False, **options})
    run_settled(settle(study, asked), asked, watcher or Watcher())
    ablate.run(study, workers=0, timing=False, **given)


def texts(here: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(here)): path.read_bytes() for path in sorted((here / ROOT).glob(pattern))}


@soak
@pytest.mark.usefixtures("quick")
def test_nodes_and_workers_that_end_or_hang_change_nothing(
    nodes: Nodes, odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SILENT_SECONDS", 5.0)
    here, local = (study_in(tmp_path / name, OWN) for name in ("here", "local"))
    run(local, workers=2)
    nodes.add()
    nodes.add(PYTHONPATH=odd)
    nodes.add()
    nodes.add()
    watcher = Breaking(
        {
            5: nodes.kill,
            10: lambda: os.kill(actors()[0], signal.SIGKILL),
            15: lambda: os.kill(actors()[0], signal.SIGSTOP),
        }
    )
    run(here, watcher, executor="ray", address=nodes.head.address)
    assert len(watcher.ended) == len({*watcher.ended}) == 24
    records = read_records(ResultsFolder(here / ROOT))
    assert {record.status for record in records.values()} == {"complete"}
    assert 1 <= sum(record.attempts - 1 for record in records.values()) <= 3  # some may have had no job
    assert tables_of(here / ROOT) == tables_of(local / ROOT)
    left = texts(here, "artefacts/*/deep/*")
    assert left == texts(local, "artefacts/*/deep/*")
    assert len(left) == 24
    (refused,) = [line for line in watcher.notes if "is not used" in line]
    assert "/" in refused.split()[0]
    assert ": ablate/losses/cross_entropy.py: expected " in refused
    told = show_status(Console(quiet=True), ResultsFolder(here / ROOT))["nodes"]
    assert sorted(node["state"].split(":")[0] for node in told) == ["lost", "refused", "working", "working"]
    assert (sum(node["trials"] for node in told), {node["workers"] for node in told}) == (24, {0})
    host = os.uname().nodename.encode()
    named = [path for path in here.rglob("*.*") if path.is_file() and host in path.read_bytes()]
    assert [path.name for path in named] == ["nodes.json"]
    assert not actors()


@soak
@pytest.mark.usefixtures("quick")
def test_what_ablate_trains_is_the_same_and_so_are_points_of_a_search(nodes: Nodes, tmp_path: Path) -> None:
    here, local = (study_in(tmp_path / name, TRAINED) for name in ("here", "local"))
    nodes.add()
    nodes.add()
    on = {"executor": "ray", "address": nodes.head.address}
    run(local, workers=2, keep_weights=True)
    run(here, keep_weights=True, timing=True, **on)
    made, expected = (tables_of(one / ROOT) for one in (here, local))
    for tables in (made, expected):
        del tables["step_times.csv"], tables["timing.csv"]
    assert made == expected
    assert texts(here, "weights/*") == texts(local, "weights/*")
    assert len(json.loads((here / ROOT / "timing.json").read_text())["content"]["cases"]) == 2
    for name, options in (("here", on), ("local", {"workers": 2})):
        (tmp_path / name / "s.py").write_text(TUNED)
        folders: dict[str, Any] = {"results": tmp_path / name / "tuned", "report": tmp_path / name / "report"}
        ablate.tune(tmp_path / name / "s.py", device="cpu", **folders, **options)
    points, expected = (tables_of(one / "tuned/s/default") for one in (here, local))
    assert len(points["points.csv"].splitlines()) == 5
    assert points == expected


@soak
@pytest.mark.usefixtures("quick")
def test_a_run_without_a_node_like_it_is_stopped(nodes: Nodes, odd: str, tmp_path: Path) -> None:
    here = study_in(tmp_path / "here", OWN)
    nodes.add(PYTHONPATH=odd)
    with pytest.raises(
        StoppedError, match=r"no node can train \(.*: refused: ablate/losses/cross_entropy.py"
    ):
        run(here, executor="ray", address=nodes.head.address)
    assert not read_records(ResultsFolder(here / ROOT))


@soak
def test_an_interrupted_run_leaves_records_and_no_process(nodes: Nodes, tmp_path: Path) -> None:
    here, local = (study_in(tmp_path / name, COMMAND) for name in ("here", "local"))
    nodes.add()
    nodes.add()
    command = [sys.executable, "-m", "ablate", "run", "s.py", "--device", "cpu"]
    driver = subprocess.Popen([*command, "--executor", "ray", "--address", nodes.head.address], cwd=here)
    while driver.poll() is None and len(texts(here, "records/*.json")) < 2:
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)  # handled as Ctrl-C is, which a shell's background job ignores
    assert driver.wait(timeout=60) == 130
    kept = texts(here, "records/*.json")
    assert 2 <= len(kept) < 8
    deadline = time.monotonic() + 10
    while actors() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not actors()
    for one in (here, local):
        run(one, workers=2)
    assert kept.items() <= texts(here, "records/*.json").items()
    assert texts(here, "artefacts/*/m.json") == texts(local, "artefacts/*/m.json")
    assert tables_of(here / ROOT) == tables_of(local / ROOT)


def executor_for(here: Path, **options: Any) -> Any:
    base = {"data": "synthetic", "image_size": 16}
    study = Study(question="?", base=base, factors={"epsilon": (0.0, 0.1)}, seeds=2)
    given = Options(executor="ray", device="cpu", **options)
    return trial_executor(study, "cpu", given, ResultsFolder(here), Watcher())


def test_a_block_stays_on_the_kind_of_device_on_which_it_began(tmp_path: Path) -> None:
    executor = executor_for(tmp_path)
    old, new = (
        cluster._Actor(slot, None, None, b"", kind=kind, heard=time.monotonic())
        for slot, kind in enumerate(("A100", "H200"))
    )
    executor._idle = [old, new]
    jobs = [Job(f"{arm}{seed}", None, block=seed) for seed in (0, 1) for arm in "ab"]
    executor._waiting.extend((job, 1) for job in jobs)
    executor._kinds = {0: "A100"}
    assert executor._next_for(new)[0].name == "a1"
    executor._kinds[1] = "A100"
    assert executor._next_for(new) is None  # it waits rather than have pairs straddle two kinds
    assert executor._next_for(old)[0].name == "a0"
    executor._idle = [new]  # the last of the other kind is gone
    assert executor._next_for(new)[0].name == "a0"
    executor._idle.append(cluster._Actor(2, None, None, b"", heard=time.monotonic()))
    assert executor._next_for(new) is None  # one that has just been started may be of it


def test_what_cannot_be_used_is_said_before_anything_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StudyError, match=r"--address 127.0.0.1:9: no cluster answers .* `ray start --head`"):
        executor_for(tmp_path, address="127.0.0.1:9")
    with pytest.raises(StudyError, match=r"--address ray://a:10001: expected HOST:PORT"):
        executor_for(tmp_path, address="ray://a:10001")
    with pytest.raises(StudyError, match=r"workers: expected 1 or more on a cluster"):
        executor_for(tmp_path, workers=0)
    with pytest.raises(StudyError, match=r"address: .* executor='ray' alone"):
        Options(address="a:1")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    sys.path_importer_cache.clear()
    with pytest.raises(StudyError, match=r"Ray is not installed; pip install 'ablate\[ray\]'"):
        executor_for(tmp_path)
