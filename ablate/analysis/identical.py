"""Arms that ended with the same predictions to the last bit: levels that did nothing, or are one another."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd

from ablate.analysis.arms import complete_trials
from ablate.study.trials import Plan


def identical_arms(trials: pd.DataFrame, plan: Plan) -> list[list[str]]:
    """Groups of arms whose predictions have the same digest on every seed, in the study's order.

    An arm counts when all of its planned seeds are complete.
    """
    complete = complete_trials(trials)
    seeds, groups = plan.study.seed_list(), defaultdict(list)
    for arm in plan.arms:
        digests = complete[complete["arm"] == arm].set_index("seed")["predictions_sha256"]
        found = tuple(digests.get(seed) for seed in seeds)
        if all(isinstance(digest, str) and digest for digest in found):
            groups[found].append(arm)
    return [arms for arms in groups.values() if len(arms) > 1]
