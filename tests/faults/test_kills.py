"""Killed again and again, driver or worker, a study ends with the same tables, each trial once."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from quick_study import FULL, tables_of

from ablate.store.records import read_records
from ablate.store.results import ResultsFolder

SEEDS = 6 if FULL else 2
OWN = f"""from ablate import Study
study = Study(question="?", train="quick:train", factors={{"lr": (0.1, 0.2, 0.3, 0.4)}}, seeds={SEEDS},
              base={{"seconds": 0.05}}, baseline={{"lr": 0.1}})
"""
REAL = f"""from ablate import Study
study = Study(question="?", factors={{"epsilon": (0.0, 0.1, 0.2, 0.3)}}, seeds={SEEDS},
              baseline={{"epsilon": 0.0}},
              base={{"data": "synthetic", "image_size": 16, "epochs": 4, "batch_size": 32, "lr": 0.05}})
"""
RUN = [sys.executable, "-m", "ablate", "run", "s.py", "--no-timing", "--workers", "2"]


def start(here: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "ABLATE_CHECKPOINT_SECONDS": "0",
        "ABLATE_MARK": str(here),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(RUN, cwd=here, env=environment, stdout=subprocess.DEVNULL)


def children(process: int) -> list[int]:
    """All that a process started, and they."""
    try:
        own = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, own) for one in (child, *children(child))]


def prepared(here: Path, study: str) -> Path:
    here.mkdir()
    (here / "s.py").write_text(study)
    shutil.copy(Path(__file__).with_name("quick.py"), here)
    return here


@pytest.mark.soak
@pytest.mark.parametrize(
    ("study", "kills"), [(OWN, 90 if FULL else 4), (REAL, 10 if FULL else 1)], ids=["milliseconds", "trained"]
)
def test_killed_at_random_it_ends_with_the_same_tables(tmp_path: Path, study: str, kills: int) -> None:
    calm = prepared(tmp_path / "calm", study)
    began = time.monotonic()
    assert start(calm).wait(timeout=300) == 0
    lasts = time.monotonic() - began
    root = Path("results", "s", "default")
    whole = tables_of(calm / root)
    rng, done, rounds = random.Random(0), 0, 0
    while done < kills:
        here, rounds = prepared(tmp_path / f"killed-{rounds}", study), rounds + 1
        seen = set[str]()
        for _ in range(40):
            driver = start(here)
            while done < kills and driver.poll() is None:
                time.sleep(rng.uniform(0.02, min(lasts / 2, 4)))
                of_workers = children(driver.pid)
                victim = rng.choice([driver.pid, *of_workers[:4]])
                if driver.poll() is None:
                    try:
                        os.kill(victim, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    done += 1
            status = driver.wait(timeout=300)
            kept = {path.stem for path in (here / root / "records").glob("*.json")}
            assert seen <= kept  # what is recorded stays
            seen = kept
            if status == 0:
                break
            assert status in (1, 2, -signal.SIGKILL)  # 1: what loaded or planned the study was killed
            if status == 2:  # three attempts of one trial were killed
                driver = subprocess.Popen([*RUN, "--retry-failed"], cwd=here, stdout=subprocess.DEVNULL)
                if driver.wait(timeout=300) == 0:
                    break
        assert tables_of(here / root) == whole
        assert len(read_records(ResultsFolder(here / root))) == 4 * SEEDS
        assert not [*here.rglob("*.tmp")]
        shutil.rmtree(here)
