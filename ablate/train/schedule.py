"""The learning rate as a function of how much of a run is done: nothing to store, nothing to resume."""

from __future__ import annotations

import math
from collections.abc import Callable

FIRST, LAST = 1 / 25, 1e-5
"""Where one_cycle begins and where both falling schedules end, as parts of the highest rate."""


def learning_rate(schedule: str, highest: float, *, step: int, steps: int, anneal_from: float) -> float:
    """The learning rate of one training step.

    Args:
        schedule: "constant", "one_cycle" (a cosine up from highest/25, then a cosine down to highest/100000)
            or "flat_cosine" (flat, then the same cosine down).
        highest: the highest rate of the run.
        step: the step's place in the whole run, 0 the first.
        steps: steps of the whole run, at least 1.
        anneal_from: part of the run, in [0, 1), after which the rate falls; `constant` ignores it.

    References:
        Smith and Topin, "Super-Convergence", 2018, arXiv 1708.07120.
    """
    return highest * _SHAPES[schedule](step / max(steps - 1, 1), anneal_from)


def _constant(done: float, anneal_from: float) -> float:
    return 1.0


def _one_cycle(done: float, anneal_from: float) -> float:
    if done < anneal_from:
        return _cosine(FIRST, 1.0, done / anneal_from)
    return _fall(done, anneal_from)


def _flat_cosine(done: float, anneal_from: float) -> float:
    return 1.0 if done < anneal_from else _fall(done, anneal_from)


def _fall(done: float, anneal_from: float) -> float:
    return _cosine(1.0, LAST, (done - anneal_from) / (1 - anneal_from))


def _cosine(begin: float, end: float, part: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * part)) / 2


_SHAPES: dict[str, Callable[[float, float], float]] = {
    "constant": _constant,
    "one_cycle": _one_cycle,
    "flat_cosine": _flat_cosine,
}
