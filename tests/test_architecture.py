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
    "channel": set(),
    "guarded": {"channel"},
    "study": {"plugins"},
    "search": {"study"},
    "store": {"study"},
    "data": {"terminal", "plugins"},
    "models": {"plugins"},
    "losses": {"plugins"},
    "train": {"plugins", "study", "models", "losses", "store"},
    "execution": {
        "plugins", "channel", "guarded", "study", "data", "models", "losses", "train", "store", "terminal",
    },
    "stats": set(),
    "metrics": {"stats"},
    "tables": {"guarded", "study", "store", "metrics", "stats", "terminal"},
    "analysis": {"study", "store", "metrics", "stats", "tables"},
    "figures": {"study", "store", "stats", "tables", "analysis"},
    "report": {"study", "store", "metrics", "stats", "tables", "analysis", "figures", "terminal"},
    "tuning": {"study", "store", "data", "execution", "metrics", "tables"},
    "status": {"study", "store", "terminal"},
    "gate": {
        "guarded", "study", "store", "execution", "metrics", "stats", "tables", "analysis", "tuning",
        "status", "terminal",
    },
    "doctor": {"study", "data", "train", "store", "execution", "terminal"},
    "pipeline": {"plugins", "study", "store", "execution", "metrics", "tables", "report", "tuning"},
    "external": {"study", "store", "stats", "tables", "report", "pipeline"},
    "export": {"study", "store", "tables", "analysis", "report"},
    "bench": set(),
    "starter": {"plugins", "guarded", "models"},
}  # fmt: skip

# library -> the only rooms that may import it.
ONLY_IN: dict[str, set[str]] = {
    "torch": {"models", "losses", "train", "execution", "doctor"}, "torchvision": {"data", "models"},
    "pandas": {"tables", "analysis", "figures", "report", "gate", "external", "export"},
    "matplotlib": {"figures"}, "seaborn": {"figures"}, "jinja2": {"report"}, "joblib": {"tables"},
    "sklearn": {"data", "stats"}, "optuna": {"tuning"}, "psycopg": {"tuning"}, "tensorboard": {"export"},
    "pydantic": {"study", "store", "execution"}, "typer": {"__main__"}, "pytest": set(),
}  # fmt: skip
NEED_NO_TORCH = ("report", "pipeline", "store.records", "status", "gate.check", "gate.plan")
LIGHT = {
    "ablate.figures": {"torch", "matplotlib", "seaborn"},
    "ablate": {"torch", "numpy", "pandas", "pydantic", "matplotlib", "rich", "typer"},
    "ablate.__main__": {"torch", "pandas", "matplotlib", "optuna", "scipy", "numpy"},
    **{f"ablate.{module}": {"torch"} for module in NEED_NO_TORCH},
}
"""What importing a module must not import: what leads to the trials, or to the report, is soon there."""


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            own = node.module == "ablate"
            yield from [f"ablate.{alias.name}" for alias in node.names] if own else [node.module or ""]


def test_a_room_imports_only_what_stands_left_of_it_and_its_own_libraries() -> None:
    faults, entrances = [], {"__main__", "__init__"}
    for path in MODULES:
        room = room_of(path)
        for name in set(imports(path)):
            library, _, module = name.partition(".")
            may = {*MAY_IMPORT.get(room, ()), room, "errors", ""}
            beside = library == "ablate" and room not in entrances and module.split(".")[0] not in may
            if beside or room not in ONLY_IN.get(library, {room}):
                faults.append(f"{path.relative_to(ROOT)}: {name}")
    assert not faults


def test_every_room_is_in_the_picture_and_they_stand_in_one_order() -> None:
    assert {room_of(path) for path in MODULES} - {"__main__", "__init__"} == set(MAY_IMPORT)
    rooms = list(MAY_IMPORT)
    assert not [(room, name) for room in rooms for name in MAY_IMPORT[room] - {*rooms[: rooms.index(room)]}]
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("module", LIGHT)
def test_what_is_wanted_soon_imports_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print(*sorted({LIGHT[module]} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "\n"
