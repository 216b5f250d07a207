"""Two recorded studies side by side: each arm that both have, and what differs between the runs."""

from ablate.compare.differences import (
    METRICS_SHOWN,
    Comparison,
    Difference,
    can_be_paired,
    compare_runs,
    difference,
    higher_is_better,
    measured_columns,
    paired,
)
from ablate.compare.files import write_csv, write_markdown
from ablate.compare.run import Run, Sample, read_run
from ablate.compare.show import show_comparison
from ablate.compare.welch import WelchEffect, welch_effect, welch_verdict
from ablate.compare.words import caution_text, difference_text, mean_text, method_text, verdict_text

__all__ = [
    "METRICS_SHOWN",
    "Comparison",
    "Difference",
    "Run",
    "Sample",
    "WelchEffect",
    "can_be_paired",
    "caution_text",
    "compare_runs",
    "difference",
    "difference_text",
    "higher_is_better",
    "mean_text",
    "measured_columns",
    "method_text",
    "paired",
    "read_run",
    "show_comparison",
    "verdict_text",
    "welch_effect",
    "welch_verdict",
    "write_csv",
    "write_markdown",
]
