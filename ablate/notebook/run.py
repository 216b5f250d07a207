"""Running a study from Python: what `python -m ablate run` does, and what it came to."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypedDict

from rich.console import Console

from ablate.errors import DeviceError, StudyError
from ablate.execution.progress import ProgressView
from ablate.notebook.result import Run
from ablate.notebook.view import NotebookView, in_notebook
from ablate.study.fields import canonical
from ablate.study.study import Study

DEVICES = ("auto", "cpu", "cuda")


class Arguments(TypedDict):
    """How a study is run, as `Study.run` takes it."""

    profile: str | None
    settings: Mapping[str, Any] | None
    seeds: int | None
    device: Literal["auto", "cpu", "cuda"]
    workers: int | None
    threads: int
    data_dir: str | Path | None
    results: str | Path
    timeout: float | None
    retry_failed: bool


def run(study: Study, report: Path, arguments: Arguments) -> Run:
    """Train what is missing of a study, write its tables and render its report. See `Study.run`."""
    from ablate.execution.driver import Options, run_study
    from ablate.finish import require_metrics, require_writable, write_results
    from ablate.tables import read_tables

    _require_name(study)
    _require_sound(arguments)
    settings = {name: _values(value) for name, value in (arguments["settings"] or {}).items()}
    _ready_own_modules(_texts(study, settings))
    require_metrics(study)
    require_writable(report)
    minutes, data_dir = arguments["timeout"], arguments["data_dir"]
    options = Options(
        profile=arguments["profile"],
        device=arguments["device"],
        workers=arguments["workers"],
        threads=canonical(arguments["threads"]),
        data_dir=None if data_dir is None else Path(data_dir),
        results=Path(arguments["results"]),
        settings=settings,
        seeds=canonical(arguments["seeds"]),
        timeout=None if minutes is None else 60 * minutes,
        retry_failed=arguments["retry_failed"],
        command=_call(arguments, settings),
    )
    with NotebookView() if in_notebook() else ProgressView(Console()) as view:
        summary = run_study(study, options, view)
    path = write_results(summary.folder, report)
    return Run(
        tables=read_tables(summary.folder),
        report=path,
        folder=summary.folder.root,
        ran=summary.ran,
        failed=summary.failed,
        interrupted=summary.interrupted,
        page=path.read_text(encoding="utf-8"),
    )


def _require_name(study: Study) -> None:
    if not study.name:
        raise StudyError(
            "the study has no name, which its results are kept under; give it one: "
            'Study(name="my_study", ...), or load it from a file'
        )
    if Path(study.name).name != study.name or study.name.startswith("."):
        raise StudyError(f"name: expected a plain folder name such as 'my_study', but {study.name!r} came")


def _is_one(value: Any) -> bool:
    return isinstance(value, (str, bytes)) or not hasattr(value, "__iter__")


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value, Integral) and value >= 1


def _is_settings(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "device": ("'auto', 'cpu' or 'cuda'", lambda value: isinstance(value, str) and value in DEVICES),
    "results": ("a folder's path", _is_path),
    "threads": ("a whole number, at least 1", _is_count),
    "retry_failed": ("True or False", lambda value: isinstance(value, bool)),
}
"""What each argument should be, in words and as a check."""

EXPECTED_OR_NONE: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "profile": ("a profile's name", lambda value: isinstance(value, str)),
    "settings": ("fields by name, such as {'epsilon': [0.0, 0.1], 'epochs': 5}", _is_settings),
    # Several values are the seeds themselves, as in Study(seeds=(3, 4)).
    "seeds": (
        "how many seeds, a whole number",
        lambda value: _is_number(value, Integral) or not _is_one(value),
    ),
    "workers": ("a whole number, at least 1", _is_count),
    "data_dir": ("a folder's path", _is_path),
    "timeout": ("minutes above 0", lambda value: _is_number(value, Real) and value > 0),
}
"""The same of arguments that can be None."""


def _require_sound(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of another kind or out of range: in a notebook no type checker looks at them.

    Raises:
        DeviceError: there is no such kind of device.
        StudyError: another argument is not what `Study.run` takes.
    """
    given = {name: value for name, value in arguments.items() if name in EXPECTED or value is not None}
    for name, value in given.items():
        expected, is_sound = EXPECTED.get(name) or EXPECTED_OR_NONE[name]
        if not is_sound(value):
            error = DeviceError if name == "device" else StudyError
            none = "" if name in EXPECTED else "None or "
            raise error(f"{name}: expected {none}{expected}, but {value!r} ({type(value).__name__}) came")


def _values(value: Any) -> tuple[Any, ...]:
    """The values of a setting: text and numbers are one, a list, tuple or array is a sweep."""
    return (value,) if _is_one(value) else tuple(canonical(one) for one in value)


def _texts(study: Study, settings: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Every text that a field of the study may come to, whatever the profile."""
    fixed = [study.base, *(profile.base for profile in study.profiles.values())]
    swept = [settings, study.factors, *(profile.factors for profile in study.profiles.values())]
    values = [value for one in fixed for value in one.values()]
    values += [value for many in swept for levels in many.values() for value in levels]
    return (value for value in values if isinstance(value, str))


def _ready_own_modules(texts: Iterable[str]) -> None:
    """See that the user's modules which a study names can be imported as they are now.

    A notebook's user edits them between runs, and this process would go on with the module it has.

    Raises:
        StudyError: what is named is defined in the notebook or script itself.
    """
    importlib.invalidate_caches()  # a module written a moment ago is otherwise not seen
    for text in texts:
        module_name, _, attribute = text.partition(":")
        if module_name == "__main__":
            raise StudyError(
                f"{text}: is defined in this notebook or script itself, which worker processes cannot "
                "import; put it in a file beside it, such as my_module.py (a cell whose first line is "
                f"%%writefile my_module.py does that), and name it 'my_module:{attribute}'"
            )
        origin = getattr(sys.modules.get(module_name), "__file__", None)
        if origin and _is_own(Path(origin), module_name):
            del sys.modules[module_name]


def _is_own(origin: Path, module_name: str) -> bool:
    """Whether a module is a single file of the user's, rather than a part of a package or of Python."""
    installed = any(origin.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix))
    return origin.name == f"{module_name}.py" and not installed


def _call(arguments: Arguments, settings: Mapping[str, Sequence[Any]]) -> str:
    """What to write to run this again. Folders are left out, as they mean nothing on another machine."""
    swept = {name: values[0] if len(values) == 1 else list(values) for name, values in settings.items()}
    seeds = canonical(arguments["seeds"])
    given = {"profile": arguments["profile"], "settings": swept or None, "seeds": seeds}
    given["device"] = None if arguments["device"] == "auto" else arguments["device"]
    given["threads"] = None if arguments["threads"] == 1 else canonical(arguments["threads"])
    words = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    return f"study.run({', '.join(words)})"
