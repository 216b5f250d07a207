"""One recorded study, and what it was run with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ablate.fields import Fields
from ablate.report.arms import complete_trials, finite_numbers
from ablate.results import ResultsFolder, read_plan
from ablate.tables import build_tables, read_tables
from ablate.trials import Plan, Trial


@dataclass(frozen=True)
class Run:
    """One recorded study.

    Attributes:
        folder: where it is.
        plan: what was planned.
        trials: its trials table.
    """

    folder: ResultsFolder
    plan: Plan
    trials: Any

    def planned(self, arm: str) -> dict[int, Trial]:
        """An arm's planned trials by seed."""
        return {t.seed: t for t in self.plan.trials if t.arm == arm and t.repeat == 0}

    def values(self, arm: str, metric: str) -> dict[int, float]:
        """An arm's values by seed; NaN where the trial has none."""
        complete = complete_trials(self.trials)
        own = complete[complete["arm"] == arm]
        return dict(zip((int(seed) for seed in own["seed"]), finite_numbers(own[metric]), strict=True))


def read_run(folder: ResultsFolder) -> Run:
    """A recorded study with its metrics; from the records where it has predictions, else from its tables.

    Raises:
        RecordError: nothing was run there, or what is stored is damaged.
    """
    plan = read_plan(folder)
    if folder.predictions.exists():
        return Run(folder, plan, build_tables(folder, plan)["trials"])
    return Run(folder, plan, read_tables(folder, names=["trials"])["trials"])


def unlike(a: Run, b: Run) -> Iterable[tuple[str, str, str]]:
    """What differs between two runs besides their arms: name, value in the first, value in the second."""
    first, second = _facts(a), _facts(b)
    for name in first:
        if first[name] != second[name]:
            yield name, first[name], second[name]


def _facts(run: Run) -> dict[str, str]:
    recorded = ("device", "device_name", "resolved_precision", "threads", "torch_version", "commit")
    prints = [trial.fingerprint[:12] for trial in run.plan.trials]
    fields = [trial.fields.model_dump() for trial in run.plan.trials]
    return {
        "study": run.plan.study.name,
        "profile": run.plan.profile,
        **{name: _listed(run.trials[name].dropna().unique()) for name in recorded},
        "data fingerprint": _listed(prints),
        "seeds": _listed(run.plan.study.seed_list()),
        **{f"field {name}": _listed(values[name] for values in fields) for name in Fields.model_fields},
    }


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(value) for value in values})) or "not recorded"
