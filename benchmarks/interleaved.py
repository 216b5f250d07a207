"""Timing peers in turn: each round takes all of them, and another first, so that a slow moment meets all.

pytest-benchmark times one function after another. Here the function that it times is a whole round; what each
peer took, and the ratio to the reference with its interval, are in the benchmark's `extra_info`.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import quantile_test

TURN_SECONDS = 0.005
"""A peer's turn takes at least this long, in as many calls as that needs."""
MOST_ROUNDS = 1000
LEVEL = 0.95

Clock = Callable[[], float]


def cpu_clock() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@dataclass
class Peer:
    """Something that is timed beside others.

    Attributes:
        call: the work; it may be called any number of times.
        units: how much of it a call does, such as images; times are for one unit.
        calls: calls in a turn.
        seconds: of each round, the time for a unit.
        cpu_seconds: of each round, the CPU time for a unit.
    """

    call: Callable[[], object]
    units: int = 1
    calls: int = 1
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def warm_up(self, clock: Clock) -> float:
        """Call it once, find how many calls make a turn, and say how many seconds a turn takes."""
        began = clock()
        self.call()
        taken = clock() - began
        self.calls = math.ceil(TURN_SECONDS / taken) if 0 < taken < TURN_SECONDS else 1
        return self.calls * taken

    def take_turn(self, clock: Clock) -> None:
        """Time one turn."""
        used, began = cpu_clock(), clock()
        for _ in range(self.calls):
            self.call()
        taken, work = clock() - began, self.calls * self.units
        self.seconds.append(taken / work)
        self.cpu_seconds.append((cpu_clock() - used) / work)


def take_round(peers: Mapping[str, Peer], number: int, clock: Clock = time.perf_counter) -> None:
    """Give every peer a turn: A B C in round 0, B C A in round 1, and so on."""
    names = list(peers)
    first = number % len(names)
    for name in names[first:] + names[:first]:
        peers[name].take_turn(clock)


def summary(peers: Mapping[str, Peer], references: Sequence[str], *, cpu: bool = False) -> dict[str, Any]:
    """What the rounds say.

    Args:
        peers: all with as many rounds.
        references: names of those that the others are divided by; the one with the least median serves.
        cpu: whether CPU times are known: not where a process that goes on did the work.

    Returns:
        "reference", "" for none; and for each of "peers" its "seconds", their "median", quartiles "low" and
        "high", with `cpu` the "cpu_median", and "ratio": median of the ratios within a round and the ends of
        its interval, by order statistics. The ends are None where the rounds are too few; the reference's
        ratio is None.
    """
    medians = {name: float(np.median(peer.seconds)) for name, peer in peers.items()}
    reference = min(references, key=medians.__getitem__) if references else ""
    found = {}
    for name, peer in peers.items():
        low, high = np.quantile(peer.seconds, (0.25, 0.75)).tolist()
        found[name] = {"median": medians[name], "low": low, "high": high, "seconds": peer.seconds}
        found[name] |= {"cpu_median": float(np.median(peer.cpu_seconds))} if cpu else {}
        divided = reference and name != reference
        found[name]["ratio"] = _ratio(peer.seconds, peers[reference].seconds) if divided else None
    return {"reference": reference, "peers": found}


def _ratio(seconds: Sequence[float], reference: Sequence[float]) -> tuple[float | None, ...]:
    ratios = np.divide(seconds, reference)
    ends = quantile_test(ratios, q=1.0, p=0.5).confidence_interval(LEVEL)
    return float(np.median(ratios)), *(float(end) if math.isfinite(end) else None for end in ends)
