"""A plan beside what its results folder holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ablate.forecast.detectable import Detectable, detectable_effect
from ablate.forecast.duration import Duration, expected_duration
from ablate.status import read_available
from ablate.store.results import ResultsFolder
from ablate.study.trials import Plan


@dataclass(frozen=True)
class Forecast:
    """A plan beside what is recorded of it.

    Attributes:
        plan: what would run.
        folder: where its records are, or would be.
        status: of each planned trial by its id: a record's status, or "missing".
        damaged: planned trials whose record cannot be read; a run puts it aside and trains them again.
        workers: trials at a time.
        duration: of the missing trials.
        detectable: None where the study declares no baseline arm to compare with.
    """

    plan: Plan
    folder: ResultsFolder
    status: Mapping[str, str]
    damaged: int
    workers: int
    duration: Duration
    detectable: Detectable | None


def forecast(plan: Plan, folder: ResultsFolder, *, workers: int) -> Forecast:
    """Look up what a results folder holds of a plan, and reckon the rest. Writes nothing.

    Args:
        plan: a study, settled.
        folder: where its results are; it need not exist.
        workers: trials at a time, at least 1.
    """
    records, faults = read_available(folder)
    status = {
        trial.trial_id: records[trial.trial_id].status if trial.trial_id in records else "missing"
        for trial in plan.trials
    }
    missing = [trial for trial in plan.trials if status[trial.trial_id] == "missing"]
    return Forecast(
        plan=plan,
        folder=folder,
        status=status,
        damaged=sum(trial.trial_id in faults for trial in plan.trials),
        workers=workers,
        duration=expected_duration(missing, records.values(), workers=workers),
        detectable=detectable_effect(plan, folder, records),
    )
