"""Where the numbers come from, and the command that makes them again."""

from __future__ import annotations

import shlex
from typing import Any

import pandas as pd

from ablate.analysis.arms import level_label, planned_arms
from ablate.study.trials import Plan
from ablate.tables.cells import Json


def provenance(trials: pd.DataFrame, plan: Plan) -> list[Json]:
    """Where, with what and on what the trials ran, as names and values."""
    complete = trials[trials["status"] == "complete"]
    counts = trials["status"].value_counts()
    states = ", ".join(f"{int(counts[status])} {status}" for status in sorted(counts.index))
    facts = {
        "Study": plan.study.name,
        "Profile": f"{plan.profile} ({plan.reason})",
        "Trials": f"{len(plan.trials)} planned: {states}",
        "Arms": str(len(planned_arms(plan))),
        "Seeds": ", ".join(str(seed) for seed in plan.study.seed_list()),
        "Device": device_text(trials),
        "Precision": _values(complete, "resolved_precision"),
        "CPU threads per trial": _values(complete, "threads"),
        "Engine": _values(complete, "engine"),
        "torch": _values(complete, "torch_version"),
        "Commit of ablate": _values(complete, "commit"),
        "Data fingerprint": ", ".join(dict.fromkeys(trial.fingerprint for trial in plan.trials)),
        "Trainable parameters": _values(complete, "parameters"),
        "Fields common to all arms": ", ".join(f"{k}={v}" for k, v in common_fields(plan).items()),
    }
    return [{"name": name, "value": value or "not recorded"} for name, value in facts.items()]


def device_text(trials: pd.DataFrame) -> str:
    """The kinds of device and their names."""
    kinds, names = _values(trials, "device"), _values(trials, "device_name")
    return f"{kinds} ({names})" if names else kinds


def _values(trials: pd.DataFrame, name: str) -> str:
    return ", ".join(sorted(str(value) for value in trials[name].dropna().unique()))


def common_fields(plan: Plan) -> dict[str, str]:
    """Fields that have one value in all trials, in the order of `Fields`."""
    every = [trial.fields.model_dump() for trial in plan.trials]
    shared: dict[str, Any] = {
        name: value for name, value in every[0].items() if all(f[name] == value for f in every)
    }
    return {name: level_label(value) for name, value in shared.items()}


def reproduce(trials: pd.DataFrame, plan: Plan) -> Json:
    """The command that runs the study, and what it needs."""
    commits = sorted(trials["commit"].dropna().unique())
    at = f" at commit {', '.join(commits)}" if commits else ""
    note = f"Run it{at}. It trains what the results folder lacks; with a new folder for --results, all."
    return {"command": plan.command or _default_command(plan), "note": note}


def _default_command(plan: Plan) -> str:
    """For a study that was not run from the command line."""
    profile = f" --profile {shlex.quote(plan.profile)}" if plan.study.profiles else ""
    return f"python -m ablate run {shlex.quote(f'{plan.study.name}.py')}{profile}"
