"""Running suites under a pytest that knows only them: no configuration or plugin of the user's takes part."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ablate.bench import tune
from ablate.bench.statistics import REPEATS, show_outcomes, simulate, situations
from ablate.bench.statistics import Outcome as Simulated
from ablate.bench.tune import Outcome as Searched
from ablate.terminal import print_line

HERE = Path(__file__).parent
SUITES = {"loss": HERE / "bench_loss.py", "step": HERE / "bench_step.py"}
PLAIN = "torch"
"""The implementation that others of its group are divided by."""


@dataclass(frozen=True)
class Timing:
    """One case that was timed.

    Attributes:
        group: what was computed, and where.
        implementation: by whom.
        median_ms: median time of a call, ms.
        low_ms: first quartile.
        high_ms: third quartile.
        rounds: how many times it was timed.
        device_ms: what the GPU needs of it; None on a CPU.
        ratio: median over that of plain torch in the same group; None where that was not timed.
    """

    group: str
    implementation: str
    median_ms: float
    low_ms: float
    high_ms: float
    rounds: int
    device_ms: float | None
    ratio: float | None


@dataclass
class Outcome:
    """What became of the cases.

    Attributes:
        timings: of the cases that were timed.
        failures: the others' names, each with the reason.
        skipped: cases that do not apply here, each with the reason.
        interrupted: whether the rest was given up.
        load: how many processes wanted a CPU core in the minute before; NaN where the system does not say.
        stored: pytest-benchmark's JSON, the host's name left out.
    """

    timings: tuple[Timing, ...] = ()
    failures: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    interrupted: bool = False
    load: float = math.nan
    stored: dict[str, Any] = field(default_factory=dict)


def run_suites(names: Sequence[str], console: Console) -> Outcome:
    """Run suites by their names in `SUITES`, with a line for each case as it ends."""
    return run_files([SUITES[name] for name in names], console)


def run_simulation(console: Console, *, repeats: int = REPEATS) -> Outcome:
    """Simulate studies of every situation, and print how often the verdicts err.

    Args:
        console: told of each situation as it is done, then of the table.
        repeats: studies of each kind in each situation.

    Returns:
        Without timings; what is stored are the shares, unrounded, and None for one that cannot be told.
    """
    outcomes = []
    for place, situation in enumerate(situations()):
        # A stream for each situation, as in ablate.bench.statistics, so that both give the same table.
        outcomes.append(simulate(situation, rng=np.random.default_rng([0, place]), repeats=repeats))
        print_line(console, f"done: {situation.name}, {situation.seeds} seeds, rho {situation.rho:g}")
    show_outcomes(console, outcomes)
    return Outcome(stored={"situations": [_stored(outcome) for outcome in outcomes]})


def _stored(outcome: Simulated | Searched) -> dict[str, Any]:
    found = dataclasses.asdict(outcome)
    return {
        **found.pop("situation"),
        **{name: share if math.isfinite(share) else None for name, share in found.items()},
    }


def run_tuning(console: Console, *, repeats: int | None = None) -> Outcome:
    """Simulate searches by every sampler, and print what they find.

    Args:
        console: told of each situation as it is done, then of the table.
        repeats: searches in each situation; as many as each has for its own if not given.

    Returns:
        Without timings; what is stored are the numbers, unrounded, and None for one that does not apply.
    """
    outcomes = []
    for situation in tune.situations():
        if repeats is not None:
            situation = dataclasses.replace(situation, repeats=repeats)
        outcomes.append(tune.simulate(situation))
        print_line(console, f"done: {situation.name}, {situation.sampler}, {situation.rule} values")
    tune.show_outcomes(console, outcomes)
    return Outcome(stored={"situations": [_stored(outcome) for outcome in outcomes]})


def run_files(files: Sequence[Path], console: Console) -> Outcome:
    """Run benchmark files. A case that fails is kept with its reason, and the others still run.

    Args:
        files: Python files with cases.
        console: told of each case as it ends.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    watcher = _Watcher(Console(file=console.file, force_terminal=console.is_terminal))
    with tempfile.TemporaryDirectory() as scratch, _own_pytest() as said:
        stored, config = Path(scratch) / "timings.json", Path(scratch) / "pytest.ini"
        config.write_text("[pytest]\n", encoding="utf-8")
        status = pytest.main([*_arguments(files, config, stored), *map(str, files)], plugins=[watcher])
        content = json.loads(stored.read_bytes()) if stored.exists() and stored.stat().st_size else {}
    outcome = watcher.outcome
    outcome.load = load
    outcome.interrupted = status == pytest.ExitCode.INTERRUPTED and not outcome.failures
    if status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
        lines = said.getvalue().strip().splitlines() or ["no reason was given"]
        outcome.failures.append(("pytest", f"stopped with status {int(status)}: {lines[-1]}"))
    content.get("machine_info", {}).pop("node", None)  # the host's name: what is shared should not tell it
    outcome.stored, outcome.timings = content, tuple(read_timings(content))
    return outcome


def _arguments(files: Sequence[Path], config: Path, stored: Path) -> list[str]:
    return [
        f"--config-file={config}",
        f"--rootdir={os.path.commonpath([path.parent for path in files])}",
        "--noconftest",
        "--import-mode=importlib",
        *("-p", "no:cacheprovider"),
        *("-p", "pytest_benchmark.plugin"),
        "--continue-on-collection-errors",
        "--benchmark-only",
        "--benchmark-max-time=0.5",
        "--benchmark-disable-gc",
        f"--benchmark-json={stored}",
    ]


@contextlib.contextmanager
def _own_pytest() -> Iterator[io.StringIO]:
    """Without the user's options and plugins; yields where pytest's own output goes."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("PYTEST")}
    for name in kept:
        del os.environ[name]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield said
    finally:
        del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        os.environ.update(kept)


class _Watcher:
    """A pytest plugin that keeps what failed or was skipped, and says what is done."""

    def __init__(self, console: Console) -> None:
        self.console, self.outcome = console, Outcome()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed(report)
        elif report.skipped:
            self.outcome.skipped.append((_case(report.nodeid), _skip_reason(report)))
        elif report.when == "call":
            print_line(self.console, f"done: {_case(report.nodeid)}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failed(report)

    def _failed(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else report.longreprtext
        lines = [line.removeprefix("E ").strip() for line in text.strip().splitlines()] or [
            "no reason was given"
        ]
        reason = lines[0] if crash else lines[-1]
        self.outcome.failures.append((_case(report.nodeid), reason))
        print_line(self.console, f"failed: {_case(report.nodeid)}")


def _case(nodeid: str) -> str:
    return nodeid.rpartition("/")[2]


def _skip_reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return reason.removeprefix("Skipped: ")


def read_timings(stored: dict[str, Any]) -> Iterator[Timing]:
    """The cases of pytest-benchmark's JSON, each with its ratio to plain torch within its group."""
    cases = stored.get("benchmarks", [])
    plain = {
        case["group"]: case["stats"]["median"]
        for case in cases
        if case["extra_info"]["implementation"] == PLAIN
    }
    for case in cases:
        stats, base = case["stats"], plain.get(case["group"])
        yield Timing(
            group=case["group"],
            implementation=case["extra_info"]["implementation"],
            median_ms=1000 * stats["median"],
            low_ms=1000 * stats["q1"],
            high_ms=1000 * stats["q3"],
            rounds=stats["rounds"],
            device_ms=case["extra_info"].get("device_ms"),
            ratio=stats["median"] / base if base else None,
        )
