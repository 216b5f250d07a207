"""Which code a result came from: git's commit, or what a copy without git was told."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ablate

SOURCE = Path(ablate.__file__).parent
ASK = "from ablate.store.provenance import source_commit; print(source_commit())"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What of ablate's tree tells its commit, copied without .git."""
    (tmp_path / "ablate" / "store").mkdir(parents=True)
    shutil.copy(SOURCE / "store" / "provenance.py", tmp_path / "ablate" / "store")
    for package in ("ablate", "ablate/store"):
        (tmp_path / package / "__init__.py").write_text("")
    return tmp_path


def run(tree: Path, *words: str, told: str = "") -> str:
    own = {"GIT_CEILING_DIRECTORIES": str(tree.parent), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    variables = {**os.environ, **own, "ABLATE_COMMIT": told}
    ended = subprocess.run(words, cwd=tree, env=variables, check=True, capture_output=True, text=True)
    return ended.stdout.strip()


def commit(tree: Path, told: str = "") -> str:
    return run(tree, sys.executable, "-c", ASK, told=told)


def test_a_commit_is_gits_and_without_git_what_the_environment_says(copy: Path) -> None:
    def git(*words: str) -> str:
        return run(copy, "git", "-c", "user.name=a", "-c", "user.email=a@b", *words)

    assert (commit(copy, "0123456789ab"), commit(copy)) == ("0123456789ab", "None")
    git("init", "-q")
    assert commit(copy, "0123456789ab") == "0123456789ab"  # in a repository, but nobody's commit holds it
    git("add", ".")
    git("commit", "-qm", "all")
    head = git("rev-parse", "--short=12", "HEAD")
    assert commit(copy, "0123456789ab") == commit(copy) == head
    (copy / "ablate" / "__init__.py").write_text("# changed\n")
    assert commit(copy, "0123456789ab") == f"{head}-dirty"
