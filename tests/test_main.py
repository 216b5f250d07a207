"""The command line: run in this process, or as a user's own where signals and kills matter."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from recorded_study import Recorded

from ablate.__main__ import main
from ablate.data import open_dataset
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from ablate.study import Options
from ablate.tables.files import read_tables

pytestmark = pytest.mark.usefixtures("no_figures")

STUDY = '''"""Tiny."""
from ablate.study.study import Profile, Study
study = Study(
    question="Does it run?",
    base={"data": "synthetic", "image_size": 16, "epochs": 2, "batch_size": 32, "lr": 0.05},
    factors={"epsilon": (0.0, 0.1)},
    baseline={"epsilon": 0.0},
    seeds=2,
    profiles={"quick": Profile(), "full": Profile()},
)
'''
HERE = ("--workers", "0", "--no-timing")
"""Trained in this process, with no timing pass, which saves seconds each."""


@dataclass
class Ended:
    status: Any
    out: str
    err: str


def ablate(here: Path, *arguments: str) -> Ended:
    """Run a command in this process, on a machine without CUDA."""
    out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(here),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["ablate", *arguments])
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setenv("ABLATE_CACHE", str(here / "cache"))
        patch.setenv("COLUMNS", "200")
        try:
            main()
            status: Any = 0
        except SystemExit as ended:
            status = ended.code or 0
        finally:
            signal.signal(signal.SIGTERM, handler)
    return Ended(status, out.getvalue(), err.getvalue())


def start(here: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    own = {"ABLATE_CHECKPOINT_SECONDS": "0", "ABLATE_TEST_MARK": str(here)}
    return subprocess.Popen(
        [sys.executable, "-m", "ablate", *arguments, "--no-timing"],
        cwd=here,
        env={**os.environ, **own, "ABLATE_CACHE": str(here / "cache"), "CUDA_VISIBLE_DEVICES": ""},
        text=True,
        start_new_session=True,
        # A shell starts background jobs with SIGINT ignored, and they would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **{"stdout": subprocess.DEVNULL, **options},
    )


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def folder(here: Path, variation: str = "") -> ResultsFolder:
    return ResultsFolder(here / "results" / "tiny" / "quick" / variation)


def files(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tiny.py").write_text(STUDY)
    return tmp_path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    root = tmp_path_factory.mktemp("ran")
    (root / "tiny.py").write_text(STUDY)
    return root, ablate(root, "run", "tiny.py", *HERE)


def report_of(here: Path, variation: str = "") -> str:
    return (here / "report" / "tiny" / "quick" / variation / "report.md").read_text()


@pytest.fixture
def ran(first: tuple[Path, Ended], tmp_path: Path) -> Path:
    shutil.copytree(first[0], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.slow
def test_a_study_runs_to_its_report(first: tuple[Path, Ended]) -> None:
    here, ended = first
    assert ended.status == 0, ended.err
    assert "tiny: no CUDA is present, so profile quick runs" in ended.out
    assert "synthetic: 64 training images, 64 reported ones, 3 classes" in ended.out
    assert "2 arms x 2 seeds = 4 trials: 0 done, 4 to run" in ended.out
    page = here / "report" / "tiny" / "quick" / "index.html"
    assert f"4 trials run\nreport: report/tiny/quick/index.html\n{page.as_uri()}\n" in ended.out
    assert "Step time was not measured apart" in report_of(here)
    assert "python -m ablate run tiny.py" in report_of(here)
    assert read_tables(folder(here))["trials"]["accuracy"].notna().sum() == 4
    for path in [*folder(here).records.iterdir(), folder(here).plan]:
        text = path.read_text()
        assert str(here) not in text
        assert not re.search(rf'"{re.escape(os.uname().nodename)}"', text)


def numbers(folder: ResultsFolder) -> dict[str, Any]:
    """All of every record but its cost and how many ran beside it; the predictions' digest is in it."""
    left_out: Any = {"cost": True, "history": {"__all__": {"seconds"}}, "environment": {"workers"}}
    return {name: record.model_dump(exclude=left_out) for name, record in read_records(folder).items()}


def processes_with(mark: bytes) -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found += [path] if mark in path.read_bytes() else []
    return found


@pytest.mark.slow
def test_watched_and_ended_it_leaves_a_report_and_no_worker(here: Path) -> None:
    run = ("run", "tiny.py", "--seeds", "4", "--set", "epochs=1,2000", "--workers", "1")
    driver = start(here, *run, stdout=subprocess.PIPE)
    wait_until(lambda: list(folder(here).checkpoints.glob("*.pt")))
    during = ablate(here, "status", "tiny")
    assert driver.poll() is None  # looking did not disturb it
    driver.send_signal(signal.SIGTERM)  # a notebook sends SIGINT
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "interrupted: the report is partial" in output
    assert "missing" in report_of(here, "variations/epochs=1,2000+seeds=4")
    mark = f"ABLATE_TEST_MARK={here}".encode()
    wait_until(lambda: not processes_with(mark))
    assert "tiny, profile quick: a run is going on" in during.out, during.err
    assert re.search(r"16 planned trials: \d+ complete, \d+ missing", during.out)
    assert "1 of the missing have a checkpoint: in progress" in during.out
    assert "left at the pace of this run" in during.out


