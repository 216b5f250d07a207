"""A study in parts: each trains its own trials, and together they are what one run would have been."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quick_study import tables_of

import ablate
from ablate.errors import ResultsError, StudyError
from ablate.execution.driver import only_driver, part_of
from ablate.pipeline import rebuild_tables
from ablate.status import is_running
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder, read_plan, write_sealed
from ablate.study.options import Options
from ablate.study.study import Study

STUDY = """from ablate import Study
study = Study(question="?", name="quick", train="quick:train", factors={"lr": (0.1, 0.2, 0.3, 0.4)}, seeds=6,
              baseline={"lr": 0.1}, primary="accuracy")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(Path(__file__).with_name("quick.py"), tmp_path)
    (tmp_path / "s.py").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(shard: str | None = None, results: str = "results", **options: Any) -> ablate.pipeline.Run:
    return ablate.run("s.py", results=results, shard=shard, **{"workers": 0, "timing": False, **options})


@pytest.mark.slow
def test_in_any_order_and_one_of_them_killed_shards_are_the_whole_run(here: Path) -> None:
    folder, whole = (ResultsFolder(here / name / "quick/default") for name in ("results", "whole"))
    run("1/1", results="whole")
    command = [sys.executable, "-m", "ablate", "run", "s.py", "--workers", "2", "--shard", "3/3"]
    killed = subprocess.run(command, env={**os.environ, "ABLATE_FAILPOINT": "23:kill"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert 0 < (stopped := len(read_records(folder))) < 8
    left_over = folder.records / "of-a-sibling.json.tmp"
    left_over.touch()
    assert run("1/3").ran == 8
    assert left_over.exists()  # it may be about to be renamed
    assert run("3/3").ran == 8 - stopped
    assert run("2/3").ran == 8
    assert not [*folder.root.glob("*.csv"), *here.glob("report")]  # records, and no more
    assert run("1/1").ran == 0
    assert not left_over.exists()
    assert read_plan(folder) == read_plan(whole)
    for ran in (folder, whole):
        rebuild_tables(ran)
    assert tables_of(folder.root) == tables_of(whole.root)


@given(st.integers(1, 300), st.integers(1, 400))
def test_every_trial_is_in_one_shard_and_shards_are_even(trials: int, parts: int) -> None:
    listed: Sequence[Any] = range(trials)
    shards = [part_of(listed, part, parts) for part in range(1, parts + 1)]
    assert [trial for shard in shards for trial in shard] == list(listed)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_siblings_run_beside_each_other_and_nothing_else_does(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    with only_driver(folder, 1, 3), only_driver(folder, 3, 3):
        assert is_running(folder)
        for others in ((), (1, 2), (3, 3)):  # the whole, a part of another number, the same again
            with (
                pytest.raises(ResultsError, match="another run is writing here"),
                only_driver(folder, *others),
            ):
                pass
    with only_driver(folder, 1, 2):  # a lock that is left is no lock
        pass
    assert not is_running(folder)


def test_a_machine_that_would_train_other_trials_is_refused(here: Path) -> None:
    folder = ResultsFolder(here / "results/quick/default")
    run("1/2")
    plan = read_plan(folder)
    other = plan.trials[0].numerics.model_copy(update={"device": "cuda"})
    trials = tuple(trial.model_copy(update={"numerics": other}) for trial in plan.trials)
    write_sealed(folder.plan, plan.model_copy(update={"trials": trials}))
    with pytest.raises(
        StudyError, match=r"--shard 2/2: expected the arithmetic .*'cuda'.* here it is .*'cpu'"
    ):
        run("2/2")
    assert len(read_records(folder)) == 12


def test_a_shard_is_a_part_of_how_many() -> None:
    for shard in ("0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/3", "", "²/3", "1/100000"):
        with pytest.raises(StudyError, match=r"shard: expected a part and how many there are, such as 3/16"):
            Options(shard=shard)


def test_a_search_has_no_shards(here: Path) -> None:
    search = ablate.Search(space={"lr": ablate.Range(low=0.1, high=1.0, step=0.1)}, points=2, seeds=1)
    study = Study(question="?", name="s", train="quick:train", search=search, primary="accuracy")
    with pytest.raises(StudyError, match=r"--shard 1/2: expected a study whose trials are known"):
        ablate.tune(study, shard="1/2")
