"""Statistics over seeds: intervals, effects, verdicts and power. Arrays in, numbers out."""

from ablate.stats.effect import Effect, independent_effect, paired_effect, sign_flip_p, smallest_sign_flip_p
from ablate.stats.intervals import (
    Interval,
    MedianInterval,
    ends_within,
    mean_interval,
    median_interval,
    new_images_interval,
    prediction_interval,
)
from ablate.stats.power import (
    confirmable_margin,
    equivalence_power,
    minimal_detectable_effect,
    paired_power,
    pooled_sd,
    seeds_needed,
    seeds_range,
)
from ablate.stats.surrogate import best_two, chosen_of_two, is_on_front, smoothed
from ablate.stats.verdict import verdict

__all__ = [
    "Effect", "Interval", "MedianInterval", "best_two", "chosen_of_two", "confirmable_margin",
    "ends_within", "equivalence_power", "independent_effect", "is_on_front", "mean_interval",
    "median_interval", "minimal_detectable_effect", "new_images_interval", "paired_effect", "paired_power",
    "pooled_sd", "prediction_interval", "seeds_needed", "seeds_range", "sign_flip_p",
    "smallest_sign_flip_p", "smoothed", "verdict",
]  # fmt: skip
