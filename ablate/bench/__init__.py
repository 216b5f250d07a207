"""The way to the benchmarks, which are in the source tree under `benchmarks/`; and what needs no such tree.

`statistics` and `tune` simulate studies and searches, and time nothing. `cuda` measures a GPU.
"""

from ablate.bench.run import run_simulation, run_suites, run_tuning, write_json

__all__ = ["run_simulation", "run_suites", "run_tuning", "write_json"]
