"""The CPU and CUDA forms of what a training run needs from its device."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import random
import re
import resource
import sys
import time
from pathlib import Path
from typing import Protocol

import numpy as np
import torch


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor itself multiplies bfloat16 (AVX512-BF16, AMX); emulation is slow."""
    try:
        flags = re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo.read_text(), flags=re.MULTILINE)
    except OSError:
        return False
    return bool(flags) and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags[0].split())


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep freed blocks instead of returning them to the system.

    A training step frees and takes the same hundreds of megabytes; fresh pages for them cost up to half of
    a step. Elsewhere than on glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_mmap_max = -1, -4
    malloc = ctypes.CDLL(None)
    malloc.mallopt(m_mmap_max, 0)
    malloc.mallopt(m_trim_threshold, 2**31 - 1)


def device_name(device: torch.device) -> str:
    """The processor's or GPU's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        models = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def set_numerics(*, deterministic: bool) -> None:
    """Make float32 mean float32 (no TF32), and algorithms deterministic where asked."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)
    # A debugging aid that would cost every step. Torch makes it a property of the module at run time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def seed_generators(seed: int) -> None:
    """Seed every global generator that a network, a loss or an augmentation may draw from.

    Args:
        seed: in [0, 2**63); NumPy's generator takes its lower 32 bits.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


class StepClock(Protocol):
    """Times training steps without making the device wait for the host."""

    def start(self) -> None:
        """A step begins."""

    def stop(self) -> None:
        """The step has been handed to the device."""

    def read(self) -> list[float]:
        """Milliseconds of the steps since the last reading; waits for the device once."""
        ...


class CpuClock:
    """Wall-clock time of each step."""

    def __init__(self) -> None:
        self._begun, self._times = 0.0, list[float]()

    def start(self) -> None:
        """A step begins."""
        self._begun = time.perf_counter()

    def stop(self) -> None:
        """The step is done."""
        self._times.append(1000 * (time.perf_counter() - self._begun))

    def read(self) -> list[float]:
        """Milliseconds of the steps since the last reading."""
        times, self._times = self._times, []
        return times


class CudaClock:
    """Device time of each step, from a pair of events on the current stream."""

    def __init__(self) -> None:
        self._pairs = list[tuple[torch.cuda.Event, torch.cuda.Event]]()

    def start(self) -> None:
        """A step begins."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        self._pairs.append((begin, end))

    def stop(self) -> None:
        """The step has been handed to the device."""
        self._pairs[-1][1].record()

    def read(self) -> list[float]:
        """Milliseconds of the steps since the last reading; waits for the device once."""
        torch.cuda.synchronize()
        pairs, self._pairs = self._pairs, []
        return [begin.elapsed_time(end) for begin, end in pairs]


def step_clock(device: torch.device) -> StepClock:
    """The clock that is right for a device."""
    return CudaClock() if device.type == "cuda" else CpuClock()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the peak; where the system does not allow it, the peak is the process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held since the last reset, in MB: CUDA allocations, or the process's resident pages."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 / 1e6 if found else _peak_since_start_mb()


def _peak_since_start_mb() -> float:
    """The process's peak where the system does not say more; macOS counts it in bytes, others in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
