"""Two recorded studies side by side: each arm that both have, and what differs between the runs."""

from ablate.compare.differences import (
    METRICS_SHOWN,
    Comparison,
    Difference,
    can_be_paired,
    compare_runs,
    welch_interval,
)
from ablate.compare.run import Run, read_run
from ablate.compare.show import show_comparison, write_csv

__all__ = [
    "METRICS_SHOWN",
    "Comparison",
    "Difference",
    "Run",
    "can_be_paired",
    "compare_runs",
    "read_run",
    "show_comparison",
    "welch_interval",
    "write_csv",
]
