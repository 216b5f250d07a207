"""Which figures a study gets, in which order, and from which of its tables each is prepared.

The `drawings_*` modules prepare them. Matplotlib is imported when a figure is prepared, so that a broken one
costs the figures and not the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd

from ablate.analysis.arms import complete_trials
from ablate.analysis.timing import timing_pass
from ablate.figures.drawing import Drawing
from ablate.figures.drawings_by_level import by_level_drawing, by_seed_drawing, several_metrics_drawing
from ablate.figures.drawings_of_arms import curves_drawing, effects_drawing, front_drawing, published_drawing
from ablate.figures.drawings_of_images import confusion_drawing, projection_drawing, reliability_drawing
from ablate.figures.drawings_of_steps import step_cost_drawing, step_time_drawing
from ablate.figures.drawings_of_tuning import tuning_drawings
from ablate.figures.placement import case_labels, confidence_optimum
from ablate.study.trials import Plan
from ablate.tables import Tables
from ablate.tables.quantities import quantity

CALIBRATION = (
    "ece",
    "ece_equal_mass",
    "smece",
    "classwise_ece",
    "ece_scaled",
    "temperature",
    "nll",
    "brier",
)
RANKING = ("auroc_error", "auroc_error_normalised", "aurc", "coverage_at_1")


def drawings(tables: Tables, plan: Plan) -> Iterator[tuple[str, str, Callable[[], Drawing]]]:
    """Name, title and preparation of every figure of a study, in the report's order."""
    complete = complete_trials(tables["trials"])
    yield from tuning_drawings(tables, plan)
    if complete.empty:
        return
    timing = timing_pass(tables.get("step_times"))
    if plan.comparisons:
        yield "effects", "Differences from the baseline", partial(effects_drawing, tables, complete, plan)
    yield from _by_metric(tables, complete, plan)
    if len(set(complete["arm"])) > 1:
        yield "front", "Accuracy against calibration", partial(front_drawing, complete, plan, timing)
    if plan.study.factors:
        for name, title, metrics in (
            ("calibration_by_level", "Calibration by level", CALIBRATION),
            ("ranking_by_level", "Ranking of errors by level", RANKING),
        ):
            known = [m for m in metrics if m in complete and complete[m].notna().any()]
            if known:
                prepare = partial(several_metrics_drawing, complete, plan, known, tables.get("floors"))
                yield name, title, prepare
    yield from _of_predictions(tables, complete, plan)
    if timing is not None and case_labels(timing, plan):
        yield "step_time", "Cost of a training step", partial(step_cost_drawing, timing, plan)
    else:
        yield "step_time", "Step time", partial(step_time_drawing, complete, plan)
    epochs = _only(tables["epochs"], complete)
    yield "curves", "Training", partial(curves_drawing, epochs, plan)
    if plan.study.published is not None:
        yield "published", "Beside the published run", partial(published_drawing, epochs, plan)


def _by_metric(
    tables: Tables, complete: pd.DataFrame, plan: Plan
) -> Iterator[tuple[str, str, Callable[[], Drawing]]]:
    confusion, floors = tables.get("confusion"), tables.get("floors")
    optimum = confidence_optimum(plan, 0 if confusion is None else confusion["class"].nunique())
    for metric in dict.fromkeys((plan.study.primary, "accuracy", "ece", "mean_confidence")):
        what = quantity(metric)
        if plan.study.factors:
            reference = optimum if metric == "mean_confidence" else {}
            prepare = partial(by_level_drawing, complete, plan, what, reference, floors)
            yield metric, f"{what.label} by level", prepare
        else:
            yield metric, f"{what.label} by seed", partial(by_seed_drawing, complete, plan, what, floors)


def _of_predictions(
    tables: Tables, complete: pd.DataFrame, plan: Plan
) -> Iterator[tuple[str, str, Callable[[], Drawing]]]:
    bins = _only(tables["reliability"], complete)
    yield "reliability", "Reliability", partial(reliability_drawing, bins, complete, plan)
    confusion, projection = tables.get("confusion"), tables.get("projection")
    if confusion is not None and not confusion.empty:
        yield "confusion", "Confusion of classes", partial(confusion_drawing, confusion, complete, plan)
    if projection is not None and not projection.empty:
        yield (
            "projection",
            "Features of single images",
            partial(projection_drawing, projection, complete, plan),
        )


def _only(rows: pd.DataFrame, complete: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["trial_id"].isin(complete["trial_id"])]
