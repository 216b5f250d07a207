"""A study of four trials that take a millisecond each, and what is compared of it."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

import ablate
from ablate.pipeline import Run
from ablate.store.results import ResultsFolder
from ablate.study.study import Study

STUDY: dict[str, Any] = {
    "question": "?", "name": "quick", "train": "quick:train", "factors": {"lr": (0.1, 0.2)}, "seeds": 2,
    "baseline": {"lr": 0.1}, "primary": "accuracy",
}  # fmt: skip
FULL = bool(os.environ.get("ABLATE_FAULTS"))
"""Whether every step, and as many kills and flips as the project asks of itself, are to be tried."""
TIMES = [
    "seconds", "step_ms", "step_ms_p20", "step_ms_p80", "images_per_second", "peak_memory_mb",
    "train_seconds", "eval_seconds",
]  # fmt: skip


def folder_of(here: Path) -> ResultsFolder:
    return ResultsFolder(here / "results" / "quick" / "default")


def run(here: Path, **changes: Any) -> Run:
    """Run the study in this process."""
    study = Study(**{**STUDY, **changes})
    return ablate.run(study, results=here / "results", report=here / "report", workers=0, timing=False)


def tables_of(root: Path) -> dict[str, str]:
    """Every table of a folder as text, times apart."""
    read = {path.name: pd.read_csv(path, dtype=str) for path in sorted(root.glob("*.csv"))}
    return {name: table.drop(columns=TIMES, errors="ignore").to_csv() for name, table in read.items()}
