"""Code of the user's in a trial's identity: what a named module brings in, found without running it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from ablate.errors import StudyError
from ablate.study.fields import Frozen


class Source(Frozen):
    """The module that `package.module:attribute` names, and the user's files that its imports bring in."""

    digest: str = Field(description="what stands for all of it in a trial's identity")
    files: dict[str, str] = Field(description="file, below the module's folder, to its code's digest")
    ran: dict[str, str] = Field(default={}, description="the files as they were instead; {}: as in `files`")
    same_code: str = Field(default="", description="why those compute the same, as the user gave it")

    @property
    def now(self) -> dict[str, str]:
        """The files that a trial ran from."""
        return self.ran or self.files


def is_users(path: Path) -> bool:
    """Whether a module's file is the user's: neither installed nor Python's own."""
    installed = {"site-packages", "dist-packages"} & {*path.parts}
    return not installed and not path.is_relative_to(sysconfig.get_path("stdlib"))


def read_source(name: str, *, follow: bool = True) -> Source:
    """The code that `package.module:attribute` names, as it is now.

    A file that imports nothing of the user's has the digest of its bytes, comments included. So has an
    installed module, whose imports are not followed, and any without `follow`.

    Raises:
        StudyError: the module is not found, or a file that it brings in is not Python.
    """
    module = name.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise StudyError(f"{name}: module {module!r} cannot be found: {error}") from None
    if spec is None or spec.origin is None:
        raise StudyError(
            f"{name}: module {module!r} cannot be found; put it beside the study file, or install its package"
        )
    origin = Path(spec.origin)
    digest = hashlib.sha256(origin.read_bytes()).hexdigest()
    folder = origin.parents[module.count(".") + (origin.stem == "__init__")]
    trees = _brought_in(name, folder, module) if follow and is_users(origin) else {}
    if origin not in trees:  # compiled, or put elsewhere by its package, among others
        return Source(digest=digest, files={origin.relative_to(folder).as_posix(): digest})
    is_study = bool(_study_statements(trees[origin]))
    for tree in trees.values():
        _strip(tree)
    files = {path.relative_to(folder).as_posix(): _digest(tree) for path, tree in trees.items() if tree.body}
    if len(files) > 1 or is_study:
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return Source(digest=digest, files=files)


def _brought_in(name: str, folder: Path, module: str) -> dict[Path, ast.Module]:
    """The syntax trees of the files below a folder that importing a module runs, at once or later."""
    trees, waiting = dict[Path, ast.Module](), [module]
    while waiting:
        for path in _files(folder, waiting.pop()):
            if path in trees:
                continue
            file = path.relative_to(folder)
            try:
                trees[path] = ast.parse(path.read_bytes(), file)
            except (SyntaxError, ValueError, OSError) as error:
                raise StudyError(
                    f"{name}: expected Python in {file}, which it brings in, but it cannot be read: {error}; "
                    "mend the file, or do not import it"
                ) from None
            waiting += _imported(trees[path], file)
    return trees


def _files(folder: Path, module: str) -> Iterator[Path]:
    """The files below a folder that importing a module runs: those of its packages, then its own."""
    parts = module.split(".")
    for part in parts if parts[0] != "ablate" else ():  # which has a version
        folder /= part
        if (package := folder / "__init__.py").is_file():
            yield package
        elif (file := folder.with_name(f"{part}.py")).is_file():
            yield file
            return


def _imported(tree: ast.Module, file: Path) -> Iterator[str]:
    """Full names of all that a file's statements may import: modules, or what is taken from them."""
    package = ".".join(file.parts[:-1])
    own = package if file.stem == "__init__" else ".".join(file.with_suffix("").parts)
    for node in ast.walk(tree):
        names: list[str] = []
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom():
                start = "." * node.level + (f"{node.module}." if node.module else "")
                names = [start + alias.name for alias in node.names]
            case ast.Call(
                ast.Name("import_module" | "__import__") | ast.Attribute(attr="import_module"),
                [ast.Constant(str(named)), *_],
            ):
                names = [named]
            case ast.Assign([ast.Name("__all__")], ast.List(listed) | ast.Tuple(listed)):  # for import *
                names = [f"{own}.{ast.literal_eval(one)}" for one in listed if isinstance(one, ast.Constant)]
        for one in names:
            with contextlib.suppress(ImportError):  # more dots than packages
                yield importlib.util.resolve_name(one, package)


def _study_statements(tree: ast.Module) -> list[ast.stmt]:
    """Of a study file, what assigns `study`; of any other module nothing."""
    found, is_study = list[ast.stmt](), False
    for statement in tree.body:
        match statement:
            case ast.Assign([ast.Name("study"), *_], value) | ast.AnnAssign(ast.Name("study"), value=value):
                found.append(statement)
                made = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
                is_study = is_study or made.rpartition(".")[2] == "Study"
    return found if is_study else []


def _strip(tree: ast.Module) -> None:
    """Take out what computes nothing of a trial: docstrings, other bare text, and a study's declaration."""
    declared = _study_statements(tree)
    tree.body = [statement for statement in tree.body if statement not in declared]
    for node in ast.walk(tree):
        for value in vars(node).values():
            if isinstance(value, list):
                value[:] = [one for one in value if not _is_text(one)]


def _is_text(node: Any) -> bool:
    match node:
        case ast.Expr(ast.Constant(str())):
            return True
    return False


def _digest(tree: ast.Module) -> str:
    """Digest of a syntax tree; `ast.dump` differs between versions of Python by fields that are not set."""
    digest = hashlib.sha256()
    for node in ast.walk(
        tree
    ):  # breadth first, so that nodes and the fields they stand in give the tree back
        fields = [
            (name, [*map(_word, value)] if isinstance(value, list) else _word(value))
            for name, value in ast.iter_fields(node)
            if value is not None and value != []
        ]
        digest.update(f"{type(node).__name__}{fields}".encode())
    return digest.hexdigest()


def _word(value: Any) -> str:
    """A value that is no node, in words; a node's own turn comes."""
    return "" if isinstance(value, ast.AST) else ascii(value)
