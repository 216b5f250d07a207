"""What seven identical settings look like with three seeds each: real runs, dealt to arms that do not differ.

The runs are those of one arm, `studies/seed_luck.py`, as published. Each draw deals 21 of them, without
putting back, to seven arms of three seeds, the first of which is called the baseline, and asks what four
readers of the same numbers would say. Whatever they find is luck.

    python -m benchmarks.luck
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from ablate.stats.effect import paired_effect, verdict

RUNS = Path("results/reference/seed_luck/cpu-64px/trials.csv")
ARMS, SEEDS, DRAWS = 7, 3, 100_000


def luck(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", draws: int = DRAWS) -> dict[str, float]:
    """The part of the draws in which each reader finds something in so many values of one arm."""
    order = np.argsort(np.random.default_rng(0).random((draws, len(values))), axis=1)
    dealt = values[order[:, : ARMS * SEEDS]].reshape(draws, ARMS, SEEDS)
    arms, baseline = dealt[:, 1:], dealt[:, :1]
    means, errors = dealt.mean(axis=2), dealt.std(axis=2, ddof=1) / np.sqrt(SEEDS)
    apart = np.abs(means[:, 1:] - means[:, :1]) > errors[:, 1:] + errors[:, :1]
    plain = ttest_rel(arms, np.broadcast_to(baseline, arms.shape), axis=2).pvalue < 0.05
    effect = paired_effect(arms, np.broadcast_to(baseline, arms.shape), comparisons=ARMS - 1)
    words = verdict(effect, planned=SEEDS, better="higher", margin=0.005).word
    return {
        "the best mean is not the baseline's": float((means.argmax(axis=1) > 0).mean()),
        "bars of one standard error do not overlap the baseline's": float(apart.any(axis=1).mean()),
        "a t test finds an arm, p < 0.05": float(plain.any(axis=1).mean()),
        "ablate calls an arm better or worse": float(np.isin(words, ["better", "worse"]).any(axis=1).mean()),
        "points that the best is above the baseline": float(100 * (means.max(axis=1) - means[:, 0]).mean()),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore", RuntimeWarning)  # of arms whose differences are all but equal
    accuracy = pd.read_csv(RUNS)["accuracy"].to_numpy()
    mean, sd = 100 * accuracy.mean(), 100 * accuracy.std(ddof=1)
    print(f"{len(accuracy)} runs of one arm: mean {mean:.2f} %, sd {sd:.2f}")
    for name, part in luck(accuracy).items():
        print(f"{name}: {part:.3f}")
