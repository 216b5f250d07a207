"""The training engine: it is handed a network, a loss, images and settings, and knows nothing of studies."""

from ablate.train.device import cpu_has_bfloat16, device_name, keep_freed_memory, seed_generators
from ablate.train.engine import ready_step
from ablate.train.features import Features, SplitFeatures
from ablate.train.fit import Callbacks, DivergedError, EpochResult, Fitted, Progress, fit
from ablate.train.images import Images
from ablate.train.scatter import Scatter
from ablate.train.settings import Loss, Settings
from ablate.train.step import Step

__all__ = [
    "Callbacks",
    "DivergedError",
    "EpochResult",
    "Features",
    "Fitted",
    "Images",
    "Loss",
    "Progress",
    "Scatter",
    "Settings",
    "SplitFeatures",
    "Step",
    "cpu_has_bfloat16",
    "device_name",
    "fit",
    "keep_freed_memory",
    "ready_step",
    "seed_generators",
]
