"""Which code a result came from."""

import contextlib
import functools
import os
import subprocess
from importlib import metadata
from pathlib import Path


@functools.cache
def source_commit() -> str | None:
    """Commit of ablate's own source tree, -dirty where that was changed; else what ABLATE_COMMIT says."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).resolve().parents[1]), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = git("rev-parse", "--short=12", "HEAD")
        if git("ls-files", "--", "__init__.py"):  # else installed inside somebody else's repository
            return f"{commit}-dirty" if git("status", "--porcelain", "--", ".") else commit
    return os.environ.get("ABLATE_COMMIT") or None


def version_of(package: str) -> str:
    """The installed version of a package; 'unknown' when it is not installed as one."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
