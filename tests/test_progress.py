"""What a run shows: plain lines into a file, a bar with the running trials on a terminal."""

import io
from collections.abc import Callable, Iterable

import pytest
from recorded_study import COST, CPU
from rich.console import Console
from test_records import EPOCH

from ablate.execution.executors import Done, Lost, Started, Told
from ablate.execution.progress import Watcher
from ablate.execution.trial import Heartbeat
from ablate.store.records import Failure, Record
from ablate.study.fields import resolve
from ablate.study.study import Study
from ablate.study.trials import Plan, build_trial

BASE = {"data": "digits", "image_size": 8}
TRIALS = [build_trial({"arch": f"[red]<{n}&>"}, resolve(BASE), n, CPU, "f") for n in range(2)]
STUDY = Study(question="?", base=BASE, seeds=2, name="<i>tiny")
PLAN = Plan(study=STUDY, profile="quick", reason="no <u>CUDA is present", trials=tuple(TRIALS))


def play(view: Watcher, beats: Iterable[Heartbeat], look: Callable[[], object] = lambda: None) -> None:
    """Two trials, of which the first tells how far it is, is looked at, and is lost."""
    first, second = TRIALS
    view.preparing("decoding", 3, 3)
    view.note("<a>\x1b]0;evil\x07")
    view.planned(PLAN, len(TRIALS), TRIALS)
    view.happened(first, Started(first.trial_id, 1), None)
    for beat in beats:
        view.happened(first, Told(first.trial_id, beat), None)
    look()
    failed = Record(trial=first, status="killed", failure=Failure(message="by <p>SIGKILL"))
    view.happened(first, Lost(first.trial_id, "killed", "by <p>SIGKILL", 3), failed)
    view.happened(second, Started(second.trial_id, 1), None)
    view.happened(second, Done(second.trial_id, None, 1), Record(trial=second, status="complete"))


def show(*, terminal: bool) -> str:
    out = io.StringIO()
    with Watcher(Console(file=out, force_terminal=terminal, width=120, color_system=None)) as view:
        play(view, [Heartbeat(0.5, 4), Heartbeat(1, 4, 0.25, 0.75)], lambda: view._live.refresh())
    return out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_every_ended_trial_is_a_line_as_it_is_written(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = show(terminal=terminal)
    assert not any(sign in shown for sign in ("\x1b]", "\x07"))
    assert "<i>tiny: no <u>CUDA is present" in shown
    assert "= 2 trials: 0 done, 2 to run" in shown
    assert "[1/2] arch=[red]<0&>, seed 0: killed: by <p>SIGKILL" in shown
    assert "[2/2] arch=[red]<1&>, seed 1: ended" in shown
    if terminal:
        assert "epoch 1.0 of 4, loss 0.2500, accuracy 0.7500" in shown
    else:
        assert "\x1b" not in shown
        assert "decoding: done" in shown
        assert len(shown.splitlines()) == 6
        monkeypatch.setattr("ablate.execution.progress.LINE_SECONDS", 0)  # of long trials, how far they are
        assert "epoch 1.0 of 4, loss 0.2500, accuracy 0.7500\n" in show(terminal=False)


@pytest.mark.parametrize(("at_once", "left"), [(1, "2 min 00 s"), (2, "1 min 00 s")])
def test_the_time_left_goes_by_what_ended_trials_took(at_once: int, left: str) -> None:
    """Five of 30 s, however long the workers took to start: one ended, a second one is half done at least."""
    view, trials = Watcher(), [build_trial({}, resolve(BASE), n, CPU, "f") for n in range(5)]
    view.planned(PLAN, len(PLAN.trials), trials)
    for trial in trials[:at_once]:
        view.happened(trial, Started(trial.trial_id, 1), None)
    view.happened(trials[0], Told(trials[0].trial_id, Heartbeat(3.9, 4)), None)
    assert view._time_left() == ""
    view.happened(trials[at_once], Started(trials[at_once].trial_id, 1), None)  # heard before the end
    cost = COST.model_copy(update={"train_seconds": 20, "eval_seconds": 10})
    ended = Record(trial=trials[0], status="complete", history=(EPOCH,), cost=cost)
    view.happened(trials[0], Done(trials[0].trial_id, None, 1), ended)
    assert view._time_left() == f"about {left} left"
    view.happened(trials[1], Told(trials[1].trial_id, Heartbeat(2, 4)), None)
    assert view._time_left() == {1: "about 1 min 45 s left", 2: "about 52 s left"}[at_once]
