"""What ablate takes of a trial does not grow with how many there are, and 64 workers are kept busy."""

import sys
from pathlib import Path
from typing import Any

import pytest

from ablate.guarded import FORKS
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from benchmarks import scale

DRIVER = {
    "the plan",
    "the driver and its records",
    "a run of a finished study",
    "reading the records",
    "status",
}


def calls_by_stage(here: Path, seeds: int, patch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many Python functions each stage up to the tables calls."""
    count, found = 0, dict[str, int]()

    def called(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    patch.setattr(scale, "write_report", lambda *_: None)
    patch.setattr(scale, "rebuild_tables", lambda *_: None)
    executor = scale.Scripted()
    sys.setprofile(called)
    try:
        for stage in scale.stages(scale.declared(10, seeds), here, executor):
            found[stage], count = count, 0
    finally:
        sys.setprofile(None)
    assert executor.most == scale.WORKERS
    assert len(read_records(ResultsFolder(here / "results/scale/default"))) == 10 * seeds
    return {stage: calls for stage, calls in found.items() if stage in DRIVER}


@pytest.mark.slow
def test_twice_the_trials_are_twice_the_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = FORKS.set(False)
    few, many = (calls_by_stage(tmp_path / str(seeds), seeds, monkeypatch) for seeds in (20, 40))
    FORKS.reset(token)
    assert few.keys() == DRIVER
    assert {stage: many[stage] / few[stage] < 2.1 for stage in DRIVER} == dict.fromkeys(DRIVER, True)
