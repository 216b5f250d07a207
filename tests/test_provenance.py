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


def run(tree: Path, *words: str, **variables: str) -> str:
    known = {name: value for name, value in os.environ.items() if name != "ABLATE_COMMIT"}
    known |= {"GIT_CEILING_DIRECTORIES": str(tree.parent), "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(words, cwd=tree, env=known | variables, check=True, capture_output=True, text=True)
    return ran.stdout.strip()


def commit(tree: Path, told: str | None) -> str:
    return run(tree, sys.executable, "-c", ASK, **({} if told is None else {"ABLATE_COMMIT": told}))


def git(tree: Path, *words: str) -> str:
    return run(tree, "git", "-c", "user.name=a", "-c", "user.email=a@b", *words)


def test_a_copy_without_git_takes_its_commit_from_the_environment(copy: Path) -> None:
    assert commit(copy, "0123456789ab") == "0123456789ab"
    assert commit(copy, None) == commit(copy, "") == "None"


def test_inside_git_the_environment_says_nothing(copy: Path) -> None:
    git(copy, "init", "-q")
    assert commit(copy, "0123456789ab") == "0123456789ab"  # in a repository, but nobody's commit holds it
    git(copy, "add", ".")
    git(copy, "commit", "-qm", "all")
    head = git(copy, "rev-parse", "--short=12", "HEAD")
    assert commit(copy, "0123456789ab") == commit(copy, None) == head
    (copy / "ablate" / "__init__.py").write_text("# changed\n")
    assert commit(copy, "0123456789ab") == f"{head}-dirty"