@pytest.mark.slow
def test_a_diverged_trial_is_shown_and_changes_the_exit_status(here: Path) -> None:
    diverging = ("--set", "lr=0.05,1e30", "--set", "epsilon=0.1", "--seeds", "1", "--set", "epochs=1", *HERE)
    ended = ablate(here, "run", "tiny.py", *diverging, "--data-dir", ".")
    assert ended.status == 2, ended.err
    assert "--data-dir is not used: profile quick takes its images from synthetic" in ended.out
    assert "diverged: the loss is not finite at step" in ended.out
    assert "1 of 2 trials have no result; the report says why; --retry-failed runs them again" in ended.out
    own = "variations/epochs=1+epsilon=0.1+lr=0.05,1e+30+seeds=1"
    statuses = read_tables(folder(here, own))["trials"].set_index("lr")["status"]
    assert statuses.to_dict() == {0.05: "complete", 1e30: "diverged"}
    assert "2 done, 0 to run" in ablate(here, "run", "tiny.py", *diverging).out


@pytest.mark.slow
def test_a_study_is_published_with_its_report(ran: Path) -> None:
    ended = ablate(ran, "publish", "tiny", "--as", "cpu-1")
    assert ended.status == 0, ended.err
    published = ResultsFolder(ran / "results" / "reference" / "tiny" / "cpu-1")
    page = ran / "report" / "reference" / "tiny" / "cpu-1" / "index.html"
    rendered = page.read_bytes()
    page.unlink()
    there = ("--results", "results/reference", "--report", "report/reference")
    assert ablate(ran, "report", "tiny", "--profile", "cpu-1", *there).status == 0
    assert page.read_bytes() == rendered
    assert read_records(published) == read_records(folder(ran))
    assert not published.predictions.exists()
    published.plan.unlink()  # sealed again, from the same records
    assert ablate(ran, "publish", "tiny", "--as", "cpu-1").status == 0
    assert published.plan.exists()
    record = next(published.records.iterdir())
    record.write_bytes(record.read_bytes() + b" ")
    other = ablate(ran, "publish", "tiny", "--as", "cpu-1")
    assert (other.status, "holds other records" in other.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run nothing.py", "nothing.py: no such study file"),
        ("run tiny.py --set epsilon", "expected FIELD=VALUE"),
        ("run tiny.py --set data=imagenette-160 --data-dir nowhere", "nowhere"),
        ("run tiny.py --results tiny.py", "cannot be written"),
        ("run tiny.py --set loss=cross_entropy --set epsilon=0.0,0.1", "refuses an arm"),
        ("run primary.py", "primary: acuracy: unknown metric"),
        ("run tiny.py --epochs 3 --seeds 2", "epochs is a field; write --set epochs=3"),
        ("publish tiny --as ../../x", "name: expected a plain folder name"),
        ("compare tiny tiny --csv no/x.csv", "error: [Errno 2] No such file or directory: 'no/x.csv'"),
        ("init nowhere/x.py", "nowhere/x.py: cannot be written (No such file or directory)"),
        ("comprae a b", "No such command 'comprae'"),
    ],
)
def test_bad_input_is_one_message_and_nothing_runs(here: Path, arguments: str, message: str) -> None:
    (here / "primary.py").write_text(STUDY.replace("seeds=2", "seeds=2, primary='acuracy'"))
    Recorded(folder(here).root, {(0.0, 0): 600})
    before = files(here / "results")
    ended = ablate(here, *arguments.split())
    assert (ended.status, message in ended.err) == (1, True), ended.err
    assert files(here / "results") == before


def test_two_runs_do_not_write_into_one_folder(here: Path) -> None:
    folder(here).root.mkdir(parents=True)
    with filelock.FileLock(folder(here).lock):
        ended = ablate(here, "run", "tiny.py", *HERE)
    assert (ended.status, "another run is writing here" in ended.err) == (1, True)


def test_run_and_tune_have_every_option_of_python(here: Path) -> None:
    names = {name.replace("_", "-") for name in Options.model_fields} - {"command", "settings"} | {"set"}
    for command, said in (("run", "How many seeds, instead"), ("tune", "How many fresh seeds the re-test")):
        told = ablate(here, command, "--help").out
        names -= {"name", "shard"} if command == "tune" else set()
        assert names <= set(re.findall(r"^  --([a-z-]+)", told, flags=re.MULTILINE))
        assert said in told
    name, version, *commit = ablate(here, "--version").out.split()
    assert (name, version) == ("ablate", metadata.version("ablate"))
    assert all(re.fullmatch(r"\([0-9a-f]{12}(-dirty)?\)", word) for word in commit)


def test_a_dataset_is_prepared_and_then_listed(here: Path) -> None:
    ended = ablate(here, "data", "digits", "--image-size", "8", "--resize", "center_crop")
    assert ended.status == 0, ended.err
    assert "digits: 8 x 8 pixels, 10 classes" in ended.out
    assert re.search(r"^ +all +600 +1197$", ended.out, flags=re.MULTILINE)
    (fingerprint,) = re.findall(r"^fingerprint: ([0-9a-f]{64})$", ended.out, flags=re.MULTILINE)
    (place,) = re.findall(r"^folder: (.+)$", ended.out, flags=re.MULTILINE)
    assert open_dataset(Path(place)).fingerprint == fingerprint
    assert re.search(r"^digits .* 8 px, center_crop$", ablate(here, "data").out, flags=re.MULTILINE)
    (Path(place) / "dataset.json").write_text("{")
    assert re.search(r"^digits .* –$", ablate(here, "data").out, flags=re.MULTILINE)
