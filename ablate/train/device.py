"""The CPU and CUDA forms of what a training run needs from its device."""

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

CPUINFO = Path("/proc/cpuinfo")


def cpu_has_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor itself multiplies bfloat16 (AVX512-BF16, AMX); emulation is slow."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_first_line(cpuinfo, "flags").split())


def device_name(device: torch.device) -> str:
    """The processor's or GPU's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _first_line(CPUINFO, "model name") or platform.processor() or platform.machine()


def _first_line(file: Path, name: str) -> str:
    """What stands after a name in one of Linux' files of `name: value`; nothing where it does not."""
    with contextlib.suppress(OSError):
        if found := re.search(rf"^{name}\s*:\s*(.*)$", file.read_text(), flags=re.MULTILINE):
            return found[1]
    return ""


def keep_freed_memory() -> None:
    """Tell glibc's malloc, where it is that, to keep freed blocks instead of returning them to the system.

    A training step frees and takes the same hundreds of megabytes; fresh pages cost up to half of a step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_mmap_max = -1, -4
    malloc = ctypes.CDLL(None)
    malloc.mallopt(m_mmap_max, 0)
    malloc.mallopt(m_trim_threshold, 2**31 - 1)


def set_numerics(*, deterministic: bool) -> None:
    """Make float32 mean float32 (no TF32), and algorithms deterministic where asked."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)
    # A debugging aid that would cost every step. Torch makes it a property of the module at run time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def seed_generators(seed: int) -> None:
    """Seed every global generator that a network or a loss may draw from; NumPy's with the lower 32 bits."""
    torch.default_generator.manual_seed(seed)  # and not torch.manual_seed, which takes a quarter of a ms
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def mark(device: torch.device) -> Any:
    """Now, or when a GPU gets here in its work: nothing waits for it."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def elapsed_ms(begin: Any, end: Any) -> float:
    """Between two marks of a device that has been waited for."""
    return 1000 * (end - begin) if isinstance(begin, float) else float(begin.elapsed_time(end))


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
    if peak := _first_line(Path("/proc/self/status"), "VmHWM").removesuffix(" kB"):
        return int(peak) * 1024 / 1e6
    since_start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return since_start * (1 if sys.platform == "darwin" else 1024) / 1e6  # macOS counts bytes, others KiB
