"""The benchmark runner: faults kept apart, ratios within a group, nothing of the user's pytest."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from ablate.bench import Outcome, Timing, show_timings
from ablate.bench.bench_loss import IMPLEMENTATIONS, SHAPES
from ablate.bench.measure import measure
from ablate.bench.run import SUITES, read_timings

CASES = Path(__file__).with_name("bench_cases.py")
RUN = """
import dataclasses, json, sys
from pathlib import Path
from rich.console import Console
from ablate.bench import run_files
outcome = run_files([Path(name) for name in sys.argv[1:]], Console(file=sys.stderr))
print(json.dumps(dataclasses.asdict(outcome)))
"""


def run(here: Path, *files: Path) -> tuple[dict[str, Any], str]:
    """In a process of its own, as pytest does not run inside itself."""
    hostile = {"PYTEST_ADDOPTS": "--no-such-option", "PYTEST_PLUGINS": "no_such_plugin"}
    result = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, files)],
        cwd=here,
        env={**os.environ, **hostile},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    outcome: dict[str, Any] = json.loads(result.stdout)
    return outcome, result.stderr


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    here = tmp_path_factory.mktemp("bench")
    (here / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (here / "conftest.py").write_text("raise RuntimeError('the conftest of somebody else')\n")
    broken = here / "bench_broken.py"
    broken.write_text("import no_such_module\n")
    return run(here, broken, CASES)


def test_a_fault_hides_no_other_case(outcome: tuple[dict[str, Any], str]) -> None:
    found, told = outcome
    assert [timing["implementation"] for timing in found["timings"]] == ["torch", "slow", "slow"]
    broken, wrong = found["failures"]
    assert "bench_broken.py" in broken[0]
    assert "no_such_module" in broken[1]
    assert wrong == ["bench_cases.py::test_wrong", "RuntimeError: the case is broken"]
    assert found["skipped"] == [["bench_cases.py::test_elsewhere", "not on this machine"]]
    assert not found["interrupted"]
    assert "done: bench_cases.py::test_plain" in told
    assert "failed: bench_cases.py::test_wrong" in told


def test_ratios_are_to_plain_torch_of_the_same_group(outcome: tuple[dict[str, Any], str]) -> None:
    plain, slow, alone = outcome[0]["timings"]
    assert plain["ratio"] == 1.0
    assert slow["ratio"] == slow["median_ms"] / plain["median_ms"]
    assert slow["ratio"] > 1
    assert slow["median_ms"] > 30  # it sleeps that long
    assert (alone["group"], alone["ratio"]) == ("other", None)


def test_what_is_stored_is_pytest_benchmarks_without_the_host(outcome: tuple[dict[str, Any], str]) -> None:
    stored = outcome[0]["stored"]
    assert len(stored["benchmarks"]) == 3
    assert platform.node() not in stored["machine_info"].values()
    assert "cpu" in stored["machine_info"]


def test_a_file_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    found, _ = run(tmp_path, tmp_path / "bench_nothing.py")
    ((name, reason),) = found["failures"]
    assert name == "pytest"
    assert "file or directory not found" in reason


def timing(**changes: Any) -> Timing:
    known: dict[str, Any] = {
        "group": "g",
        "implementation": "torch",
        "median_ms": 1.5,
        "low_ms": 1.0,
        "high_ms": 2.0,
        "rounds": 7,
        "device_ms": None,
        "ratio": 1.0,
    }
    return Timing(**{**known, **changes})


def shown(outcome: Outcome) -> list[str]:
    console = Console(width=40)
    with console.capture() as capture:
        show_timings(console, outcome)
    return capture.get().splitlines()


def test_what_is_shown() -> None:
    timings = (timing(), timing(implementation="ablate", median_ms=0.5, ratio=0.25))
    assert shown(Outcome(timings, failures=[("a", "b")], skipped=[("c", "d")], load=3.0)) == [
        "g",
        "implementation  median  quartiles  rounds  to torch",
        "torch           1.5 ms     1 to 2       7     1.000",
        "ablate          0.5 ms     1 to 2       7     0.250",
        "skipped: c: d",
        "failed: a: b",
        "the machine was busy (load 3.0 before): ratios can be far off",
    ]
    assert shown(Outcome((timing(device_ms=0.75),)))[1].endswith("to torch  on the GPU")
    assert shown(Outcome(interrupted=True)) == ["interrupted: the other cases were not timed"]


def test_nothing_stored_is_no_timing() -> None:
    assert list(read_timings({})) == []


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_collects(suite: str, tmp_path: Path) -> None:
    config = tmp_path / "pytest.ini"
    config.write_text("[pytest]\n")
    arguments = ["-m", "pytest", "-q", "--collect-only", "-c", str(config), str(SUITES[suite])]
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    fewest = {"loss": len(SHAPES) * len(IMPLEMENTATIONS), "step": 14}[suite]
    assert sum("::test_" in line for line in result.stdout.splitlines()) >= fewest


class Recorder:
    """Takes the place of pytest-benchmark's fixture: calls what it is given, as often as it is told."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}
        self.asked: dict[str, int] = {}

    def __call__(self, call: Any) -> None:
        call()

    def pedantic(self, call: Any, rounds: int, warmup_rounds: int) -> None:
        self.asked = {"rounds": rounds, "warmup_rounds": warmup_rounds}
        call()


@pytest.mark.parametrize(("rounds", "calls"), [(0, 2), (10, 1)])
def test_a_cpu_call_is_measured_without_device_time(rounds: int, calls: int) -> None:
    called, fixture = [], Recorder()
    measure(fixture, lambda: called.append(1), torch.device("cpu"), rounds=rounds)
    assert len(called) == calls
    assert fixture.extra_info == {}
    assert fixture.asked == ({"rounds": 10, "warmup_rounds": 2} if rounds else {})


@pytest.mark.cuda(only_real="the pretended card has done everything when a call returns")
def test_a_cuda_call_is_waited_for() -> None:
    large, fixture = torch.ones(8192, 8192, device="cuda"), Recorder()
    pending: list[bool] = []

    class Asking(Recorder):
        def __call__(self, call: Any) -> None:
            call()
            pending.append(not torch.cuda.current_stream().query())

    fixture = Asking()
    measure(fixture, lambda: large @ large, torch.device("cuda"))
    assert pending == [False]
    assert fixture.extra_info["device_ms"] > 0.1


@pytest.mark.slow
def test_the_command_times_the_loss(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ablate", "bench", "loss", "--json", "timings.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "loss, cpu, 128 x 10, ε=0.1" in result.stdout
    stored = json.loads((tmp_path / "timings.json").read_bytes())
    assert {case["extra_info"]["implementation"] for case in stored["benchmarks"]} >= {"torch", "ablate"}
