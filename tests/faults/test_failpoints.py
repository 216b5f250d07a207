"""A run that is killed, or whose disk is full, at any step of any write ends as if nothing had been."""

import itertools
import os
import shutil
import signal
from pathlib import Path

import pytest
from quick_study import FULL, folder_of, run, tables_of

from ablate.errors import AblateError
from ablate.store import results as store
from ablate.store.records import read_records

NO_SPACE = "28"


def in_child(here: Path, fault: str) -> int:
    """Run the study in a process that meets a fault: 0 where it ended well, 1 where it said what is wrong."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 7
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ["ABLATE_FAILPOINT"] = fault
        store.STEPS = itertools.count(1)
        run(here)
        status = 0
    except AblateError:
        status = 1
    finally:
        os._exit(status)


@pytest.mark.usefixtures("quick")
@pytest.mark.soak
def test_stopped_at_any_step_of_any_write_it_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    calm, wrong = tmp_path / "calm", []
    store.STEPS = itertools.count(1)
    run(calm)
    steps = next(store.STEPS)
    whole = tables_of(folder_of(calm).root)
    assert steps > 80
    for step, fault in itertools.product(range(1, steps, 1 if FULL else 7), ("kill", NO_SPACE)):
        here = tmp_path / f"{step}-{fault}"
        status = in_child(here, f"{step}:{fault}")
        run(here)
        folder = folder_of(here)
        ended = tables_of(folder.root) == whole and len(read_records(folder)) == 4
        left = [*folder.root.rglob("*.tmp")]
        if not ended or left or status not in ((-signal.SIGKILL,) if fault == "kill" else (0, 1)):
            wrong.append((step, fault, status, ended, left))
        shutil.rmtree(here)
    assert not wrong
