"""Noise floors of calibration errors: which column has a metric's, and the bands in the table of floors."""

from __future__ import annotations

import pandas as pd

from ablate.analysis.arms import FLOOR
from ablate.tables import frame


def floor_of(metric: str, complete: pd.DataFrame) -> str | None:
    """The column with a metric's noise floor, if there is one."""
    name = FLOOR.get(metric, f"{metric}_floor")
    return name if name in complete and complete[name].notna().any() else None


def floor_bands(floors: pd.DataFrame | None, metric: str) -> dict[str, tuple[float, float]]:
    """Arm to the ends between which 95 % of means over its runs of a perfectly calibrated network would lie.

    Empty for a metric without a floor, and for results of a version without the table of floors.
    """
    rows = frame("floors", []) if floors is None else floors[floors["metric"] == metric]
    return dict(zip(rows["arm"], zip(rows["low"], rows["high"], strict=True), strict=True))
