"""What the documentation shows runs as it stands: files by their first line, and commands, in order."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.soak
@pytest.mark.parametrize("page", ["my_first_study.md"])
def test_a_page_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    ran = 0
    for kind, block in re.findall(r"^```(python|sh)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        named = re.match(r"# (\w+\.py)\n", block)
        if kind == "python" and named:
            (tmp_path / named[1]).write_text(block.partition("\n")[2], encoding="utf-8")
        for command in re.findall(r"^python (.*)", block, flags=re.MULTILINE) if kind == "sh" else ():
            done = subprocess.run(
                [sys.executable, *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"
            ran += 1
    assert ran
