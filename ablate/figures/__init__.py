"""Figures: each file holds one, as `prepare_x` (to plain data), `draw_x`, `describe_x` (in words)."""

from ablate.figures.confusion import confusion_size, describe_confusion, draw_confusion, prepare_confusion
from ablate.figures.curves import curves_size, describe_curves, draw_curves, prepare_curves
from ablate.figures.effects import MOST_PANELS, describe_effects, draw_effects, effects_size, prepare_effects
from ablate.figures.front import describe_front, draw_front, front_size, prepare_front
from ablate.figures.metric_by_level import (
    MetricByLevel,
    describe_metric_by_level,
    draw_metric_by_level,
    goes_beyond,
    prepare_metric_by_level,
)
from ablate.figures.metric_by_seed import (
    describe_metric_by_seed,
    draw_metric_by_seed,
    prepare_metric_by_seed,
)
from ablate.figures.metrics_by_level import (
    describe_metrics_by_level,
    draw_metrics_by_level,
    metrics_by_level_size,
    prepare_metrics_by_level,
)
from ablate.figures.projection import (
    describe_projection,
    draw_projection,
    prepare_projection,
    projection_size,
)
from ablate.figures.published import (
    PUBLISHED_SIZE,
    describe_published,
    draw_published,
    prepare_published,
)
from ablate.figures.reliability import (
    describe_reliability,
    draw_reliabilities,
    draw_reliability,
    prepare_reliability,
    reliability_size,
)
from ablate.figures.step_cost import (
    StepCostRow,
    describe_step_cost,
    draw_step_cost,
    prepare_step_cost,
    step_cost_size,
)
from ablate.figures.step_time import (
    describe_step_time,
    draw_step_time,
    prepare_step_time,
    step_time_size,
)
from ablate.figures.theme import DARK, HALF, LIGHT, WIDE, figure_svg, names_of
from ablate.figures.tuning_front import (
    describe_tuning_front,
    draw_tuning_front,
    prepare_tuning_front,
    tuning_front_size,
)
from ablate.figures.tuning_history import (
    describe_tuning_history,
    draw_tuning_history,
    prepare_tuning_history,
)
from ablate.figures.tuning_importances import (
    describe_tuning_importances,
    draw_tuning_importances,
    prepare_tuning_importances,
    tuning_importances_size,
)
from ablate.figures.tuning_slices import (
    describe_tuning_slices,
    draw_tuning_slices,
    prepare_slice,
    prepare_tuning_slices,
    tuning_slices_size,
)

__all__ = [
    "DARK",
    "HALF",
    "LIGHT",
    "MOST_PANELS",
    "PUBLISHED_SIZE",
    "WIDE",
    "MetricByLevel",
    "StepCostRow",
    "confusion_size",
    "curves_size",
    "describe_confusion",
    "describe_curves",
    "describe_effects",
    "describe_front",
    "describe_metric_by_level",
    "describe_metric_by_seed",
    "describe_metrics_by_level",
    "describe_projection",
    "describe_published",
    "describe_reliability",
    "describe_step_cost",
    "describe_step_time",
    "describe_tuning_front",
    "describe_tuning_history",
    "describe_tuning_importances",
    "describe_tuning_slices",
    "draw_confusion",
    "draw_curves",
    "draw_effects",
    "draw_front",
    "draw_metric_by_level",
    "draw_metric_by_seed",
    "draw_metrics_by_level",
    "draw_projection",
    "draw_published",
    "draw_reliabilities",
    "draw_reliability",
    "draw_step_cost",
    "draw_step_time",
    "draw_tuning_front",
    "draw_tuning_history",
    "draw_tuning_importances",
    "draw_tuning_slices",
    "effects_size",
    "figure_svg",
    "front_size",
    "goes_beyond",
    "metrics_by_level_size",
    "names_of",
    "prepare_confusion",
    "prepare_curves",
    "prepare_effects",
    "prepare_front",
    "prepare_metric_by_level",
    "prepare_metric_by_seed",
    "prepare_metrics_by_level",
    "prepare_projection",
    "prepare_published",
    "prepare_reliability",
    "prepare_slice",
    "prepare_step_cost",
    "prepare_step_time",
    "prepare_tuning_front",
    "prepare_tuning_history",
    "prepare_tuning_importances",
    "prepare_tuning_slices",
    "projection_size",
    "reliability_size",
    "step_cost_size",
    "step_time_size",
    "tuning_front_size",
    "tuning_importances_size",
    "tuning_slices_size",
]
