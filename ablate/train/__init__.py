"""The training engine: it is handed a network, a loss, images, the fields of a trial and its seed."""

from ablate.train.device import cpu_has_bfloat16, device_name, keep_freed_memory, seed_generators
from ablate.train.engine import ready_step
from ablate.train.fit import Callbacks, DivergedError, Fitted, fit
from ablate.train.images import Images
from ablate.train.step import Step

__all__ = [
    "Callbacks",
    "DivergedError",
    "Fitted",
    "Images",
    "Step",
    "cpu_has_bfloat16",
    "device_name",
    "fit",
    "keep_freed_memory",
    "ready_step",
    "seed_generators",
]
