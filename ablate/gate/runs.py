"""One recorded study, and what it was run with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from ablate.analysis.arms import complete_trials
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.fields import Fields
from ablate.study.trials import Plan, Trial
from ablate.tables import build_tables, read_tables


@dataclass(frozen=True)
class Run:
    """One recorded study: where it is, what was planned, and its trials table."""

    folder: ResultsFolder
    plan: Plan
    trials: pd.DataFrame

    def planned(self, arm: str) -> dict[int, Trial]:
        """An arm's planned trials by seed, ascending."""
        own = [trial for trial in self.plan.trials if trial.arm == arm and trial.repeat == 0]
        return {trial.seed: trial for trial in sorted(own, key=lambda trial: trial.seed)}

    def by_seed(self, arm: str) -> pd.DataFrame:
        """The trials table over an arm's planned seeds; empty cells where a trial has no result."""
        complete = complete_trials(self.trials[self.trials["arm"] == arm])
        return complete.set_index(complete["seed"].astype(int)).reindex(list(self.planned(arm)))

    def statuses(self) -> Mapping[str, int]:
        """How many planned trials ended how: `complete`, `missing`, or the kind of failure."""
        return {str(name): int(count) for name, count in self.trials["status"].value_counts().items()}

    def __str__(self) -> str:
        """Its name, and how many of its trials are complete."""
        complete = f"{self.statuses().get('complete', 0)} of {len(self.plan.trials)} trials complete"
        return f"{self.plan.study.name}, profile {self.plan.profile}: {complete}"


def read_run(folder: ResultsFolder) -> Run:
    """A recorded study with its metrics; from the records where it has predictions, else from its tables.

    Raises:
        RecordError: nothing was run there, or what is stored is damaged.
    """
    plan = read_plan(folder)
    if folder.predictions.exists():
        trials = build_tables(folder, plan)["trials"]
    else:
        trials = read_tables(folder, names=["trials"])["trials"]
    # A table may change a name's line breaks; the plan's names are the ones that runs are joined by.
    arm_of = {trial.trial_id: trial.arm for trial in plan.trials}
    return Run(folder, plan, trials.assign(arm=trials["trial_id"].map(arm_of).astype("string")))


RECORDED = ("device", "device_name", "resolved_precision", "threads", "torch_version", "commit")
GRAVE = {
    "data fingerprint": "data",
    "device": "device",
    "device_name": "device",
    "resolved_precision": "precision",
    "torch_version": "torch version",
    "commit": "commit",
}
"""Facts that can cause a difference by themselves, and what a reader calls them."""


def unlike(a: Run, b: Run) -> list[tuple[str, str, str]]:
    """What differs between two runs besides their arms: name, value in the first, value in the second."""
    first, second = _facts(a), _facts(b)
    sides = [(name, first.get(name, "none"), second.get(name, "none")) for name in {**first, **second}]
    return [side for side in sides if side[1] != side[2]]


def _facts(run: Run) -> dict[str, str]:
    def listed(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(value) for value in values})) or "not recorded"

    fields = [trial.fields.model_dump() for trial in run.plan.trials]
    return {
        "study": run.plan.study.name,
        "profile": run.plan.profile,
        **{name: listed(run.trials[name].dropna()) for name in RECORDED},
        "data fingerprint": listed(trial.fingerprint[:12] for trial in run.plan.trials),
        "seeds": listed(run.plan.study.seed_list()),
        **{f"margin of {name}": f"{margin:g}" for name, margin in run.plan.study.all_margins.items()},
        **{f"field {name}": listed(values[name] for values in fields) for name in Fields.model_fields},
    }
