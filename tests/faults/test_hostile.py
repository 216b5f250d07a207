"""Networks that crash, exit, hang, fork, print or leak: each its own trial's fault, and nobody else's."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from quick_study import FULL

from ablate.store.records import Record, read_predictions, read_records
from ablate.store.results import ResultsFolder

HOSTILE = Path(__file__).with_name("hostile.py")
STUDY = """from ablate import Study
study = Study(
    question="Who is harmed?",
    base={{"data": "synthetic", "image_size": 16, "epochs": 2, "batch_size": 32, "arch": "hostile:Net"}},
    factors={{"arch.{argument}": {values}}},
    seeds={seeds},
)
"""
OWN, HARMLESS = "own", "harmless"
WHILE_TRAINED = {
    # What is in its failure's message; or that the trial ends well, and computes what the first one does.
    "nothing": HARMLESS,
    "raise": r"ValueError: no such thing \(in .*hostile",
    "raise no text": r"ValueError: bad \\udcff.png",
    "raise 20 MB": r"ValueError: x{1000}",
    "raise with escapes": r"ValueError: .*owned",
    "raise interrupt": "KeyboardInterrupt",
    "raise base": "Quit: over",
    "raise reset": "ConnectionResetError: by its server",
    "raise end of file": "EOFError: of a download",
    "raise stop": "StopIteration",
    "late raise": "ValueError: late",
    "recurse": "RecursionError",
    "exit 0": "SystemExit: 0",
    "exit 3": "SystemExit: 3",
    "die 0": "exited with status 0",
    "die 7": "exited with status 7",
    "crash": "SIGSEGV",
    "abort": "SIGABRT",
    "kill": "SIGKILL",
    "kill parent": ".",
    "kill group": ".",
    "hang": "longer than",
    "spin": "longer than",
    "stop": "longer than",
    "fork and crash": "SIGSEGV",
    "huge": "allocate memory",
    "wrong type": ".",
    "wrong shape": ".",
    "not a number": "not finite",
    # Its own copy, descriptors or modules are gone: it ends one way or the other, with its own numbers.
    "fork returns": OWN,
    "write everywhere": OWN,
    "close everything": OWN,
    "set type": OWN,
    "patch torch": OWN,
    "no path": OWN,
    "no modules": OWN,
    "print 100 MB": HARMLESS,
    "print": HARMLESS,
    "leave child": HARMLESS,
    "leave session": HARMLESS,
    "leave thread": HARMLESS,
    "change folder": HARMLESS,
    "clear environment": HARMLESS,
    "ignore signals": HARMLESS,
    "leak": HARMLESS,
}
WHILE_BUILT = {
    "raise": "ValueError: no such thing",
    "raise no text": r"bad \\udcff.png",
    "raise 20 MB": "ValueError: xxx",
    "raise with escapes": "owned",
    "raise base": "Quit",
    "exit 0": "SystemExit: 0",
    "exit 3": "SystemExit: 3",
    "die 0": "status 0",
    "die 7": "status 7",
    "crash": "Segmentation fault",
    "kill": r"\(Killed\)",
    "fork and crash": "Segmentation fault",
    "huge": "allocate memory",
    "recurse": "RecursionError",
}


def started(here: Path, mark: str) -> list[int]:
    """Processes that a command started here, and what they started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"ABLATE_MARK={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def ablate(here: Path, *arguments: str, limit: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ablate", *arguments], cwd=here, capture_output=True, text=True, timeout=limit,
        errors="surrogateescape", env=environment(here),
    )  # fmt: skip


def environment(here: Path) -> dict[str, str]:
    return {**os.environ, "ABLATE_MARK": str(here), "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}


def wrote(here: Path, argument: str, values: object, *, seeds: int = 1, name: str = "s") -> str:
    shutil.copy(HOSTILE, here)
    (here / f"{name}.py").write_text(STUDY.format(argument=argument, values=values, seeds=seeds))
    return f"{name}.py"


def records_of(here: Path, study: str = "s") -> dict[str, Record]:
    folder = ResultsFolder(here / "results" / study / "default")
    records = read_records(folder).values()
    return {record.trial.looped.arguments("arch").get("what", ""): record for record in records}


@pytest.mark.soak
def test_what_a_network_does_in_a_step_costs_its_own_trial_alone(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path / "results" / "s" / "default")
    tried = dict([*WHILE_TRAINED.items()][:: 1 if FULL else 2])
    study = wrote(tmp_path, "what", tuple(tried))
    # The first is alone to begin with.
    ended = ablate(tmp_path, "run", study, "--set", "arch.what=nothing", "--no-timing")
    assert ended.returncode == 0, ended.stderr
    ended = ablate(tmp_path, "run", study, "--workers", "2", "--no-timing", "--timeout", "0.2")
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hello" not in ended.stdout + ended.stderr
    records = records_of(tmp_path)
    assert records.keys() == tried.keys()
    whole = read_predictions(folder, records["nothing"]).logits.tobytes()
    for what, expected in tried.items():
        record = records[what]
        message = record.failure.message if record.failure else ""
        assert len(message) <= 2100, what
        assert message.isprintable() or what == "raise with escapes", what
        if expected == HARMLESS:
            assert record.status == "complete", f"{what}: {message}"
            assert read_predictions(folder, record).logits.tobytes() == whole, what
        elif expected != OWN:
            assert record.status != "complete", what
            assert re.search(expected, message), f"{what}: {record.status}: {message[:300]}"
    page = tmp_path / "report" / "s" / "default" / "index.html"
    assert page.stat().st_size < 2e6
    time.sleep(1)
    assert started(tmp_path, str(tmp_path)) == []


@pytest.mark.soak
@pytest.mark.parametrize("what", WHILE_BUILT if FULL else ["raise 20 MB", "exit 0", "fork and crash"])
def test_what_a_network_does_while_it_is_built_is_told_before_training(tmp_path: Path, what: str) -> None:
    ended = ablate(tmp_path, "run", wrote(tmp_path, "built", ("nothing", what)), "--no-timing", limit=60)
    assert ended.returncode == 1, ended.stdout
    assert re.search(WHILE_BUILT[what], ended.stderr), ended.stderr[-500:]
    assert "Traceback" not in ended.stderr or what == "raise base"  # which comes with its place
    assert len(ended.stderr) < 5000
    assert not [*tmp_path.glob("results/*/*/records/*")]
    time.sleep(0.5)
    assert started(tmp_path, str(tmp_path)) == []


@pytest.mark.soak
@pytest.mark.skipif(not FULL, reason="the default run has another of it")
def test_no_trial_meets_the_state_of_another(tmp_path: Path) -> None:
    study, logits = wrote(tmp_path, "what", ("count",), seeds=3), []
    for workers in ("1", "3"):  # one that would do all three, and three that do one each
        ended = ablate(tmp_path, "run", study, "--no-timing", "--workers", workers, "--results", workers)
        assert ended.returncode == 0, ended.stderr
        folder = ResultsFolder(tmp_path / workers / "s" / "default")
        records = sorted(read_records(folder).items())
        logits.append([read_predictions(folder, record).logits.tobytes() for _, record in records])
    assert logits[0] == logits[1]
