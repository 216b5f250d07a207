"""The command line, run as a user runs it: a small real study through to its report."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from ablate.__main__ import main, parse_settings
from ablate.data import open_dataset
from ablate.errors import StudyError
from ablate.execution.driver import usable_cores
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from ablate.tables import read_tables

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


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tiny.py").write_text(STUDY)
    return tmp_path


def command(*arguments: str) -> list[str]:
    """A command line; a run leaves the timing pass out unless it is asked for, which saves seconds each."""
    untimed = ["--no-timing"] if arguments[:1] == ("run",) and "--timing" not in arguments else []
    return [sys.executable, "-m", "ablate", *arguments, *untimed]


def environment(here: Path) -> dict[str, str]:
    own = {"ABLATE_CACHE": str(here / "cache"), "ABLATE_CHECKPOINT_SECONDS": "0"}
    return {**os.environ, **own, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}


def ablate(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=here, env=environment(here), capture_output=True, text=True, check=False
    )


def folder(here: Path) -> ResultsFolder:
    return ResultsFolder(here / "results" / "tiny" / "quick")


def stamps(here: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder(here).records.iterdir()}


def test_a_study_runs_to_its_report_and_only_what_is_new_runs_again(here: Path) -> None:
    first = ablate(here, "run", "tiny.py")
    assert first.returncode == 0, first.stderr
    assert "tiny: no CUDA is present, so profile quick runs" in first.stdout
    assert "2 arms x 2 seeds = 4 trials: 0 done, 4 to run" in first.stdout
    page = here / "report" / "tiny" / "quick" / "index.html"
    assert page.is_file()
    assert (page.parent / "report.md").is_file()
    before = stamps(here)
    assert len(before) == 4

    left = folder(here).checkpoint_path(next(iter(before)).removesuffix(".json"))
    left.touch()  # as by a driver that was killed right after it recorded the trial
    again = ablate(here, "run", "tiny.py")
    assert again.returncode == 0
    assert not left.exists()
    assert "4 done, 0 to run" in again.stdout
    assert stamps(here) == before

    more = ablate(here, "run", "tiny.py", "--set", "epsilon=0.0,0.1,0.2", "--seeds", "3")
    assert "4 done, 5 to run" in more.stdout, more.stderr
    after = stamps(here)
    assert len(after) == 9
    assert {name: after[name] for name in before} == before

    reproduce = "python -m ablate run tiny.py --set epsilon=0.0,0.1,0.2 --seeds 3"
    assert reproduce in (page.parent / "report.md").read_text()
    tables = read_tables(folder(here))
    assert len(tables["trials"]) == 9
    assert tables["trials"]["accuracy"].notna().all()
    rendered = page.read_bytes()
    page.unlink()
    assert ablate(here, "report", "tiny").returncode == 0
    assert page.read_bytes() == rendered


def test_steps_are_timed_once_by_themselves_unless_told_not_to(here: Path) -> None:
    assert ablate(here, "run", "tiny.py").returncode == 0
    assert not folder(here).timing.exists()
    report = here / "report" / "tiny" / "quick" / "report.md"
    assert "Step time was not measured apart" in report.read_text()
    assert ablate(here, "run", "tiny.py", "--timing").returncode == 0
    kept = folder(here).timing.read_bytes()
    timing = read_tables(folder(here))["timing"]
    assert list(timing["loss"]) == ["label_smoothing", "cross_entropy"]
    assert (timing["ratio_to_plain"] > 0).all()
    assert "Timed after the trials" in report.read_text()
    assert ablate(here, "run", "tiny.py", "--timing").returncode == 0
    assert folder(here).timing.read_bytes() == kept


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="a trial cannot have two threads on one core")
def test_threads_make_other_trials_which_are_timed_and_reported_as_such(here: Path) -> None:
    one = ("tiny.py", "--seeds", "1", "--set", "epsilon=0.1")
    idle = f"idle CPU cores: {usable_cores() - 1} of {usable_cores()}; --threads {usable_cores()} would keep"
    assert idle in ablate(here, "plan", *one).stdout
    assert idle in ablate(here, "run", *one, "--timing").stdout
    before = stamps(here)
    assert json.loads(folder(here).timing.read_text())["environment"]["threads"] == 1

    assert "0 done, 1 to run" in ablate(here, "run", *one, "--timing", "--threads", "2").stdout
    assert before.items() < stamps(here).items()
    assert json.loads(folder(here).timing.read_text())["environment"]["threads"] == 2
    assert list(read_tables(folder(here))["trials"]["threads"]) == [2]
    report = (here / "report" / "tiny" / "quick" / "report.md").read_text()
    assert "python -m ablate run tiny.py --set epsilon=0.1 --seeds 1 --threads 2" in report


def test_arms_of_one_seed_start_from_the_same_weights(here: Path) -> None:
    """At ε = 0 both losses are the same function, so paired arms must train the same network."""
    text = STUDY.replace('"epsilon": (0.0, 0.1)', '"loss": ("label_smoothing", "cross_entropy")')
    text = text.replace('baseline={"epsilon": 0.0}', "baseline={}").replace(
        '"lr": 0.05', '"lr": 0.05, "epsilon": 0.0'
    )
    (here / "tiny.py").write_text(text)
    result = ablate(here, "run", "tiny.py")
    assert result.returncode == 0, result.stderr
    trials = read_tables(folder(here))["trials"]
    nll = {(row.loss, row.seed): row.nll for row in trials.itertuples()}
    for seed in (0, 1):
        assert nll["label_smoothing", seed] == pytest.approx(nll["cross_entropy", seed], rel=1e-4)
    assert nll["label_smoothing", 0] != pytest.approx(nll["label_smoothing", 1], rel=1e-4)


def numbers(here: Path) -> dict[str, Any]:
    """What every trial measured, without what the clock decides."""
    found = {}
    for trial_id, record in read_records(folder(here)).items():
        history = [epoch.model_dump(exclude={"seconds"}) for epoch in record.history]
        found[trial_id] = (record.status, history, record.predictions_sha256)
    return found


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_results(here: Path, tmp_path_factory: Any) -> None:
    calm = tmp_path_factory.mktemp("calm")
    (calm / "tiny.py").write_text(STUDY)
    assert ablate(calm, "run", "tiny.py", "--seeds", "4", "--set", "epochs=30").returncode == 0

    rng, kills, finished, resumed = random.Random(0), 0, -1, False
    for _ in range(12):
        driver = subprocess.Popen(
            command("run", "tiny.py", "--seeds", "4", "--set", "epochs=30"),
            cwd=here,
            env=environment(here),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        seen = len(list(folder(here).records.glob("*.json"))) if folder(here).records.exists() else 0
        assert seen >= finished  # what is finished stays finished
        finished = seen
        deadline = time.monotonic() + 120
        while driver.poll() is None and time.monotonic() < deadline and kills < 6:
            done = len(list(folder(here).records.glob("*"))) if folder(here).records.exists() else 0
            if done > seen:
                time.sleep(rng.uniform(0, 0.2))
                driver.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        resumed = resumed or any(folder(here).checkpoints.glob("*.pt"))
        if driver.wait(timeout=120) == 0:
            break
    assert kills >= 3
    assert numbers(here) == numbers(calm)
    assert resumed, "no kill came while a checkpoint was there"
    assert list(folder(here).checkpoints.iterdir()) == []
    assert not list(here.rglob("*.tmp"))


def default_interrupt() -> None:
    """A shell starts background jobs with SIGINT ignored, and they would hand that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_writes_a_partial_report_and_leaves_no_worker(
    here: Path, number: signal.Signals
) -> None:
    driver = subprocess.Popen(
        command("run", "tiny.py", "--seeds", "4", "--set", "epochs=1,2000"),
        cwd=here,
        env={**environment(here), "ABLATE_TEST_MARK": str(here)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=default_interrupt,
    )
    deadline = time.monotonic() + 120
    while not list(folder(here).records.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.send_signal(number)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "interrupted: the report is partial" in output
    assert "missing" in (here / "report" / "tiny" / "quick" / "index.html").read_text()
    time.sleep(0.5)
    mark = f"ABLATE_TEST_MARK={here}".encode()
    left = [p for p in Path("/proc").glob("[0-9]*/environ") if mark in _read(p)]
    assert left == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_diverged_trial_is_shown_and_changes_the_exit_status(here: Path) -> None:
    result = ablate(here, "run", "tiny.py", "--set", "lr=0.05,1e30", "--set", "epsilon=0.1", "--seeds", "1")
    assert result.returncode == 2, result.stderr
    assert "diverged: the loss is not finite at step" in result.stdout
    statuses = read_tables(folder(here))["trials"].set_index("lr")["status"]
    assert statuses.to_dict() == {0.05: "complete", 1e30: "diverged"}
    again = ablate(here, "run", "tiny.py", "--set", "lr=0.05,1e30", "--set", "epsilon=0.1", "--seeds", "1")
    assert "2 done, 0 to run" in again.stdout
    retried = ablate(
        here,
        "run",
        "tiny.py",
        "--set",
        "lr=0.05,1e30",
        "--set",
        "epsilon=0.1",
        "--seeds",
        "1",
        "--retry-failed",
    )
    assert "1 done, 1 to run" in retried.stdout
    assert len(list((folder(here).root / "attempts").glob("*.json"))) == 1


def test_a_study_is_published_with_its_report(here: Path) -> None:
    ablate(here, "run", "tiny.py", "--seeds", "1")
    result = ablate(here, "publish", "tiny", "--as", "cpu-1")
    assert result.returncode == 0, result.stderr
    published = ResultsFolder(here / "results" / "reference" / "tiny" / "cpu-1")
    page = here / "report" / "reference" / "tiny" / "cpu-1" / "index.html"
    rendered = page.read_bytes()
    page.unlink()
    again = (
        "report",
        "tiny",
        "--profile",
        "cpu-1",
        "--results",
        "results/reference",
        "--report",
        "report/reference",
    )
    assert ablate(here, *again).returncode == 0
    assert page.read_bytes() == rendered
    assert read_records(published) == read_records(folder(here))
    assert (here / "report" / "reference" / "tiny" / "cpu-1" / "index.html").is_file()
    assert not published.predictions.exists()
    twice = ablate(here, "publish", "tiny", "--as", "cpu-1")
    assert twice.returncode == 1
    assert "exists already" in twice.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nothing.py"), "nothing.py: no such study file"),
        (("run", "tiny.py", "--profile", "quik"), "Did you mean 'quick'?"),
        (
            ("run", "tiny.py", "--device", "cuda"),
            "--device cuda: expected a CUDA device, but torch sees none",
        ),
        (("run", "tiny.py", "--set", "epsilom=1"), "Did you mean 'epsilon'?"),
        (("run", "tiny.py", "--set", "epsilon=big"), "but 'big' (str) came"),
        (("run", "tiny.py", "--set", "epsilon"), "expected FIELD=VALUE"),
        (("run", "tiny.py", "--set", "epsilon=0.1,0.2"), "baseline.epsilon: 0.0 is not among its levels"),
        (("run", "tiny.py", "--seeds", "0"), "at least one seed is needed, but 0 came"),
        (("run", "tiny.py", "--set", "arch=seed_cn"), "seed_cn"),
        (("run", "tiny.py", "--set", "arch=no.such:thing"), "no.such"),
        (("run", "tiny.py", "--set", "loss=hinge"), "hinge"),
        (("run", "tiny.py", "--set", "data=imagenet"), "imagenet"),
        (("run", "tiny.py", "--set", "data=folder:nowhere"), "nowhere"),
        (("run", "tiny.py", "--set", "data=imagenette-160", "--data-dir", "nowhere"), "nowhere"),
        (("run", "tiny.py", "--results", "tiny.py"), "cannot be written"),
        (("run", "tiny.py", "--report", "tiny.py"), "the report cannot be written there"),
        (("run", "tiny.py", "--set", "lr=1e999"), "lr: "),
        (("run", "tiny.py", "--set", "loss=cross_entropy", "--set", "epsilon=0.0,0.1"), "refuses an arm"),
        (("run", "tiny.py", "--set", "deterministic=False,True"), "train the same network"),
        (("run", "primary.py"), "primary: acuracy: unknown metric"),
        (("run", "tiny.py", "--device", "gpu"), "gpu"),
        (("run", "tiny.py", "--workers", "0"), "--workers"),
        (("run", "tiny.py", "--sed", "3"), "--sed"),
        (("report", "tinny"), "no such study was run here"),
        (("run", "tiy.py"), "Did you mean 'tiny.py'?"),
        (("plan", "tiny.py", "--set", "epsilom=1"), "Did you mean 'epsilon'?"),
        (("plan", "tiny.py", "--profile", "quik"), "Did you mean 'quick'?"),
        (("plan", "primary.py"), "primary: acuracy: unknown metric"),
        (("plan", "tiny.py", "--workers", "0"), "--workers"),
        (("run", "tiny.py", "--threads", "0"), "--threads"),
        (("run", "tiny.py", "--threads", "9999"), "--threads 9999: expected at most"),
        (("plan", "tiny.py", "--threads", "9999"), "--threads 9999: expected at most"),
        (("status", "tiny"), "no such study was run here"),
        (("compare", "tiny", "tiny"), "no such study was run here"),
        (("data", "imagenete-160"), "Did you mean 'imagenette-160'?"),
        (("data", "digits", "--image-size", "0"), "image_size"),
        (("data", "digits", "--resize", "crop"), "crop"),
        (("bench", "speed"), "speed"),
        (("comprae", "a", "b"), "No such command 'comprae'"),
        (("publish", "tiny", "--as", "x"), "no such study was run here"),
    ],
)
def test_bad_input_is_one_message_and_nothing_runs(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    monkeypatch.chdir(here)
    (here / "primary.py").write_text(STUDY.replace("seeds=2", "seeds=2, primary='acuracy'"))
    monkeypatch.setenv("ABLATE_CACHE", str(here / "cache"))
    monkeypatch.setattr(sys, "argv", ["ablate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
    assert not list(here.rglob("records/*.json"))


HOLDER = """
import filelock, sys
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print(flush=True)
sys.stdin.read()
"""


def test_two_runs_do_not_write_into_one_folder(here: Path) -> None:
    folder(here).root.mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder(here).lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    result = ablate(here, "run", "tiny.py")
    holder.communicate()
    assert result.returncode == 1
    assert "another run is writing here" in result.stderr


def test_help_is_there_without_heavy_libraries() -> None:
    code = "import sys; from ablate.__main__ import app; app(['--help'], standalone_mode=False); "
    code += "sys.exit(bool({'torch', 'pandas', 'matplotlib', 'optuna', 'scipy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Train what is missing" in result.stdout


def test_a_data_folder_that_is_not_used_is_said_so(here: Path) -> None:
    result = ablate(here, "run", "tiny.py", "--seeds", "1", "--set", "epochs=1", "--data-dir", ".")
    assert "--data-dir is not used: profile quick takes its images from synthetic" in result.stdout


def test_the_version_is_told() -> None:
    result = ablate(Path.cwd(), "--version")
    assert result.returncode == 0, result.stderr
    name, version, *commit = result.stdout.split()
    assert (name, version) == ("ablate", metadata.version("ablate"))
    assert all(re.fullmatch(r"\([0-9a-f]{12}(-dirty)?\)", word) for word in commit)


def files(here: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in (here / "results").rglob("*") if p.is_file()}


def test_a_plan_trains_nothing_and_learns_from_what_ran(here: Path) -> None:
    first = ablate(here, "plan", "tiny.py", "--workers", "1")
    assert first.returncode == 0, first.stderr
    assert "tiny: no CUDA is present, so profile quick runs\n" in first.stdout
    assert "2 arms x 2 seeds = 4 trials: 0 done, 0 failed, 4 missing" in first.stdout
    assert "time of seed_cnn: not known before one trial of seed_cnn has run" in first.stdout
    assert not (here / "results").exists()
    assert not (here / "report").exists()

    ablate(here, "run", "tiny.py", "--seeds", "3")
    before = files(here)
    again = ablate(here, "plan", "tiny.py", "--seeds", "5", "--set", "lr=0.05,0.1", "--workers", "1")
    assert "4 arms x 5 seeds = 20 trials: 6 done, 0 failed, 14 missing" in again.stdout, again.stderr
    assert re.search(r"time: about \d+ s for 14 of the missing trials, 1 at a time", again.stdout)
    assert files(here) == before


def test_the_state_of_a_running_study_is_told_from_outside(here: Path) -> None:
    driver = subprocess.Popen(
        command("run", "tiny.py", "--seeds", "4", "--set", "epochs=1,2000", "--workers", "1"),
        cwd=here,
        env=environment(here),
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(folder(here).checkpoints.glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    during = ablate(here, "status", "tiny")
    assert driver.poll() is None
    driver.terminate()
    assert driver.wait(timeout=60) == 130  # looking did not disturb it
    assert during.returncode == 0, during.stderr
    assert "tiny, profile quick: a run is going on" in during.stdout
    assert re.search(r"16 planned trials: \d+ complete, \d+ missing", during.stdout)
    assert "1 of the missing have a checkpoint: in progress" in during.stdout
    assert "left at the pace of this run" in during.stdout
    after = ablate(here, "status", "tiny/quick")
    assert "tiny, profile quick: no run is going on" in after.stdout
    assert "1 of the missing have a checkpoint: will go on from there" in after.stdout


def test_two_recorded_studies_are_compared(here: Path) -> None:
    ablate(here, "run", "tiny.py")
    ablate(here, "run", "tiny.py", "--profile", "full", "--set", "lr=0.1", "--seeds", "3")
    before = files(here)
    result = ablate(here, "compare", "tiny/quick", "results/tiny/full", "--csv", "out.csv")
    assert result.returncode == 0, result.stderr
    assert "The runs differ in:" in result.stdout
    assert re.search(r"^field lr +0.05 +0.1$", result.stdout, flags=re.MULTILINE)
    assert result.stdout.count("Welch, n = 2 and 3") == 6
    assert len((here / "out.csv").read_text().splitlines()) == 7
    assert files(here) == before
    one = ablate(here, "compare", "tiny/quick", "tiny/quick", "--metric", "brier")
    assert "Brier score" in one.stdout
    assert "Accuracy" not in one.stdout


def test_a_dataset_is_prepared_and_then_listed(here: Path) -> None:
    before = ablate(here, "data").stdout
    assert re.search(r"^digits .* –$", before, flags=re.MULTILINE)
    result = ablate(here, "data", "digits", "--image-size", "8", "--resize", "center_crop")
    assert result.returncode == 0, result.stderr
    assert "digits: 8 x 8 pixels, 10 classes" in result.stdout
    assert re.search(r"^ +all +600 +1197$", result.stdout, flags=re.MULTILINE)
    (fingerprint,) = re.findall(r"^fingerprint: ([0-9a-f]{64})$", result.stdout, flags=re.MULTILINE)
    (place,) = re.findall(r"^folder: (.+)$", result.stdout, flags=re.MULTILINE)
    assert open_dataset(Path(place)).fingerprint == fingerprint
    assert re.search(r"^digits .* 8 px, center_crop$", ablate(here, "data").stdout, flags=re.MULTILINE)
    (Path(place) / "dataset.json").write_text("{")
    assert ablate(here, "data").stdout == before


def test_the_doctor_is_content_or_exits_with_1(here: Path) -> None:
    sound = ablate(here, "doctor")
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert "all that a run needs is there" in sound.stdout
    (here / "cache").write_text("in the way")
    broken = ablate(here, "doctor")
    assert broken.returncode == 1
    assert "broken: cache: set ABLATE_CACHE" in broken.stdout


def test_settings_are_python_literals_or_text() -> None:
    assert parse_settings(["epsilon=0,0.1", "arch=seed_cnn", "drop_last=True"]) == {
        "epsilon": (0, 0.1),
        "arch": ("seed_cnn",),
        "drop_last": (True,),
    }
    with pytest.raises(StudyError, match="given twice"):
        parse_settings(["lr=1", "lr=2"])


def test_no_record_names_a_host_or_a_path(here: Path) -> None:
    ablate(here, "run", "tiny.py", "--seeds", "1")
    for path in [*folder(here).records.iterdir(), folder(here).plan]:
        text = path.read_text()
        assert str(here) not in text
        assert os.uname().nodename not in set(_strings(json.loads(text)))


def _strings(value: Any) -> Any:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value
