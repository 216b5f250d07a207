"""What a run asks of its device, on files like the system's own."""

import mmap
from pathlib import Path

import torch

from ablate.train.device import cpu_has_bfloat16, peak_memory_mb, reset_peak_memory, set_numerics


def test_bfloat16_is_used_only_where_the_processor_has_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert not cpu_has_bfloat16(cpuinfo)  # no such file
    has = {"fpu avx512_bf16 sse": True, "fpu amx_bf16": True, "avx512_vnni": False, "not_avx512_bf16x": False}
    for flags, expected in has.items():
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        assert cpu_has_bfloat16(cpuinfo) is expected


def test_peak_memory_rises_by_what_is_taken_and_starts_anew() -> None:
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before = peak_memory_mb(cpu)
    block = mmap.mmap(-1, 240_000_000)  # and not malloc, which may have been told to keep what is freed
    block.write(b"1" * 240_000_000)
    taken = peak_memory_mb(cpu)
    assert taken - before > 200
    block.close()
    reset_peak_memory(cpu)
    assert peak_memory_mb(cpu) < taken - 200


def test_numerics_are_set_both_ways() -> None:
    for deterministic in (True, False):
        set_numerics(deterministic=deterministic)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert not torch.backends.cudnn.allow_tf32
