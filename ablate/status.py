"""What has become of a study so far, read beside a running driver without holding up anything of its.

Records are renamed into place whole, so any that can be seen can be read; one that appears or is put aside
meanwhile is counted or not, and never an error.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
from rich.console import Console

from ablate.errors import RecordError, ResultsError, nearest
from ablate.store.points import read_tuning, tuning_folder
from ablate.store.records import Record, read_record
from ablate.store.results import ResultsFolder, find_results, read_plan
from ablate.study.trials import Plan, Trial
from ablate.terminal import duration, print_line, print_table

LOCK_TABLE = Path("/proc/locks")
MISSING, UNREADABLE = "missing", "unreadable"


@dataclass(frozen=True)
class ArmStatus:
    """One arm's planned trials, counted.

    Attributes:
        arm: its name.
        complete: trials with a result.
        failed: trials recorded as ended without one, or whose record cannot be read.
        begun: unfinished trials that left a checkpoint.
        missing: trials without a record, the begun ones among them.
        last_accuracy: after the last epoch of the trial that was recorded last; None without a complete one.
    """

    arm: str
    complete: int
    failed: int
    begun: int
    missing: int
    last_accuracy: float | None


@dataclass(frozen=True)
class Status:
    """A study's results folder at one moment.

    Attributes:
        plan: the study as it was last run.
        folder: where it is.
        running: whether a run on this machine holds the folder.
        counts: planned trials by status; `missing` has no record, `unreadable` a damaged one.
        arms: the same by arm, in the study's order.
        begun: unfinished trials that left a checkpoint.
        failures: trials without a result, each with its status and the reason.
        unplanned: records of trials that the plan does not name: those of earlier settings.
        seconds_left: from the pace of this run's records; None where no run goes on or none has come yet.
    """

    plan: Plan
    folder: ResultsFolder
    running: bool
    counts: Mapping[str, int]
    arms: tuple[ArmStatus, ...]
    begun: tuple[Trial, ...]
    failures: tuple[tuple[Trial, str, str], ...]
    unplanned: int
    seconds_left: float | None


def read_status(folder: ResultsFolder) -> Status:
    """Count what a results folder holds of its plan.

    Raises:
        RecordError: nothing was run here, or the stored plan is damaged.
    """
    plan = read_plan(folder)
    running = is_running(folder)
    records, faults = read_available(folder, [trial.trial_id for trial in plan.trials])
    state = {trial.trial_id: _state(trial.trial_id, records, faults) for trial in plan.trials}
    begun = tuple(
        trial
        for trial in plan.trials
        if state[trial.trial_id] == MISSING and folder.checkpoint_path(trial.trial_id).exists()
    )
    recorded = {trial_id: _modified(folder.record_path(trial_id)) for trial_id in records}
    missing = sum(name == MISSING for name in state.values())
    left = time_left(_modified(folder.plan), recorded.values(), missing, time.time()) if running else None
    return Status(
        plan=plan,
        folder=folder,
        running=running,
        counts=Counter(state.values()),
        arms=tuple(_arm_status(arm, plan, state, begun, records, recorded) for arm in plan.arms),
        begun=begun,
        failures=tuple(_failures(plan, records, faults)),
        unplanned=len({path.stem for path in folder.records.glob("*.json")} - set(state)),
        seconds_left=left,
    )


def show_search(console: Console, folder: ResultsFolder) -> bool:
    """Print how far the search of a tuned study is; whether it is one.

    Raises:
        RecordError: its points cannot be read.
    """
    tuning = read_tuning(folder)
    if tuning is None:
        return False
    counts = Counter(point.state for point in tuning.points)
    told = ", ".join(
        f"{counts[state]} {state}" for state in ("complete", "pruned", "failed") if counts[state]
    )
    asked = f"{tuning.search.points} points of {tuning.search.seeds} seeds"
    print_line(console, f"search of {', '.join(tuning.search.space)}: {asked}: {told or 'none done'}")
    trained = len(list(tuning_folder(folder).records.glob("*.json")))
    goes_on = "it goes on" if is_running(folder) else "nothing runs"
    print_line(console, f"{trained} training runs of it recorded; {goes_on}")
    return True


def read_available(
    folder: ResultsFolder, trial_ids: Iterable[str] | None = None
) -> tuple[dict[str, Record], dict[str, str]]:
    """The records that are there now, and for each damaged one what is wrong with it; both by trial_id.

    Args:
        folder: the results.
        trial_ids: the trials to look for; None is every record of the folder.
    """
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
    """Whether a run on this machine holds the folder's lock.

    Taking the lock to see would turn away a run that starts at that moment. Linux lists who holds what;
    elsewhere the lock is tried for an instant.
    """
    try:
        inode = folder.lock.stat().st_ino
    except OSError:
        return False
    try:
        held = LOCK_TABLE.read_text(encoding="ascii")
    except OSError:
        return _is_taken(folder.lock)
    # A line is "1: FLOCK ADVISORY WRITE 4242 fe:00:1234 0 EOF". Some file systems give stat another device
    # number than the one here, so the inode alone decides.
    places = [line.split()[-3] for line in held.splitlines() if " FLOCK " in line and "->" not in line]
    return any(place.rpartition(":")[2] == str(inode) for place in places)


def _is_taken(lock: Path) -> bool:
    try:
        with filelock.FileLock(lock, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False  # a folder of somebody else's: no run of ours writes there


def time_left(begun: float, recorded: Iterable[float], missing: int, now: float) -> float | None:
    """Seconds until the missing trials are recorded, if they come at the pace of this run's so far.

    Args:
        begun: when the run began, in seconds since the epoch, as all times here.
        recorded: when each record was written; those from before the run do not count.
        missing: trials that have no record yet.
        now: the present.

    Returns:
        At least 0; None before the run's first record.
    """
    times = [moment for moment in recorded if moment > begun]
    if not times:
        return None
    pace = (max(times) - begun) / len(times)
    return max(missing * pace - (now - max(times)), 0.0) if missing else 0.0


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # put aside meanwhile


def _state(trial_id: str, records: Mapping[str, Record], faults: Mapping[str, str]) -> str:
    if trial_id in faults:
        return UNREADABLE
    return records[trial_id].status if trial_id in records else MISSING


def _arm_status(
    arm: str,
    plan: Plan,
    state: Mapping[str, str],
    begun: Sequence[Trial],
    records: Mapping[str, Record],
    recorded: Mapping[str, float],
) -> ArmStatus:
    own = [trial.trial_id for trial in plan.trials if trial.arm == arm]
    count = Counter(state[trial_id] for trial_id in own)
    complete = [trial_id for trial_id in own if state[trial_id] == "complete"]
    last = max(complete, key=recorded.__getitem__, default=None)
    return ArmStatus(
        arm=arm,
        complete=len(complete),
        failed=len(own) - len(complete) - count[MISSING],
        begun=sum(trial.arm == arm for trial in begun),
        missing=count[MISSING],
        last_accuracy=records[last].history[-1].valid_accuracy if last and records[last].history else None,
    )


def _failures(
    plan: Plan, records: Mapping[str, Record], faults: Mapping[str, str]
) -> Iterable[tuple[Trial, str, str]]:
    for trial in plan.trials:
        record = records.get(trial.trial_id)
        if trial.trial_id in faults:
            yield trial, UNREADABLE, faults[trial.trial_id]
        elif record is not None and record.status != "complete":
            yield trial, record.status, record.failure.message if record.failure else "no reason was recorded"


def show_status(console: Console, status: Status) -> None:
    """Print a study's state: the counts, the time left, each arm, and why trials failed."""
    plan, counts = status.plan, status.counts
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
    print_table(console, heads, [_arm_row(arm) for arm in status.arms], numbers=heads[1:])
    for trial, name, reason in status.failures:
        print_line(console, f"{trial.arm}, seed {trial.seed}: {name}: {reason}")


def _arm_row(arm: ArmStatus) -> tuple[str, ...]:
    accuracy = "–" if arm.last_accuracy is None else f"{arm.last_accuracy:.4f}"
    return arm.arm, str(arm.complete), str(arm.failed), str(arm.begun), str(arm.missing), accuracy


def find_study(results: Path, named: str, profile: str | None = None) -> ResultsFolder:
    """The results that a user names: STUDY, STUDY/PROFILE, or the path of a results folder.

    Args:
        results: the folder of all results.
        named: what the user wrote.
        profile: the profile, where it is named apart.

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
