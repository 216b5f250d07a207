"""Timings of the loss and of a training step beside plain torch, as pytest-benchmark suites.

Each `bench_*.py` is a suite; its cases say with `measured_as` which group they belong to and what it is that
is timed. `statistics` and `tune` are another matter: they simulate studies and searches, and time nothing.
"""

from ablate.bench.run import SUITES, Outcome, Timing, run_files, run_simulation, run_suites, run_tuning
from ablate.bench.show import show_timings, write_json

__all__ = [
    "SUITES",
    "Outcome",
    "Timing",
    "run_files",
    "run_simulation",
    "run_suites",
    "run_tuning",
    "show_timings",
    "write_json",
]
