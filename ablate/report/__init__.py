"""Reports: CSV tables and the plan become one HTML page, its Markdown twin and their numbers as JSON."""

from ablate.report.content import build_report, write_report
from ablate.report.pages import render_html, render_markdown

__all__ = ["build_report", "render_html", "render_markdown", "write_report"]
