"""What the documentation shows runs: files by their first line, or else one for a section; and commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRAIN = "import json, sys; json.dump({'val': {'loss': 1}}, open(sys.argv[3][6:] + '/metrics.json', 'w'))"
RUNS = "lr,net,seed,val_acc,val_loss\n" + "".join(
    f"{lr},{net},{seed},{0.9 - lr + seed / 99},{lr}\n" for lr in (0.1, 0.3) for net in "ab" for seed in (0, 1)
)
PAGES: dict[str, dict[str, str]] = {
    "my_first_study": {}, "components": {}, "own_code": {},
    "own_training": {"train.py": TRAIN}, "analyse_your_runs": {"runs.csv": RUNS},
}  # fmt: skip
"""What is run, with the files that the reader is said to have."""


@pytest.mark.soak
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    """But for fewer seeds, fewer points of a search, and no timing pass."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    files = dict(PAGES[page])
    for number, section in enumerate(re.split("^## ", text, flags=re.MULTILINE)):
        for name, code in re.findall(r"^```python\n(?:# (\w+\.py)\n)?(.*?)^```", section, flags=re.M | re.S):
            name = name or f"section_{number}.py"
            files[name] = files.get(name, "") + code.replace("points=8", "points=2, seeds=1")
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    found = re.findall(r"python (-m ablate (?:\\\n|[^\n`])+)", text)
    commands = [command for command in found if "FILE" not in command]
    commands += [f"-m ablate run {name}" for name, code in files.items() if "study = Study(" in code]
    commands += [name for name, code in files.items() if "ablate.analyse(" in code]
    for command in dict.fromkeys(commands):
        fewer = ["--no-timing", "--seeds", "2"] if "ablate run" in command else []
        words = [sys.executable, *shlex.split(command.replace("\\\n", "")), *fewer]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.glob("report/**/index.html")]
    assert pages
    assert not any("could not be drawn" in shown for shown in pages)
