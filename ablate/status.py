"""What has become of a study so far, read beside a running driver without holding up anything of its.

Records are renamed into place whole, so any that can be seen can be read; one that appears or is put aside
meanwhile is counted or not, and never an error.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import filelock
from rich.console import Console

from ablate.errors import RecordError, ResultsError, nearest
from ablate.store.points import read_tuning, tuning_folder
from ablate.store.records import Record, read_record
from ablate.store.results import ResultsFolder, find_results, read_plan
from ablate.terminal import duration, print_line, print_table

MISSING, UNREADABLE = "missing", "unreadable"


def read_available(folder: ResultsFolder) -> tuple[dict[str, Record], dict[str, str]]:
    """The records that are there now, and what is wrong with others; by trial_id."""
    records, faults = {}, {}
    for path in sorted(folder.records.glob("*.json")):
        try:
            records[path.stem] = read_record(path)
        except FileNotFoundError:
            continue
        except (RecordError, OSError) as error:
            faults[path.stem] = str(error).replace(str(path), path.name)
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


def show_status(console: Console, folder: ResultsFolder) -> None:
    """Print what a folder holds of its plan: the counts, the time left, each arm, and why trials failed.

    Raises:
        RecordError: nothing was run here, or the stored plan is damaged.
    """
    plan, running = read_plan(folder), is_running(folder)
    records, faults = read_available(folder)
    known = dict.fromkeys(faults, UNREADABLE) | {name: record.status for name, record in records.items()}
    states = {trial.trial_id: known.get(trial.trial_id, MISSING) for trial in plan.trials}
    counts = Counter(states.values())
    words = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
    lines = [
        f"{plan.study.name}, profile {plan.profile}: {'a' if running else 'no'} run is going on",
        f"{len(plan.trials)} planned trials: {words}",
    ]
    missing = [name for name, state in states.items() if state == MISSING]
    begun = {name for name in missing if folder.checkpoint_path(name).exists()}
    if begun:
        follow = "in progress" if running else "will go on from there"
        lines.append(f"{len(begun)} of the missing have a checkpoint: {follow}")
    written = {name: _modified(folder.record_path(name)) for name in records.keys() & states.keys()}
    if running:
        left = time_left(_modified(folder.plan), written.values(), len(missing), time.time())
        lines.append(
            "time left: not known before a trial of this run has ended"
            if left is None
            else f"about {duration(left)} left at the pace of this run"
        )
    if unplanned := len(known.keys() - states.keys()):
        lines.append(f"{unplanned} more records are of trials that the last run did not plan")
    print_line(console, *lines)
    last_accuracy = {
        record.trial.arm: f"{record.history[-1].valid_accuracy:.4f}"
        for record in (records[name] for name in sorted(written, key=written.__getitem__))
        if record.status == "complete" and record.history
    }
    heads, rows = ("arm", "complete", "failed", "begun", "missing", "last accuracy"), []
    for arm in plan.arms:
        of_arm = [trial.trial_id for trial in plan.trials if trial.arm == arm]
        counts = Counter(states[name] for name in of_arm)
        failed = len(of_arm) - counts["complete"] - counts[MISSING]
        numbers = counts["complete"], failed, len(begun & {*of_arm}), counts[MISSING]
        rows.append((arm, *map(str, numbers), last_accuracy.get(arm, "–")))
    print_table(console, heads, rows, numbers=heads[1:])
    for trial in plan.trials:
        name, record = trial.trial_id, records.get(trial.trial_id)
        if states[name] not in ("complete", MISSING):
            failure = record.failure.message if record and record.failure else "no reason was recorded"
            reason = faults.get(name, failure)
            print_line(console, f"{trial.arm}, seed {trial.seed}: {states[name]}: {reason}")


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
        ran = {path.parent.parent.name for path in results.glob("*/*/study.json")}
        profiles = [path.parent.name for path in (results / study).glob("*/study.json")]
        hint = nearest(profile or "", profiles) if profiles else nearest(Path(study).stem, sorted(ran))
        raise ResultsError(f"{error}.{hint}" if hint else str(error)) from None
