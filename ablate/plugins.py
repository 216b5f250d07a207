"""Code of the user's own, named in a study by its import path `package.module:attribute`."""

import importlib
from typing import Any

from ablate.errors import FOREIGN_FAULTS, StudyError, nearest


def load_foreign(kind: str, path: str) -> Any:
    """Import what a study names, which runs its module; a StudyError calls it by its `kind` ("network")."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise StudyError(f"{kind}: expected an import path package.module:name, got {path!r}")
    try:
        module = importlib.import_module(module_name)
    except FOREIGN_FAULTS as error:  # foreign code may raise anything, and exit
        raise StudyError(
            f"{kind} {path!r}: expected a module that can be imported, but importing {module_name!r} raised "
            f"{type(error).__name__}: {error}. Put the module beside the study file or on PYTHONPATH, or "
            "install its package, and check that it imports on its own."
        ) from error
    if not hasattr(module, attribute):
        raise StudyError(
            f"{kind} {path!r}: expected the name {attribute!r} in module {module_name!r}, but it has no such "
            f"name. Check its spelling.{nearest(attribute, vars(module))}"
        )
    return getattr(module, attribute)
