"""How much each field decides whether a point is among the best, as Optuna tells it."""

from __future__ import annotations

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import TrialState

from ablate.store.points import Importances
from ablate.study.search import Search

EVALUATOR = "PED-ANOVA"
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
    found = (_of_objective(search, study, place, len(complete)) for place in range(len(search.objective)))
    return tuple(importances for importances in found if importances is not None)


def _of_objective(search: Search, study: optuna.Study, place: int, points: int) -> Importances | None:
    # PED-ANOVA takes low values for good ones.
    sign = -1.0 if study.directions[place] is StudyDirection.MAXIMIZE else 1.0
    found = get_param_importances(
        study,
        evaluator=PedAnovaImportanceEvaluator(target_quantile=max(BEST_PART, BEST_POINTS / points)),
        target=lambda trial: sign * trial.values[place],
        normalize=False,
    )
    total = sum(found.values())
    if not total > 0:
        return None
    shares = {name: found[name] / total for name in search.space if name in found}
    return Importances(objective=search.objective[place], evaluator=EVALUATOR, shares=shares)
