"""What a run ends with: tables from records, then the report; and what must hold for them beforehand.

Tables and the report are imported when they are made, so that a run gets to its trials sooner.
"""

from __future__ import annotations

import os
from pathlib import Path

from ablate.errors import ResultsError, StudyError
from ablate.metrics import METRICS
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.fields import unknown_name
from ablate.study.study import Study
from ablate.study.trials import Plan


def require_metrics(study: Study) -> None:
    """Refuse a study that names a metric that no table has, before anything is trained.

    Raises:
        StudyError: names every unknown one.
    """
    named = [("primary", study.primary), *(("family", name) for name in study.family)]
    named += [("margins", name) for name in study.margins]
    named += [("objective", name) for name in (study.search.objective if study.search else ())]
    unknown = [(place, name) for place, name in named if name not in METRICS]
    found = [f"{place}: {unknown_name('metric', name, METRICS)}" for place, name in unknown]
    if found:
        raise StudyError("\n".join(found))


def require_writable(report_dir: Path) -> None:
    """Refuse a report folder that cannot be written, before anything is trained.

    Raises:
        ResultsError: it, or the nearest folder above it that exists, is not a folder one may write in.
    """
    there = next(path for path in [report_dir, *report_dir.absolute().parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ResultsError(f"{report_dir}: the report cannot be written there; choose another with --report")


def write_results(folder: ResultsFolder, report_dir: Path) -> Path:
    """Tables from records, then the report from the tables; returns the report's page."""
    from ablate.report import write_report

    plan = rebuild_tables(folder)
    return write_report(folder, report_dir / plan.study.name / folder.root.name)


def rebuild_tables(folder: ResultsFolder) -> Plan:
    """Tables from records; published results without predictions keep the tables they have."""
    from ablate.tables import build_tables, write_tables

    plan = read_plan(folder)
    if folder.predictions.exists():
        write_tables(folder, build_tables(folder, plan))
    return plan
