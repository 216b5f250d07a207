"""Code of the user's in a trial's identity: what a named module brings in, found without running it."""

import ast
import contextlib
import glob
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from ablate.errors import StudyError
from ablate.plugins import is_users
from ablate.study.fields import Frozen

FILES = "files\n"
"""Before patterns, a line each, where no import path says what code is."""


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


def read_source(name: str, folder: Path | None = None) -> Source:
    """The code that `package.module:attribute` names, or after `FILES` patterns in a folder, as it is now.

    A file that imports nothing of the user's has the digest of its bytes, comments included. So has an
    installed module, whose imports are not followed. What is not found, or not Python, is a StudyError.
    """
    if name.startswith(FILES):
        return _read_files(name.removeprefix(FILES).splitlines(), folder or Path())
    module = name.partition(":")[0]
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise StudyError(
            f"{name}: module {module!r} is not found; put it beside the study file, or install it"
        )
    origin = Path(spec.origin)
    alone = _sha256(origin.read_bytes())
    folder = origin.parents[module.count(".") + (origin.stem == "__init__")]
    trees = _brought_in(name, folder, module) if is_users(origin) else {}
    if origin not in trees:  # compiled, or put elsewhere by its package, among others
        return Source(digest=alone, files={origin.relative_to(folder).as_posix(): alone})
    is_study = bool(_declared(trees[origin]))
    digests = {path.relative_to(folder).as_posix(): _digest(tree) for path, tree in trees.items()}
    files = {file: found for file, found in digests.items() if found}
    return _of_files(files) if len(files) > 1 or is_study else Source(digest=alone, files=files)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _of_files(files: dict[str, str]) -> Source:
    return Source(digest=_sha256(json.dumps(files, sort_keys=True).encode()), files=files)


def _read_files(patterns: Sequence[str], folder: Path) -> Source:
    """The files that patterns such as src/** match below a folder; one that matches none is a StudyError."""
    files = dict[str, str]()
    for pattern in patterns:
        paths = map(folder.joinpath, glob.glob(pattern, root_dir=folder, recursive=True))
        found = [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
        if not found:
            raise StudyError(f"code: {pattern!r} matches no file in {folder}; correct it, or leave it out")
        files |= {path.relative_to(folder).as_posix(): _sha256(path.read_bytes()) for path in found}
    return _of_files(files)


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
    for node in ast.walk(tree):
        start = ""
        if isinstance(node, ast.ImportFrom):
            start = "." * node.level + (f"{node.module}." if node.module else "")
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            with contextlib.suppress(ImportError):  # more dots than packages
                yield importlib.util.resolve_name(start + alias.name, ".".join(file.parts[:-1]))


def _declared(tree: ast.Module) -> list[ast.stmt]:
    """What assigns `study` in a study file: another question, or more seeds, are no other code."""
    assigned = {
        statement: ast.unparse(statement.value or statement)
        for statement in tree.body
        if isinstance(statement, (ast.Assign, ast.AnnAssign))
        and re.match(r"study\b(?!\.)", ast.unparse(statement))
    }
    is_study = any(re.match(r"(\w+\.)*Study\(", value) for value in assigned.values())
    return [*assigned] if is_study else []


def _digest(tree: ast.Module) -> str:
    """Digest of a module without comments, docstrings and its study, under any Python; "" of nothing."""
    declared, digest = _declared(tree), hashlib.sha256()
    tree.body = [statement for statement in tree.body if statement not in declared]
    for node in ast.walk(tree):
        for value in vars(node).values():
            if isinstance(value, list):
                value[:] = [one for one in value if not _is_text(one)]
    for node in ast.walk(tree):  # breadth first: types and fields in this order give the tree back
        fields = {
            name: [*map(_word, value)] if isinstance(value, list) else _word(value)
            for name, value in ast.iter_fields(node)
            if value is not None and value != []  # later versions have more fields
        }
        digest.update(f"{type(node).__name__}{fields}".encode())
    return digest.hexdigest() if tree.body else ""


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)


def _word(value: object) -> str:
    """What stands for a field's value: nothing for a node, whose turn comes."""
    return "" if isinstance(value, ast.AST) else ascii(value)
