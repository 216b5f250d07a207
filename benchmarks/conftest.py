"""What every benchmark has: `compare`, a trial's surroundings, and tables at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from rich.console import Console

from ablate.terminal import print_line, print_table
from ablate.train.device import cpu_has_bfloat16, device_name, keep_freed_memory, set_numerics
from benchmarks.interleaved import MOST_ROUNDS, Peer, summary, take_round

BUSY = 0.5
"""Processes of others that wanted a core, from which on timings are not to be relied on."""
SHOWN = pytest.StashKey[list[tuple[str, dict[str, Any]]]]()
LOAD = pytest.StashKey[float]()

Compare = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much of an epoch is timed."""
    parser.addoption(
        "--images", type=int, default=1024, help="Images of an epoch that are timed; 0: all of them."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look at the machine before anything runs."""
    config.stash[SHOWN] = []
    config.stash[LOAD] = os.getloadavg()[0]


@pytest.fixture
def compare(benchmark: Any, pytestconfig: pytest.Config) -> Compare:
    """Times peers in turn: see `compare_peers` below for its arguments."""
    fewest = pytestconfig.getoption("benchmark_min_rounds")
    seconds = float(pytestconfig.getoption("benchmark_max_time"))

    def compare_peers(
        group: str,
        peers: Mapping[str, Peer],
        references: Sequence[str] = (),
        *,
        unit: str = "",
        cpu: bool = False,
    ) -> None:
        """Time rounds until pytest-benchmark's `max-time`, `min-rounds` at least.

        Args:
            group: what is computed, and with what.
            peers: by the names that they are shown with.
            references: the fastest of these is what the others are divided by.
            unit: what one of `Peer.units` is.
            cpu: whether CPU time counts; not where a process that goes on does the work.
        """
        rounds = fewest  # without a time, as in a quick run, not even warmed up
        if seconds:
            round_seconds = sum(peer.warm_up(time.perf_counter) for peer in peers.values())
            rounds = max(fewest, min(MOST_ROUNDS, int(seconds / round_seconds)))
        benchmark.group = group
        numbers = iter(range(rounds))
        benchmark.pedantic(lambda: take_round(peers, next(numbers)), rounds=rounds)
        found = {"unit": unit, **summary(peers, references, cpu=cpu)}
        benchmark.extra_info.update(found)
        pytestconfig.stash[SHOWN].append((group, found))

    return compare_peers


@pytest.fixture
def like_a_trial() -> Iterator[None]:
    """One thread, freed memory kept, float32 that is float32: as a worker has it, and all peers alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    set_numerics(deterministic=False)
    yield
    torch.set_num_threads(threads)


def _machine() -> dict[str, str]:
    return {
        "processor": device_name(torch.device("cpu")),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "multiplies_bfloat16": "yes" if cpu_has_bfloat16() else "no",
        "torch": torch.__version__,
    }


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Say what the timings depend on, and not the host's name: what is shared should not tell it."""
    machine_info.pop("node", None)
    machine_info |= {**_machine(), "load_before": config.stash[LOAD]}


def pytest_terminal_summary(config: pytest.Config) -> None:
    """Print a table for every group."""
    console = Console()
    for group, found in config.stash[SHOWN]:
        print_line(console, "")
        print_line(console, group)
        heads, rows = table(found)
        print_table(console, heads, rows, numbers=heads[1:])
    if config.stash[SHOWN]:
        print_line(console, "")
        print_line(console, ", ".join(f"{name} {value}" for name, value in _machine().items()))
    if (load := config.stash[LOAD]) > BUSY:
        print_line(console, f"the machine was busy (load {load:.1f} before): times and ratios can be far off")


def table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a summary: times for one unit, ratios to the reference with their 95 % interval."""
    heads = ["", "median", "quartiles", "rounds"]
    rows = [
        [name, f"{_ms(of['median'])} ms", f"{_ms(of['low'])} to {_ms(of['high'])}", str(len(of["seconds"]))]
        for name, of in found["peers"].items()
    ]
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {}
    if found["unit"]:
        columns[f"{found['unit']}s/s"] = lambda of: f"{1 / of['median']:.4g}"
    if all("cpu_median" in of for of in found["peers"].values()):
        columns["CPU"] = lambda of: f"{_ms(of['cpu_median'])} ms"
    if found["reference"]:
        columns[f"to {found['reference']}"] = lambda of: _in_words(of["ratio"])
    for head, cell in columns.items():
        heads.append(head)
        for row, of in zip(rows, found["peers"].values(), strict=True):
            row.append(cell(of))
    return heads, rows


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.4g}"


def _in_words(ratio: Sequence[float | None] | None) -> str:
    if ratio is None:
        return "1"
    middle, low, high = ratio
    return f"{middle:.3f}" if low is None else f"{middle:.3f} [{low:.3f}, {high:.3f}]"
