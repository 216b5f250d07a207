"""The picture in docs/architecture.md, held: what each stage imports of ablate, and which libraries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ablate

ROOT = Path(ablate.__file__).parent
RIGHT_HALF = {"metrics", "tables", "stats", "plots", "report"}

# stage -> the stages it may import, itself aside. `errors` is open to all.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "recipes": set(),
    "fields": {"recipes"},
    "provenance": set(),
    "search": {"fields"},
    "study": {"fields", "search", "notebook"},  # Study.run imports it when called: an entrance of its own
    "trials": {"fields", "study"},
    "results": {"trials"},
    "points": {"search", "results"},
    "records": {"trials", "results"},
    "data": set(),
    "foreign": set(),
    "models": {"foreign"},
    "losses": {"foreign"},
    "train": set(),
    "executors": {"records"},
    "run": {
        "fields", "trials", "data", "models", "losses", "train", "results", "records", "provenance",
    },
    "inputs": {"fields", "trials", "data", "models", "losses", "train"},
    "driver": {
        "fields", "inputs", "study", "trials", "train", "results", "records", "executors", "run", "timing",
    },
    "tune": {
        "search", "study", "fields", "trials", "results", "points", "records", "data", "executors", "run",
        "inputs", "driver", "metrics", "tables", "finish",
    },
    "progress": {"trials", "points", "records", "executors", "run", "terminal"},
    "notebook": {
        "fields", "study", "trials", "records", "executors", "driver", "progress", "tables", "finish",
    },
    "publish": {"results", "records"},
    "terminal": set(),
    "status": {"trials", "results", "points", "records", "terminal"},
    "forecast": {"trials", "results", "records", "metrics", "stats", "report", "status", "terminal"},
    "compare": {"fields", "trials", "results", "tables", "stats", "report", "terminal"},
    "check": {"compare", "fields", "metrics", "report", "stats", "terminal"},
    "inventory": {"data", "terminal"},
    "doctor": {"fields", "study", "data", "train", "inputs", "driver", "provenance", "terminal"},
    "bench": {
        "fields", "search", "trials", "models", "losses", "train", "run", "inputs", "stats", "terminal",
        "tune", "driver", "finish", "progress", "provenance", "results", "study",},
    "metrics": set(),
    "timing": {"trials", "results", "records", "data", "losses", "train", "run"},
    "tables": {
        "fields", "search", "points", "metrics", "records", "results", "stats", "timing", "trials",
    },
    "stats": set(),
    "plots": set(),
    "finish": {"fields", "study", "trials", "results", "tables", "metrics", "report"},
    "report": {
        "fields", "search", "study", "trials", "results", "points", "tables", "metrics", "stats", "plots",
        "timing",
    },
}  # fmt: skip

# library -> the only stages that may import it.
ONLY_IN: dict[str, set[str]] = {
    "torch": {"losses", "models", "train", "run", "inputs", "driver", "timing", "doctor", "bench"},
    "torchvision": {"models", "data", "bench"},
    "pandas": {"tables", "plots", "report"},
    "matplotlib": {"plots"},
    "seaborn": {"plots"},
    "jinja2": {"report"},
    "joblib": {"tables"},
    "statsmodels": set(),
    "sklearn": {"data", "stats"},
    "optuna": {"tune"},
    "psycopg": {"tune"},
    "pydantic": {
        "recipes",
        "fields",
        "search",
        "study",
        "trials",
        "results",
        "points",
        "records",
        "timing",
    },
    "typer": {"__main__"},
    "pytest": set(),
}


def stage_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [alias.name for alias in node.names]
            yield from (
                (f"ablate.{name}" for name in names) if node.module == "ablate" else [node.module or ""]
            )


MODULES = sorted(path for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_stage_imports_nothing_sideways_or_to_its_right(path: Path) -> None:
    stage = stage_of(path)
    if stage in {"__main__", "__init__"}:
        return  # the entrances
    allowed = MAY_IMPORT[stage] | {stage, "errors"}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("ablate.")}
    assert used <= allowed, f"{stage} imports {sorted(used - allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_heavy_library_stays_in_its_stage(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path)}
    for library, stages in ONLY_IN.items():
        assert library not in used or stage_of(path) in stages, f"{library} in {path.relative_to(ROOT)}"


def test_every_stage_is_in_the_picture() -> None:
    assert {stage_of(path) for path in MODULES} - {"__main__", "__init__"} == set(MAY_IMPORT)


def test_no_room_has_a_name_that_says_nothing() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize(
    "module", [*sorted(RIGHT_HALF), "study", "records", "publish", "status", "compare", "check", "__main__"]
)
def test_reading_and_reporting_need_no_torch(module: str) -> None:
    code = f"import ablate.{module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
