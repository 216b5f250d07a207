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
from typing import Any

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


class StepClock:
    """Times steps without making the device wait: a GPU's by events on its stream, a CPU's by the clock."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._marks = device, list[Any]()

    def mark(self) -> None:
        """A step begins, or has been handed to the device."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def read(self) -> list[float]:
        """Milliseconds of the steps since the last reading; waits for the device once."""
        synchronize(self._device)
        marks, self._marks = self._marks, []
        pairs = zip(marks[::2], marks[1::2], strict=True)
        if self._device.type == "cuda":
            return [begin.elapsed_time(end) for begin, end in pairs]
        return [1000 * (end - begin) for begin, end in pairs]


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
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if peak := re.search(r"^VmHWM:\s*(\d+) kB", status, flags=re.MULTILINE):
            return int(peak[1]) * 1024 / 1e6
    since_start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return since_start * (1 if sys.platform == "darwin" else 1024) / 1e6  # macOS counts bytes, others KiB
