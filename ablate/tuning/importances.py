"""How much each field decides whether a point is among the best, as Optuna tells it."""

from __future__ import annotations

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ablate.store.points import Importances
from ablate.study.search import Search

FEWEST_POINTS = 10
BEST_POINTS = 5
"""PED-ANOVA asks where the best points lie; Optuna advises at least five of them."""
BEST_PART = 0.1


def importances_of(search: Search, study: optuna.Study) -> tuple[Importances, ...]:
    """Shares of the fields for each objective, by PED-ANOVA: where the best points lie, a tenth or five.

    Empty with one searched field, or fewer than ten complete points. An objective is left out where all
    points have the same value. Conditional fields count over the points that have them.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(search.space) < 2 or len(complete) < FEWEST_POINTS:
        return ()
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(BEST_PART, BEST_POINTS / len(complete)))
    importances = []
    for place, objective in enumerate(search.objective):

        def cost(trial: FrozenTrial, place: int = place) -> float:  # PED-ANOVA takes low values for good ones
            value = float(trial.values[place])
            return -value if study.directions[place] is StudyDirection.MAXIMIZE else value

        weights = get_param_importances(study, evaluator=evaluator, target=cost, normalize=False)
        if (total := sum(weights.values())) > 0:
            shares = {name: weights[name] / total for name in search.space if name in weights}
            importances.append(Importances(objective=objective, evaluator="PED-ANOVA", shares=shares))
    return tuple(importances)
