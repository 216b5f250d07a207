"""The way to the benchmarks, which are in the source tree under `benchmarks/`."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import ablate
from ablate.errors import ResultsError

ROOT = Path(ablate.__file__).parent.parent  # of the source tree, if the package is run from there
QUICK = ("--benchmark-min-rounds=1", "--benchmark-max-time=0", "--images=256")
ALONE = {"cuda": "cuda", "statistics": "simulated_studies", "tune": "simulated_searches"}
"""What pytest-benchmark does not time: each is a command of its own."""


def run_benchmarks(names: Sequence[str], *, out: Path | None, quick: bool) -> int:
    """Run suites under a pytest without any plugin or option of the user's; returns its exit status."""
    files = [Path("benchmarks", f"{ALONE.get(name, f'test_{name}')}.py") for name in names]
    if absent := [str(file) for file in files if not (ROOT / file).is_file()]:
        raise ResultsError(
            f"bench: expected {', '.join(absent)} in {ROOT}; run it in the project's source tree"
        )
    if out is not None and not out.absolute().parent.is_dir():
        raise ResultsError(f"{out}: expected a file in a folder that exists; name another with --json")
    if names[0] in ALONE:
        arguments, to_file = [f"benchmarks.{files[0].stem}", *(["--repeats=2"] if quick else [])], "--json"
    else:
        if importlib.util.find_spec("pytest_benchmark") is None:
            raise ResultsError("bench: expected pytest-benchmark; `pip install -e '.[bench]'` installs it")
        arguments = ["pytest", "-p", "pytest_benchmark.plugin", *(QUICK if quick else ()), *map(str, files)]
        to_file = "--benchmark-json"
    if out is not None:
        arguments.append(f"{to_file}={out.absolute()}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=environment).returncode
