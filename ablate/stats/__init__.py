"""Statistics over seeds: intervals, paired effects, verdicts and power. Arrays in, numbers out."""

from ablate.stats.equivalence import tost, tosts
from ablate.stats.intervals import Interval, mean_interval, prediction_interval
from ablate.stats.median import MedianInterval, median_interval
from ablate.stats.multiplicity import bonferroni, holm
from ablate.stats.new_images import NewImagesInterval, new_images_interval
from ablate.stats.paired import PairedEffect, PairedEffects, paired_effect, paired_effects
from ablate.stats.power import (
    equivalence_power,
    minimal_detectable_effect,
    paired_power,
    seeds_for_equivalence,
    seeds_needed,
)
from ablate.stats.sign_flip import SignFlip, sign_flip_p, smallest_sign_flip_p
from ablate.stats.surrogate import Smoothed, best_two, chosen_of_two, is_on_front, smoothed
from ablate.stats.trend import trend
from ablate.stats.verdict import Verdict, Verdicts, verdict, verdicts

__all__ = [
    "Interval",
    "MedianInterval",
    "NewImagesInterval",
    "PairedEffect",
    "PairedEffects",
    "SignFlip",
    "Smoothed",
    "Verdict",
    "Verdicts",
    "best_two",
    "bonferroni",
    "chosen_of_two",
    "equivalence_power",
    "holm",
    "is_on_front",
    "mean_interval",
    "median_interval",
    "minimal_detectable_effect",
    "new_images_interval",
    "paired_effect",
    "paired_effects",
    "paired_power",
    "prediction_interval",
    "seeds_for_equivalence",
    "seeds_needed",
    "sign_flip_p",
    "smallest_sign_flip_p",
    "smoothed",
    "tost",
    "tosts",
    "trend",
    "verdict",
    "verdicts",
]
