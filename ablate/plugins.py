"""Code of the user's own, named in a study by its import path `package.module:attribute`."""

import contextlib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ablate.errors import FOREIGN_FAULTS, StudyError, first_line, nearest

SLOT_OF = {"network": "arch"}
"""Fields of kinds of code that are called otherwise in messages."""
TORCH = ("torch.", "torchvision.")
"""Beginnings of names that need no colon before what they name, as torch.optim.NAdam."""
WEIGHT_FILES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
"""Ends of names of weights that are files; any other is a name under which somebody publishes them."""
INSTALLED = {"site-packages", "dist-packages"}
ONLY_BY_NAME = {"image_size", "momentum", "anneal_from", "generator", "draws"}
"""Arguments of ablate's that code gets where its signature names them, and not for taking any keyword."""


def is_foreign(name: str) -> bool:
    """Whether a slot's name is of code elsewhere, and not one of ablate's own."""
    return ":" in name or name.startswith(TORCH)


def is_users(path: Path) -> bool:
    """Whether a module's file is the user's: neither installed nor Python's own."""
    return not is_standard(path) and not INSTALLED & {*path.parts}


def is_standard(path: Path) -> bool:
    """Whether a file, or a folder of them, is of Python's own modules."""
    return path.is_relative_to(sysconfig.get_path("stdlib")) and not INSTALLED & {*path.parts}


def load_foreign(kind: str, path: str) -> Any:
    """Import what a study names, which runs its module; a StudyError calls it by its `kind` ("network")."""
    module_name, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if not module_name or not attribute.isidentifier():
        raise StudyError(
            f"{kind}: expected an import path package.module:name without a call, got {path!r}; its "
            f"arguments are fields of their own, as {SLOT_OF.get(kind, kind)}.NAME"
        )
    top = module_name.partition(".")[0]
    for file in [Path(entry, f"{top}.py") for entry in sys.path] if top in sys.stdlib_module_names else []:
        if is_users(file) and file.is_file():
            raise StudyError(f"{kind} {path!r}: {top} is a module of Python's own; give {file} another name")
    remedy = "Put the module beside the study file or on PYTHONPATH, or install its package."
    with explained(kind, path, f"a module {module_name!r} that can be imported", remedy):
        module = importlib.import_module(module_name)
    code = getattr(module, attribute, None)
    if not callable(code):
        came = f"got {code!r}" if hasattr(module, attribute) else "it has no such name. Check its spelling"
        raise StudyError(
            f"{kind} {path!r}: expected a function or a class {attribute!r} in module {module_name!r}, but "
            f"{came}.{nearest(attribute, vars(module))}"
        )
    return code


def bind(
    kind: str,
    name: str,
    code: Callable[..., Any],
    own: Mapping[str, Any],
    ours: Mapping[str, Any],
    skip: int = 0,
) -> dict[str, Any]:
    """Arguments of code after its first `skip`: its `own`, of `ours` what it takes; or a StudyError."""
    try:
        parameters = list(inspect.signature(code).parameters.values())[skip:]
    except (TypeError, ValueError):  # of something built in
        parameters = [inspect.Parameter("any", inspect.Parameter.VAR_KEYWORD)]
    slot = SLOT_OF.get(kind, kind)
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    takes = {one.name for one in named}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    open_to = sorted(takes - ours.keys())
    for argument in own:
        fault = ""
        if argument in ours:
            fault = f"ablate sets it itself for {name!r}; leave it out, or set the field {argument}"
        elif argument not in takes and not takes_any:
            known = ", ".join(open_to) or "none"
            fault = f"{name!r} takes no such argument; it takes {known}.{nearest(argument, open_to)}"
        if fault:
            raise StudyError(f"{slot}.{argument}: {fault}")
    for one in named:
        if one.default is one.empty and one.name not in {*own, *ours}:
            remedy = "set it in the study's base, or give it a default"
            raise StudyError(f"{slot}.{one.name}: {name!r} cannot do without it; {remedy}")
    # What takes any keyword hands it on: to something with classes or an ε, but rarely with a size.
    takes |= ours.keys() - ONLY_BY_NAME if takes_any else set()
    return {argument: value for argument, value in ours.items() if argument in takes} | dict(own)


def ready(
    kind: str, name: str, code: Any, own: Mapping[str, Any], ours: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A function of one value, or an instance of a class of such made with `own`; and what else it takes."""
    if inspect.isclass(code):
        given = bind(kind, name, code, own, {})
        with explained(kind, name, f"it to be made with {given or 'no arguments'}"):
            code, own = code(**given), {}
    return code, bind(kind, name, getattr(code, "forward", code), own, ours, skip=1)


@contextlib.contextmanager
def explained(kind: str, name: str, expected: str, remedy: str = "") -> Iterator[None]:
    """Say what was expected of code of the user's that raises anything, or exits, and what to do."""
    try:
        yield
    except StudyError:
        raise  # says already what to do
    except FOREIGN_FAULTS as error:
        came = f"{type(error).__name__}: {first_line(error)}".rstrip(".")
        raise StudyError(
            f"{kind} {name!r}: expected {expected}, but this raised {came}. {remedy}".rstrip()
        ) from error
