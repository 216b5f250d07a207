"""One recorded study, and what it was run with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.analysis.arms import complete_trials, finite_numbers
from ablate.store.results import ResultsFolder, read_plan
from ablate.study.fields import Fields
from ablate.study.trials import Plan, Trial
from ablate.tables import build_tables, read_tables


@dataclass(frozen=True)
class Sample:
    """One metric of one arm over its planned seeds.

    Attributes:
        seeds: those planned, ascending.
        values: one per seed, [n]; NaN where the trial gave none.
        digests: of the predictions, one per seed; "" where there is none.
    """

    seeds: tuple[int, ...]
    values: NDArray[np.float64]
    digests: tuple[str, ...]

    def same_predictions(self, other: Sample) -> bool:
        """Whether both gave the same predictions to the last bit on every seed."""
        return self.seeds == other.seeds and self.digests == other.digests and all(self.digests)


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

    def sample(self, arm: str, metric: str) -> Sample:
        """A metric of an arm, a number column of the trials table, over the seeds that were planned."""
        complete = complete_trials(self.trials)
        own = complete[complete["arm"] == arm]
        ran = [int(seed) for seed in own["seed"]]
        values = dict(zip(ran, finite_numbers(own[metric]), strict=True))
        digests = dict(zip(ran, own["predictions_sha256"].fillna(""), strict=True))
        seeds = tuple(sorted(self.planned(arm)))
        return Sample(
            seeds=seeds,
            values=np.array([values.get(seed, math.nan) for seed in seeds], dtype=np.float64),
            digests=tuple(str(digests.get(seed, "")) for seed in seeds),
        )

    def statuses(self) -> Mapping[str, int]:
        """How many planned trials ended how: `complete`, `missing`, or the kind of failure."""
        return {str(name): int(count) for name, count in self.trials["status"].value_counts().items()}


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


GRAVE = {
    "data fingerprint": "data",
    "device": "device",
    "device_name": "device",
    "resolved_precision": "precision",
    "torch_version": "torch version",
    "commit": "commit",
}
"""Facts that can cause a difference by themselves, and what a reader calls them."""


def unlike(a: Run, b: Run) -> Iterable[tuple[str, str, str]]:
    """What differs between two runs besides their arms: name, value in the first, value in the second."""
    first, second = _facts(a), _facts(b)
    for name in dict.fromkeys((*first, *second)):
        values = first.get(name, "none"), second.get(name, "none")
        if values[0] != values[1]:
            yield name, *values


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
        **{f"margin of {name}": f"{margin:g}" for name, margin in run.plan.study.all_margins.items()},
        **{f"field {name}": _listed(values[name] for values in fields) for name in Fields.model_fields},
    }


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted({str(value) for value in values})) or "not recorded"
