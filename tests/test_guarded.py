"""Study files, modules and networks that exit, crash, hang, flood or deceive: one message, no training."""

import contextlib
import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ablate import Study, load_study
from ablate.data import default_cache_dir, prepare
from ablate.data.decode import decode_image
from ablate.errors import DataError, StudyError
from ablate.guarded import FORKS, SILENCE, guarded
from ablate.plugins import load_foreign

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what guards")

BASE = {"data": "synthetic", "image_size": 16, "epochs": 1}
CRASH = "import ctypes, faulthandler, os, time\nfaulthandler.disable()\n"
HOSTILE = {
    "import sys; sys.exit(0)": "bad.py, line 2: running the study file fails: SystemExit: 0$",
    "import os\nprint('bye')\nos._exit(0)": r"process \(status 0\) before it was done; .* printed: 'bye'\.",
    f"{CRASH}ctypes.string_at(0)": r"it ended its process \(Segmentation fault\)",
    f"{CRASH}os.fork() or time.sleep(60)\nctypes.string_at(0)": "Segmentation fault",
    "while True: pass": "it took longer than 2 s, which ABLATE_SILENCE_SECONDS can raise",
    "for _ in range(100): print('x' * 10**6)\nraise ValueError('full')": "line 3: .*: ValueError: full$",
    "import os; os.write(1, b'caf\\xe9'); raise ValueError('\\udce9.png')": "ValueError: \udce9.png$",
    "raise KeyboardInterrupt": r"\(status 1\) .*: 'KeyboardInterrupt'",
    "import os\nfor one in range(3, 99): os.fstat(one); os.write(one, b'x')": "Bad file|something else",
    "import os\nos.closerange(3, 9999)": r"\(status 1\) .*Bad file descriptor",
    "from beside import Own as Study": "beside.Own: expected plain values",
}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a command begins: in a process that may fork."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    token = FORKS.set(True)
    yield
    FORKS.reset(token)


def write(file: Path, code: str = "") -> Path:
    study = f"study = Study(question='?', base={BASE}, factors={{'epsilon': [0.0, 0.1]}})"
    (file.parent / "beside.py").write_text("from ablate import Study\nclass Own(Study): ...")
    file.write_text(f"from ablate import Study\n{code}\n{study}\n")
    return file


def load(file: Path) -> Study:
    return guarded(load_study, file, what="running it")


