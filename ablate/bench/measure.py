"""Measuring one call with pytest-benchmark, on a device that may run behind the host."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
EVENT_PAIRS = 30


def measured_as(benchmark: Any, group: str, implementation: str) -> None:
    """Name a case.

    Args:
        benchmark: pytest-benchmark's fixture.
        group: what is computed, and where; cases of one group are compared.
        implementation: who computes it; "torch" is what the others are divided by.
    """
    benchmark.group = group
    benchmark.extra_info["implementation"] = implementation


def measure(benchmark: Any, call: Callable[[], object], device: torch.device, *, rounds: int = 0) -> None:
    """Time a call, each one to its end.

    A GPU is handed work and computes it later, which pytest-benchmark does not know: every call is waited
    for. That adds the wait's few microseconds to all implementations alike. The time that the GPU itself
    needs is taken apart, with events, and stored as `device_ms`.

    Args:
        benchmark: pytest-benchmark's fixture.
        call: what to time; it may be called any number of times.
        device: where it computes.
        rounds: how often to time it, after a warm-up; 0 leaves that to pytest-benchmark's calibration.
    """
    on_cuda = device.type == "cuda"

    def to_its_end() -> None:
        call()
        if on_cuda:
            torch.cuda.synchronize(device)

    if rounds:
        benchmark.pedantic(to_its_end, rounds=rounds, warmup_rounds=max(1, rounds // 5))
    else:
        to_its_end()
        benchmark(to_its_end)
    if on_cuda:
        benchmark.extra_info["device_ms"] = _device_ms(call, device)


def _device_ms(call: Callable[[], object], device: torch.device) -> float:
    """Median milliseconds between two events around a call."""
    times: list[float] = []
    with torch.cuda.device(device):
        for _ in range(EVENT_PAIRS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize(device)
            times.append(begin.elapsed_time(end))
    return statistics.median(times)
