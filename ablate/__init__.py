"""Trustworthy ablation studies of training knobs: accuracy, calibration and step time, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.study import Choice, Profile, Published, Range, Search, Study
    from ablate.tables import Tables

DECLARED = ("Choice", "Profile", "Published", "Range", "Search", "Study")
__all__ = ["Choice", "Profile", "Published", "Range", "Search", "Study", "load_study", "load_tables"]


def __getattr__(name: str) -> Any:
    """What a study is declared with, imported when first asked for, so that `import ablate` is instant."""
    if name not in DECLARED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ablate import study

    return getattr(study, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_study(path: str | Path) -> Study:
    """Run a study file and return its `study`; `.run()` trains what is missing of it.

    Raises:
        StudyError: the file is missing, is not Python, fails when run, exits, or defines no `study`.
    """
    from ablate import study

    return study.load_study(path)


def load_tables(study: str, *, profile: str | None = None, results: str | Path = "results") -> Tables:
    """Read the tables of a study that was run: DataFrames by name, their columns as in results/README.md.

    Args:
        study: the study's name: its file's, without the ending.
        profile: which of the profiles that were run; may be left out when there is only one.
        results: folder of the results.

    Raises:
        ResultsError: no such study or profile was run.
        RecordError: a table is missing or damaged.
    """
    from ablate.store.results import find_results
    from ablate.tables import read_tables

    return read_tables(find_results(Path(results), study, profile))
