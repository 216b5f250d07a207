"""The benchmarks: peers in turn, ratios within a round, the way to them, and that every suite still works."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ablate.__main__ import app
from ablate.bench import ROOT, run_benchmarks
from ablate.errors import DeviceError, ResultsError, StudyError
from benchmarks.cuda import NETWORKS, RECIPES, Scale, bench_cuda
from benchmarks.interleaved import TURN_SECONDS, Peer, summary, take_round

SUITES = sorted(path.stem.removeprefix("test_") for path in (ROOT / "benchmarks").glob("test_*.py"))


class Machine:
    """A clock that moves only when something is called, and keeps who was."""

    def __init__(self) -> None:
        self.now, self.called = 0.0, list[str]()

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: Callable[[int], float]) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds(self.called.count(name))
            self.called.append(name)

        return call


def test_every_round_takes_another_first_and_a_slow_moment_leaves_ratios_alone() -> None:
    """The machine gets slower and slower; one peer takes half as long as the other throughout."""
    machine = Machine()
    slow = Peer(machine.work("slow", lambda number: 2.0 * 3.0**number))
    peers = {"slow": slow, "fast": Peer(machine.work("fast", lambda number: 3.0**number))}
    for number in range(8):
        take_round(peers, number, machine)
    assert machine.called[:6] == ["slow", "fast", "fast", "slow", "slow", "fast"]
    compared = summary(peers, ["slow"])["peers"]
    assert compared["fast"]["ratio"] == pytest.approx((0.5, 0.5, 0.5))
    assert compared["slow"]["ratio"] is None
    assert compared["fast"]["seconds"] == pytest.approx([3.0**number for number in range(8)])


def test_a_time_is_for_one_unit_of_one_of_the_calls_that_fill_a_turn() -> None:
    machine = Machine()
    peer = Peer(machine.work("quick", lambda number: TURN_SECONDS / 10), units=4)
    assert peer.warm_up(machine) == pytest.approx(TURN_SECONDS)
    peer.take_turn(machine)
    assert peer.seconds == pytest.approx([TURN_SECONDS / 40])
    assert len(machine.called) == 11
    long = Peer(machine.work("long", lambda number: 2 * TURN_SECONDS))
    long.warm_up(machine)
    assert (peer.calls, long.calls) == (10, 1)


def peers_of(**seconds: list[float]) -> dict[str, Peer]:
    return {name: Peer(lambda: None, seconds=own, cpu_seconds=own) for name, own in seconds.items()}


def test_the_faster_reference_is_what_others_are_divided_by() -> None:
    compared = summary(peers_of(ours=[3.0], one=[6.0], two=[2.0]), ["one", "two"])
    ratios = {name: found["ratio"] for name, found in compared["peers"].items()}
    none = (None, None)  # one round has no interval
    assert compared["reference"] == "two"
    assert ratios == {"ours": (1.5, *none), "one": (3.0, *none), "two": None}
    assert summary(peers_of(ours=[3.0]), [])["peers"]["ours"]["ratio"] is None
    # As tables of the sign test have it: at 40 rounds, 2 P(Bin(40, 1/2) < 14) = .038 and < 15 .081.
    for rounds, ends in ((5, (None, None)), (6, (1, 6)), (40, (14, 27))):
        taken = np.random.default_rng(0).permutation(np.arange(1.0, rounds + 1)).tolist()
        compared = summary(peers_of(ours=taken, plain=[1.0] * rounds), ["plain"])
        assert compared["peers"]["ours"]["ratio"] == (np.median(taken), *ends)


def bench(here: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate", "bench", *words]
    own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=here, env=own, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_from_a_wheel_it_says_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "ablate").symlink_to(ROOT / "ablate")  # the package without what stands beside it
    result = bench(tmp_path, "loss", "driver", PYTHONPATH=str(tmp_path))
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert "benchmarks/test_loss.py, benchmarks/test_driver.py" in result.stderr


def test_without_a_name_the_timed_suites_run_and_a_simulation_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("ablate.bench.run_benchmarks", lambda names, **_: asked.extend(names))  # for minutes
    CliRunner().invoke(app, ["bench"])
    assert sorted(asked) == SUITES
    for alone in ("statistics", "cuda"):
        with pytest.raises(StudyError, match=f"give {alone} alone"):
            CliRunner().invoke(app, ["bench", "loss", alone], catch_exceptions=False)
    with pytest.raises(ResultsError, match="a folder that exists"):  # before anything is measured
        run_benchmarks(["loss"], out=Path("nowhere") / "timings.json", quick=True)


CASES = """
import time
import pytest
from benchmarks.interleaved import Peer

def test_wrong(compare):
    raise RuntimeError("the case is broken")

