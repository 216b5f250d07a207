"""What `status` tells of a study, from records made here: counts, the lock, the time left; tables as text."""

import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import filelock
import pytest
from recorded_study import BASE, CPU, planned, printed
from rich.console import Console
from test_records import EPOCH, PREDICTIONS

from ablate.errors import RecordError, ResultsError
from ablate.execution.driver import only_driver
from ablate.status import is_running, show_status, time_left
from ablate.store.records import Failure, Record, read_available, write_record
from ablate.store.results import ResultsFolder, find_study, write_sealed
from ablate.study.fields import resolve
from ablate.study.study import Study
from ablate.study.trials import Trial, build_trial
from ablate.terminal import duration, print_table


def trial(epsilon: float, seed: int) -> Trial:
    fields = resolve(BASE, {"epsilon": epsilon})
    return build_trial({"epsilon": epsilon}, fields, seed, CPU, fingerprint="f")


def record_complete(folder: ResultsFolder, which: Trial, accuracy: float = 0.5) -> None:
    known = ({"epoch": number, "valid_accuracy": value} for number, value in enumerate((0.1, accuracy)))
    history = tuple(EPOCH.model_copy(update=one) for one in known)
    write_record(folder, Record(trial=which, status="complete", history=history), PREDICTIONS)


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    folder = ResultsFolder(tmp_path / "results" / "tiny" / "quick")
    folder.create()
    study = Study(question="?", name="tiny", base=BASE, factors={"epsilon": (0.0, 0.1)}, seeds=2)
    write_sealed(folder.plan, planned(study))
    return folder


def shown(folder: ResultsFolder) -> list[str]:
    return printed(show_status, folder).splitlines()


def test_every_trial_is_counted_once(folder: ResultsFolder) -> None:
    record_complete(folder, trial(0.0, 0), accuracy=0.25)
    record_complete(folder, trial(0.0, 1), accuracy=0.75)
    os.utime(folder.record_path(trial(0.0, 1).trial_id), (1, 1))  # recorded first
    failure = Failure(message="first\nsecond \x1b[2J")  # which cannot steer the terminal
    write_record(folder, Record(trial=trial(0.1, 0), status="oom", failure=failure))
    folder.checkpoint_path(trial(0.1, 1).trial_id).write_bytes(b"")
    record_complete(folder, trial(0.3, 7))
    assert shown(folder) == [
        "tiny, profile quick: no run is going on",
        "4 planned trials: 2 complete, 1 missing, 1 oom",
        "1 of the missing have a checkpoint: will go on from there",
        "1 more records are of trials that are not planned here",
        "arm          complete  failed  begun  missing  last accuracy",
        "epsilon=0.0         2       0      0        0         0.2500",
        "epsilon=0.1         0       1      1        1              –",
        "epsilon=0.1, seed 0: oom: first second \N{REPLACEMENT CHARACTER}[2J",
    ]


def test_a_damaged_record_is_told_and_hides_no_other(folder: ResultsFolder) -> None:
    record_complete(folder, trial(0.1, 0))
    folder.record_path(trial(0.0, 0).trial_id).write_text("{")
    assert shown(folder)[-1].startswith("epsilon=0.0, seed 0: unreadable: ")
    gone = folder.record_path(trial(0.1, 1).trial_id)
    gone.symlink_to("nowhere")  # listed, and not there when it is read: no fault
    records, faults = read_available(folder)
    assert (list(records), list(faults)) == ([trial(0.1, 0).trial_id], [trial(0.0, 0).trial_id])


def test_a_held_lock_is_seen_and_left_alone(folder: ResultsFolder) -> None:
    look = filelock.FileLock(folder.lock, thread_local=False)
    look.acquire()  # a run that starts while somebody looks is not turned away
    threading.Timer(0.1, look.release).start()
    with only_driver(folder):
        assert is_running(folder)
        assert shown(folder)[0] == "tiny, profile quick: a run is going on"
        assert "time left: not known before a trial of this run has ended" in shown(folder)
        begun = time.time() - 10
        os.utime(folder.plan, (begun, begun))
        record_complete(folder, trial(0.0, 0))
        (left,) = (line for line in shown(folder) if line.endswith("left at the pace of this run"))
        assert 25 < int(left.split()[1]) < 31  # three more, at about ten seconds each
    assert not is_running(folder)
    assert not any("left" in line for line in shown(folder))


def test_time_left_follows_the_pace_of_this_run_and_durations_have_two_units() -> None:
    assert time_left(100.0, [50.0], 3, 160.0) is None  # recorded before this run
    assert time_left(100.0, [50.0, 110.0, 120.0], 4, 125.0) == 35.0
    assert time_left(100.0, [110.0], 1, 500.0) == time_left(100.0, [110.0], 0, 110.0) == 0.0
    shown = {0.2: "0 s", 59.4: "59 s", 59.6: "1 min 00 s", 725: "12 min 05 s", 11_999: "3 h 19 min"}
    assert {seconds: duration(seconds) for seconds in shown} == shown


def test_a_study_is_found(folder: ResultsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results"
    for named, profile in (("tiny", None), ("tiny", "quick"), ("tiny/quick", None), (str(folder.root), None)):
        assert find_study(results, named, profile).root == folder.root
    monkeypatch.chdir(tmp_path)
    assert find_study(Path("elsewhere"), "results/tiny/quick").root == Path("results/tiny/quick")
    for named, profile, message in (
        ("tinny", None, r"no such study was run here \(run: tiny\).*Did you mean 'tiny'\?"),
        ("studies/tiny.py", None, r"Did you mean 'tiny'\?"),
        ("tiny", "quik", r"run as quick, but quik was asked for\. Did you mean 'quick'\?"),
        ("tiny/quik", None, r"Did you mean 'quick'\?"),
    ):
        with pytest.raises(ResultsError, match=message):
            find_study(results, named, profile)
    other = folder.root.parent / "full"
    other.mkdir()
    (other / "study.json").write_bytes(folder.plan.read_bytes())
    with pytest.raises(ResultsError, match=r"run as full, quick; choose one, as tiny/full$"):
        find_study(results, "tiny")
    with pytest.raises(RecordError, match="no study was run here"):
        show_status(Console(), ResultsFolder(tmp_path))


def table(*rows: tuple[str, ...], **of_console: Any) -> list[str]:
    out = io.StringIO()
    print_table(Console(file=out, **of_console), ("arm", "n"), rows, numbers=("n",))
    return out.getvalue().splitlines()


def test_columns_line_up_whatever_the_width_of_a_sign_and_nothing_is_cut_in_a_pipe() -> None:
    assert table(("ε=0.1", "10"), ("犬", "5"), width=20) == ["arm     n", "ε=0.1  10", "犬      5"]
    lines = table(("x" * 300, "1"), ("[bold]y[/bold]", ""), ("a\nb", ""), width=20)
    assert lines == ["arm" + 299 * " " + "n", "x" * 300 + "  1", "[bold]y[/bold]", "a b"]
    shown = "".join(table(("[red]a", "1"), width=60, force_terminal=True, color_system=None))
    assert ("───" in shown, "[red]a" in shown) == (True, True)
