"""Reports: CSV tables and the plan become one HTML page, its Markdown twin and their numbers as JSON."""

from ablate.report.content import build_report, write_report

__all__ = ["build_report", "write_report"]
