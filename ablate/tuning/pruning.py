"""When a point is given up before it is complete: Optuna's pruners, and their reasons in words."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

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


def reason(search: Search, study: optuna.Study, trial: FrozenTrial, step: int) -> str:
    """Why the pruner gives up a trial at a step: one sentence, with the numbers that it went by."""
    if search.pruning == "seeds":
        return _by_seeds(study, trial)
    if search.pruning == "median":
        return _by_median(study, trial, step)
    return _by_hyperband(study, trial, step)


def _by_seeds(study: optuna.Study, trial: FrozenTrial) -> str:
    own, best = trial.intermediate_values, study.best_trial
    shared = own.keys() & best.intermediate_values.keys()
    mean, best_mean = (
        statistics.fmean(values[seed] for seed in sorted(shared))
        for values in (own, best.intermediate_values)
    )
    return (
        f"The mean over {len(shared)} seeds, {mean:.4g}, is {_worse(study)} that of point {best.number} "
        f"over the same seeds, {best_mean:.4g} (Wilcoxon test, p < {WILCOXON_LEVEL:g})."
    )


def _by_median(study: optuna.Study, trial: FrozenTrial, step: int) -> str:
    others = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    median = statistics.median(
        other.intermediate_values[step] for other in others if step in other.intermediate_values
    )
    return (
        f"The best value up to epoch {step}, {_best(study, trial.intermediate_values.values()):.4g}, is "
        f"{_worse(study)} the median of the complete points at that epoch, {median:.4g}."
    )


def _by_hyperband(study: optuna.Study, trial: FrozenTrial, step: int) -> str:
    at_step = [
        other.intermediate_values[step]
        for other in study.get_trials(deepcopy=False)
        if step in other.intermediate_values
    ]
    return (
        f"The value at epoch {step}, {trial.intermediate_values[step]:.4g}, is not in the best "
        f"1/{REDUCTION} of those that Hyperband compared it with; the best of any point at that epoch is "
        f"{_best(study, at_step):.4g}."
    )


def _best(study: optuna.Study, values: Iterable[float]) -> float:
    return max(values) if study.direction is StudyDirection.MAXIMIZE else min(values)


def _worse(study: optuna.Study) -> str:
    return "below" if study.direction is StudyDirection.MAXIMIZE else "above"
