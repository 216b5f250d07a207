"""Which code a result came from."""

from __future__ import annotations

import functools
import os
import subprocess
from importlib import metadata
from pathlib import Path


@functools.cache
def source_commit() -> str | None:
    """Commit of ablate's own source tree, with -dirty where the code in it was changed.

    Outside git what ABLATE_COMMIT says, for a copy that was made without `.git`; None where it says nothing.
    """
    return _commit_of_tree() or os.environ.get("ABLATE_COMMIT") or None


def _commit_of_tree() -> str | None:
    root = Path(__file__).resolve().parents[1]
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", ".")
        tracked = _git(root, "ls-files", "--", "__init__.py")
    except (OSError, subprocess.SubprocessError):
        return None
    if not tracked:
        return None  # installed inside somebody else's repository
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def version_of(package: str) -> str:
    """The installed version of a package; 'unknown' when it is not installed as one."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