def processes(word: str) -> list[int]:
    """Those that have a word in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [int(process.parent.name)] * (word.encode() in process.read_bytes())
    return found


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("code", HOSTILE)
def test_a_hostile_study_file_is_one_short_message(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SILENCE, "2" if code.startswith("while") else "60")
    with pytest.raises(StudyError, match=HOSTILE[code]) as raised:
        load(write(tmp_path / "bad.py", code))
    assert len(str(raised.value)) < 500


@pytest.mark.usefixtures("clean")
def test_what_a_study_prints_and_sets_stays_and_what_it_starts_and_imports_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(99)", str(tmp_path)]
    start = f"import beside, os, subprocess\nsubprocess.Popen({sleeper}, start_new_session=True)"
    sets = "import sys\nsys.path.append('/nowhere')\nos.environ['ABLATE_TEST_SET'] = 'yes'"
    noise = "print('hello')\nfor _ in range(10**5): print('y' * 1000)\nos.fork()\nprint('end')\n"
    study = load(write(tmp_path / "fine.py", f"{start}\n{noise}{sets}"))
    assert (study.name, study.folder, len(study.arms())) == ("fine", tmp_path, 2)
    out, err = capsys.readouterr()
    assert (out, err[:6], err[-4:]) == ("", "hello\n", "end\n")
    assert len(err) < 20_000
    assert (os.environ.pop("ABLATE_TEST_SET"), sys.path[-1]) == ("yes", "/nowhere")
    assert "beside" not in sys.modules
    assert not processes(str(tmp_path))


@pytest.mark.usefixtures("clean")
def test_what_a_child_tells_gives_and_raises_is_told_given_and_raised_here() -> None:
    told: list[int] = []

    def work(tell: Callable[[int], None], count: int) -> int:
        for number in range(count):
            tell(number)
        if count > 3:
            raise DataError("no more")
        return os.getpid()

    assert guarded(work, told.append, 3, what="work") != os.getpid()
    with pytest.raises(DataError, match=r"^no more$"):
        guarded(work, told.append, 4, what="work")
    assert told == [0, 1, 2, 0, 1, 2, 3]
    FORKS.set(False)  # as with --workers 0, for a debugger
    assert guarded(work, told.append, 1, what="work") == os.getpid()


@pytest.mark.usefixtures("clean")
def test_modules_named_like_pythons_or_like_one_that_ablate_needs(tmp_path: Path) -> None:
    code = "import random\nassert random.random() < 1\ndef net(): ..."
    assert load_study(write(tmp_path / "random.py", code)).name == "random"
    with pytest.raises(StudyError, match=rf"random is a module of Python's own; give {tmp_path}/random.py"):
        load_foreign("network", "random:net")
    assert load_foreign("metric", "statistics:fmean")
    with pytest.raises(StudyError, match=r"torch.py: ablate needs torch, and would import this instead"):
        load_study(write(tmp_path / "torch.py"))


def test_what_is_endless_or_huge_is_refused_and_a_dataset_is_handed_over_as_its_folder() -> None:
    study = Study(question="?", base=BASE)
    with pytest.raises(StudyError, match=r"epsilon: expected at most 1,000 values in a list, but count"):
        study.replace(factors={"epsilon": itertools.count()})
    with pytest.raises(StudyError, match=r"at most 100,000 trials of a study, but 2,000,000,000 came"):
        study.replace(factors={"epsilon": (0.0, 0.1)}, seeds=10**9)
    with pytest.raises(ValueError, match=r"30000 x 1 pixels: expected at most 100 times as long"):
        decode_image(np.zeros((1, 30_000), np.uint8), 64, "center_crop")
    data = prepare("synthetic", image_size=16, cache_dir=default_cache_dir())
    again = pickle.loads(content := pickle.dumps(data))
    assert (again.name, again.fingerprint, len(content) < 1000) == (data.name, data.fingerprint, True)


NETWORKS = """
def leaves(num_classes): __import__('os')._exit(0)
class Deceives(nn.Sequential):
    def __init__(self, num_classes, image_size):
        super().__init__(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))
    def register_forward_hook(self, hook): sys.exit(0)"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "arch=mine:leaves"), "error: trying mine:leaves: it ended its process (status 0)"),
        (("--set", "arch=mine:Deceives", "--workers", "0"), "error: code that the study names ended the"),
        (("--set", "arch=signal:net"), "error: network 'signal:net': signal is a module of Python's own"),
    ],
)
def test_a_run_that_code_would_end_fails(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    write(tmp_path / "signal.py", "print('loaded')\ndef net(): ...")
    (tmp_path / "mine.py").write_text(f"import sys\nfrom torch import nn\n{NETWORKS}")
    command = [sys.executable, "-m", "ablate", "run", "signal.py", *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, "loaded" in ended.stdout + ended.stderr) == (1, True)
    assert (message in ended.stderr, ended.stderr.count("error: ")) == (True, 1)
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_a_child_dies_with_its_command_and_with_all_that_it_started(
    tmp_path: Path, ended_by: signal.Signals
) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(99)", str(tmp_path)]
    starts = f"import subprocess, time\nsubprocess.Popen({sleeper}, start_new_session=True)"
    file = write(tmp_path / "endless.py", f"{starts}\nopen('here', 'w').close()\ntime.sleep(600)")
    command = [sys.executable, "-m", "ablate", "plan", str(file)]
    driver = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background
    )  # fmt: skip
    while not (tmp_path / "here").exists() or len(processes(str(tmp_path))) < 4:
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(ended_by)
    time.sleep(0.1)
    driver.send_signal(ended_by)  # of who presses twice
    said = driver.communicate(timeout=60)[1]
    if ended_by == signal.SIGINT:
        assert driver.returncode == 130
        assert said == "interrupted: what is recorded is kept; the same command goes on\n"
    deadline = time.monotonic() + 10
    while (left := processes(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
