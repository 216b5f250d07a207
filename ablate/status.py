"""What has become of a study so far, read beside a running driver, whose records come and go meanwhile."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
from rich.console import Console

from ablate.errors import RecordError
from ablate.store.points import read_tuning, tuning_folder
from ablate.store.records import MISSING, UNREADABLE, read_available
from ablate.store.results import VARIATIONS, ResultsFolder, read_plan
from ablate.terminal import duration, print_line, print_table

ARM = ("arm", "complete", "failed", "begun", "missing", "last_accuracy")
NODE = ("node", "device", "workers", "trials", "state")
Facts = dict[str, Any]  # what a command shows, by name, as `--json` prints it


def is_running(folder: ResultsFolder) -> bool:
    """Whether a run, or one of its shards, holds a lock of the folder's, each tried for an instant."""
    for lock in folder.locks():
        try:
            with filelock.FileLock(lock, timeout=0):
                pass
        except filelock.Timeout:
            return True
        except OSError:  # a folder of somebody else's: no run of ours writes there
            pass
    return False


def time_left(begun: float, recorded: Iterable[float], missing: int, now: float) -> float | None:
    """Seconds until all missing trials are recorded, at this run's pace; None before its first record."""
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


def show_status(console: Console, folder: ResultsFolder) -> Facts:
    """Print how far a study is, its search and its trials; the same as facts."""
    tuning, facts, nodes = read_tuning(folder), None, list[Facts]()
    if tuning is not None:
        search, counts = tuning.search, Counter[str](point.state for point in tuning.points)
        states = [state for state in ("complete", "pruned", "failed") if counts[state]]
        done = ", ".join(f"{counts[state]} {state}" for state in states) or "none done"
        trained, running = len(list(tuning_folder(folder).records.glob("*.json"))), is_running(folder)
        asked = f"search of {', '.join(search.space)}: {search.points} points of {search.seeds} seeds: {done}"
        going_on = f"{trained} training runs of it recorded; {'it goes on' if running else 'nothing runs'}"
        print_line(console, asked, going_on)
        facts = {"declared": search, "states": counts, "recorded": trained, "running": running}
    planned = tuning is None or folder.plan.exists()  # those of a re-test are not at first
    trials = _show_trials(console, folder) if planned else None
    last = max((folder.nodes, tuning_folder(folder).nodes), key=_modified)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # none, or damaged
        nodes = json.loads(last.read_bytes())
        print_table(console, NODE, [[str(node[name]) for name in NODE] for node in nodes], numbers=NODE[2:4])
    return {"search": facts, "trials": trials, "nodes": nodes}


def _show_trials(console: Console, folder: ResultsFolder) -> Facts:
    plan, running = read_plan(folder), is_running(folder)
    records, faults = read_available(folder)
    for trial in plan.trials:
        record = records.get(trial.trial_id)
        if record and (fault := plan.disagreement(trial, record.trial)):
            faults[trial.trial_id] = fault
    records = {name: record for name, record in records.items() if name not in faults}
    known = dict.fromkeys(faults, UNREADABLE) | {name: record.status for name, record in records.items()}
    states = {trial.trial_id: known.get(trial.trial_id, MISSING) for trial in plan.trials}
    statuses = Counter(states.values())
    going_on = "a run is going on" if running else "no run is going on"
    lines = [f"{plan.study.name}, profile {plan.profile}: {going_on}"]
    words = ", ".join(f"{statuses[name]} {name}" for name in sorted(statuses))
    lines.append(f"{len(states)} planned trials: {words}")
    missing = [name for name, state in states.items() if state == MISSING]
    if begun := {name for name in missing if folder.checkpoint_path(name).exists()}:
        follow = "in progress" if running else "will go on from there"
        lines.append(f"{len(begun)} of the missing have a checkpoint: {follow}")
    written = {name: _modified(folder.record_path(name)) for name in records.keys() & states.keys()}
    left = time_left(_modified(folder.plan), written.values(), len(missing), time.time()) if running else None
    if running:
        pace = f"about {duration(left)} left at the pace of this run" if left is not None else ""
        lines.append(pace or "time left: not known before a trial of this run has ended")
    if unplanned := len(known.keys() - states.keys()):
        lines.append(f"{unplanned} more records are of trials that are not planned here")
    last = {}
    for name in sorted(written, key=written.__getitem__):
        done = records[name]
        if done.status == "complete" and done.history:
            last[done.trial.arm] = done.history[-1].valid_accuracy
    arms, lost, of_arms = [], [], dict[str, list[str]]()
    for trial in plan.trials:
        of_arms.setdefault(trial.arm, []).append(trial.trial_id)
    for arm, of_arm in of_arms.items():
        counts = Counter(states[name] for name in of_arm)
        failed = len(of_arm) - counts["complete"] - counts[MISSING]
        arms.append((arm, counts["complete"], failed, len(begun & {*of_arm}), counts[MISSING], last.get(arm)))
    print_line(console, *lines)
    rows = [[*map(str, arm), "–" if accuracy is None else f"{accuracy:.4f}"] for *arm, accuracy in arms]
    print_table(console, (*ARM[:-1], "last accuracy"), rows, numbers=(*ARM[1:-1], "last accuracy"))
    for trial in plan.trials:
        state, record = states[trial.trial_id], records.get(trial.trial_id)
        if state not in ("complete", MISSING):
            failure = record.failure.message if record and record.failure else "no reason was recorded"
            reason = faults.get(trial.trial_id, failure)
            print_line(console, f"{trial.arm}, seed {trial.seed}: {state}: {reason}")
            lost.append({"arm": trial.arm, "seed": trial.seed, "status": state, "reason": reason})
    return {
        "study": plan.study.name, "profile": plan.profile, "running": running, "planned": len(states),
        "statuses": statuses, "begun": len(begun), "unplanned": unplanned,
        "seconds_left": left, "arms": [dict(zip(ARM, arm, strict=True)) for arm in arms],
        "without_result": lost,
    }  # fmt: skip


def show_runs(console: Console, results: Path, report_dir: Path) -> Facts:
    """Print every study that is recorded below a folder, as other commands name it, the latest last."""
    searches = {path.parents[1]: path for path in results.rglob("tuning/tuning.json")}
    searches = {root: path for root, path in searches.items() if root.parent.name != "retune"}  # an arm's
    found = searches | {path.parent: path for path in results.rglob("study.json")}
    runs, rows = list[Facts](), list[tuple[str, ...]]()
    for last, root in sorted((_modified(path), root) for root, path in found.items()):
        below, moment = root.relative_to(results), datetime.fromtimestamp(last).astimezone()
        name = "/".join(part for part in below.parts if part != VARIATIONS)
        page = report_dir / below / "index.html"
        try:
            trials = _show_trials(Console(quiet=True), ResultsFolder(root))
            state: Facts = {"complete": trials["statuses"]["complete"], "planned": trials["planned"]}
        except RecordError as error:
            state = {"fault": str(error)}
        done = state.get("fault") or f"{state['complete']} of {state['planned']}"
        report = str(page) if page.exists() else None
        runs.append({"study": name, "last_run": moment, **state, "report": report})
        rows.append((name, done, f"{moment:%Y-%m-%d %H:%M}", report or "–"))
    print_table(console, ("study", "complete trials", "last run", "report"), rows)
    return {"runs": runs}
