"""When a point is given up before it is complete: Optuna's pruners, and their reasons in words."""

from __future__ import annotations

import statistics

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ablate.study.search import Search

JUDGED_SEEDS = 4
"""Seeds of a point before it can be pruned by a Wilcoxon test against the best."""
WILCOXON_LEVEL = 0.1
REDUCTION = 3
"""Hyperband lets one point in so many go on."""


def pruner_of(search: Search) -> BasePruner:
    """Optuna's pruner by the search's name for it."""
    match search.pruning:
        case "seeds":
            return WilcoxonPruner(n_startup_steps=JUDGED_SEEDS, p_threshold=WILCOXON_LEVEL)
        case "hyperband":
            return HyperbandPruner(reduction_factor=REDUCTION)
        case "median":
            return MedianPruner()
        case "none":
            return NopPruner()


def reason_of(search: Search, study: optuna.Study, trial: FrozenTrial, step: int) -> str:
    """Why the pruner gives up a trial at a step: one sentence, with the numbers that it went by."""
    higher = study.direction is StudyDirection.MAXIMIZE
    best, worse = (max, "below") if higher else (min, "above")
    values = trial.intermediate_values
    if search.pruning == "seeds":
        others = study.best_trial.intermediate_values
        shared = sorted(values.keys() & others.keys())
        mean, best_mean = (statistics.fmean(of[seed] for seed in shared) for of in (values, others))
        return (
            f"The mean over {len(shared)} seeds, {mean:.4g}, is {worse} that of point "
            f"{study.best_trial.number} over the same seeds, {best_mean:.4g} "
            f"(Wilcoxon test, p < {WILCOXON_LEVEL:g})."
        )
    states = (TrialState.COMPLETE,) if search.pruning == "median" else None
    reached = [other.intermediate_values for other in study.get_trials(deepcopy=False, states=states)]
    at_step = [other[step] for other in reached if step in other]
    if search.pruning == "median":
        return (
            f"The best value up to epoch {step}, {best(values.values()):.4g}, is {worse} the median of the "
            f"complete points at that epoch, {statistics.median(at_step):.4g}."
        )
    return (
        f"The value at epoch {step}, {values[step]:.4g}, is not in the best 1/{REDUCTION} of those that "
        f"Hyperband compared it with; the best of any point at that epoch is {best(at_step):.4g}."
    )
