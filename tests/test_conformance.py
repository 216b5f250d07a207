"""What every study, recipe and page must satisfy: they stand and train, and what pages show runs."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ablate.execution.driver import Options, Watcher, plan_settled, settle
from ablate.execution.trial import Task, run_trial
from ablate.study.fields import RECIPES
from ablate.study.study import Study, load_study
from ablate.tuning.run import retest_study

ROOT = Path(__file__).parent.parent
STUDIES = sorted((ROOT / "studies").glob("*.py"))
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
EXAMPLE = re.compile("small_net|squares")
"""Names of what a page shows how to add."""


def train_first(study: Study, profile: str | None, tmp_path: Path) -> None:
    options = Options(profile=profile, device="cpu", results=tmp_path)
    settled = settle(study, options)
    if settled.study.search is not None:  # its re-test, before anything is chosen
        settled = replace(settled, study=retest_study(settled.study, []))
    plan, inputs = plan_settled(settled, options, Watcher())
    trial = plan.trials[0]
    task = Task(trial, inputs.folders()[trial.fingerprint], tmp_path / "checkpoint", workers=1)
    record, predictions = run_trial(task, 0, lambda heartbeat: None)
    assert record.status == "complete", record.failure
    assert predictions is not None
    assert len(record.history) == trial.fields.epochs


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_of_the_project_loads_in_every_profile(path: Path) -> None:
    study = load_study(path)
    command = "run" if study.search is None else "tune"
    assert f"python -m ablate {command} studies/{path.name}" in study.description
    assert "Cost:" in study.description
    assert {"full", "quick"} <= set(study.profiles)
    for name in study.profiles:
        profiled = study.with_profile(name)
        assert all(profiled.fields(arm) for arm in profiled.arms())


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_trains_in_its_quick_profile(path: Path, tmp_path: Path) -> None:
    """Every arm's network, loss and data stand; one trial trains, for one epoch."""
    study = load_study(path).with_profile("quick").with_settings({"epochs": (1,)})
    train_first(study, "quick", tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "studies" / "own").glob("[!n]*.py")), ids=lambda p: p.stem)
def test_every_study_of_own_code_stands(path: Path, tmp_path: Path) -> None:
    options = Options(device="cpu", results=tmp_path)
    assert plan_settled(settle(load_study(path), options), options, Watcher())[0].trials


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains(recipe: str, tmp_path: Path) -> None:
    base = {"data": "digits", "image_size": 8, "recipe": recipe, "epochs": 2}
    study = Study(question="Does it train?", name="recipe", base=base, seeds=1)
    train_first(study, None, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_names_only_files_that_are_there(page: Path) -> None:
    """Paths in backquotes that begin with a folder of the repository, unless they hold a placeholder."""
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:ablate|tests|studies|docs|\.ci)/[^`\s<>*{}]*)`", text)
    missing = [p for p in paths if not (ROOT / p.partition(":")[0]).exists() and not EXAMPLE.search(p)]
    assert not missing
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


TRAIN = "import json, sys; json.dump({'val': {'loss': 1}}, open(sys.argv[3][6:] + '/metrics.json', 'w'))"
RUNS = "lr,net,seed,val_acc,val_loss\n" + "".join(
    f"{lr},{net},{seed},{0.9 - lr + seed / 99},{lr}\n" for lr in (0.1, 0.3) for net in "ab" for seed in (0, 1)
)
EXAMPLES: dict[str, dict[str, str]] = {
    "my_first_study": {}, "components": {}, "own_code": {},
    "own_training": {"train.py": TRAIN}, "analyse_your_runs": {"runs.csv": RUNS},
}  # fmt: skip
"""What is run, with the files that the reader is said to have."""


@pytest.mark.soak
@pytest.mark.parametrize("page", EXAMPLES)
def test_a_page_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    """But for fewer seeds, fewer points of a search, no timing pass, and workers for training code alone."""
    few = ["--no-timing", "--seeds", "2", "--workers", "1" if page == "own_training" else "0"]
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    files = dict(EXAMPLES[page])
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
        words = [sys.executable, *shlex.split(command.replace("\\\n", "")), *few * ("ablate run" in command)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.glob("report/**/index.html")]
    assert pages
    assert not any("could not be drawn" in shown for shown in pages)
