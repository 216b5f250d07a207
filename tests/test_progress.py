"""What a run shows: plain lines into a file, a bar with the running trials on a terminal."""

import io

import pytest
from rich.console import Console

from ablate.execution import Done, Lost, Started, Told
from ablate.execution.progress import Watcher
from ablate.execution.trial import Heartbeat
from ablate.store.records import Failure, Record
from ablate.study.fields import resolve
from ablate.study.study import Study
from ablate.study.trials import Numerics, Plan, build_trial

CPU = Numerics(device="cpu", precision="float32", deterministic=True)
BASE = {"data": "digits", "image_size": 8}
TRIALS = [build_trial({"arch": f"[red]<{n}>"}, resolve(BASE), n, CPU, "f") for n in range(2)]
STUDY = Study(question="?", base=BASE, seeds=2, name="tiny")
PLAN = Plan(study=STUDY, profile="quick", reason="no CUDA is present", trials=tuple(TRIALS))


def show(*, terminal: bool) -> str:
    out = io.StringIO()
    view = Watcher(Console(file=out, force_terminal=terminal, width=120, color_system=None))
    with view:
        view.preparing("decoding", 3, 3)
        view.planned(PLAN, TRIALS)
        first, second = TRIALS
        view.happened(first, Started(first.trial_id, 1), None)
        view.happened(first, Told(first.trial_id, Heartbeat(0.5, 4)), None)
        view.happened(first, Told(first.trial_id, Heartbeat(1, 4, 0.25, 0.75)), None)
        view._live.refresh()
        failed = Record(trial=first, status="killed", failure=Failure(message="by SIGKILL"))
        view.happened(first, Lost(first.trial_id, "killed", "by SIGKILL", 3), failed)
        view.happened(second, Started(second.trial_id, 1), None)
        view.happened(second, Done(second.trial_id, None, 1), Record(trial=second, status="complete"))
    return out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_every_ended_trial_is_a_line_as_it_is_written(terminal: bool) -> None:
    shown = show(terminal=terminal)
    assert "tiny: no CUDA is present" in shown
    assert "= 2 trials: 0 done, 2 to run" in shown
    assert "[1/2] arch=[red]<0>, seed 0: killed: by SIGKILL" in shown
    assert "[2/2] arch=[red]<1>, seed 1: ended" in shown
    if terminal:
        assert "epoch 1.0 of 4, loss 0.2500, accuracy 0.7500" in shown
        assert "left" in shown
    else:
        assert "\x1b" not in shown
        assert "decoding: done" in shown
        assert len(shown.splitlines()) == 5


def test_a_file_is_told_how_far_long_trials_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.execution.progress.LINE_SECONDS", 0)
    assert "epoch 1.0 of 4, loss 0.2500, accuracy 0.7500; about" in show(terminal=False)
