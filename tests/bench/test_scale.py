"""What ablate takes of a trial does not grow with how many there are, and 64 workers are kept busy."""

import sys
from pathlib import Path
from typing import Any

import pytest

import ablate
from ablate.guarded import FORKS
from ablate.store.records import read_records
from ablate.store.results import ResultsFolder
from benchmarks import scale

OURS = str(Path(ablate.__file__).parent)


def steps_by_stage(here: Path, arms: int, seeds: int, patch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many functions each stage up to the tables calls, and how many lines of ablate's it runs."""
    count, found = 0, dict[str, int]()

    def stepped(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event in ("call", "line")
        return stepped if frame.f_code.co_filename.startswith(OURS) else None

    patch.setattr(scale, "write_report", lambda *_: None)
    patch.setattr(scale, "rebuild_tables", lambda *_: None)
    executor, before = scale.Scripted(), sys.gettrace()
    sys.settrace(stepped)
    try:
        for stage in scale.stages(scale.declared(arms, seeds), here, executor):
            found[stage], count = count, 0
    finally:
        sys.settrace(before)
    assert executor.most == scale.WORKERS
    assert len(read_records(ResultsFolder(here / "results/scale/default"))) == arms * seeds
    return found


@pytest.mark.slow
@pytest.mark.parametrize("grids", [((5, 20), (5, 40)), ((50, 2), (100, 2))])
def test_twice_the_trials_are_twice_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grids: tuple[tuple[int, int], ...]
) -> None:
    token = FORKS.set(False)
    few, many = (steps_by_stage(tmp_path / str(grid), *grid, monkeypatch) for grid in grids)
    FORKS.reset(token)
    assert {stage: steps for stage, steps in many.items() if steps > 2.1 * few[stage]} == {}
