"""The timing pass as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ablate.errors import RecordError
from ablate.store.results import ResultsFolder
from ablate.store.timing import TimingPass, read_timing


def step_time_rows(folder: ResultsFolder) -> list[dict[str, Any]]:
    """One row per case and round; none without a pass, or with a damaged one, which a run measures again."""
    try:
        timing = read_timing(folder)
    except RecordError:
        return []
    return [] if timing is None else list(_rows(timing))


def _rows(timing: TimingPass) -> Iterator[dict[str, Any]]:
    environment = timing.environment
    for case, times, steps in zip(timing.cases, timing.step_ms, timing.steps, strict=True):
        for number, step_ms in enumerate(times):
            yield {
                **case.model_dump(),
                "round": number,
                "step_ms": step_ms,
                "steps": steps,
                "threads": environment.threads,
                "device_name": environment.device_name,
                "others": timing.others,
            }
