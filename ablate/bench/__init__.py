"""Timings of the loss and of a training step beside plain torch, as pytest-benchmark suites.

Each `bench_*.py` is a suite; its cases say with `measured_as` which group they belong to and what it is that
is timed. `statistics` is another matter: it simulates studies, and times nothing.
"""

from ablate.bench.run import SUITES, Outcome, Timing, run_files, run_simulation, run_suites
from ablate.bench.show import show_timings, write_json

__all__ = [
    "SUITES",
    "Outcome",
    "Timing",
    "run_files",
    "run_simulation",
    "run_suites",
    "show_timings",
    "write_json",
]
