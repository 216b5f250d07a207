"""Smooth calibration error: against its integral, the authors' package and what must hold of it."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ablate.metrics.smooth import smooth_errors


def outcomes(seed: int, n: int, gap: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidences as of a good classifier, right with probability confidence - gap."""
    rng = np.random.default_rng(seed)
    confidence = 1 - 0.9 * rng.beta(1, 5, size=n)
    return confidence, rng.random(n) < confidence - gap


def integral(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bandwidth: float) -> float:
    """The error at one bandwidth: Gaussians with their mirror images at 0 and 1, 10,001 points."""
    t, density = np.linspace(0, 1, 10_001), np.zeros(10_001)
    for shift in range(-6, 8, 2):
        for sign in (-1, 1):
            distance = t - (sign * confidence[:, None] + shift)
            density += (confidence - correct) @ np.exp(-((distance / bandwidth) ** 2) / 2)
    area = np.trapezoid(np.abs(density), t)
    return float(area / (len(confidence) * bandwidth * math.sqrt(2 * math.pi)))


@pytest.mark.parametrize(("n", "gap"), [(1, 0.0), (5, 0.0), (40, 0.0), (40, 0.2), (150, 0.0), (150, 0.1)])
def test_the_bandwidth_is_the_error(n: int, gap: float) -> None:
    confidence, correct = outcomes(n, n, gap)
    value = float(smooth_errors(confidence, correct[None])[0])
    assert integral(confidence, correct, value) == pytest.approx(value, abs=1e-6)


def test_agrees_with_relplot() -> None:
    import relplot

    # relplot finds the bandwidth to 1/1024 and cuts its kernel off, which shows where the error is large.
    for seed in range(15):
        confidence, correct = outcomes(seed, n=200 * (1 + seed % 5), gap=(0, 0.02, 0.05)[seed % 3])
        value = float(smooth_errors(confidence, correct[None])[0])
        assert value < 0.12
        assert value == pytest.approx(relplot.smECE(confidence, correct.astype(float)), abs=2e-3)


@pytest.mark.parametrize(("n", "gap"), [(300, 0.0), (3925, 0.0), (3925, 0.05)])
def test_a_coarser_grid_changes_little(n: int, gap: float) -> None:
    confidence, correct = outcomes(n, n, gap)

    def error(cells: int) -> float:
        return float(smooth_errors(confidence, correct[None], cells=cells, tolerance=1e-10)[0])

    fine = error(16_384)
    assert [error(256), error(2048)] == [pytest.approx(fine, abs=4e-5), pytest.approx(fine, abs=1e-6)]
    # Cells of a third of the bandwidth. Were the sharing of residuals among them not undone, it would show as
    # 3.5e-5 or more.
    if n > 3000 and not gap:
        assert error(int(3 / fine)) == pytest.approx(fine, abs=2e-5)
