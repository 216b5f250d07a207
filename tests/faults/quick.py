"""Training code that takes a millisecond, for studies whose every write is to be stopped."""

import time
from typing import Any

import numpy as np


def train(trial: Any, *, lr: float = 0.1, seconds: float = 0.0) -> dict[str, Any]:
    time.sleep(seconds)
    random = np.random.default_rng(trial.seed)
    logits, labels = random.normal(size=(40, 3)), np.arange(40) % 3
    logits[np.arange(40), labels] += 10 * lr
    return {"logits": logits.astype(np.float32), "labels": labels}
