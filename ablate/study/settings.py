"""Texts as people type them (`--set epsilon=0,0.1`) as the fields and values that they mean, and back."""

import ast
import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablate.errors import StudyError
from ablate.study.options import Options

VALUE = re.compile(r"""(?:^|,)((['"]).*?\2(?=,|$)|[^,]*)""")
"""One of several values with commas between them; in quotes it may have commas of its own."""


def literal(text: str) -> Any:
    """The Python literal, true or false that a text is; otherwise the text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def pairs(given: Sequence[str] | None, sign: str) -> dict[str, str]:
    """NAME=VALUE texts, or with another sign; the value is "" where there is none."""
    return dict(one.rpartition(sign)[::2] if sign in one else (one, "") for one in given or ())


def parse_settings(settings: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """FIELD=VALUE[,VALUE...] texts as field name to values: Python literals, true, false, or text."""
    parsed: dict[str, tuple[Any, ...]] = {}
    for setting in settings:
        name, _, values = setting.partition("=")
        if not name or not values or name in parsed:
            raise StudyError(f"--set {setting}: expected FIELD=VALUE, or =A,B to sweep it; each field once")
        parsed[name] = _values(values)
    return parsed


def _values(text: str) -> tuple[Any, ...]:
    return tuple(literal(found[1]) for found in VALUE.finditer(text))


def command_line(command: str, study: Path, options: Options, points: int | None = None) -> str:
    """What to type to run this again; an absolute path is left to its file's name."""
    words = ["python", "-m", "ablate", command, study.name if study.is_absolute() else str(study)]
    words += ["--points", str(points)] if points is not None else []
    for name, value in options.repeated().items():
        if name != "settings":
            words += [f"--{name}", str(value)]
            continue
        for field, values in value.items():
            words += ["--set", f"{field}={_typed(values)}"]
    return shlex.join(words)


def variation_name(options: Options) -> str:
    """The name of what settings and seeds make of a study, or as given; "" of the study itself."""
    parts = [f"{name}={_typed(values)}" for name, values in sorted(options.settings.items())]
    words = "+".join(parts + ([f"seeds={options.seeds}"] if options.seeds is not None else []))
    plain = re.sub(r"[^\w.,=+-]", "_", words, flags=re.ASCII)[:60]
    if plain != words:
        plain += f"-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    return options.name or plain


def _typed(values: tuple[Any, ...]) -> str:
    plain = ",".join(map(str, values))
    # Text that would be read as a number, or as two values, needs its quotes.
    return plain if _values(plain) == values else ",".join(map(repr, values))
