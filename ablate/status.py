"""What has become of a study so far, read beside a running driver without holding up anything of its.

Records are renamed into place whole, so any that can be seen can be read; one that appears or is put aside
meanwhile is counted or not, and never an error.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock
from rich.console import Console

from ablate.errors import RecordError, ResultsError, nearest
from ablate.store.points import read_tuning, tuning_folder
from ablate.store.records import Record, read_record
from ablate.store.results import ResultsFolder, find_results, read_plan
from ablate.study.trials import Plan
from ablate.terminal import duration, print_line, print_table

MISSING, UNREADABLE = "missing", "unreadable"


@dataclass(frozen=True)
class Status:
    """A study's results folder at one moment.

    Attributes:
        plan: the study as it was last run.
        running: whether a run on this machine holds the folder.
        states: trial_id to the status of its record, "missing" without one, or "unreadable".
        begun: trial_ids of missing trials that left a checkpoint.
        reasons: trial_id to why it has no result, where it was recorded without one.
        last_accuracy: arm to that of its trial recorded last, after the last epoch.
        unplanned: records of trials that the plan does not name: those of earlier settings.
        seconds_left: from the pace of this run's records; None where no run goes on or none has come yet.
    """

    plan: Plan
    running: bool
    states: Mapping[str, str]
    begun: frozenset[str]
    reasons: Mapping[str, str]
    last_accuracy: Mapping[str, float]
    unplanned: int
    seconds_left: float | None


def read_status(folder: ResultsFolder) -> Status:
    """Look at what a results folder holds of its plan.

    Raises:
        RecordError: nothing was run here, or the stored plan is damaged.
    """
    plan, running = read_plan(folder), is_running(folder)
    records, faults = read_available(folder, [trial.trial_id for trial in plan.trials])
    states = {trial.trial_id: MISSING for trial in plan.trials}
    states |= {trial_id: record.status for trial_id, record in records.items()}
    states |= dict.fromkeys(faults, UNREADABLE)
    missing = [trial_id for trial_id, state in states.items() if state == MISSING]
    written = {trial_id: _modified(folder.record_path(trial_id)) for trial_id in records}
    by_time = [records[trial_id] for trial_id in sorted(records, key=written.__getitem__)]
    left = time_left(_modified(folder.plan), written.values(), len(missing), time.time())
    return Status(
        plan=plan,
        running=running,
        states=states,
        begun=frozenset(trial_id for trial_id in missing if folder.checkpoint_path(trial_id).exists()),
        reasons=faults
        | {
            record.trial_id: record.failure.message if record.failure else "no reason was recorded"
            for record in by_time
            if record.status != "complete"
        },
        last_accuracy={
            record.trial.arm: record.history[-1].valid_accuracy
            for record in by_time
            if record.status == "complete" and record.history
        },
        unplanned=len({path.stem for path in folder.records.glob("*.json")} - set(states)),
        seconds_left=left if running else None,
    )


def show_search(console: Console, folder: ResultsFolder) -> bool:
    """Print how far the search of a tuned study is; whether it is one."""
    tuning = read_tuning(folder)
    if tuning is None:
        return False
    counts = Counter[str](point.state for point in tuning.points)
    states = [state for state in ("complete", "pruned", "failed") if counts[state]]
    done = ", ".join(f"{counts[state]} {state}" for state in states) or "none done"
    asked = f"{tuning.search.points} points of {tuning.search.seeds} seeds"
    print_line(console, f"search of {', '.join(tuning.search.space)}: {asked}: {done}")
    trained = len(list(tuning_folder(folder).records.glob("*.json")))
    goes_on = "it goes on" if is_running(folder) else "nothing runs"
    print_line(console, f"{trained} training runs of it recorded; {goes_on}")
    return True


def read_available(
    folder: ResultsFolder, trial_ids: Iterable[str] | None = None
) -> tuple[dict[str, Record], dict[str, str]]:
    """The records that are there now, of some trials or all, and what is wrong with others; by trial_id."""
    if trial_ids is None:
        trial_ids = sorted(path.stem for path in folder.records.glob("*.json"))
    records, faults = {}, {}
    for trial_id in trial_ids:
        path = folder.record_path(trial_id)
        try:
            records[trial_id] = read_record(path)
        except FileNotFoundError:
            continue
        except (RecordError, OSError) as error:
            faults[trial_id] = str(error).replace(str(path), path.name)
    return records, faults


def is_running(folder: ResultsFolder) -> bool:
    """Whether a run on this machine holds the folder's lock, which is tried for an instant."""
    if not folder.lock.exists():
        return False
    try:
        with filelock.FileLock(folder.lock, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False  # a folder of somebody else's: no run of ours writes there


def time_left(begun: float, recorded: Iterable[float], missing: int, now: float) -> float | None:
    """Seconds until the missing trials are recorded, at the pace of this run; None before its first record.

    Args:
        begun: when the run began, in seconds since the epoch, as `now`.
        recorded: when each record was written; those from before the run do not count.
        missing: trials that have no record yet.
        now: the present.
    """
    times = [moment for moment in recorded if moment > begun]
    if not times:
        return None
    last = max(times)
    return max(missing * (last - begun) / len(times) - (now - last), 0.0) if missing else 0.0


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # put aside meanwhile


def show_status(console: Console, status: Status) -> None:
    """Print a study's state: the counts, the time left, each arm, and why trials failed."""
    plan, counts = status.plan, Counter(status.states.values())
    state = "a run is going on" if status.running else "no run is going on"
    print_line(console, f"{plan.study.name}, profile {plan.profile}: {state}")
    words = [f"{counts[name]} {name}" for name in sorted(counts)]
    print_line(console, f"{len(plan.trials)} planned trials: {', '.join(words)}")
    if status.begun:
        follow = "in progress" if status.running else "will go on from there"
        print_line(console, f"{len(status.begun)} of the missing have a checkpoint: {follow}")
    if status.seconds_left is not None:
        print_line(console, f"about {duration(status.seconds_left)} left at the pace of this run")
    elif status.running:
        print_line(console, "time left: not known before a trial of this run has ended")
    if status.unplanned:
        print_line(console, f"{status.unplanned} more records are of trials that the last run did not plan")
    heads = ("arm", "complete", "failed", "begun", "missing", "last accuracy")
    rows = []
    for arm in plan.arms:
        trial_ids = [trial.trial_id for trial in plan.trials if trial.arm == arm]
        of_arm = Counter(status.states[trial_id] for trial_id in trial_ids)
        complete, missing = of_arm["complete"], of_arm[MISSING]
        numbers = complete, len(trial_ids) - complete - missing, len(status.begun & {*trial_ids}), missing
        accuracy = f"{status.last_accuracy[arm]:.4f}" if arm in status.last_accuracy else "–"
        rows.append((arm, *map(str, numbers), accuracy))
    print_table(console, heads, rows, numbers=heads[1:])
    for trial in plan.trials:
        if reason := status.reasons.get(trial.trial_id):
            name = status.states[trial.trial_id]
            print_line(console, f"{trial.arm}, seed {trial.seed}: {name}: {reason}")


def find_study(results: Path, named: str, profile: str | None = None) -> ResultsFolder:
    """The results that a user names: STUDY, STUDY/PROFILE, or the path of a results folder.

    Raises:
        ResultsError: no such study or profile was run, with the nearest name; or several profiles were.
    """
    for path in (results / named, Path(named)):
        if (path / "study.json").is_file() and profile is None:
            return ResultsFolder(path)
    study, _, part = named.partition("/")
    if profile is None and part and (results / study).is_dir():
        profile = part
    else:
        study = named
    try:
        return find_results(results, study, profile)
    except ResultsError as error:
        ran = sorted({path.parent.parent.name for path in results.glob("*/*/study.json")})
        profiles = sorted(path.parent.name for path in (results / study).glob("*/study.json"))
        hint = nearest(profile, profiles) if profiles and profile else nearest(Path(study).stem, ran)
        if not hint or (profiles and not profile):
            raise
        raise ResultsError(f"{error}.{hint}") from None
