"""What every study, recipe and page must satisfy, so that a new one cannot be left out.

Models, losses, datasets and metrics have such suites beside their own tests.
"""

import re
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
