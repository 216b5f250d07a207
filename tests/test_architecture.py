"""The picture in docs/architecture.md, held: what each room imports of ablate, and which libraries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ablate

ROOT = Path(ablate.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# room -> the rooms it may import, itself aside, each of which stands above it. `errors` is open to all.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "terminal": set(),
    "plugins": set(),
    "study": set(),
    "search": {"study"},
    "store": {"study"},
    "data": {"terminal"},
    "models": {"plugins"},
    "losses": {"plugins"},
    "train": {"study", "store"},
    "execution": {"study", "data", "models", "losses", "train", "store", "terminal"},
    "metrics": set(),
    "stats": set(),
    "tables": {"study", "store", "metrics", "stats"},
    "analysis": {"study", "store", "metrics", "stats", "tables"},
    "figures": {"study", "store", "stats", "tables", "analysis"},
    "report": {"study", "store", "metrics", "stats", "tables", "analysis", "figures"},
    "tuning": {"study", "store", "data", "execution", "metrics", "tables"},
    "status": {"study", "store", "terminal"},
    "gate": {"study", "store", "metrics", "stats", "tables", "analysis", "status", "terminal"},
    "doctor": {"study", "data", "train", "store", "execution", "terminal"},
    "notebook": {"tables"},
    "pipeline": {"study", "store", "execution", "metrics", "tables", "report", "tuning", "notebook"},
    "bench": {"study", "store", "models", "losses", "train", "execution", "pipeline"},
}  # fmt: skip

# library -> the only rooms that may import it.
ONLY_IN: dict[str, set[str]] = {
    "torch": {"models", "losses", "train", "execution", "doctor", "bench"},
    "torchvision": {"data", "models", "bench"},
    "pandas": {"tables", "analysis", "figures", "report", "gate"},
    "matplotlib": {"figures"},
    "seaborn": {"figures"},
    "jinja2": {"report"},
    "joblib": {"tables"},
    "sklearn": {"data", "stats"},
    "optuna": {"tuning"},
    "psycopg": {"tuning"},
    "pydantic": {"study", "store", "execution"},
    "typer": {"__main__"},
    "pytest": set(),
}
NEED_NO_TORCH = ["study", "metrics", "tables", "analysis", "figures", "report", "pipeline", "notebook",
                 "store.records", "status", "gate", "__main__"]  # fmt: skip


def room_of(path: Path) -> str:
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


def test_a_room_imports_nothing_sideways_or_to_its_right() -> None:
    faults = []
    for path in MODULES:
        room = room_of(path)
        if room in {"__main__", "__init__"}:
            continue  # the entrances
        used = {name.split(".")[1] for name in imports(path) if name.startswith("ablate.")}
        faults += [f"{path.relative_to(ROOT)}: {n}" for n in used - MAY_IMPORT[room] - {room, "errors"}]
    assert not faults


def test_the_rooms_stand_in_one_order() -> None:
    rooms = list(MAY_IMPORT)
    back = [
        (room, name)
        for room, names in MAY_IMPORT.items()
        for name in names
        if rooms.index(name) > rooms.index(room)
    ]
    assert not back


def test_a_heavy_library_stays_in_its_rooms() -> None:
    faults = []
    for path in MODULES:
        used = {name.split(".")[0] for name in imports(path)}
        faults += [
            f"{path.relative_to(ROOT)}: {x}" for x in used & set(ONLY_IN) if room_of(path) not in ONLY_IN[x]
        ]
    assert not faults


def test_every_room_is_in_the_picture() -> None:
    assert {room_of(path) for path in MODULES} - {"__main__", "__init__"} == set(MAY_IMPORT)


def test_no_room_has_a_name_that_says_nothing() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("module", NEED_NO_TORCH)
def test_reading_and_reporting_need_no_torch(module: str) -> None:
    code = f"import ablate.{module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
