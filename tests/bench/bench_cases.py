"""A benchmark file in which one case works, one fails, one is skipped, and one is twice the plain one."""

import time
from typing import Any

import pytest

from ablate.bench.measure import measured_as


def test_plain(benchmark: Any) -> None:
    measured_as(benchmark, "waiting", "torch")
    benchmark.pedantic(time.sleep, args=(0.01,), rounds=3)


def test_wrong(benchmark: Any) -> None:
    measured_as(benchmark, "waiting", "wrong")
    raise RuntimeError("the case is broken")


def test_elsewhere(benchmark: Any) -> None:
    pytest.skip("not on this machine")


def test_slow(benchmark: Any) -> None:
    measured_as(benchmark, "waiting", "slow")
    benchmark.pedantic(time.sleep, args=(0.03,), rounds=3)


def test_alone(benchmark: Any) -> None:
    measured_as(benchmark, "other", "slow")
    benchmark.pedantic(time.sleep, args=(0.001,), rounds=3)
