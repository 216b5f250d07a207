"""What has become of a study so far, read beside a running driver without holding up anything of its.

Records are renamed into place whole, so any that can be seen can be read; one that appears or is put aside
meanwhile is counted or not, and never an error.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
from rich.console import Console

from ablate.errors import RecordError, ResultsError, nearest
from ablate.store.points import read_tuning, tuning_folder
from ablate.store.records import Record, read_record
from ablate.store.results import TUNING_FILE, ResultsFolder, find_results, read_plan
from ablate.terminal import duration, print_line, print_table

MISSING, UNREADABLE = "missing", "unreadable"
Facts = dict[str, Any]
"""What was found, by name, as `--json` prints it."""


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
    except OSError as error:  # or a folder of somebody else's: no run of ours writes there
        return isinstance(error, filelock.Timeout)


def time_left(begun: float, recorded: Iterable[float], missing: int, now: float) -> float | None:
    """Seconds until all missing trials are recorded, at the pace of this run; None before its first record.

    Times are seconds since the epoch; records from before the run's begin do not count.
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


def read_status(folder: ResultsFolder) -> Facts:
    """How far a study is: its "search" if it has one, and its "trials" once they are planned; else None."""
    search = _read_search(folder)
    trials = _read_trials(folder) if search is None or folder.plan.exists() else None
    return {"folder": folder.root, "running": is_running(folder), "search": search, "trials": trials}


def _read_search(folder: ResultsFolder) -> Facts | None:
    tuning = read_tuning(folder)
    if tuning is None:
        return None
    counts = Counter[str](point.state for point in tuning.points)
    done = {state: counts[state] for state in ("complete", "pruned", "failed")}
    recorded = len(list(tuning_folder(folder).records.glob("*.json")))
    asked = {"points": tuning.search.points, "seeds": tuning.search.seeds}
    return {"fields": list(tuning.search.space), **asked, **done, "recorded": recorded}


def _read_trials(folder: ResultsFolder) -> Facts:
    """The counts of a plan's trials, its arms, the time left of a running one, and why trials failed."""
    plan = read_plan(folder)
    records, faults = read_available(folder)
    known = dict.fromkeys(faults, UNREADABLE) | {name: record.status for name, record in records.items()}
    states = {trial.trial_id: known.get(trial.trial_id, MISSING) for trial in plan.trials}
    missing = [name for name, state in states.items() if state == MISSING]
    begun = {name for name in missing if folder.checkpoint_path(name).exists()}
    written = {name: _modified(folder.record_path(name)) for name in records.keys() & states.keys()}
    left = time_left(_modified(folder.plan), written.values(), len(missing), time.time())
    last_accuracy = {}
    for name in sorted(written, key=written.__getitem__):
        done = records[name]
        if done.status == "complete" and done.history:
            last_accuracy[done.trial.arm] = done.history[-1].valid_accuracy
    arms, failed = [], []
    for arm in plan.arms:
        of_arm = [trial.trial_id for trial in plan.trials if trial.arm == arm]
        counts = Counter(states[name] for name in of_arm)
        numbers = {"complete": counts["complete"], "missing": counts[MISSING]}
        others = {"failed": len(of_arm) - sum(numbers.values()), "begun": len(begun & {*of_arm})}
        arms.append({"arm": arm, **numbers, **others, "last_accuracy": last_accuracy.get(arm)})
    for trial in plan.trials:
        state, record = states[trial.trial_id], records.get(trial.trial_id)
        if state not in ("complete", MISSING):
            failure = record.failure.message if record and record.failure else "no reason was recorded"
            reason = faults.get(trial.trial_id, failure)
            failed.append({"arm": trial.arm, "seed": trial.seed, "status": state, "reason": reason})
    return {
        "study": plan.study.name,
        "profile": plan.profile,
        "planned": len(plan.trials),
        "statuses": dict(sorted(Counter(states.values()).items())),
        "with_checkpoint": len(begun),
        "unplanned": len(known.keys() - states.keys()),
        "seconds_left": left if is_running(folder) else None,
        "arms": arms,
        "without_result": failed,
    }


def show_status(console: Console, status: Facts) -> None:
    """Print how far a study is: the counts, the time left, each arm, and why trials failed."""
    running, search, trials = status["running"], status["search"], status["trials"]
    if search is not None:
        states = [f"{search[state]} {state}" for state in ("complete", "pruned", "failed") if search[state]]
        asked = f"{search['points']} points of {search['seeds']} seeds"
        print_line(
            console, f"search of {', '.join(search['fields'])}: {asked}: {', '.join(states) or 'none done'}"
        )
        goes_on = "it goes on" if running else "nothing runs"
        print_line(console, f"{search['recorded']} training runs of it recorded; {goes_on}")
    if trials is None:
        return  # the re-test is not planned yet
    going_on = "a" if running else "no"
    print_line(console, f"{trials['study']}, profile {trials['profile']}: {going_on} run is going on")
    words = ", ".join(f"{count} {name}" for name, count in trials["statuses"].items())
    print_line(console, f"{trials['planned']} planned trials: {words}")
    if begun := trials["with_checkpoint"]:
        follow = "in progress" if running else "will go on from there"
        print_line(console, f"{begun} of the missing have a checkpoint: {follow}")
    if running:
        left = trials["seconds_left"]
        pace = "time left: not known before a trial of this run has ended"
        print_line(console, pace if left is None else f"about {duration(left)} left at the pace of this run")
    if unplanned := trials["unplanned"]:
        print_line(console, f"{unplanned} more records are of trials that the last run did not plan")
    heads, rows = ("arm", "complete", "failed", "begun", "missing", "last accuracy"), []
    for arm in trials["arms"]:
        last = arm["last_accuracy"]
        rows.append((*(str(arm[head]) for head in heads[:-1]), "–" if last is None else f"{last:.4f}"))
    print_table(console, heads, rows, numbers=heads[1:])
    for lost in trials["without_result"]:
        print_line(console, "{arm}, seed {seed}: {status}: {reason}".format_map(lost))


def list_runs(results: Path, report_dir: Path) -> list[Facts]:
    """Every study that is recorded below a folder, as the other commands name it; the latest last."""
    runs = []
    searched = {path.parents[1]: path for path in results.rglob(TUNING_FILE)}
    for root, path in (searched | {path.parent: path for path in results.rglob("study.json")}).items():
        try:
            trials, fault = read_status(ResultsFolder(root))["trials"] or {}, "its search has not ended"
        except RecordError as error:
            trials, fault = {}, str(error)
        name = root.relative_to(results)
        page = report_dir / name / "index.html"
        runs.append(
            {
                "study": name.as_posix(),
                "complete": trials.get("statuses", {}).get("complete", 0),
                "planned": trials.get("planned", 0),
                "last_run": datetime.fromtimestamp(_modified(path)).astimezone(),
                "report": page if page.exists() else None,
                "note": "" if trials else fault,
            }
        )
    return sorted(runs, key=lambda run: run["last_run"])


def show_runs(console: Console, runs: Sequence[Facts]) -> None:
    """Print the recorded studies, one a line."""
    rows = []
    for run in runs:
        done = run["note"] or f"{run['complete']} of {run['planned']}"
        rows.append((run["study"], done, f"{run['last_run']:%Y-%m-%d %H:%M}", str(run["report"] or "–")))
    print_table(console, ("study", "complete trials", "last run", "report"), rows)


def find_study(results: Path, named: str, profile: str | None = None) -> ResultsFolder:
    """The results that a user names: STUDY, STUDY/PROFILE, or the path of a results folder.

    A ResultsError gives the nearest name, or says that one of several profiles has to be chosen.
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
