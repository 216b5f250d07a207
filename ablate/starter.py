"""A study to start from, as `ablate init` writes it; of a network of one's own with what it takes."""

import inspect
import itertools
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from ablate.errors import StudyError
from ablate.guarded import guarded
from ablate.models import build_model
from ablate.plugins import load_foreign

SIZES = (8, 16, 32, 64, 128, 224)  # of the digits: the first that a network takes is written down


def write_study(file: Path, network: str | None) -> None:
    """Write a commented study to a new file, of a network by import path where one is named."""
    if file.suffix != ".py":
        raise StudyError(f"{file}: expected the name of a Python file, such as my_study.py")
    parts: dict[str, Any] = {"size": SIZES[0], "arch": "", "takes": ""}
    parts |= {"factor": "epsilon", "levels": (0.0, 0.1, 0.2)}
    if network is not None:
        sys.path.insert(0, str(file.resolve().parent))
        parts |= guarded(_of_network, network, what=f"trying {network}")
    text = files("ablate.study").joinpath("starter.txt").read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text.format(file=file, first=parts["levels"][0], **parts))
    except OSError as error:
        raise StudyError(f"{file}: cannot be written ({error.strerror}); give another name") from None


def _of_network(network: str) -> dict[str, Any]:
    parameters = inspect.signature(load_foreign("network", network)).parameters.values()
    known = {one.name: one.default for one in parameters if isinstance(one.default, (bool, int, float, str))}
    takes = ", ".join(f'"arch.{name}": {default!r}' for name, default in known.items())
    for size in SIZES:
        try:
            build_model(network, num_classes=10, image_size=size)
            break
        except StudyError:
            if size == SIZES[-1]:
                raise
    found: dict[str, Any] = {"size": size, "arch": f'\n        "arch": "{network}",'}
    found["takes"] = f"\n    # It takes, as written there: {takes}." if takes else ""
    numbers = ((name, default) for name, default in known.items() if not isinstance(default, str))
    for name, default in itertools.islice(numbers, 1):
        other = {bool: not default, int: 2 * default or 1}.get(type(default), default + 0.1)
        found |= {"factor": f"arch.{name}", "levels": (default, other)}
    return found
