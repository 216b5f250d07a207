"""The way to the benchmarks, which are files of the source tree; and the simulations, which are here."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import ablate
from ablate.bench import statistics, tune
from ablate.errors import ResultsError
from ablate.terminal import print_line

ROOT = Path(ablate.__file__).parent.parent
"""Of the source tree, if the package is run from there."""
QUICK = ("--benchmark-min-rounds=1", "--benchmark-max-time=0", "--images=256")


def run_suites(names: Sequence[str], *, out: Path | None, quick: bool, root: Path = ROOT) -> int:
    """Run benchmarks under a pytest that knows only them: no plugin or option of the user's takes part.

    Args:
        names: suites; `loss` is `benchmarks/test_loss.py`.
        out: file for pytest-benchmark's JSON.
        quick: a round of each case: whether it works, not how fast.
        root: of the source tree.

    Returns:
        pytest's exit status.

    Raises:
        ResultsError: there are no such benchmarks here, nothing to run them with, or `out` has no folder.
    """
    files = [Path("benchmarks", f"test_{name}.py") for name in names]
    if absent := [str(file) for file in files if not (root / file).is_file()]:
        raise ResultsError(
            f"bench: expected {', '.join(absent)} in {root}; the benchmarks are not part of the package, but "
            "in the project's source tree, under benchmarks/; run this command there"
        )
    if importlib.util.find_spec("pytest_benchmark") is None:
        raise ResultsError(
            "bench: expected pytest-benchmark, which is not installed; in the project's source tree, "
            "`pip install -e '.[bench]'` installs it"
        )
    if out is not None and not out.absolute().parent.is_dir():
        raise ResultsError(f"{out}: expected a file in a folder that exists; name another with --json")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    arguments = [
        *("-p", "pytest_benchmark.plugin"),
        *([f"--benchmark-json={out.absolute()}"] if out is not None else []),
        *(QUICK if quick else ()),
        *map(str, files),
    ]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=root,
        env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
    ).returncode


def run_simulation(console: Console, *, repeats: int = statistics.REPEATS) -> dict[str, Any]:
    """Simulate studies of every situation, and print how often the verdicts err.

    Args:
        console: told of each situation as it is done, then of the table.
        repeats: studies of each kind in each situation.

    Returns:
        The shares, unrounded, and None for one that cannot be told.
    """
    outcomes = []
    for place, situation in enumerate(statistics.situations()):
        rng = np.random.default_rng([0, place])
        outcomes.append(statistics.simulate(situation, rng=rng, repeats=repeats))
        print_line(console, f"done: {situation.name}, {situation.seeds} seeds, rho {situation.rho:g}")
    statistics.show_outcomes(console, outcomes)
    return {"situations": [_stored(outcome) for outcome in outcomes]}


def run_tuning(console: Console, *, repeats: int | None = None) -> dict[str, Any]:
    """Simulate searches by every sampler, and print what they find.

    Args:
        console: told of each situation as it is done, then of the table.
        repeats: searches in each situation; as many as each has for its own if not given.

    Returns:
        The numbers, unrounded, and None for one that does not apply.
    """
    outcomes = []
    for situation in tune.situations():
        if repeats is not None:
            situation = dataclasses.replace(situation, repeats=repeats)
        outcomes.append(tune.simulate(situation))
        print_line(console, f"done: {situation.name}, {situation.sampler}, {situation.rule} values")
    tune.show_outcomes(console, outcomes)
    return {"situations": [_stored(outcome) for outcome in outcomes]}


def _stored(outcome: statistics.Outcome | tune.Outcome) -> dict[str, Any]:
    found = dataclasses.asdict(outcome)
    return {
        **found.pop("situation"),
        **{name: share if math.isfinite(share) else None for name, share in found.items()},
    }


def write_json(path: Path, stored: dict[str, Any]) -> None:
    """Write what a simulation found.

    Raises:
        ResultsError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"{path}: the numbers cannot be written ({error.strerror}); name another file with --json"
        ) from None
