"""What is asked of recorded studies: two runs side by side, conditions for a test, what a run would add."""

from ablate.gate.check import Finding, Result, check_study, show_result
from ablate.gate.compare import METRICS_SHOWN, Comparison, compare_runs
from ablate.gate.comparison_shown import show_comparison, write_csv, write_markdown
from ablate.gate.condition import parse
from ablate.gate.duration import Duration, expected_duration
from ablate.gate.plan import Detectable, Forecast, forecast, pooled_sd, show_forecast
from ablate.gate.runs import Run, read_run

__all__ = [
    "METRICS_SHOWN",
    "Comparison",
    "Detectable",
    "Duration",
    "Finding",
    "Forecast",
    "Result",
    "Run",
    "check_study",
    "compare_runs",
    "expected_duration",
    "forecast",
    "parse",
    "pooled_sd",
    "read_run",
    "show_comparison",
    "show_forecast",
    "show_result",
    "write_csv",
    "write_markdown",
]
