"""Metrics of a trained classifier, each a function of logits [N, K] and labels [N] that gives a float.

All arithmetic is in float64, whatever the logits were saved in. A metric that the data leave undefined is
NaN; its docstring says when. To add a metric: write it as a `MetricFunction` of `Predictions` in the file of
its family, and give it a line in `registry.METRICS`.
"""

from ablate.metrics.arrays import FloatArray, IntArray, validate
from ablate.metrics.calibration import ReliabilityBins, bin_sums, ece_from_sums, reliability_bins
from ablate.metrics.noise_band import floor_band, floor_bands
from ablate.metrics.noise_floor import FLOORS
from ablate.metrics.predictions import MetricFunction, Predictions
from ablate.metrics.registry import METRICS, Metric
from ablate.metrics.selective import risk_coverage_counts

__all__ = [
    "FLOORS",
    "METRICS",
    "Metric",
    "MetricFunction",
    "Predictions",
    "ReliabilityBins",
    "bin_sums",
    "compute_metrics",
    "ece_from_sums",
    "floor_band",
    "floor_bands",
    "reliability_bins",
    "risk_coverage_counts",
    "validate",
]


def compute_metrics(logits: FloatArray, labels: IntArray) -> dict[str, float]:
    """Every metric of `METRICS`, in its order; softmax and temperatures are computed once.

    Args:
        logits: [N, K], any floating dtype, finite; N >= 1.
        labels: [N], any integer dtype; class ids in [0, K).

    Raises:
        ValueError: If one of these does not hold.
    """
    predictions = Predictions.of(logits, labels)
    return {name: metric.function.score(predictions) for name, metric in METRICS.items()}