def test_elsewhere(compare):
    pytest.skip("not on this machine")

def test_waiting(compare):
    peers = {"plain": Peer(lambda: None), "slow": Peer(lambda: time.sleep(0.01), units=2)}
    compare("waiting", peers, ["plain"], unit="nap")
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree whose benchmarks are another suite, in a place with a pytest of its own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    folder, others = tmp_path / "benchmarks", shutil.ignore_patterns("test_*.py")
    shutil.copytree(ROOT / "benchmarks", folder, ignore=others)
    (tmp_path / "ablate").symlink_to(ROOT / "ablate")
    (folder / "test_loss.py").write_text(CASES)
    (folder / "test_step.py").write_text("import no_such_module\n")
    return tmp_path


@pytest.mark.slow
def test_the_command_runs_every_case_and_keeps_the_numbers(tree: Path) -> None:
    hostile = {"PYTEST_ADDOPTS": "--no-such-option", "PYTEST_PLUGINS": "no_such_plugin"}
    words = ("loss", "step", "--quick", "--json", "timings.json")
    result = bench(tree, *words, PYTHONPATH=str(tree), **hostile)
    assert result.returncode == 2, result.stdout + result.stderr
    for said in ("RuntimeError: the case is broken", "no_such_module", "not on this machine", "naps/s"):
        assert said in result.stdout
    stored = json.loads((tree / "timings.json").read_bytes())
    (case,) = stored["benchmarks"]
    rounds = len(case["extra_info"]["peers"]["slow"]["seconds"])
    assert (case["group"], case["stats"]["rounds"], rounds) == ("waiting", 1, 1)
    assert case["stats"]["min"] >= 0.01  # a round holds the nap
    assert platform.node() not in stored["machine_info"].values()
    assert stored["machine_info"]["instructions"]


@pytest.mark.soak
@pytest.mark.parametrize(
    "suite", [pytest.param(name, marks=pytest.mark.imagenette if name == "epoch" else ()) for name in SUITES]
)
def test_a_suite_works(suite: str, tmp_path: Path) -> None:
    if suite == "epoch" and "ABLATE_DATA_DIR" not in os.environ:
        pytest.skip("ABLATE_DATA_DIR does not name a folder with imagenette2-160")
    result = bench(tmp_path, suite, "--quick", "--json", "timings.json")
    assert result.returncode == 0, result.stdout + result.stderr
    cases = json.loads((tmp_path / "timings.json").read_bytes())["benchmarks"]
    shown = [name for case in cases for name in case["extra_info"]["peers"]]
    assert shown
    assert all(name in result.stdout for name in shown)


SMALL = Scale(images=20, side=32, parity_images=40, copied=2**16, multiplied=32, files=160, sweep=(2, 1))


@pytest.mark.cuda
@pytest.mark.slow
def test_every_part_is_measured_and_what_should_agree_agrees(tmp_path: Path) -> None:
    said: list[str] = []
    assert bench_cuda(said.append, tmp_path / "cuda.json", SMALL)
    known: dict[str, list[dict[str, Any]]] = json.loads((tmp_path / "cuda.json").read_text())
    assert list(known) == ["card", "loss", "training", "epochs", "from_files"]
    assert len(said) == sum(map(len, known.values()))
    for row in known["loss"]:
        assert row["value"] < 1e-6
        assert row["gradient"] < (1e-6 if row["dtype"] == "torch.float32" else 4e-3)
    assert len(known["training"]) == len(NETWORKS) * len(RECIPES) * 2
    for row in known["training"]:
        assert (row["engine"], row["graph_to_eager"] < 1e-3) == ("graph", True)
        if row["precision"] == "float32" and row["recipe"] == "source":
            assert row["eager_to_cpu"] < 1e-2
    assert [row["engine"] for row in known["epochs"]] == ["eager", "graph"] * len(NETWORKS) * len(RECIPES)
    assert all(row["seconds"] > 0 and row["part_of_copies"] > 0 for row in known["epochs"])
    swept = [(row["engine"], row["trials"], row["failed"]) for row in known["from_files"][1:]]
    assert swept == [("eager", 2, 0), ("graph", 2, 0)]


@pytest.mark.cuda
def test_cut_off_it_leaves_what_it_has(tmp_path: Path) -> None:
    said: list[str] = []
    assert not bench_cuda(said.append, tmp_path / "cuda.json", Scale(seconds=0, copied=8, multiplied=2))
    assert list(json.loads((tmp_path / "cuda.json").read_text())) == ["card"]
    assert "was not measured" in said[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="about a machine without CUDA")
def test_without_cuda_it_says_that_it_needs_one() -> None:
    with pytest.raises(DeviceError, match="expected a CUDA device"):
        bench_cuda(print, None)
