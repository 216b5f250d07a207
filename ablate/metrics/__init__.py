"""Metrics of a trained classifier, each called as metric(logits [N, K], labels [N]), which gives a float.

All arithmetic is in float64. A metric that the data leave undefined is NaN. See docs/add_a_metric.md.
"""

# A metric enters `METRICS` where its module is first imported: scores, calibration, selective.
from ablate.metrics.calibration import reliability_bins
from ablate.metrics.predictions import Predictions, validate
from ablate.metrics.registry import FLOORS, METRICS, Metric, band_of_mean, compute_metrics, metric, resampled
from ablate.metrics.selective import risk_coverage_counts

__all__ = [
    "FLOORS", "METRICS", "Metric", "Predictions", "band_of_mean", "compute_metrics", "metric",
    "reliability_bins", "resampled", "risk_coverage_counts", "validate",
]  # fmt: skip
