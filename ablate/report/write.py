"""Writing a report: the tables read, the effects added, the pages and figures written."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ablate.analysis.arms import of_plan
from ablate.errors import ResultsError
from ablate.figures import draw_figures
from ablate.report.content import build_report, derived_tables
from ablate.report.pages import render_html, render_markdown
from ablate.store.results import ResultsFolder, read_plan, write_atomically
from ablate.tables import COLUMNS, DERIVED, read_tables, write_tables

CARRIED_ALWAYS = ("trials.csv",)
LARGEST_CARRIED = 250_000
"""Bytes up to which the other tables travel inside the page, so that it stays small enough to mail."""


def write_report(results: ResultsFolder, report_dir: Path) -> Path:
    """Render a study's report from its plan and its tables. Predictions and records are not read.

    Writes the tables that follow from the others beside them, and report.json, index.html, report.md and
    figures/*.svg in the report's folder. The same tables give the same bytes.

    Returns:
        The path of index.html.

    Raises:
        RecordError: the plan or a table is missing or damaged, or they do not belong together.
        ResultsError: the report's folder cannot be written.
        StudyError: the study is about a metric that the trials table does not have.
    """
    try:
        (report_dir / "figures").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=report_dir):
            pass
    except OSError as error:
        raise ResultsError(
            f"{report_dir}: the report cannot be written ({error.strerror}); "
            "choose another folder with --report"
        ) from None
    plan = read_plan(results)
    tables = of_plan(read_tables(results, names=[name for name in COLUMNS if name not in DERIVED]), plan)
    derived = derived_tables(tables, plan)
    write_tables(results, derived)
    for former in ("contrasts", "trends"):  # rows of the effects table now
        (results.root / f"{former}.csv").unlink(missing_ok=True)
    figures = draw_figures({**tables, **derived}, plan)
    report = build_report(tables, plan, figures, derived)
    files = {file["name"]: (results.root / file["name"]).read_bytes() for file in report["downloads"]}
    carried = {
        name: content
        for name, content in files.items()
        if name in CARRIED_ALWAYS or len(content) <= LARGEST_CARRIED
    }
    content = {
        "report.json": f"{json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)}\n".encode(),
        "index.html": render_html(report, figures, carried).encode(),
        "report.md": render_markdown(report).encode(),
    }
    for figure in figures:
        if not figure.error:
            content[f"figures/{figure.name}.svg"] = figure.light
            content[f"figures/{figure.name}-dark.svg"] = figure.dark
    for name, data in content.items():
        write_atomically(report_dir / name, data)
    for old in (report_dir / "figures").glob("*.svg"):  # of an earlier report
        if f"figures/{old.name}" not in content:
            old.unlink()
    return report_dir / "index.html"
